/*
 * lists.c - filters of sequences.
 *
 * Where Jinja gives a generator, these give an iterator: it is computed at once, but has no length, is true
 * even if it is empty, and can be gone through once.
 */
#include "builtins.h"
#include "operators.h"

/* ---------------------------------------------------------------- attributes and keys of items */

/* One part of "a.0.b": a key, or a position. */
static bool get_part(run_t *run, const value_t *object, string_t part, value_t *out)
{
    int64_t i = 0;
    bool is_number = part.n > 0 && part.n < 10;
    for (size_t k = 0; is_number && k < part.n; k++) {
        is_number = part.p[k] >= '0' && part.p[k] <= '9';
        i = i * 10 + (part.p[k] - '0');
    }
    value_t index = is_number ? mb_jinja_int(i) : mb_jinja_text(part.p, part.n);
    return mb_jinja_item(run, object, &index, out);
}

/* The attribute "a.b" of an item; 'otherwise' (may be NULL) in place of parts that are undefined. */
static bool get_path(run_t *run, const value_t *item, const value_t *path, const value_t *otherwise,
                     value_t *out)
{
    *out = *item;
    if (path->kind == MB_JINJA_INT)
        return mb_jinja_item(run, item, path, out);
    if (path->kind != MB_JINJA_STRING)
        return mb_jinja_bad_call(run, "a filter by attribute");
    string_t rest = path->string;
    for (;;) {
        const char *dot = memchr(rest.p, '.', rest.n);
        string_t part = {rest.p, dot == NULL ? rest.n : (size_t)(dot - rest.p)};
        value_t object = *out;
        if (!get_part(run, &object, part, out))
            return false;
        if (otherwise != NULL && out->kind == MB_JINJA_UNDEFINED)
            *out = *otherwise;
        if (dot == NULL)
            return true;
        rest.n -= part.n + 1;
        rest.p += part.n + 1;
    }
}

/* What an item is compared by: its attribute, if one is given, in lower case unless the case matters. */
static bool get_key(run_t *run, const value_t *item, const value_t *attribute, bool is_case_sensitive,
                    value_t *key)
{
    *key = *item;
    if (attribute != NULL && attribute->kind != MB_JINJA_NONE && !get_path(run, item, attribute, NULL, key))
        return false;
    if (is_case_sensitive || key->kind != MB_JINJA_STRING)
        return true;
    value_t exact = *key, no_keywords;
    if (!mb_jinja_new_map(run, MB_JINJA_DICT, &no_keywords))
        return false;
    args_t none = {.keywords = no_keywords};
    return mb_jinja_string_method((string_t){"lower", 5})->call(run, &exact, &none, key);
}

static bool is_set(const args_t *args, size_t i, const char *name)
{
    const value_t *value = mb_jinja_argument(args, i, name);
    return value != NULL && mb_jinja_is_true(value);
}

static bool copy_items(run_t *run, const value_t *input, value_t *out)
{
    list_t *items;
    if (!mb_jinja_items(run, input, &items) || !mb_jinja_new_list(run, out))
        return false;
    for (size_t i = 0; i < items->n; i++)
        if (!mb_jinja_append(run, out->list, items->items[i]))
            return false;
    return mb_jinja_steps(run, items->n / 16);
}

static bool get_keys(run_t *run, const list_t *items, const value_t *attribute, bool is_case_sensitive,
                     value_t *keys)
{
    if (!mb_jinja_new_list(run, keys))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        value_t key;
        if (!get_key(run, &items->items[i], attribute, is_case_sensitive, &key) ||
            !mb_jinja_append(run, keys->list, key))
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------- ends, copies, joined texts */

static bool filter_join(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    const value_t *separator = mb_jinja_argument(args, 0, "d"),
                  *attribute = mb_jinja_argument(args, 1, "attribute");
    string_t text = {"", 0};
    value_t values;
    if (args->n > 2 || (separator != NULL && !mb_jinja_str(run, separator, &text)))
        return mb_jinja_bad_call(run, "join");
    if (!mb_jinja_items(run, input, &items))
        return false;
    if (attribute == NULL)
        return mb_jinja_join_items(run, items, text, true, out);
    return get_keys(run, items, attribute, true, &values) &&
           mb_jinja_join_items(run, values.list, text, true, out);
}

static bool filter_list(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    return copy_items(run, input, out);
}

static bool filter_reverse(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    value_t none = mb_jinja_none(), step = mb_jinja_int(-1), items;
    (void)args;
    if (input->kind == MB_JINJA_STRING)
        return mb_jinja_slice(run, input, &none, &none, &step, out);
    bool was_iterator = mb_jinja_is_form(input, MB_JINJA_ITERATOR);
    if (!copy_items(run, input, &items) || !mb_jinja_slice(run, &items, &none, &none, &step, out))
        return false;
    out->list->form = was_iterator ? MB_JINJA_PLAIN : MB_JINJA_ITERATOR;
    return true;
}

/* Takes the first item off an iterator. */
static bool filter_first(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items = input->list;
    (void)args;
    bool is_iterator = mb_jinja_is_form(input, MB_JINJA_ITERATOR);
    if (!is_iterator && !mb_jinja_items(run, input, &items))
        return false;
    *out = items->n == 0 ? mb_jinja_undefined("item of an empty list") : items->items[0];
    if (is_iterator && items->n > 0) {
        items->items++;
        items->n--;
        items->cap--;
    }
    return true;
}

static bool filter_last(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    (void)args;
    if (mb_jinja_is_form(input, MB_JINJA_ITERATOR))
        return mb_jinja_fail(run, MB_BAD_DATA, "an iterator has no last item: use | list");
    if (!mb_jinja_items(run, input, &items))
        return false;
    *out = items->n == 0 ? mb_jinja_undefined("item of an empty list") : items->items[items->n - 1];
    return true;
}

/* ---------------------------------------------------------------- selections */

/* Jinja's generators begin with `if value`: what is false has no items, even where it cannot be looped over.
 */
static bool items_if_true(run_t *run, const value_t *input, list_t **items)
{
    const value_t nothing = {.kind = MB_JINJA_UNDEFINED};
    return mb_jinja_items(run, mb_jinja_is_true(input) ? input : &nothing, items);
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

/* The items of which the test holds, or does not; by an attribute: the first argument. */
static bool select_by(run_t *run, const value_t *input, const args_t *args, bool by_attribute, bool wanted,
                      value_t *out)
{
    list_t *items;
    if (by_attribute && args->n == 0)
        return mb_jinja_bad_call(run, "selectattr");
    if (!items_if_true(run, input, &items) || !mb_jinja_new_form(run, MB_JINJA_ITERATOR, out))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        value_t value = items->items[i];
        bool answer;
        if ((by_attribute && !get_path(run, &items->items[i], &args->items[0], NULL, &value)) ||
            !holds(run, &value, args, by_attribute, &answer))
            return false;
        if (answer == wanted && !mb_jinja_append(run, out->list, items->items[i]))
            return false;
    }
    return true;
}

static bool filter_select(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return select_by(run, input, args, false, true, out);
}

static bool filter_reject(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return select_by(run, input, args, false, false, out);
}

static bool filter_selectattr(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return select_by(run, input, args, true, true, out);
}

static bool filter_rejectattr(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return select_by(run, input, args, true, false, out);
}

/* map(attribute='x', default=0), map('filter', arguments). */
static bool filter_map(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    const value_t *attribute = mb_jinja_argument(args, SIZE_MAX, "attribute"),
                  *otherwise = mb_jinja_argument(args, SIZE_MAX, "default");
    string_t name = {"", 0};
    args_t rest = {.keywords = args->keywords};
    bool by_attribute = args->n == 0 && attribute != NULL;
    if (by_attribute ? args->keywords.map->n != 1 + (size_t)(otherwise != NULL)
                     : args->n == 0 || !mb_jinja_want_string(run, &args->items[0], "map", &name))
        return mb_jinja_bad_call(run, "map");
    if (!by_attribute) {
        rest.n = args->n - 1;
        memcpy(rest.items, args->items + 1, rest.n * sizeof *rest.items);
    }
    if (!items_if_true(run, input, &items) || !mb_jinja_new_form(run, MB_JINJA_ITERATOR, out))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        value_t value = {0};
        bool ok = by_attribute ? get_path(run, &items->items[i], attribute, otherwise, &value)
                               : run->by_name->filter(run, name, &items->items[i], &rest, &value);
        if (!ok || !mb_jinja_append(run, out->list, value))
            return false;
    }
    return true;
}

/* unique(case_sensitive=false, attribute=none) */
static bool filter_unique(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    value_t keys, seen;
    if (!mb_jinja_items(run, input, &items) || !mb_jinja_new_list(run, &seen) ||
        !get_keys(run, items, mb_jinja_argument(args, 1, "attribute"), is_set(args, 0, "case_sensitive"),
                  &keys) ||
        !mb_jinja_new_form(run, MB_JINJA_ITERATOR, out))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        const value_t *key = &keys.list->items[i];
        bool known;
        if (key->kind == MB_JINJA_DICT || mb_jinja_is_form(key, MB_JINJA_PLAIN))
            return mb_jinja_fail(run, MB_BAD_DATA, "unique: a %s cannot be told apart",
                                 mb_jinja_kind_name(key->kind));
        if (!mb_jinja_contains(run, &seen, key, &known))
            return false;
        if (!known &&
            (!mb_jinja_append(run, seen.list, *key) || !mb_jinja_append(run, out->list, items->items[i])))
            return false;
    }
    return true;
}

/* batch(linecount, fill_with=none): lists of so many items. */
static bool filter_batch(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    const value_t *count = mb_jinja_argument(args, 0, "linecount"),
                  *fill = mb_jinja_argument(args, 1, "fill_with");
    if (count == NULL || count->kind != MB_JINJA_INT || count->number < 1)
        return mb_jinja_bad_call(run, "batch");
    if (!mb_jinja_items(run, input, &items) || !mb_jinja_new_form(run, MB_JINJA_ITERATOR, out))
        return false;
    size_t n = (size_t)count->number;
    for (size_t i = 0; i < items->n; i += n) {
        value_t row;
        bool fills = fill != NULL && fill->kind != MB_JINJA_NONE;
        if (!mb_jinja_new_list(run, &row) || !mb_jinja_append(run, out->list, row))
            return false;
        for (size_t k = 0; k < n && (i + k < items->n || fills); k++)
            if (!mb_jinja_steps(run, 1) ||
                !mb_jinja_append(run, row.list, i + k < items->n ? items->items[i + k] : *fill))
                return false;
        if (n > items->n - i)
            break;
    }
    return true;
}

/* ---------------------------------------------------------------- orders and sums */

/* sort(reverse=false, case_sensitive=false, attribute=none) */
static bool filter_sort(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    value_t keys;
    const value_t *attribute = mb_jinja_argument(args, 2, "attribute");
    if (attribute != NULL && attribute->kind == MB_JINJA_STRING &&
        memchr(attribute->string.p, ',', attribute->string.n) != NULL)
        return mb_jinja_bad_call(run, "sort");
    return copy_items(run, input, out) &&
           get_keys(run, out->list, attribute, is_set(args, 1, "case_sensitive"), &keys) &&
           mb_jinja_sort(run, out->list->items, keys.list->items, out->list->n, is_set(args, 0, "reverse"));
}

/* dictsort(case_sensitive=false, by='key', reverse=false) */
static bool filter_dictsort(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    value_t keys, pairs;
    const value_t *by = mb_jinja_argument(args, 1, "by");
    bool by_value = by != NULL && by->kind == MB_JINJA_STRING && mb_jinja_is(by->string, "value");
    if (input->kind != MB_JINJA_DICT ||
        (by != NULL && !by_value && !(by->kind == MB_JINJA_STRING && mb_jinja_is(by->string, "key"))))
        return mb_jinja_bad_call(run, "dictsort");
    const args_t none = {.keywords = args->keywords};
    const value_t at = mb_jinja_int(by_value);
    return mb_jinja_dict_method((string_t){"items", 5})->call(run, input, &none, &pairs) &&
           copy_items(run, &pairs, out) &&
           get_keys(run, out->list, &at, is_set(args, 0, "case_sensitive"), &keys) &&
           mb_jinja_sort(run, out->list->items, keys.list->items, out->list->n, is_set(args, 2, "reverse"));
}

/* sum(attribute=none, start=0) */
static bool filter_sum(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    const value_t *start = mb_jinja_argument(args, 1, "start");
    value_t values;
    if (!mb_jinja_items(run, input, &items) ||
        !get_keys(run, items, mb_jinja_argument(args, 0, "attribute"), true, &values))
        return false;
    *out = start != NULL ? *start : mb_jinja_int(0);
    for (size_t i = 0; i < values.list->n; i++) {
        value_t before = *out;
        if (before.kind == MB_JINJA_STRING)
            return mb_jinja_bad_call(run, "sum");
        if (!mb_jinja_binary(run, MB_JINJA_ADD, &before, &values.list->items[i], out))
            return false;
    }
    return true;
}

/* min, max(case_sensitive=false, attribute=none): the first of the least or greatest. */
static bool pick_extreme(run_t *run, const value_t *input, const args_t *args, int sign, value_t *out)
{
    list_t *items;
    value_t keys;
    size_t best = 0;
    if (!mb_jinja_items(run, input, &items) || !get_keys(run, items, mb_jinja_argument(args, 1, "attribute"),
                                                         is_set(args, 0, "case_sensitive"), &keys))
        return false;
    *out = mb_jinja_undefined("item of an empty list");
    for (size_t i = 1; i < items->n; i++) {
        int order;
        if (!mb_jinja_steps(run, 1) ||
            !mb_jinja_order(run, &keys.list->items[i], &keys.list->items[best], &order))
            return false;
        best = order * sign > 0 ? i : best;
    }
    if (items->n > 0)
        *out = items->items[best];
    return true;
}

static bool filter_min(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return pick_extreme(run, input, args, -1, out);
}

static bool filter_max(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return pick_extreme(run, input, args, 1, out);
}

const struct mb_jinja_builtin *mb_jinja_list_filter(string_t name)
{
    static const struct mb_jinja_builtin filters[] = {
        {"join", filter_join},
        {"list", filter_list},
        {"reverse", filter_reverse},
        {"first", filter_first},
        {"last", filter_last},
        {"select", filter_select},
        {"reject", filter_reject},
        {"selectattr", filter_selectattr},
        {"rejectattr", filter_rejectattr},
        {"map", filter_map},
        {"unique", filter_unique},
        {"batch", filter_batch},
        {"sort", filter_sort},
        {"dictsort", filter_dictsort},
        {"sum", filter_sum},
        {"min", filter_min},
        {"max", filter_max},
    };
    return mb_jinja_find_in(filters, MB_JINJA_COUNT(filters), name);
}
