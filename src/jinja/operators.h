/*
 * operators.h - what operators make of values.
 */
#ifndef MB_JINJA_OPERATORS_H
#define MB_JINJA_OPERATORS_H

#include "tree.h"

bool mb_jinja_binary(run_t *run, enum mb_jinja_op op, const value_t *a, const value_t *b, value_t *out);
bool mb_jinja_compare(run_t *run, enum mb_jinja_op op, const value_t *a, const value_t *b, bool *answer);
bool mb_jinja_negative(run_t *run, const value_t *operand, value_t *out);

/* "WHAT of a string and a list", or that one of them is undefined. Returns false. */
bool mb_jinja_fail_operands(run_t *run, const char *what, const value_t *a, const value_t *b);

/* ---------------------------------------------------------------- subscripts (subscript.c) */

/* object[index]; undefined where there is no such item. */
bool mb_jinja_item(run_t *run, const value_t *object, const value_t *index, value_t *out);

/* object[begin:end:step], none where a part is left out. */
bool mb_jinja_slice(run_t *run, const value_t *object, const value_t *begin, const value_t *end,
                    const value_t *step, value_t *out);

#endif
