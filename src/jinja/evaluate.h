/*
 * evaluate.h - variables, and the values of expressions.
 */
#ifndef MB_JINJA_EVALUATE_H
#define MB_JINJA_EVALUATE_H

#include "builtins.h"
#include "tree.h"

/*
 * Variables are in frames, each in the one around it.  A loop's body has a frame of its own for each item, so
 * that what it sets is gone afterwards, as in Jinja.  A macro's body has a frame in that of its definition:
 * it does not see the variables of the macro's caller.
 */
struct mb_jinja_frame {
    struct mb_jinja_frame *outer; /* NULL: the template's own */
    map_t variables;
    bool is_kept; /* a macro or loop refers to it, so that it is not used again */
};

struct mb_jinja_eval {
    run_t *run;
    struct mb_jinja_frame *frame; /* the innermost */
    struct mb_jinja_frame *free;  /* those that ended, by 'outer' */
    const value_t *printed;       /* the text of the block whose filters are evaluated */

    /* Calls of what runs statements: given by the renderer. */
    bool (*call_macro)(struct mb_jinja_eval *e, const struct mb_jinja_macro *macro, const args_t *args,
                       value_t *out);
    bool (*call_loop)(struct mb_jinja_eval *e, const struct mb_jinja_loop *loop, const args_t *args,
                      value_t *out);
};

/* Begins a frame in 'outer'. NULL: out of memory. */
struct mb_jinja_frame *mb_jinja_new_frame(struct mb_jinja_eval *e, struct mb_jinja_frame *outer);

/* A frame that ended is used again, unless something refers to it. */
void mb_jinja_free_frame(struct mb_jinja_eval *e, struct mb_jinja_frame *frame);

/* Something refers to the innermost frame. */
void mb_jinja_keep_frame(struct mb_jinja_eval *e);

/* Sets a variable of the innermost frame. */
bool mb_jinja_set_variable(struct mb_jinja_eval *e, string_t name, value_t value);

bool mb_jinja_eval_args(struct mb_jinja_eval *e, const struct mb_jinja_node *call, args_t *args);

bool mb_jinja_evaluate(struct mb_jinja_eval *e, const struct mb_jinja_node *n, value_t *out);

#endif
