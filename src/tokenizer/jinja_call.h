/*
 * jinja_call.h - filters, tests, functions and methods of chat templates.
 */
#ifndef MB_TOKENIZER_JINJA_CALL_H
#define MB_TOKENIZER_JINJA_CALL_H

#include "jinja_value.h"

enum { MB_JINJA_ARGS_MAX = 16 };

struct mb_jinja_args {
    struct mb_jinja_value items[MB_JINJA_ARGS_MAX];
    size_t n;
    struct mb_jinja_value keywords; /* a DICT */
};

bool mb_jinja_filter(struct mb_jinja_run *run, struct mb_jinja_string name,
                     const struct mb_jinja_value *input, const struct mb_jinja_args *args,
                     struct mb_jinja_value *out);
bool mb_jinja_test(struct mb_jinja_run *run, struct mb_jinja_string name, const struct mb_jinja_value *input,
                   const struct mb_jinja_args *args, bool *answer);

/* A FUNCTION or METHOD. */
bool mb_jinja_call(struct mb_jinja_run *run, const struct mb_jinja_value *callee,
                   const struct mb_jinja_args *args, struct mb_jinja_value *out);

/* object.name; 'name' is looked up as an attribute first, or as an item first (object['name']). */
bool mb_jinja_attribute(struct mb_jinja_run *run, const struct mb_jinja_value *object,
                        struct mb_jinja_string name, bool item_first, struct mb_jinja_value *out);

/* Whether 'item' is in 'container'. */
bool mb_jinja_contains(struct mb_jinja_run *run, const struct mb_jinja_value *container,
                       const struct mb_jinja_value *item, bool *answer);

/* a < b: -1, 0 or 1 of numbers and of strings. */
bool mb_jinja_order(struct mb_jinja_run *run, const struct mb_jinja_value *a, const struct mb_jinja_value *b,
                    int *order);

#endif
