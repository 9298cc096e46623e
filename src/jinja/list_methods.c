/*
 * list_methods.c - the methods of lists and tuples.
 */
#include "builtins.h"

static bool method_index(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    bool equal = false;
    if (args->n != 1)
        return mb_jinja_bad_call(run, "index");
    for (size_t i = 0; i < input->list->n; i++) {
        if (!mb_jinja_equal(run, &input->list->items[i], &args->items[0], &equal))
            return false;
        *out = mb_jinja_int((int64_t)i);
        if (equal)
            return true;
    }
    return mb_jinja_fail(run, MB_BAD_DATA, "index: the value is not in the list");
}

static bool method_count(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    int64_t n_equal = 0;
    if (args->n != 1)
        return mb_jinja_bad_call(run, "count");
    for (size_t i = 0; i < input->list->n; i++) {
        bool equal;
        if (!mb_jinja_equal(run, &input->list->items[i], &args->items[0], &equal))
            return false;
        n_equal += equal;
    }
    *out = mb_jinja_int(n_equal);
    return true;
}

const struct mb_jinja_builtin *mb_jinja_list_method(string_t name)
{
    static const struct mb_jinja_builtin methods[] = {{"index", method_index}, {"count", method_count}};
    return mb_jinja_find_in(methods, MB_JINJA_COUNT(methods), name);
}

bool mb_jinja_is_other_list_method(string_t name)
{
    static const char *const names[] = {"append", "extend", "insert",  "pop", "remove",
                                        "clear",  "sort",   "reverse", "copy"};
    return mb_jinja_is_one_of(name, names, MB_JINJA_COUNT(names));
}
