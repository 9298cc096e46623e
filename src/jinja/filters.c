/*
 * filters.c - the filters: value | name(arguments).
 */
#include "builtins.h"

static bool filter_length(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    switch (input->kind) {
    case MB_JINJA_STRING:
        *out = mb_jinja_int((int64_t)mb_jinja_n_chars(input->string));
        return mb_jinja_steps(run, input->string.n / 16);
    case MB_JINJA_LIST:
        *out = mb_jinja_int((int64_t)input->list->n);
        return true;
    case MB_JINJA_DICT:
        *out = mb_jinja_int((int64_t)input->map->n);
        return true;
    case MB_JINJA_UNDEFINED:
        *out = mb_jinja_int(0);
        return true;
    default:
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s has no length", mb_jinja_kind_name(input->kind));
    }
}

static bool filter_default(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)run;
    const value_t *otherwise = mb_jinja_argument(args, 0, "default_value"),
                  *boolean = mb_jinja_argument(args, 1, "boolean");
    bool by_truth = boolean != NULL && mb_jinja_is_true(boolean);
    bool use_other = input->kind == MB_JINJA_UNDEFINED || (by_truth && !mb_jinja_is_true(input));
    *out = !use_other ? *input : otherwise != NULL ? *otherwise : mb_jinja_text("", 0);
    return true;
}

static bool filter_tojson(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    const value_t *indent = mb_jinja_argument(args, 1, "indent"),
                  *ascii = mb_jinja_argument(args, 0, "ensure_ascii");
    bool no_indent = indent == NULL || indent->kind == MB_JINJA_NONE;
    if (args->n > 0 || args->keywords.map->n > (size_t)(indent != NULL) + (size_t)(ascii != NULL) ||
        (ascii != NULL && mb_jinja_is_true(ascii)) || (!no_indent && indent->kind != MB_JINJA_INT))
        return mb_jinja_bad_call(run, "tojson");
    if (!no_indent && (indent->number < 0 || indent->number > 16))
        return mb_jinja_bad_call(run, "tojson");
    return mb_jinja_json(run, input, no_indent ? -1 : (int)indent->number, out);
}

static bool filter_string(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t text;
    (void)args;
    if (!mb_jinja_str(run, input, &text))
        return false;
    *out = mb_jinja_text(text.p, text.n);
    return true;
}

/* A string method that is a filter too; the input is made a string first, as Jinja does. */
static bool filter_by_method(run_t *run, const value_t *input, const args_t *args, const char *name,
                             value_t *out)
{
    value_t text;
    const struct mb_jinja_builtin *method = mb_jinja_string_method((string_t){name, strlen(name)});
    assert(method != NULL);
    return filter_string(run, input, args, &text) && method->call(run, &text, args, out);
}

static bool filter_trim(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "strip", out);
}

static bool filter_upper(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "upper", out);
}

static bool filter_lower(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "lower", out);
}

static bool filter_capitalize(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "capitalize", out);
}

static bool filter_replace(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "replace", out);
}

static bool filter_join(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    const value_t *separator = mb_jinja_argument(args, 0, "d");
    string_t text = {"", 0};
    if (args->n > 1 || (separator != NULL && !mb_jinja_want_string(run, separator, "join", &text)))
        return mb_jinja_bad_call(run, "join");
    return mb_jinja_items(run, input, &items) && mb_jinja_join_items(run, items, text, true, out);
}

static bool filter_list(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    out->kind = MB_JINJA_LIST;
    return mb_jinja_items(run, input, &out->list);
}

static bool filter_reverse(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    (void)args;
    if (input->kind == MB_JINJA_STRING)
        return mb_jinja_bad_call(run, "reverse of a string");
    if (!mb_jinja_items(run, input, &items) || !mb_jinja_new_list(run, out))
        return false;
    for (size_t i = items->n; i > 0; i--)
        if (!mb_jinja_append(run, out->list, items->items[i - 1]))
            return false;
    return true;
}

static bool pick_item(run_t *run, const value_t *input, bool last, value_t *out)
{
    list_t *items;
    if (!mb_jinja_items(run, input, &items))
        return false;
    *out =
        items->n == 0 ? mb_jinja_undefined("item of an empty list") : items->items[last ? items->n - 1 : 0];
    return true;
}

static bool filter_first(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    return pick_item(run, input, false, out);
}

static bool filter_last(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    return pick_item(run, input, true, out);
}

static bool filter_items(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (input->kind == MB_JINJA_UNDEFINED)
        return mb_jinja_new_list(run, out);
    if (input->kind != MB_JINJA_DICT)
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s has no items", mb_jinja_kind_name(input->kind));
    return mb_jinja_dict_method((string_t){"items", 5})->call(run, input, args, out);
}

static bool filter_int(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (args->n > 0 || (input->kind != MB_JINJA_INT && input->kind != MB_JINJA_BOOL))
        return mb_jinja_bad_call(run, "int");
    *out = mb_jinja_int(input->number);
    return true;
}

/* Whether the test that the arguments from the i-th on name holds; without one, whether the value is true. */
static bool holds(run_t *run, const value_t *value, const args_t *args, size_t i, bool *answer)
{
    string_t name;
    *answer = mb_jinja_is_true(value);
    if (i >= args->n)
        return true;
    args_t rest = {.n = args->n - i - 1, .keywords = args->keywords};
    memcpy(rest.items, args->items + i + 1, rest.n * sizeof *rest.items);
    return mb_jinja_want_string(run, &args->items[i], "a filter by a test", &name) &&
           mb_jinja_test(run, name, value, &rest, answer);
}

/* selectattr, rejectattr: items whose attribute passes a test. */
static bool select_by(run_t *run, const value_t *input, const args_t *args, bool wanted, value_t *out)
{
    list_t *items;
    string_t name;
    if (!mb_jinja_want_string(run, mb_jinja_argument(args, 0, NULL), "selectattr", &name) ||
        !mb_jinja_items(run, input, &items) || !mb_jinja_new_list(run, out))
        return false;
    if (memchr(name.p, '.', name.n) != NULL)
        return mb_jinja_bad_call(run, "selectattr");
    for (size_t i = 0; i < items->n; i++) {
        value_t value;
        bool answer;
        if (!mb_jinja_attribute(run, &items->items[i], name, true, &value) ||
            !holds(run, &value, args, 1, &answer))
            return false;
        if (answer == wanted && !mb_jinja_append(run, out->list, items->items[i]))
            return false;
    }
    return true;
}

static bool filter_selectattr(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return select_by(run, input, args, true, out);
}

static bool filter_rejectattr(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return select_by(run, input, args, false, out);
}

/* map(attribute='x') and map('filter'). */
static bool filter_map(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    const value_t *attribute = mb_jinja_argument(args, SIZE_MAX, "attribute");
    string_t name;
    if (args->n > 1 || (args->n == 1) == (attribute != NULL) || args->keywords.map->n > 1 ||
        !mb_jinja_want_string(run, attribute != NULL ? attribute : &args->items[0], "map", &name))
        return mb_jinja_bad_call(run, "map");
    if (!mb_jinja_items(run, input, &items) || !mb_jinja_new_list(run, out))
        return false;
    args_t none = {.keywords = args->keywords};
    if (attribute == NULL && args->keywords.map->n > 0)
        return mb_jinja_bad_call(run, "map");
    for (size_t i = 0; i < items->n; i++) {
        value_t value = {0};
        bool ok = attribute != NULL ? mb_jinja_attribute(run, &items->items[i], name, true, &value)
                                    : mb_jinja_filter(run, name, &items->items[i], &none, &value);
        if (!ok || !mb_jinja_append(run, out->list, value))
            return false;
    }
    return true;
}

bool mb_jinja_filter(run_t *run, string_t name, const value_t *input, const args_t *args, value_t *out)
{
    static const struct mb_jinja_builtin filters[] = {
        {"length", filter_length},
        {"count", filter_length},
        {"default", filter_default},
        {"d", filter_default},
        {"tojson", filter_tojson},
        {"trim", filter_trim},
        {"string", filter_string},
        {"safe", filter_string},
        {"upper", filter_upper},
        {"lower", filter_lower},
        {"capitalize", filter_capitalize},
        {"replace", filter_replace},
        {"join", filter_join},
        {"list", filter_list},
        {"reverse", filter_reverse},
        {"first", filter_first},
        {"last", filter_last},
        {"items", filter_items},
        {"int", filter_int},
        {"selectattr", filter_selectattr},
        {"rejectattr", filter_rejectattr},
        {"map", filter_map},
    };
    const struct mb_jinja_builtin *filter = mb_jinja_find_in(filters, MB_JINJA_COUNT(filters), name);
    if (filter != NULL)
        return mb_jinja_steps(run, 1) && filter->call(run, input, args, out);
    return mb_jinja_fail(run, MB_UNSUPPORTED, "the filter '%.*s' is not supported", (int)name.n, name.p);
}
