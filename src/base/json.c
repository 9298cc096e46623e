/*
 * json.c - jansson, made safe where memory is out.
 *
 * jansson (2.14) does not look whether the buffer of the token that it reads could grow: a character is then
 * lost without a word, and where it was the last one, jansson reads on behind the token or ends the program.
 * Two things keep us from there.  The text is parsed as the second element of an array whose first is a
 * string as long as the longest token, so that the buffer grows there and nowhere else; and once an
 * allocation has failed, all that follow do, so that the string cannot be made and the parser gives up.
 *
 * json_dumps loses a key in the same way; json_dumpb has a buffer that need not grow.
 */
#include "base/json.h"
#include "base/error.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { N_BESIDE = 8 }; /* bytes of a token that are not between its quotes, and a character kept back */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static json_malloc_t next_malloc;
static _Thread_local bool is_parsing, is_out_of_memory;

static void *watched_malloc(size_t nbytes)
{
    void *block = is_parsing && is_out_of_memory ? NULL : next_malloc(nbytes);
    is_out_of_memory = is_out_of_memory || block == NULL;
    return block;
}

static void watch(void)
{
    json_free_t next_free;
    json_get_alloc_funcs(&next_malloc, &next_free);
    json_set_alloc_funcs(watched_malloc, next_free);
}

/* No token is longer, whatever the text: between quotes that are not escaped there is at most one. */
static size_t longest_token(const char *text, size_t nbytes)
{
    size_t longest = 0, n = 0;
    for (size_t i = 0; i < nbytes; i++) {
        n = text[i] == '"' ? 0 : n + 1;
        if (text[i] == '\\' && i + 1 < nbytes) {
            n++;
            i++;
        }
        longest = n > longest ? n : longest;
    }
    return longest + N_BESIDE;
}

/* ["aaa...",TEXT] */
static char *wrapped(const char *text, size_t nbytes, size_t n_first)
{
    char *wrap = malloc(n_first + nbytes + 5);
    if (wrap == NULL)
        return NULL;
    wrap[0] = '[';
    wrap[1] = '"';
    memset(wrap + 2, 'a', n_first);
    wrap[n_first + 2] = '"';
    wrap[n_first + 3] = ',';
    memcpy(wrap + n_first + 4, text, nbytes);
    wrap[n_first + 4 + nbytes] = ']';
    return wrap;
}

static json_t *parse_wrapped(const char *wrap, size_t nbytes, json_error_t *where)
{
    pthread_once(&once, watch);
    is_out_of_memory = false;
    is_parsing = true;
    json_t *array = json_loadb(wrap, nbytes, JSON_REJECT_DUPLICATES, where);
    is_parsing = false;
    if (!is_out_of_memory)
        return array;
    json_decref(array);
    return NULL;
}

static enum mb_status fail_at(const json_error_t *where, size_t n_before, size_t nbytes, size_t begin,
                              struct mb_error *err)
{
    size_t at = (size_t)where->position - n_before;
    if (at > nbytes)
        return mb_fail(err, MB_BAD_DATA, "byte %zu: ends too early", begin + nbytes);
    if (where->line == 1)
        return mb_fail(err, MB_BAD_DATA, "byte %zu: %s", begin + at, where->text);
    return mb_fail(err, MB_BAD_DATA, "line %d: byte %zu: %s", where->line, begin + at, where->text);
}

enum mb_status mb_json_parse(const char *text, size_t nbytes, size_t begin, json_t **root,
                             struct mb_error *err)
{
    size_t n_first = longest_token(text, nbytes), n_before = 4 + n_first;
    json_error_t where;
    char *wrap = wrapped(text, nbytes, n_first);
    *root = NULL;
    if (wrap == NULL)
        return mb_fail_memory(err, "a JSON text");
    json_t *array = parse_wrapped(wrap, n_before + nbytes + 1, &where);
    free(wrap);
    if (array == NULL && is_out_of_memory)
        return mb_fail_memory(err, "a JSON text");
    if (array == NULL)
        return fail_at(&where, n_before, nbytes, begin, err);
    json_t *value = json_incref(json_array_get(array, 1));
    bool is_alone = json_array_size(array) == 2;
    json_decref(array);
    if (is_alone && (json_is_object(value) || json_is_array(value))) {
        *root = value;
        return MB_OK;
    }
    json_decref(value);
    return mb_fail(err, MB_BAD_DATA, "byte %zu: not one object or array", begin);
}

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
