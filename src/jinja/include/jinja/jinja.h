/*
 * jinja.h - renders templates in the Jinja language, set up as transformers does for chat templates.
 *
 * Make values, parse the template, render it with them.  Everything lives in the arena of a run, which
 * mb_jinja_run_free frees as a whole; a run is used by one thread at a time.  Functions that allocate or
 * compute return false (or NULL) after the first failure: run->status and *run->err say why.
 */
#ifndef MB_JINJA_JINJA_H
#define MB_JINJA_JINJA_H

#include "base/buf.h"
#include <moebius/status.h>

/* ---------------------------------------------------------------- a run */

/* Zero it, then set the limits, the place and 'err'. */
struct mb_jinja_run {
    struct mb_jinja_chunk *chunks; /* the arena */
    size_t arena_nbytes, arena_nbytes_max;
    uint64_t n_steps, n_steps_max; /* a step: one node evaluated, or some bytes of text handled */
    size_t out_nbytes_max;
    int64_t now;                            /* seconds since 1970, which strftime_now shows as local time */
    const char *place;                      /* where the template comes from, for messages */
    int line;                               /* of the template, at work now */
    const struct mb_jinja_by_name *by_name; /* set while a template is rendered */
    enum mb_status status;
    struct mb_error *err;
};

void mb_jinja_run_free(struct mb_jinja_run *run);

/* Zeroed memory. NULL: out of memory or over the limit, and the error is set. */
void *mb_jinja_alloc(struct mb_jinja_run *run, size_t nbytes);

/* Sets the error "PLACE: line N: ..." unless there is one; returns false. */
bool mb_jinja_fail(struct mb_jinja_run *run, enum mb_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---------------------------------------------------------------- values */

enum mb_jinja_kind {
    MB_JINJA_UNDEFINED,
    MB_JINJA_NONE,
    MB_JINJA_BOOL,
    MB_JINJA_INT,
    MB_JINJA_FLOAT,
    MB_JINJA_STRING,
    MB_JINJA_LIST,
    MB_JINJA_DICT,
    MB_JINJA_NAMESPACE,
    MB_JINJA_LOOP,
    MB_JINJA_FUNCTION,
    MB_JINJA_METHOD,
    MB_JINJA_MACRO,
};

struct mb_jinja_string {
    const char *p; /* valid UTF-8 */
    size_t n;
};

/* Values never change, but for namespaces, and iterators that are used up. */
struct mb_jinja_value {
    enum mb_jinja_kind kind;
    bool is_safe; /* STRING: what is added to it is escaped for HTML */
    union {
        int64_t number;                /* BOOL, INT */
        double real;                   /* FLOAT */
        struct mb_jinja_string string; /* STRING; UNDEFINED: its name, for messages */
        struct mb_jinja_list *list;    /* LIST, and what else is gone through */
        struct mb_jinja_map *map;      /* DICT, NAMESPACE */
        struct mb_jinja_loop *loop;
        const struct mb_jinja_builtin *function;
        struct mb_jinja_method *method;
        const struct mb_jinja_macro *macro;
    };
};

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

static inline struct mb_jinja_value mb_jinja_float(double x)
{
    return (struct mb_jinja_value){.kind = MB_JINJA_FLOAT, .real = x};
}

/* Keeps 'p': valid UTF-8 that outlives the run, or is in its arena. */
static inline struct mb_jinja_value mb_jinja_text(const char *p, size_t n)
{
    return (struct mb_jinja_value){.kind = MB_JINJA_STRING, .string = {p, n}};
}

bool mb_jinja_new_list(struct mb_jinja_run *run, struct mb_jinja_value *list);
bool mb_jinja_append(struct mb_jinja_run *run, struct mb_jinja_list *list, struct mb_jinja_value item);

/* 'kind' is DICT or NAMESPACE. A map keeps the order in which its keys came. */
bool mb_jinja_new_map(struct mb_jinja_run *run, enum mb_jinja_kind kind, struct mb_jinja_value *map);
bool mb_jinja_put(struct mb_jinja_run *run, struct mb_jinja_map *map, struct mb_jinja_string key,
                  struct mb_jinja_value value);

/* ---------------------------------------------------------------- templates */

/* A parsed template, in the run's arena, for this run or others. 'text' is valid UTF-8. NULL: failed. */
const struct mb_jinja_node *mb_jinja_parse(struct mb_jinja_run *run, const char *text, size_t n);

/* Appends the text that a template makes of 'variables' (made with 'run') to 'out'. Returns run->status. */
enum mb_status mb_jinja_render(struct mb_jinja_run *run, const struct mb_jinja_node *tree,
                               const struct mb_jinja_map *variables, struct mb_bytes *out);

#endif
