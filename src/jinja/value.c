/*
 * value.c - lists and maps, comparisons, and pieces of text.
 */
#include "value.h"
#include "base/utf8.h"
#include <inttypes.h>
#include <stdio.h>

enum { EQUAL_DEPTH_MAX = 64 };

/* ---------------------------------------------------------------- lists and maps */

/* No float is "not a number": nothing that a template can do makes one. */
static int order_numbers(const value_t *a, const value_t *b)
{
    if (mb_jinja_is_whole(a) && mb_jinja_is_whole(b))
        return (a->number > b->number) - (a->number < b->number);
    double left = mb_jinja_real(a), right = mb_jinja_real(b);
    return (left > right) - (left < right);
}

/* Room for one more; the old array stays in the arena. */
static bool reserve_one(run_t *run, void **items, size_t *cap, size_t n, size_t elem_nbytes)
{
    if (n < *cap)
        return true;
    size_t new_cap = *cap == 0 ? 8 : *cap * 2;
    void *grown = mb_jinja_alloc(run, new_cap * elem_nbytes);
    if (grown == NULL)
        return false;
    if (n > 0)
        memcpy(grown, *items, n * elem_nbytes);
    *items = grown;
    *cap = new_cap;
    return true;
}

bool mb_jinja_new_list(run_t *run, value_t *list)
{
    list->kind = MB_JINJA_LIST;
    list->list = mb_jinja_alloc(run, sizeof *list->list);
    return list->list != NULL;
}

bool mb_jinja_new_form(run_t *run, enum mb_jinja_form form, value_t *list)
{
    if (!mb_jinja_new_list(run, list))
        return false;
    list->list->form = form;
    return true;
}

bool mb_jinja_append(run_t *run, list_t *list, value_t item)
{
    void *items = list->items;
    if (!reserve_one(run, &items, &list->cap, list->n, sizeof item))
        return false;
    list->items = items;
    list->items[list->n++] = item;
    return true;
}

bool mb_jinja_new_map(run_t *run, enum mb_jinja_kind kind, value_t *map)
{
    map->kind = kind;
    map->map = mb_jinja_alloc(run, sizeof *map->map);
    return map->map != NULL;
}

const value_t *mb_jinja_find(const map_t *map, string_t key)
{
    for (size_t i = 0; i < map->n; i++)
        if (map->entries[i].key.n == key.n && !map->entries[i].is_number &&
            memcmp(map->entries[i].key.p, key.p, key.n) == 0)
            return &map->entries[i].value;
    return NULL;
}

const value_t *mb_jinja_find_key(const map_t *map, const value_t *key)
{
    if (key->kind == MB_JINJA_STRING)
        return mb_jinja_find(map, key->string);
    for (size_t i = 0; mb_jinja_is_number(key) && i < map->n; i++) {
        const value_t other = mb_jinja_key(&map->entries[i]);
        if (map->entries[i].is_number && order_numbers(&other, key) == 0)
            return &map->entries[i].value;
    }
    return NULL;
}

static bool put_entry(run_t *run, map_t *map, struct mb_jinja_entry entry)
{
    void *entries = map->entries;
    if (!reserve_one(run, &entries, &map->cap, map->n, sizeof *map->entries))
        return false;
    map->entries = entries;
    map->entries[map->n++] = entry;
    return true;
}

bool mb_jinja_put_key(run_t *run, map_t *map, const value_t *key, value_t value)
{
    struct mb_jinja_entry entry = {.value = value, .is_number = key->kind == MB_JINJA_INT};
    if (!mb_jinja_steps(run, map->n)) /* the search */
        return false;
    value_t *old = (value_t *)mb_jinja_find_key(map, key);
    if (old != NULL) {
        *old = value;
        return true;
    }
    if (key->kind != MB_JINJA_STRING && !entry.is_number)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "a mapping's key that is a %s is not supported",
                             mb_jinja_kind_name(key->kind));
    if (entry.is_number)
        entry.number = key->number;
    else
        entry.key = key->string;
    return put_entry(run, map, entry);
}

bool mb_jinja_put(run_t *run, map_t *map, string_t key, value_t value)
{
    const value_t text = mb_jinja_text(key.p, key.n);
    return mb_jinja_put_key(run, map, &text, value);
}

const char *mb_jinja_kind_name(enum mb_jinja_kind kind)
{
    static const char *const names[] = {"undefined", "none",   "boolean", "number",    "float",
                                        "string",    "list",   "mapping", "namespace", "loop",
                                        "function",  "method", "macro"};
    return names[kind];
}

bool mb_jinja_fail_undefined(run_t *run, const value_t *value)
{
    return mb_jinja_fail(run, MB_BAD_DATA, "'%.*s' is undefined",
                         (int)(value->string.n > 60 ? 60 : value->string.n), value->string.p);
}

/* ---------------------------------------------------------------- truth, equality, order */

bool mb_jinja_is_true(const value_t *value)
{
    switch (value->kind) {
    case MB_JINJA_UNDEFINED:
    case MB_JINJA_NONE:
        return false;
    case MB_JINJA_BOOL:
    case MB_JINJA_INT:
        return value->number != 0;
    case MB_JINJA_FLOAT:
        return value->real != 0;
    case MB_JINJA_STRING:
        return value->string.n > 0;
    case MB_JINJA_LIST:
        return value->list->n > 0 || value->list->form == MB_JINJA_ITERATOR;
    case MB_JINJA_DICT:
        return value->map->n > 0;
    default:
        return true;
    }
}

static bool equal_within(run_t *run, const value_t *a, const value_t *b, int depth, bool *equal);

static bool equal_lists(run_t *run, const list_t *a, const list_t *b, int depth, bool *equal)
{
    if (a->form == MB_JINJA_VIEW || b->form == MB_JINJA_VIEW)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "comparing what a mapping's method gives is not supported");
    if (a->form == MB_JINJA_ITERATOR || b->form == MB_JINJA_ITERATOR) {
        *equal = a == b;
        return true;
    }
    *equal = a->form == b->form && a->n == b->n;
    for (size_t i = 0; *equal && i < a->n; i++)
        if (!equal_within(run, &a->items[i], &b->items[i], depth + 1, equal))
            return false;
    return true;
}

static bool equal_maps(run_t *run, const map_t *a, const map_t *b, int depth, bool *equal)
{
    *equal = a->n == b->n;
    for (size_t i = 0; *equal && i < a->n; i++) {
        const value_t key = mb_jinja_key(&a->entries[i]), *other = mb_jinja_find_key(b, &key);
        if (other == NULL)
            *equal = false;
        else if (!mb_jinja_steps(run, b->n) ||
                 !equal_within(run, &a->entries[i].value, other, depth + 1, equal))
            return false;
    }
    return true;
}

static bool equal_within(run_t *run, const value_t *a, const value_t *b, int depth, bool *equal)
{
    if (!mb_jinja_steps(run, 1))
        return false;
    if (depth > EQUAL_DEPTH_MAX)
        return mb_jinja_fail(run, MB_UNSUPPORTED,
                             "comparing values nested more than %d deep is not supported", EQUAL_DEPTH_MAX);
    if (mb_jinja_is_number(a) && mb_jinja_is_number(b)) {
        *equal = order_numbers(a, b) == 0;
        return true;
    }
    *equal = a->kind == b->kind;
    if (!*equal)
        return true;
    switch (a->kind) {
    case MB_JINJA_UNDEFINED:
    case MB_JINJA_NONE:
        return true;
    case MB_JINJA_STRING:
        *equal = a->string.n == b->string.n && memcmp(a->string.p, b->string.p, a->string.n) == 0;
        return mb_jinja_steps(run, a->string.n / 16);
    case MB_JINJA_LIST:
        return equal_lists(run, a->list, b->list, depth, equal);
    case MB_JINJA_DICT:
        return equal_maps(run, a->map, b->map, depth, equal);
    case MB_JINJA_NAMESPACE:
        *equal = a->map == b->map;
        return true;
    default:
        return mb_jinja_fail(run, MB_UNSUPPORTED, "comparing a %s is not supported",
                             mb_jinja_kind_name(a->kind));
    }
}

bool mb_jinja_equal(run_t *run, const value_t *a, const value_t *b, bool *equal)
{
    return equal_within(run, a, b, 0, equal);
}

bool mb_jinja_contains(run_t *run, const value_t *container, const value_t *item, bool *answer)
{
    *answer = false;
    switch (container->kind) {
    case MB_JINJA_UNDEFINED:
        return true;
    case MB_JINJA_STRING:
        if (item->kind != MB_JINJA_STRING)
            return mb_jinja_fail(run, MB_BAD_DATA, "'in' cannot search a string for a %s",
                                 mb_jinja_kind_name(item->kind));
        *answer = memmem(container->string.p, container->string.n, item->string.p, item->string.n) != NULL;
        return mb_jinja_steps(run, container->string.n / 16);
    case MB_JINJA_DICT:
        *answer = mb_jinja_find_key(container->map, item) != NULL;
        return mb_jinja_steps(run, container->map->n);
    case MB_JINJA_LIST:
        for (size_t i = 0; !*answer && i < container->list->n; i++)
            if (!mb_jinja_equal(run, &container->list->items[i], item, answer))
                return false;
        return container->list->form != MB_JINJA_ITERATOR ||
               mb_jinja_fail(run, MB_UNSUPPORTED, "'in' an iterator is not supported: use | list");
    default:
        return mb_jinja_fail(run, MB_BAD_DATA, "'in' cannot search a %s",
                             mb_jinja_kind_name(container->kind));
    }
}

bool mb_jinja_order(run_t *run, const value_t *a, const value_t *b, int *order)
{
    if (mb_jinja_is_number(a) && mb_jinja_is_number(b)) {
        *order = order_numbers(a, b);
        return true;
    }
    if (a->kind != MB_JINJA_STRING || b->kind != MB_JINJA_STRING)
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s and a %s cannot be ordered", mb_jinja_kind_name(a->kind),
                             mb_jinja_kind_name(b->kind));
    /* The order of UTF-8's bytes is that of code points. */
    size_t n = a->string.n < b->string.n ? a->string.n : b->string.n;
    *order = memcmp(a->string.p, b->string.p, n);
    if (*order == 0)
        *order = (a->string.n > b->string.n) - (a->string.n < b->string.n);
    return mb_jinja_steps(run, n / 16);
}

/* ---------------------------------------------------------------- strings */

bool mb_jinja_join(run_t *run, string_t a, string_t b, value_t *joined)
{
    char *p = mb_jinja_alloc(run, a.n + b.n);
    if (p == NULL)
        return false;
    memcpy(p, a.p, a.n);
    memcpy(p + a.n, b.p, b.n);
    *joined = mb_jinja_text(p, a.n + b.n);
    return mb_jinja_steps(run, (a.n + b.n) / 16);
}

size_t mb_jinja_n_chars(string_t string)
{
    size_t n = 0;
    for (size_t i = 0; i < string.n; i++)
        n += ((uint8_t)string.p[i] & 0xc0) != 0x80;
    return n;
}

bool mb_jinja_is_space(uint32_t code)
{
    return mb_is_white_space(code) || (code >= 0x1c && code <= 0x1f);
}

bool mb_jinja_write(run_t *run, struct mb_bytes *bytes, const char *p, size_t n)
{
    if (bytes->n + n > run->out_nbytes_max)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "the template writes too much");
    return mb_bytes_put(bytes, p, n) ||
           mb_jinja_fail(run, MB_NO_MEMORY, "out of memory for the text of the template");
}

bool mb_jinja_finish_text(run_t *run, struct mb_bytes *bytes, bool ok, value_t *out)
{
    char *copy = ok ? mb_jinja_alloc(run, bytes->n) : NULL;
    if (copy != NULL && bytes->n > 0)
        memcpy(copy, bytes->p, bytes->n);
    if (copy != NULL)
        *out = mb_jinja_text(copy, bytes->n);
    free(bytes->p);
    return copy != NULL && mb_jinja_steps(run, bytes->n / 16);
}

/* ---------------------------------------------------------------- iteration */

bool mb_jinja_items(run_t *run, const value_t *value, list_t **items)
{
    value_t list;
    if (value->kind == MB_JINJA_LIST && value->list->form != MB_JINJA_ITERATOR) {
        *items = value->list;
        return true;
    }
    if (!mb_jinja_new_list(run, &list))
        return false;
    *items = list.list;
    if (value->kind == MB_JINJA_LIST) {
        *list.list = *value->list;
        list.list->form = MB_JINJA_PLAIN;
        *value->list = (list_t){.form = MB_JINJA_ITERATOR};
        return true;
    }
    switch (value->kind) {
    case MB_JINJA_UNDEFINED:
        return true;
    case MB_JINJA_DICT:
        for (size_t i = 0; i < value->map->n; i++)
            if (!mb_jinja_append(run, list.list, mb_jinja_key(&value->map->entries[i])))
                return false;
        return true;
    case MB_JINJA_STRING:
        for (size_t i = 0; i < value->string.n;) {
            size_t n = mb_utf8_nbytes(value->string.p[i]);
            if (!mb_jinja_append(run, list.list, mb_jinja_text(value->string.p + i, n)))
                return false;
            i += n;
        }
        return mb_jinja_steps(run, value->string.n);
    default:
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s cannot be looped over", mb_jinja_kind_name(value->kind));
    }
}

/* ---------------------------------------------------------------- sorting */

/* items[a .. b) and [b .. c) are sorted: merges them through the copies. */
static bool merge(run_t *run, value_t *const lists[2], value_t *const copies[2], size_t a, size_t b, size_t c,
                  bool descending)
{
    for (size_t k = 0; k < 2; k++)
        memcpy(copies[k] + a, lists[k] + a, (c - a) * sizeof(value_t));
    size_t i = a, j = b;
    for (size_t to = a; to < c; to++) {
        int order = i == b ? 1 : -1;
        if (i < b && j < c) {
            if (!mb_jinja_steps(run, 1) || !mb_jinja_order(run, &copies[1][i], &copies[1][j], &order))
                return false;
            order = descending ? -order : order;
        }
        size_t from = order <= 0 ? i++ : j++;
        for (size_t k = 0; k < 2; k++)
            lists[k][to] = copies[k][from];
    }
    return true;
}

bool mb_jinja_sort(run_t *run, value_t *items, value_t *keys, size_t n, bool descending)
{
    value_t *const lists[2] = {items, keys};
    value_t *const copies[2] = {mb_jinja_alloc(run, n * sizeof(value_t)),
                                mb_jinja_alloc(run, n * sizeof(value_t))};
    if (copies[0] == NULL || copies[1] == NULL)
        return false;
    for (size_t width = 1; width < n; width *= 2)
        for (size_t a = 0; a + width < n; a += 2 * width)
            if (!merge(run, lists, copies, a, a + width, a + 2 * width < n ? a + 2 * width : n, descending))
                return false;
    return true;
}
