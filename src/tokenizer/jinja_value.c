/*
 * jinja_value.c - values of chat templates.
 */
#include "jinja_value.h"
#include "base/error.h"
#include "base/utf8.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { CHUNK_NBYTES = 16 << 10, JSON_DEPTH_MAX = 64, EQUAL_DEPTH_MAX = 64 };

struct mb_jinja_chunk {
    struct mb_jinja_chunk *next;
    size_t used, cap;
    _Alignas(16) char bytes[];
};

void mb_jinja_run_free(struct mb_jinja_run *run)
{
    while (run->chunks != NULL) {
        struct mb_jinja_chunk *next = run->chunks->next;
        free(run->chunks);
        run->chunks = next;
    }
}

bool mb_jinja_fail(struct mb_jinja_run *run, enum mb_status status, const char *format, ...)
{
    if (run->status != MB_OK)
        return false;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c != 0; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    run->status = mb_fail(run->err, status, "%s: line %d: %s", run->place, run->line, text);
    return false;
}

bool mb_jinja_steps(struct mb_jinja_run *run, uint64_t n)
{
    run->n_steps += n;
    if (run->n_steps <= run->n_steps_max)
        return run->status == MB_OK;
    return mb_jinja_fail(run, MB_UNSUPPORTED, "the template takes too many steps");
}

void *mb_jinja_alloc(struct mb_jinja_run *run, size_t nbytes)
{
    size_t rounded = (nbytes + 15) & ~(size_t)15;
    if (rounded > run->arena_nbytes_max - run->arena_nbytes) {
        mb_jinja_fail(run, MB_UNSUPPORTED, "the template takes too much memory");
        return NULL;
    }
    run->arena_nbytes += rounded;
    struct mb_jinja_chunk *chunk = run->chunks;
    if (chunk == NULL || chunk->cap - chunk->used < rounded) {
        size_t cap = rounded > CHUNK_NBYTES ? rounded : CHUNK_NBYTES;
        chunk = malloc(sizeof *chunk + cap);
        if (chunk == NULL) {
            mb_jinja_fail(run, MB_NO_MEMORY, "no memory");
            return NULL;
        }
        chunk->next = run->chunks;
        chunk->used = 0;
        chunk->cap = cap;
        run->chunks = chunk;
    }
    void *p = chunk->bytes + chunk->used;
    chunk->used += rounded;
    return memset(p, 0, rounded);
}

/* ---------------------------------------------------------------- lists and maps */

/* Room for one more; the old array stays in the arena. */
static bool reserve_one(struct mb_jinja_run *run, void **items, size_t *cap, size_t n, size_t elem_nbytes)
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

bool mb_jinja_new_list(struct mb_jinja_run *run, struct mb_jinja_value *list)
{
    list->kind = MB_JINJA_LIST;
    list->list = mb_jinja_alloc(run, sizeof *list->list);
    return list->list != NULL;
}

bool mb_jinja_append(struct mb_jinja_run *run, struct mb_jinja_list *list, struct mb_jinja_value item)
{
    void *items = list->items;
    if (!reserve_one(run, &items, &list->cap, list->n, sizeof item))
        return false;
    list->items = items;
    list->items[list->n++] = item;
    return true;
}

bool mb_jinja_new_map(struct mb_jinja_run *run, enum mb_jinja_kind kind, struct mb_jinja_value *map)
{
    map->kind = kind;
    map->map = mb_jinja_alloc(run, sizeof *map->map);
    return map->map != NULL;
}

const struct mb_jinja_value *mb_jinja_find(const struct mb_jinja_map *map, struct mb_jinja_string key)
{
    for (size_t i = 0; i < map->n; i++)
        if (map->entries[i].key.n == key.n && memcmp(map->entries[i].key.p, key.p, key.n) == 0)
            return &map->entries[i].value;
    return NULL;
}

bool mb_jinja_put(struct mb_jinja_run *run, struct mb_jinja_map *map, struct mb_jinja_string key,
                  struct mb_jinja_value value)
{
    if (!mb_jinja_steps(run, map->n)) /* the search */
        return false;
    struct mb_jinja_value *old = (struct mb_jinja_value *)mb_jinja_find(map, key);
    if (old != NULL) {
        *old = value;
        return true;
    }
    void *entries = map->entries;
    if (!reserve_one(run, &entries, &map->cap, map->n, sizeof *map->entries))
        return false;
    map->entries = entries;
    map->entries[map->n++] = (struct mb_jinja_entry){key, value};
    return true;
}

const char *mb_jinja_kind_name(enum mb_jinja_kind kind)
{
    static const char *const names[] = {"undefined", "none",      "boolean", "number",   "string", "list",
                                        "mapping",   "namespace", "loop",    "function", "method"};
    return names[kind];
}

/* ---------------------------------------------------------------- truth and equality */

bool mb_jinja_is_true(const struct mb_jinja_value *value)
{
    switch (value->kind) {
    case MB_JINJA_UNDEFINED:
    case MB_JINJA_NONE:
        return false;
    case MB_JINJA_BOOL:
    case MB_JINJA_INT:
        return value->number != 0;
    case MB_JINJA_STRING:
        return value->string.n > 0;
    case MB_JINJA_LIST:
        return value->list->n > 0;
    case MB_JINJA_DICT:
        return value->map->n > 0;
    default:
        return true;
    }
}

static bool is_number(const struct mb_jinja_value *value)
{
    return value->kind == MB_JINJA_INT || value->kind == MB_JINJA_BOOL;
}

static bool equal_within(struct mb_jinja_run *run, const struct mb_jinja_value *a,
                         const struct mb_jinja_value *b, int depth, bool *equal);

static bool equal_lists(struct mb_jinja_run *run, const struct mb_jinja_list *a,
                        const struct mb_jinja_list *b, int depth, bool *equal)
{
    *equal = a->n == b->n;
    for (size_t i = 0; *equal && i < a->n; i++)
        if (!equal_within(run, &a->items[i], &b->items[i], depth + 1, equal))
            return false;
    return true;
}

static bool equal_maps(struct mb_jinja_run *run, const struct mb_jinja_map *a, const struct mb_jinja_map *b,
                       int depth, bool *equal)
{
    *equal = a->n == b->n;
    for (size_t i = 0; *equal && i < a->n; i++) {
        const struct mb_jinja_value *other = mb_jinja_find(b, a->entries[i].key);
        if (other == NULL)
            *equal = false;
        else if (!mb_jinja_steps(run, b->n) ||
                 !equal_within(run, &a->entries[i].value, other, depth + 1, equal))
            return false;
    }
    return true;
}

static bool equal_within(struct mb_jinja_run *run, const struct mb_jinja_value *a,
                         const struct mb_jinja_value *b, int depth, bool *equal)
{
    if (!mb_jinja_steps(run, 1))
        return false;
    if (depth > EQUAL_DEPTH_MAX)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "values nested more than %d deep", EQUAL_DEPTH_MAX);
    if (is_number(a) && is_number(b)) {
        *equal = a->number == b->number;
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
        return mb_jinja_fail(run, MB_UNSUPPORTED, "comparing a %s", mb_jinja_kind_name(a->kind));
    }
}

bool mb_jinja_equal(struct mb_jinja_run *run, const struct mb_jinja_value *a, const struct mb_jinja_value *b,
                    bool *equal)
{
    return equal_within(run, a, b, 0, equal);
}

/* ---------------------------------------------------------------- strings */

bool mb_jinja_str(struct mb_jinja_run *run, const struct mb_jinja_value *value,
                  struct mb_jinja_string *string)
{
    char text[32];
    switch (value->kind) {
    case MB_JINJA_STRING:
        *string = value->string;
        return true;
    case MB_JINJA_UNDEFINED:
        *string = (struct mb_jinja_string){"", 0};
        return true;
    case MB_JINJA_NONE:
        *string = (struct mb_jinja_string){"None", 4};
        return true;
    case MB_JINJA_BOOL:
        *string = value->number ? (struct mb_jinja_string){"True", 4} : (struct mb_jinja_string){"False", 5};
        return true;
    case MB_JINJA_INT: {
        size_t n = (size_t)snprintf(text, sizeof text, "%" PRId64, value->number);
        char *copy = mb_jinja_alloc(run, n);
        if (copy == NULL)
            return false;
        *string = (struct mb_jinja_string){memcpy(copy, text, n), n};
        return true;
    }
    default:
        return mb_jinja_fail(run, MB_UNSUPPORTED, "printing a %s is not supported",
                             mb_jinja_kind_name(value->kind));
    }
}

bool mb_jinja_join(struct mb_jinja_run *run, struct mb_jinja_string a, struct mb_jinja_string b,
                   struct mb_jinja_value *joined)
{
    char *p = mb_jinja_alloc(run, a.n + b.n);
    if (p == NULL)
        return false;
    memcpy(p, a.p, a.n);
    memcpy(p + a.n, b.p, b.n);
    *joined = mb_jinja_text(p, a.n + b.n);
    return mb_jinja_steps(run, (a.n + b.n) / 16);
}

size_t mb_jinja_n_chars(struct mb_jinja_string string)
{
    size_t n = 0;
    for (size_t i = 0; i < string.n; i++)
        n += ((uint8_t)string.p[i] & 0xc0) != 0x80;
    return n;
}

/* ---------------------------------------------------------------- iteration */

bool mb_jinja_items(struct mb_jinja_run *run, const struct mb_jinja_value *value,
                    struct mb_jinja_list **items)
{
    struct mb_jinja_value list;
    if (value->kind == MB_JINJA_LIST) {
        *items = value->list;
        return true;
    }
    if (!mb_jinja_new_list(run, &list))
        return false;
    *items = list.list;
    switch (value->kind) {
    case MB_JINJA_UNDEFINED:
        return true;
    case MB_JINJA_DICT:
        for (size_t i = 0; i < value->map->n; i++) {
            struct mb_jinja_string key = value->map->entries[i].key;
            if (!mb_jinja_append(run, list.list, mb_jinja_text(key.p, key.n)))
                return false;
        }
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
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s cannot be gone through",
                             mb_jinja_kind_name(value->kind));
    }
}

/* ---------------------------------------------------------------- JSON */

struct json_writer {
    struct mb_jinja_run *run;
    struct mb_bytes out;
    int indent; /* negative: all in one line */
};

static bool write_text(struct json_writer *w, const char *text, size_t n)
{
    if (w->out.n + n > w->run->out_nbytes_max)
        return mb_jinja_fail(w->run, MB_UNSUPPORTED, "the template writes too much");
    return mb_bytes_put(&w->out, text, n) || mb_jinja_fail(w->run, MB_NO_MEMORY, "no memory");
}

static bool write_string(struct json_writer *w, struct mb_jinja_string string)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    if (!write_text(w, "\"", 1))
        return false;
    for (size_t i = 0; i < string.n; i++) {
        char c = string.p[i], escape[8];
        const char *at = c == 0 ? NULL : strchr(from, c);
        bool ok;
        if (at != NULL)
            ok = write_text(w, (char[]){'\\', to[at - from]}, 2);
        else if ((uint8_t)c < 0x20)
            ok = write_text(w, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c));
        else
            ok = write_text(w, &c, 1);
        if (!ok)
            return false;
    }
    return mb_jinja_steps(w->run, string.n) && write_text(w, "\"", 1);
}

/* What stands in front of an item: a comma, and a space or a new line. */
static bool write_gap(struct json_writer *w, size_t i, int depth)
{
    if (i > 0 && !write_text(w, ",", 1))
        return false;
    if (w->indent < 0)
        return i == 0 || write_text(w, " ", 1);
    if (!write_text(w, "\n", 1))
        return false;
    for (int k = 0; k < depth * w->indent; k++)
        if (!write_text(w, " ", 1))
            return false;
    return true;
}

static bool write_value(struct json_writer *w, const struct mb_jinja_value *value, int depth)
{
    struct mb_jinja_string string;
    bool is_list = value->kind == MB_JINJA_LIST;
    if (!mb_jinja_steps(w->run, 1))
        return false;
    if (value->kind == MB_JINJA_STRING)
        return write_string(w, value->string);
    if (value->kind == MB_JINJA_NONE)
        return write_text(w, "null", 4);
    if (value->kind == MB_JINJA_BOOL)
        return value->number ? write_text(w, "true", 4) : write_text(w, "false", 5);
    if (value->kind == MB_JINJA_INT)
        return mb_jinja_str(w->run, value, &string) && write_text(w, string.p, string.n);
    if ((!is_list && value->kind != MB_JINJA_DICT) || depth > JSON_DEPTH_MAX)
        return mb_jinja_fail(w->run, MB_UNSUPPORTED, "tojson of a %s", mb_jinja_kind_name(value->kind));
    size_t n = is_list ? value->list->n : value->map->n;
    if (!write_text(w, is_list ? "[" : "{", 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!write_gap(w, i, depth + 1))
            return false;
        if (!is_list && !(write_string(w, value->map->entries[i].key) && write_text(w, ": ", 2)))
            return false;
        if (!write_value(w, is_list ? &value->list->items[i] : &value->map->entries[i].value, depth + 1))
            return false;
    }
    if (n > 0 && w->indent >= 0 && !write_gap(w, 0, depth))
        return false;
    return write_text(w, is_list ? "]" : "}", 1);
}

bool mb_jinja_json(struct mb_jinja_run *run, const struct mb_jinja_value *value, int indent,
                   struct mb_jinja_value *json)
{
    struct json_writer w = {.run = run, .indent = indent};
    char *copy = NULL;
    bool ok = write_value(&w, value, 0) && (copy = mb_jinja_alloc(run, w.out.n)) != NULL;
    if (ok) {
        memcpy(copy, w.out.p, w.out.n);
        *json = mb_jinja_text(copy, w.out.n);
    }
    free(w.out.p);
    return ok;
}
