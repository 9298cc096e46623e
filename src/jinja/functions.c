/*
 * functions.c - the functions that every template can call.
 */
#include "builtins.h"
#include <locale.h>
#include <time.h>

static bool raise_exception(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)input;
    (void)out;
    string_t text = {"", 0};
    if (args->n > 0 && !mb_jinja_str(run, &args->items[0], &text))
        return false;
    return mb_jinja_fail(run, MB_BAD_DATA, "the template refuses the conversation: %.*s",
                         (int)(text.n > 200 ? 200 : text.n), text.p);
}

/* The entries of a mapping, or the pairs of a list. */
static bool put_all(run_t *run, map_t *map, const value_t *from)
{
    list_t *items, *pair;
    if (from->kind == MB_JINJA_DICT) {
        for (size_t i = 0; i < from->map->n; i++) {
            const value_t key = mb_jinja_key(&from->map->entries[i]);
            if (!mb_jinja_put_key(run, map, &key, from->map->entries[i].value))
                return false;
        }
        return true;
    }
    if (!mb_jinja_items(run, from, &items))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        if (!mb_jinja_items(run, &items->items[i], &pair))
            return false;
        if (pair->n != 2)
            return mb_jinja_bad_call(run, "dict");
        if (!mb_jinja_put_key(run, map, &pair->items[0], pair->items[1]))
            return false;
    }
    return true;
}

static bool make_map(run_t *run, const args_t *args, enum mb_jinja_kind kind, value_t *out)
{
    const value_t *from = mb_jinja_argument(args, 0, NULL);
    if (args->n > 1)
        return mb_jinja_bad_call(run, kind == MB_JINJA_NAMESPACE ? "namespace" : "dict");
    if (!mb_jinja_new_map(run, kind, out) || (from != NULL && !put_all(run, out->map, from)))
        return false;
    for (size_t i = 0; i < args->keywords.map->n; i++)
        if (!mb_jinja_put(run, out->map, args->keywords.map->entries[i].key,
                          args->keywords.map->entries[i].value))
            return false;
    return true;
}

static bool make_namespace(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)input;
    return make_map(run, args, MB_JINJA_NAMESPACE, out);
}

static bool make_dict(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)input;
    return make_map(run, args, MB_JINJA_DICT, out);
}

static bool make_range(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)input;
    enum { RANGE_MAX = 100000 }; /* as Jinja's sandbox */
    if (args->n < 1 || args->n > 3)
        return mb_jinja_bad_call(run, "range");
    for (size_t i = 0; i < args->n; i++)
        if (args->items[i].kind != MB_JINJA_INT)
            return mb_jinja_bad_call(run, "range");
    int64_t first = args->n == 1 ? 0 : args->items[0].number, end = args->items[args->n == 1 ? 0 : 1].number;
    int64_t step = args->n == 3 ? args->items[2].number : 1;
    if (step == 0 || first > INT32_MAX || first < INT32_MIN || end > INT32_MAX || end < INT32_MIN ||
        step > INT32_MAX || step < INT32_MIN)
        return mb_jinja_bad_call(run, "range");
    if (!mb_jinja_new_form(run, MB_JINJA_RANGE, out))
        return false;
    for (int64_t i = first; step > 0 ? i < end : i > end; i += step)
        if (out->list->n >= RANGE_MAX || !mb_jinja_steps(run, 1) ||
            !mb_jinja_append(run, out->list, mb_jinja_int(i)))
            return mb_jinja_fail(run, MB_UNSUPPORTED, "a range of more than %d numbers is not supported",
                                 RANGE_MAX);
    return true;
}

/* strftime with English names, whatever the locale of the program. 0: no room, or no locale. */
static size_t format_time(char *text, size_t nbytes, const char *format, const struct tm *time)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0)
        return 0;
    size_t n = strftime_l(text, nbytes, format, time, c);
    freelocale(c);
    return n;
}

static bool strftime_now(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)input;
    string_t string;
    char format[256], text[1024];
    struct tm local;
    time_t now = (time_t)run->now;
    if (args->n + args->keywords.map->n != 1 ||
        !mb_jinja_want_string(run, mb_jinja_argument(args, 0, "format"), "strftime_now", &string))
        return mb_jinja_bad_call(run, "strftime_now");
    /* A letter at the end tells an empty text from one that is too long. */
    if (string.n + 2 > sizeof format || memchr(string.p, 0, string.n) != NULL ||
        localtime_r(&now, &local) == NULL)
        return mb_jinja_bad_call(run, "strftime_now");
    memcpy(format, string.p, string.n);
    memcpy(format + string.n, "x", 2);
    size_t n = format_time(text, sizeof text, format, &local);
    char *copy = n == 0 ? NULL : mb_jinja_alloc(run, n);
    if (copy == NULL)
        return mb_jinja_bad_call(run, "strftime_now");
    memcpy(copy, text, n - 1);
    *out = mb_jinja_text(copy, n - 1);
    return true;
}

const struct mb_jinja_builtin mb_jinja_functions[] = {
    {"raise_exception", raise_exception},
    {"namespace", make_namespace},
    {"dict", make_dict},
    {"range", make_range},
    {"strftime_now", strftime_now},
};

const size_t mb_jinja_n_functions = MB_JINJA_COUNT(mb_jinja_functions);
