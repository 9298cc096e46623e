/*
 * json.c - jansson with our errors.
 */
#include "base/json.h"
#include "base/error.h"
#include "base/file.h"
#include <stdlib.h>

/* An error without a text: jansson had no memory. */
static enum mb_status fail_at(const json_error_t *where, size_t nbytes, size_t begin, struct mb_error *err)
{
    size_t pos = begin + (size_t)where->position;
    if (where->text[0] == '\0' || json_error_code(where) == json_error_out_of_memory)
        return mb_fail_memory(err, "a JSON text");
    if (json_error_code(where) == json_error_premature_end_of_input)
        return mb_fail(err, MB_BAD_DATA, "byte %zu: ends too early", begin + nbytes);
    if (where->line == 1)
        return mb_fail(err, MB_BAD_DATA, "byte %zu: %s", pos, where->text);
    return mb_fail(err, MB_BAD_DATA, "line %d: byte %zu: %s", where->line, pos, where->text);
}

enum mb_status mb_json_parse(const char *text, size_t nbytes, size_t begin, json_t **root,
                             struct mb_error *err)
{
    json_error_t where;
    *root = NULL;
    json_t *value = json_loadb(text, nbytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where);
    if (value == NULL)
        return fail_at(&where, nbytes, begin, err);
    if (json_is_object(value) || json_is_array(value)) {
        *root = value;
        return MB_OK;
    }
    json_decref(value);
    return mb_fail(err, MB_BAD_DATA, "byte %zu: not one object or array", begin);
}

enum mb_status mb_json_parse_file(const char *path, const char *text, size_t nbytes, json_t **object,
                                  struct mb_error *err)
{
    enum mb_status status = mb_json_parse(text, nbytes, 0, object, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s", path);
    if (json_is_object(*object))
        return MB_OK;
    json_decref(*object);
    *object = NULL;
    return mb_fail(err, MB_BAD_DATA, "%s: not an object", path);
}

enum mb_status mb_json_read(const char *path, uint64_t max_nbytes, json_t **object, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    *object = NULL;
    MB_TRY(mb_read_file(path, max_nbytes, &text, &nbytes, err));
    enum mb_status status = mb_json_parse_file(path, text, nbytes, object, err);
    free(text);
    return status;
}

json_t *mb_json_leading(const char *text, size_t nbytes)
{
    json_t *value = json_loadb(text, nbytes, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL);
    if (json_is_object(value))
        return value;
    json_decref(value);
    return NULL;
}

/* json_dumps() can lose a key where memory is out; json_dumpb() has a buffer that need not grow. */
char *mb_json_text(const json_t *value, size_t flags, size_t *nbytes)
{
    size_t n = json_dumpb(value, NULL, 0, flags);
    char *text = n == 0 ? NULL : malloc(n + 1);
    if (text == NULL || json_dumpb(value, text, n, flags) != n) {
        free(text);
        return NULL;
    }
    text[n] = '\0';
    if (nbytes != NULL)
        *nbytes = n;
    return text;
}
