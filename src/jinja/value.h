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

/* Python has several kinds of sequences, which print, compare and end differently. */
enum mb_jinja_form {
    MB_JINJA_PLAIN, /* a list */
    MB_JINJA_TUPLE,
    MB_JINJA_RANGE,
    MB_JINJA_VIEW,     /* of a mapping: keys(), values(), items() */
    MB_JINJA_ITERATOR, /* what most filters give: can be gone through once, has no length, is always true */
};

struct mb_jinja_list {
    value_t *items;
    size_t n, cap;
    enum mb_jinja_form form;
};

struct mb_jinja_entry {
    string_t key; /* unless it is a number */
    value_t value;
    bool is_number;
    int64_t number;
};

/* The key as it was given: a string or a number. */
static inline value_t mb_jinja_key(const struct mb_jinja_entry *entry)
{
    return entry->is_number ? mb_jinja_int(entry->number) : mb_jinja_text(entry->key.p, entry->key.n);
}

struct mb_jinja_map {
    struct mb_jinja_entry *entries; /* in the order in which they came */
    size_t n, cap;
};

struct mb_jinja_frame;

struct mb_jinja_loop {
    const list_t *items;
    size_t i;
    int64_t depth;                     /* of recursion, from 0 */
    const struct mb_jinja_node *again; /* a recursive loop's FOR, which loop(items) runs; else NULL */
    struct mb_jinja_frame *frame;      /* where the recursive loop is */
    value_t *last_changed;             /* the arguments of loop.changed, as a LIST; NULL: not called yet */
};

/* A macro, or the block of a call. */
struct mb_jinja_macro {
    const struct mb_jinja_node *node;
    struct mb_jinja_frame *frame; /* where it was defined */
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

/* A whole number; booleans are, as in Python. */
static inline bool mb_jinja_is_whole(const value_t *value)
{
    return value->kind == MB_JINJA_INT || value->kind == MB_JINJA_BOOL;
}

static inline bool mb_jinja_is_number(const value_t *value)
{
    return mb_jinja_is_whole(value) || value->kind == MB_JINJA_FLOAT;
}

static inline double mb_jinja_real(const value_t *number)
{
    return number->kind == MB_JINJA_FLOAT ? number->real : (double)number->number;
}

static inline bool mb_jinja_is_form(const value_t *value, enum mb_jinja_form form)
{
    return value->kind == MB_JINJA_LIST && value->list->form == form;
}

/* Counts work; false when a template takes too much of it. */
bool mb_jinja_steps(run_t *run, uint64_t n);

/* "string", "list": for messages. */
const char *mb_jinja_kind_name(enum mb_jinja_kind kind);

/* "'x' is undefined". */
bool mb_jinja_fail_undefined(run_t *run, const value_t *value);

const value_t *mb_jinja_find(const map_t *map, string_t key);

/* The same by keys of any kind; to put, strings and whole numbers alone. */
const value_t *mb_jinja_find_key(const map_t *map, const value_t *key);
bool mb_jinja_put_key(run_t *run, map_t *map, const value_t *key, value_t value);

bool mb_jinja_is_true(const value_t *value);
bool mb_jinja_equal(run_t *run, const value_t *a, const value_t *b, bool *equal);

/* Of numbers and of strings: *order is negative, 0 or positive. */
bool mb_jinja_order(run_t *run, const value_t *a, const value_t *b, int *order);

/* Whether 'item' is in 'container'. */
bool mb_jinja_contains(run_t *run, const value_t *container, const value_t *item, bool *answer);

/* A list of another form. */
bool mb_jinja_new_form(run_t *run, enum mb_jinja_form form, value_t *list);

/*
 * What a `for` goes over: items of a list, keys of a mapping, characters of a string, nothing of undefined.
 * An iterator is empty afterwards.
 */
bool mb_jinja_items(run_t *run, const value_t *value, list_t **items);

/* What printing a value shows, as Python's str. */
bool mb_jinja_str(run_t *run, const value_t *value, string_t *string);

/* Appends Python's repr of a value. */
bool mb_jinja_repr(run_t *run, struct mb_bytes *bytes, const value_t *value);

/* The shortest text that is that number again, as Python writes it; returns its length. */
enum { MB_JINJA_FLOAT_NBYTES = 40 };
size_t mb_jinja_float_text(double x, char text[MB_JINJA_FLOAT_NBYTES]);

/* json.dumps. */
struct mb_jinja_json_style {
    int indent; /* negative: all in one line */
    bool ascii, sorted;
    string_t between, colon; /* the separators */
};

bool mb_jinja_json(run_t *run, const value_t *value, const struct mb_jinja_json_style *style, value_t *json);

/* Sorts by mb_jinja_order, items that are equal stay in their order. 'keys' has a key for each item. */
bool mb_jinja_sort(run_t *run, value_t *items, value_t *keys, size_t n, bool descending);

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
