/*
 * python_text.c - numbers and collections as Python prints them.
 */
#include "base/number.h"
#include "base/utf8.h"
#include "value.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

enum { REPR_DEPTH_MAX = 64 };

/* ---------------------------------------------------------------- floats */

/* The fewest digits that are that number again: "d.ddde+XX". */
static void shortest(double x, char text[MB_JINJA_FLOAT_NBYTES])
{
    for (int n_digits = 0; n_digits <= 16; n_digits++) {
        double back;
        int n = mb_number_format(text, MB_JINJA_FLOAT_NBYTES, "%.*e", n_digits, x);
        if (mb_number_parse(text, (size_t)n, &back) && back == x)
            return;
    }
}

size_t mb_jinja_float_text(double x, char text[MB_JINJA_FLOAT_NBYTES])
{
    if (!isfinite(x))
        return (size_t)snprintf(text, MB_JINJA_FLOAT_NBYTES, "%s", x > 0 ? "inf" : x < 0 ? "-inf" : "nan");
    char digits[MB_JINJA_FLOAT_NBYTES];
    shortest(x, digits);
    char *e = strchr(digits, 'e');
    assert(e != NULL);
    int exponent = atoi(e + 1), n_after = (int)(e - digits) - (digits[0] == '-') - 2;
    n_after = n_after < 0 ? 0 : n_after; /* digits after the point */
    if (exponent < -4 || exponent >= 16)
        return (size_t)snprintf(text, MB_JINJA_FLOAT_NBYTES, "%.*se%+03d", (int)(e - digits), digits,
                                exponent);
    int n_decimals = n_after - exponent < 1 ? 1 : n_after - exponent;
    return (size_t)mb_number_format(text, MB_JINJA_FLOAT_NBYTES, "%.*f", n_decimals, x);
}

/* ---------------------------------------------------------------- collections */

static bool put(run_t *run, struct mb_bytes *bytes, const char *text)
{
    return mb_jinja_write(run, bytes, text, strlen(text));
}

static bool is_printable(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return code == ' ';
    default:
        return true;
    }
}

static bool put_char(run_t *run, struct mb_bytes *bytes, const char *p, char quote)
{
    static const char from[] = "\n\r\t\\", to[] = "nrt\\";
    uint32_t code = mb_utf8_get(p);
    const char *at = code == 0 || code >= 0x80 ? NULL : strchr(from, (int)code);
    char text[16];
    if (at != NULL)
        snprintf(text, sizeof text, "\\%c", to[at - from]);
    else if (code == (uint32_t)quote)
        snprintf(text, sizeof text, "\\%c", quote);
    else if (is_printable(code))
        return mb_jinja_write(run, bytes, p, mb_utf8_nbytes(*p));
    else
        snprintf(text, sizeof text,
                 code < 0x100     ? "\\x%02x"
                 : code < 0x10000 ? "\\u%04x"
                                  : "\\U%08x",
                 (unsigned)code);
    return put(run, bytes, text);
}

/* In single quotes, unless it has some of them and no double ones. */
static bool put_string(run_t *run, struct mb_bytes *bytes, string_t string)
{
    bool is_double = memchr(string.p, '\'', string.n) != NULL && memchr(string.p, '"', string.n) == NULL;
    char quote = is_double ? '"' : '\'';
    if (!mb_jinja_steps(run, string.n) || !mb_jinja_write(run, bytes, &quote, 1))
        return false;
    for (size_t i = 0; i < string.n; i += mb_utf8_nbytes(string.p[i]))
        if (!put_char(run, bytes, string.p + i, quote))
            return false;
    return mb_jinja_write(run, bytes, &quote, 1);
}

static bool put_value(run_t *run, struct mb_bytes *bytes, const value_t *value, int depth);

static bool put_items(run_t *run, struct mb_bytes *bytes, const list_t *list, int depth)
{
    bool is_tuple = list->form == MB_JINJA_TUPLE;
    if (!is_tuple && list->form != MB_JINJA_PLAIN)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "printing an iterator is not supported: use | list");
    if (!put(run, bytes, is_tuple ? "(" : "["))
        return false;
    for (size_t i = 0; i < list->n; i++)
        if ((i > 0 && !put(run, bytes, ", ")) || !put_value(run, bytes, &list->items[i], depth + 1))
            return false;
    return put(run, bytes, !is_tuple ? "]" : list->n == 1 ? ",)" : ")");
}

static bool put_map(run_t *run, struct mb_bytes *bytes, const map_t *map, int depth)
{
    if (!put(run, bytes, "{"))
        return false;
    for (size_t i = 0; i < map->n; i++) {
        const value_t key = mb_jinja_key(&map->entries[i]);
        if ((i > 0 && !put(run, bytes, ", ")) || !put_value(run, bytes, &key, depth + 1) ||
            !put(run, bytes, ": ") || !put_value(run, bytes, &map->entries[i].value, depth + 1))
            return false;
    }
    return put(run, bytes, "}");
}

static bool put_value(run_t *run, struct mb_bytes *bytes, const value_t *value, int depth)
{
    string_t text;
    if (!mb_jinja_steps(run, 1))
        return false;
    if (depth > REPR_DEPTH_MAX)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "printing values nested more than %d deep is not supported",
                             REPR_DEPTH_MAX);
    switch (value->kind) {
    case MB_JINJA_STRING:
        return put_string(run, bytes, value->string);
    case MB_JINJA_UNDEFINED:
        return put(run, bytes, "Undefined");
    case MB_JINJA_LIST:
        return put_items(run, bytes, value->list, depth);
    case MB_JINJA_DICT:
        return put_map(run, bytes, value->map, depth);
    case MB_JINJA_NONE:
    case MB_JINJA_BOOL:
    case MB_JINJA_INT:
    case MB_JINJA_FLOAT:
        return mb_jinja_str(run, value, &text) && mb_jinja_write(run, bytes, text.p, text.n);
    default:
        return mb_jinja_fail(run, MB_UNSUPPORTED, "printing a %s is not supported",
                             mb_jinja_kind_name(value->kind));
    }
}

bool mb_jinja_repr(run_t *run, struct mb_bytes *bytes, const value_t *value)
{
    return put_value(run, bytes, value, 0);
}

bool mb_jinja_str(run_t *run, const value_t *value, string_t *string)
{
    char text[MB_JINJA_FLOAT_NBYTES];
    struct mb_bytes bytes = {0};
    value_t made;
    size_t n;
    switch (value->kind) {
    case MB_JINJA_STRING:
        *string = value->string;
        return true;
    case MB_JINJA_UNDEFINED:
        *string = (string_t){"", 0};
        return true;
    case MB_JINJA_NONE:
        *string = (string_t){"None", 4};
        return true;
    case MB_JINJA_BOOL:
        *string = value->number ? (string_t){"True", 4} : (string_t){"False", 5};
        return true;
    case MB_JINJA_INT:
    case MB_JINJA_FLOAT:
        n = value->kind == MB_JINJA_FLOAT ? mb_jinja_float_text(value->real, text)
                                          : (size_t)snprintf(text, sizeof text, "%" PRId64, value->number);
        char *copy = mb_jinja_alloc(run, n);
        if (copy == NULL)
            return false;
        *string = (string_t){memcpy(copy, text, n), n};
        return true;
    default:
        if (!mb_jinja_finish_text(run, &bytes, mb_jinja_repr(run, &bytes, value), &made))
            return false;
        *string = made.string;
        return true;
    }
}
