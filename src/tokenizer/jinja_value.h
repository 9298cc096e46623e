/*
 * jinja_value.h - values of chat templates, and the memory of one rendering.
 *
 * Values live in an arena that is freed as a whole.  They never change, but for namespaces.  All
 * functions that allocate or compute return false after the first failure, with the error in the run.
 */
#ifndef MB_TOKENIZER_JINJA_VALUE_H
#define MB_TOKENIZER_JINJA_VALUE_H

#include "base/buf.h"
#include <moebius/status.h>

enum mb_jinja_kind {
    MB_JINJA_UNDEFINED,
    MB_JINJA_NONE,
    MB_JINJA_BOOL,
    MB_JINJA_INT,
    MB_JINJA_STRING,
    MB_JINJA_LIST,
    MB_JINJA_DICT,
    MB_JINJA_NAMESPACE,
    MB_JINJA_LOOP,
    MB_JINJA_FUNCTION,
    MB_JINJA_METHOD,
};

struct mb_jinja_string {
    const char *p; /* valid UTF-8 */
    size_t n;
};

struct mb_jinja_value {
    enum mb_jinja_kind kind;
    union {
        int64_t number;                /* BOOL, INT, FUNCTION (enum mb_jinja_function) */
        struct mb_jinja_string string; /* STRING; UNDEFINED: its name, for messages */
        struct mb_jinja_list *list;    /* LIST, tuples too */
        struct mb_jinja_map *map;      /* DICT, NAMESPACE */
        struct mb_jinja_loop *loop;
        struct mb_jinja_method *method;
    };
};

struct mb_jinja_list {
    struct mb_jinja_value *items;
    size_t n, cap;
};

struct mb_jinja_entry {
    struct mb_jinja_string key;
    struct mb_jinja_value value;
};

struct mb_jinja_map {
    struct mb_jinja_entry *entries; /* in the order in which they came */
    size_t n, cap;
};

struct mb_jinja_loop {
    const struct mb_jinja_list *items;
    size_t i;
};

struct mb_jinja_method {
    struct mb_jinja_value object;
    struct mb_jinja_string name;
};

enum mb_jinja_function {
    MB_JINJA_RAISE_EXCEPTION,
    MB_JINJA_MAKE_NAMESPACE,
    MB_JINJA_MAKE_DICT,
    MB_JINJA_RANGE,
    MB_JINJA_STRFTIME_NOW
};

/* One rendering: its memory, its limits, where errors are. */
struct mb_jinja_run {
    struct mb_jinja_chunk *chunks;
    size_t arena_nbytes, arena_nbytes_max;
    uint64_t n_steps, n_steps_max;
    size_t out_nbytes_max;
    const char *place; /* of the template, for messages */
    int line;          /* of what is being worked on */
    enum mb_status status;
    struct mb_error *err;
};

void mb_jinja_run_free(struct mb_jinja_run *run);

/* Zeroed memory. NULL: out of memory or over the limit, and the error is set. */
void *mb_jinja_alloc(struct mb_jinja_run *run, size_t nbytes);

/* Sets the error "PLACE: line N: ..." unless there is one; returns false. */
bool mb_jinja_fail(struct mb_jinja_run *run, enum mb_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Counts work; false when a template takes too much of it. */
bool mb_jinja_steps(struct mb_jinja_run *run, uint64_t n);

static inline struct mb_jinja_value mb_jinja_none(void)
{
    return (struct mb_jinja_value){.kind = MB_JINJA_NONE};
}

static inline struct mb_jinja_value mb_jinja_bool(bool b)
{
    return (struct mb_jinja_value){.kind = MB_JINJA_BOOL, .number = b};
}

static inline struct mb_jinja_value mb_jinja_int(int64_t i)
{
    return (struct mb_jinja_value){.kind = MB_JINJA_INT, .number = i};
}

static inline struct mb_jinja_value mb_jinja_text(const char *p, size_t n)
{
    return (struct mb_jinja_value){.kind = MB_JINJA_STRING, .string = {p, n}};
}

static inline struct mb_jinja_value mb_jinja_undefined(struct mb_jinja_string name)
{
    return (struct mb_jinja_value){.kind = MB_JINJA_UNDEFINED, .string = name};
}

static inline bool mb_jinja_is(struct mb_jinja_string string, const char *text)
{
    return string.n == strlen(text) && memcmp(string.p, text, string.n) == 0;
}

bool mb_jinja_new_list(struct mb_jinja_run *run, struct mb_jinja_value *list);
bool mb_jinja_append(struct mb_jinja_run *run, struct mb_jinja_list *list, struct mb_jinja_value item);
bool mb_jinja_new_map(struct mb_jinja_run *run, enum mb_jinja_kind kind, struct mb_jinja_value *map);
bool mb_jinja_put(struct mb_jinja_run *run, struct mb_jinja_map *map, struct mb_jinja_string key,
                  struct mb_jinja_value value);
const struct mb_jinja_value *mb_jinja_find(const struct mb_jinja_map *map, struct mb_jinja_string key);

/* "string", "list": for messages. */
const char *mb_jinja_kind_name(enum mb_jinja_kind kind);

bool mb_jinja_is_true(const struct mb_jinja_value *value);
bool mb_jinja_equal(struct mb_jinja_run *run, const struct mb_jinja_value *a, const struct mb_jinja_value *b,
                    bool *equal);

/* What printing a value shows. Lists and the like are MB_UNSUPPORTED. */
bool mb_jinja_str(struct mb_jinja_run *run, const struct mb_jinja_value *value,
                  struct mb_jinja_string *string);

/* json.dumps(value, ensure_ascii=False), with an indent of that many spaces unless it is negative. */
bool mb_jinja_json(struct mb_jinja_run *run, const struct mb_jinja_value *value, int indent,
                   struct mb_jinja_value *json);

bool mb_jinja_join(struct mb_jinja_run *run, struct mb_jinja_string a, struct mb_jinja_string b,
                   struct mb_jinja_value *joined);
size_t mb_jinja_n_chars(struct mb_jinja_string string);

/* What a `for` goes over: items of a list, keys of a mapping, characters of a string, nothing of undefined.
 */
bool mb_jinja_items(struct mb_jinja_run *run, const struct mb_jinja_value *value,
                    struct mb_jinja_list **items);

#endif
