/*
 * json.c - jansson with our errors.
 */
#include "base/json.h"
#include "base/error.h"
#include "base/file.h"
#include "base/number.h"
#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* An error without a text: jansson had no memory. */
static enum mb_status fail_at(const json_error_t *where, size_t nbytes, size_t begin, struct mb_error *err)
{
    size_t pos = begin + (size_t)where->position;
    if (where->text[0] == '\0' || json_error_code(where) == json_error_out_of_memory)
        return mb_fail_memory(err, "a JSON text");
    if (json_error_code(where) == json_error_premature_end_of_input)
        return mb_fail(err, MB_BAD_DATA, "byte %zu: the JSON text ends too early", begin + nbytes);
    if (where->line == 1)
        return mb_fail(err, MB_BAD_DATA, "byte %zu: bad JSON: %s", pos, where->text);
    return mb_fail(err, MB_BAD_DATA, "line %d: byte %zu: bad JSON: %s", where->line, pos, where->text);
}

/*
 * Brings a number (n bytes) into the range of jansson, in as many bytes, so that places stay right: an
 * integer of more than 64 bits becomes a real number of all but two of its digits, and what no double holds
 * one of 1e300, which is out of range wherever a number is used.
 */
static void fit_number(char *number, size_t n)
{
    enum { DIGITS_MAX = 18, DOUBLE_DIGITS_MAX = 300, NUMBER_NBYTES_MAX = 127 };
    static const char large[] = {'1', 'e', '3', '0', '0'};
    bool is_negative = number[0] == '-';
    char *digits = number + is_negative;
    size_t n_digits = n - is_negative;
    double value;
    if (strspn(digits, "0123456789") >= n_digits && n_digits <= DOUBLE_DIGITS_MAX) {
        if (n_digits > DIGITS_MAX && digits[0] != '0')
            digits[n_digits - 2] = 'e', digits[n_digits - 1] = '2';
    } else if (n_digits >= 5 && (n > NUMBER_NBYTES_MAX || !mb_number_parse(number, n, &value))) {
        memset(digits, ' ', n_digits);
        memcpy(digits, large, sizeof large);
    }
}

/*
 * Python writes and reads NaN, Infinity and -Infinity, which JSON has not.  In place of one is put an empty
 * string and spaces, which is refused wherever a number is wanted.  Returns its bytes, 0 when there is none.
 */
static size_t fit_literal(char *text, size_t n)
{
    static const char *const literals[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++) {
        size_t n_literal = strlen(literals[i]);
        if (n < n_literal || memcmp(text, literals[i], n_literal) != 0)
            continue;
        memset(text, ' ', n_literal);
        text[0] = text[1] = '"';
        return n_literal;
    }
    return 0;
}

/* Fits all numbers outside of strings. */
static void fit_numbers(char *text, size_t nbytes)
{
    bool is_in_string = false;
    for (size_t i = 0; i < nbytes; i++) {
        size_t n_literal = is_in_string ? 0 : fit_literal(text + i, nbytes - i);
        if (n_literal > 0)
            i += n_literal - 1;
        else if (text[i] == '"')
            is_in_string = !is_in_string;
        else if (is_in_string)
            i += text[i] == '\\';
        else if (isdigit((unsigned char)text[i]) || text[i] == '-') {
            size_t n = 1;
            while (i + n < nbytes && text[i + n] != '\0' && strchr("0123456789.eE+-", text[i + n]) != NULL)
                n++;
            fit_number(text + i, n);
            i += n - 1;
        }
    }
}

/*
 * As Python reads JSON: numbers may be larger than jansson's (int(1e30) is transformers' "no limit"), and may
 * be NaN or infinite.
 */
static json_t *load(const char *text, size_t nbytes, size_t flags, json_error_t *where)
{
    json_t *value = json_loadb(text, nbytes, flags, where);
    enum json_error_code code = json_error_code(where);
    if (value != NULL || where->text[0] == '\0' ||
        (code != json_error_numeric_overflow && code != json_error_invalid_syntax))
        return value;
    char *fitted = malloc(nbytes + 1); /* with an end: a number may be the last thing */
    if (fitted == NULL) {
        where->text[0] = '\0'; /* out of memory */
        return NULL;
    }
    memcpy(fitted, text, nbytes);
    fitted[nbytes] = '\0';
    fit_numbers(fitted, nbytes);
    value = json_loadb(fitted, nbytes, flags, where);
    free(fitted);
    return value;
}

/* Python, which reads these files elsewhere, refuses a byte order mark too. */
static enum mb_status check_has_no_mark(const char *text, size_t nbytes, size_t begin, struct mb_error *err)
{
    static const char MARK[] = "\xef\xbb\xbf", LITTLE[] = "\xff\xfe", BIG[] = "\xfe\xff";
    if (nbytes >= 3 && memcmp(text, MARK, 3) == 0)
        return mb_fail(err, MB_BAD_DATA,
                       "byte %zu: a byte order mark (EF BB BF); save the file as UTF-8 without one", begin);
    if (nbytes >= 2 && (memcmp(text, LITTLE, 2) == 0 || memcmp(text, BIG, 2) == 0))
        return mb_fail(err, MB_BAD_DATA, "byte %zu: UTF-16; save the file as UTF-8", begin);
    return MB_OK;
}

static enum mb_status parse(const char *text, size_t nbytes, size_t begin, size_t flags, json_t **root,
                            struct mb_error *err)
{
    json_error_t where;
    *root = NULL;
    MB_TRY(check_has_no_mark(text, nbytes, begin, err));
    json_t *value = load(text, nbytes, flags | JSON_DECODE_ANY, &where);
    if (value == NULL)
        return fail_at(&where, nbytes, begin, err);
    if (json_is_object(value) || json_is_array(value)) {
        *root = value;
        return MB_OK;
    }
    json_decref(value);
    return mb_fail(err, MB_BAD_DATA, "byte %zu: not one object or array", begin);
}

enum mb_status mb_json_parse(const char *text, size_t nbytes, size_t begin, json_t **root,
                             struct mb_error *err)
{
    return parse(text, nbytes, begin, JSON_REJECT_DUPLICATES, root, err);
}

enum mb_status mb_json_parse_last(const char *text, size_t nbytes, size_t begin, json_t **root,
                                  struct mb_error *err)
{
    return parse(text, nbytes, begin, 0, root, err);
}

/* What half a download leaves in place of a JSON file. */
static enum mb_status check_is_json(const char *path, const char *text, size_t nbytes, struct mb_error *err)
{
    static const char POINTER[] = "version https://git-lfs";
    size_t n_pointer = sizeof POINTER - 1, at = 0;
    while (at < nbytes && isspace((unsigned char)text[at]))
        at++;
    if (at == nbytes)
        return mb_fail(err, MB_BAD_DATA, "%s: byte 0: the file is empty", path);
    if (nbytes >= n_pointer && memcmp(text, POINTER, n_pointer) == 0)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: a pointer of git-lfs, not the file: run 'git lfs pull' in the folder", path);
    if (text[at] == '<')
        return mb_fail(err, MB_BAD_DATA, "%s: a web page, not JSON: download the file again", path);
    return MB_OK;
}

enum mb_status mb_json_parse_file(const char *path, const char *text, size_t nbytes, json_t **object,
                                  struct mb_error *err)
{
    *object = NULL;
    MB_TRY(check_is_json(path, text, nbytes, err));
    enum mb_status status = mb_json_parse(text, nbytes, 0, object, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s", path);
    if (json_is_object(*object))
        return MB_OK;
    json_decref(*object);
    *object = NULL;
    return mb_fail(err, MB_BAD_DATA, "%s: not a JSON object, {...}", path);
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
