/*
 * mappings.c - the methods of mappings.
 */
#include "builtins.h"

static bool method_get(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (args->n < 1 || args->n > 2)
        return mb_jinja_bad_call(run, "get");
    const value_t *found = mb_jinja_find_key(input->map, &args->items[0]);
    *out = found != NULL ? *found : args->n == 2 ? args->items[1] : mb_jinja_none();
    return true;
}

static bool method_keys(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (args->n != 0)
        return mb_jinja_bad_call(run, "keys");
    out->kind = MB_JINJA_LIST;
    if (!mb_jinja_items(run, input, &out->list))
        return false;
    out->list->form = MB_JINJA_VIEW;
    return true;
}

static bool method_values(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (args->n != 0)
        return mb_jinja_bad_call(run, "values");
    if (!mb_jinja_new_form(run, MB_JINJA_VIEW, out))
        return false;
    for (size_t i = 0; i < input->map->n; i++)
        if (!mb_jinja_append(run, out->list, input->map->entries[i].value))
            return false;
    return true;
}

static bool append_pair(run_t *run, list_t *list, const struct mb_jinja_entry *entry)
{
    value_t pair;
    return mb_jinja_new_form(run, MB_JINJA_TUPLE, &pair) &&
           mb_jinja_append(run, pair.list, mb_jinja_key(entry)) &&
           mb_jinja_append(run, pair.list, entry->value) && mb_jinja_append(run, list, pair);
}

static bool method_items(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (args->n != 0)
        return mb_jinja_bad_call(run, "items");
    if (!mb_jinja_new_form(run, MB_JINJA_VIEW, out))
        return false;
    for (size_t i = 0; i < input->map->n; i++)
        if (!append_pair(run, out->list, &input->map->entries[i]))
            return false;
    return true;
}

static bool method_copy(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    *out = *input;
    return args->n == 0 || mb_jinja_bad_call(run, "copy");
}

const struct mb_jinja_builtin *mb_jinja_dict_method(string_t name)
{
    static const struct mb_jinja_builtin methods[] = {
        {"get", method_get},     {"keys", method_keys}, {"values", method_values},
        {"items", method_items}, {"copy", method_copy},
    };
    return mb_jinja_find_in(methods, MB_JINJA_COUNT(methods), name);
}

bool mb_jinja_is_other_dict_method(string_t name)
{
    static const char *const names[] = {"pop", "update", "clear", "setdefault", "popitem", "fromkeys"};
    return mb_jinja_is_one_of(name, names, MB_JINJA_COUNT(names));
}
