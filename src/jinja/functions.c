/*
 * functions.c - the functions that every template can call.
 */
#include "builtins.h"

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

static bool make_map(run_t *run, const args_t *args, enum mb_jinja_kind kind, value_t *out)
{
    if (args->n > 0)
        return mb_jinja_bad_call(run, kind == MB_JINJA_NAMESPACE ? "namespace" : "dict");
    if (!mb_jinja_new_map(run, kind, out))
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
    if (!mb_jinja_new_list(run, out))
        return false;
    for (int64_t i = first; step > 0 ? i < end : i > end; i += step)
        if (out->list->n >= RANGE_MAX || !mb_jinja_steps(run, 1) ||
            !mb_jinja_append(run, out->list, mb_jinja_int(i)))
            return mb_jinja_fail(run, MB_UNSUPPORTED, "a range of more than %d numbers is not supported",
                                 RANGE_MAX);
    return true;
}

static bool strftime_now(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)input;
    (void)args;
    (void)out;
    return mb_jinja_fail(run, MB_UNSUPPORTED, "strftime_now is not supported");
}

const struct mb_jinja_builtin mb_jinja_functions[] = {
    {"raise_exception", raise_exception},
    {"namespace", make_namespace},
    {"dict", make_dict},
    {"range", make_range},
    {"strftime_now", strftime_now},
};

const size_t mb_jinja_n_functions = MB_JINJA_COUNT(mb_jinja_functions);
