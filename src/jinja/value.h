/*
 * value.h - what values hold, and the operations on them.
 */
#ifndef MB_JINJA_VALUE_H
#define MB_JINJA_VALUE_H

#include "jinja/jinja.h"

/* Short names for the part's own files. */
typedef struct mb_jinja_run run_t;
typedef struct mb_jinja_value value_t;
typedef struct mb_jinja_string string_t;
typedef struct mb_jinja_list list_t;
typedef struct mb_jinja_map map_t;

struct mb_jinja_list {
    value_t *items;
    size_t n, cap;
};

struct mb_jinja_entry {
    string_t key;
    value_t value;
};

struct mb_jinja_map {
    struct mb_jinja_entry *entries; /* in the order in which they came */
    size_t n, cap;
};

struct mb_jinja_loop {
    const list_t *items;
    size_t i;
};

struct mb_jinja_method {
    value_t object;
    string_t name;
    const struct mb_jinja_builtin *builtin; /* NULL: Python has it, this part has not */
};

static inline value_t mb_jinja_undefined(const char *name)
{
    return (value_t){.kind = MB_JINJA_UNDEFINED, .string = {name, strlen(name)}};
}

static inline bool mb_jinja_is(string_t string, const char *text)
{
    return string.n == strlen(text) && memcmp(string.p, text, string.n) == 0;
}

static inline bool mb_jinja_is_string(string_t a, string_t b)
{
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

static inline bool mb_jinja_is_number(const value_t *value)
{
    return value->kind == MB_JINJA_INT || value->kind == MB_JINJA_BOOL;
}

/* Counts work; false when a template takes too much of it. */
bool mb_jinja_steps(run_t *run, uint64_t n);

/* "string", "list": for messages. */
const char *mb_jinja_kind_name(enum mb_jinja_kind kind);

/* "'x' is undefined". */
bool mb_jinja_fail_undefined(run_t *run, const value_t *value);

const value_t *mb_jinja_find(const map_t *map, string_t key);

bool mb_jinja_is_true(const value_t *value);
bool mb_jinja_equal(run_t *run, const value_t *a, const value_t *b, bool *equal);

/* Of numbers and of strings: *order is negative, 0 or positive. */
bool mb_jinja_order(run_t *run, const value_t *a, const value_t *b, int *order);

/* Whether 'item' is in 'container'. */
bool mb_jinja_contains(run_t *run, const value_t *container, const value_t *item, bool *answer);

/* What a `for` goes over: items of a list, keys of a mapping, characters of a string, nothing of undefined.
 */
bool mb_jinja_items(run_t *run, const value_t *value, list_t **items);

/* What printing a value shows. Lists and the like are MB_UNSUPPORTED. */
bool mb_jinja_str(run_t *run, const value_t *value, string_t *string);

/* json.dumps(value, ensure_ascii=False), with an indent of that many spaces unless it is negative. */
bool mb_jinja_json(run_t *run, const value_t *value, int indent, value_t *json);

/* ---------------------------------------------------------------- strings */

bool mb_jinja_join(run_t *run, string_t a, string_t b, value_t *joined);
size_t mb_jinja_n_chars(string_t string);

/* White space as Python's str.strip has it. */
bool mb_jinja_is_space(uint32_t code);

/* Appends to a growing text; false over the limit of what a template may write. */
bool mb_jinja_write(run_t *run, struct mb_bytes *bytes, const char *p, size_t n);

/* Makes a value of a growing text that 'ok' says is whole, and frees the text in any case. */
bool mb_jinja_finish_text(run_t *run, struct mb_bytes *bytes, bool ok, value_t *out);

#endif
