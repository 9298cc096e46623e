/*
 * evaluate.h - variables, and the values of expressions.
 */
#ifndef MB_JINJA_EVALUATE_H
#define MB_JINJA_EVALUATE_H

#include "tree.h"

/*
 * Variables are on a stack.  A loop's body begins a frame of its own for each item, so that what it sets is
 * gone afterwards, as in Jinja.
 */
struct mb_jinja_eval {
    run_t *run;
    map_t stack;  /* variables, the innermost last; names may come again. Not in the arena. */
    size_t frame; /* where the innermost frame begins */
};

/* Sets a variable of the innermost frame. */
bool mb_jinja_set_variable(struct mb_jinja_eval *e, string_t name, value_t value);

bool mb_jinja_evaluate(struct mb_jinja_eval *e, const struct mb_jinja_node *n, value_t *out);

#endif
