/*
 * evaluate.h - variables, and the values of expressions.
 */
#ifndef MB_JINJA_EVALUATE_H
#define MB_JINJA_EVALUATE_H

#include "builtins.h"
#include "tree.h"

/*
 * Variables are on a stack.  A loop's body begins a frame of its own for each item, so that what it sets is
 * gone afterwards, as in Jinja.  A macro's body begins a scope, which sees its own variables and those of the
 * template's outermost frame, not those of the macro's caller.
 */
struct mb_jinja_eval {
    run_t *run;
    map_t stack;    /* variables, the innermost last; names may come again. Not in the arena. */
    size_t frame;   /* where the innermost frame begins */
    size_t scope;   /* where the running macro's variables begin; 0: no macro runs */
    size_t n_outer; /* variables of the outermost frame */

    /* Calls a macro: given by the renderer, which runs statements. */
    bool (*call_macro)(struct mb_jinja_eval *e, const struct mb_jinja_node *macro, const args_t *args,
                       value_t *out);
};

/* Sets a variable of the innermost frame. */
bool mb_jinja_set_variable(struct mb_jinja_eval *e, string_t name, value_t value);

bool mb_jinja_evaluate(struct mb_jinja_eval *e, const struct mb_jinja_node *n, value_t *out);

#endif
