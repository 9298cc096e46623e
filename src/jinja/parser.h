/*
 * parser.h - what the parser's files share: the token at hand, nodes, expressions.
 *
 * Functions return false or NULL after a failure, with the error in the run.
 */
#ifndef MB_JINJA_PARSER_H
#define MB_JINJA_PARSER_H

#include "lex.h"
#include "tree.h"

struct mb_jinja_parser {
    run_t *run;
    struct mb_jinja_lexer lexer; /* lexer.token is the token at hand */
    int depth;
    unsigned uses; /* what the macro at hand mentions */
};

/* ---------------------------------------------------------------- tokens (parser.c) */

/* One level deeper in the recursion, which is bounded; p->depth-- leaves it. */
bool mb_jinja_enter(struct mb_jinja_parser *p);

bool mb_jinja_next_token(struct mb_jinja_parser *p);
bool mb_jinja_at_op(const struct mb_jinja_parser *p, const char *op);
bool mb_jinja_at_name(const struct mb_jinja_parser *p, const char *name);

/* Takes an operator or name if it is there: *taken. */
bool mb_jinja_take_op(struct mb_jinja_parser *p, const char *op, bool *taken);
bool mb_jinja_take_name(struct mb_jinja_parser *p, const char *name, bool *taken);

/* The token is not what is wanted: NULL. */
struct mb_jinja_node *mb_jinja_fail_at(struct mb_jinja_parser *p, const char *wanted);

bool mb_jinja_expect_op(struct mb_jinja_parser *p, const char *op);

/* The tag ends here. The token stays: the lexer goes on with the text that follows. */
bool mb_jinja_expect_end(struct mb_jinja_parser *p);

/* ---------------------------------------------------------------- nodes (parser.c) */

struct mb_jinja_node *mb_jinja_new_node(struct mb_jinja_parser *p, enum mb_jinja_node_kind kind);

/* A node with one child (a == b) or two; NULL when a child is. */
struct mb_jinja_node *mb_jinja_new_parent(struct mb_jinja_parser *p, enum mb_jinja_node_kind kind,
                                          struct mb_jinja_node *a, struct mb_jinja_node *b);

/* Makes 'parent' higher than 'child'. Evaluation goes down the tree: long chains of operators are high too.
 */
bool mb_jinja_grow_over(struct mb_jinja_parser *p, struct mb_jinja_node *parent,
                        const struct mb_jinja_node *child);

bool mb_jinja_add_item(struct mb_jinja_parser *p, struct mb_jinja_node *parent, struct mb_jinja_node *item);

/* ---------------------------------------------------------------- expressions */

struct mb_jinja_node *mb_jinja_parse_name(struct mb_jinja_parser *p);
struct mb_jinja_node *mb_jinja_parse_expression(struct mb_jinja_parser *p);

/* An expression, or several with commas: a tuple. */
struct mb_jinja_node *mb_jinja_parse_tuple(struct mb_jinja_parser *p);

/* At "(": arguments into 'call', the ")" taken. */
bool mb_jinja_parse_arguments(struct mb_jinja_parser *p, struct mb_jinja_node *call);

/* At a filter's name: the filter of 'input', and those after "|". */
struct mb_jinja_node *mb_jinja_parse_filters_of(struct mb_jinja_parser *p, struct mb_jinja_node *input);

/* An expression without "if": what a loop goes over, where an "if" is the loop's condition. */
struct mb_jinja_node *mb_jinja_parse_or(struct mb_jinja_parser *p);

/* At ".": object.name. */
struct mb_jinja_node *mb_jinja_parse_attribute(struct mb_jinja_parser *p, struct mb_jinja_node *object);

#endif
