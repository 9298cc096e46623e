/*
 * parser.c - the tokens that the parser looks at, and the nodes that it makes of them.
 */
#include "parser.h"
#include <stdio.h>

enum { DEPTH_MAX = 128, HEIGHT_MAX = 400 };

typedef struct mb_jinja_node node;

/* ---------------------------------------------------------------- tokens */

bool mb_jinja_enter(struct mb_jinja_parser *p)
{
    if (++p->depth <= DEPTH_MAX)
        return true;
    p->run->line = p->lexer.line;
    return mb_jinja_fail(p->run, MB_UNSUPPORTED, "nesting of more than %d levels is not supported",
                         DEPTH_MAX);
}

bool mb_jinja_next_token(struct mb_jinja_parser *p)
{
    return mb_jinja_lex_token(&p->lexer);
}

bool mb_jinja_at_op(const struct mb_jinja_parser *p, const char *op)
{
    return p->lexer.token.kind == MB_JINJA_T_OP && mb_jinja_is(p->lexer.token.text, op);
}

bool mb_jinja_at_name(const struct mb_jinja_parser *p, const char *name)
{
    return p->lexer.token.kind == MB_JINJA_T_NAME && mb_jinja_is(p->lexer.token.text, name);
}

bool mb_jinja_take_op(struct mb_jinja_parser *p, const char *op, bool *taken)
{
    *taken = mb_jinja_at_op(p, op);
    return !*taken || mb_jinja_next_token(p);
}

bool mb_jinja_take_name(struct mb_jinja_parser *p, const char *name, bool *taken)
{
    *taken = mb_jinja_at_name(p, name);
    return !*taken || mb_jinja_next_token(p);
}

node *mb_jinja_fail_at(struct mb_jinja_parser *p, const char *wanted)
{
    const struct mb_jinja_token *token = &p->lexer.token;
    p->run->line = token->line;
    int n = (int)(token->text.n > 40 ? 40 : token->text.n);
    if (token->kind == MB_JINJA_T_END)
        mb_jinja_fail(p->run, MB_BAD_DATA, "the tag ends where %s is expected", wanted);
    else
        mb_jinja_fail(p->run, MB_UNSUPPORTED, "'%.*s' where %s is expected", n,
                      token->text.p == NULL ? "a number" : token->text.p, wanted);
    return NULL;
}

bool mb_jinja_expect_op(struct mb_jinja_parser *p, const char *op)
{
    bool taken;
    if (!mb_jinja_take_op(p, op, &taken))
        return false;
    char quoted[8];
    snprintf(quoted, sizeof quoted, "'%s'", op);
    return taken || mb_jinja_fail_at(p, quoted) != NULL;
}

bool mb_jinja_expect_end(struct mb_jinja_parser *p)
{
    return p->lexer.token.kind == MB_JINJA_T_END || mb_jinja_fail_at(p, "the end of the tag") != NULL;
}

/* ---------------------------------------------------------------- nodes */

node *mb_jinja_new_node(struct mb_jinja_parser *p, enum mb_jinja_node_kind kind)
{
    node *made = mb_jinja_alloc(p->run, sizeof *made);
    if (made != NULL) {
        made->kind = kind;
        made->line = p->lexer.token.line;
        made->height = 1;
    }
    return made;
}

bool mb_jinja_grow_over(struct mb_jinja_parser *p, node *parent, const node *child)
{
    if (child != NULL && parent->height <= child->height)
        parent->height = child->height + 1;
    if (parent->height <= HEIGHT_MAX)
        return true;
    p->run->line = parent->line;
    return mb_jinja_fail(p->run, MB_UNSUPPORTED, "an expression of more than %d levels is not supported",
                         HEIGHT_MAX);
}

bool mb_jinja_add_item(struct mb_jinja_parser *p, node *parent, node *item)
{
    if (parent->n_items == parent->cap) {
        size_t cap = parent->cap == 0 ? 4 : parent->cap * 2;
        node **items = mb_jinja_alloc(p->run, cap * sizeof(node *));
        if (items == NULL)
            return false;
        if (parent->n_items > 0)
            memcpy(items, parent->items, parent->n_items * sizeof(node *));
        parent->items = items;
        parent->cap = cap;
    }
    parent->items[parent->n_items++] = item;
    return mb_jinja_grow_over(p, parent, item);
}

node *mb_jinja_new_parent(struct mb_jinja_parser *p, enum mb_jinja_node_kind kind, node *a, node *b)
{
    node *made = a == NULL || b == NULL ? NULL : mb_jinja_new_node(p, kind);
    if (made == NULL)
        return NULL;
    made->a = a;
    made->b = b == a ? NULL : b;
    made->line = a->line;
    return mb_jinja_grow_over(p, made, a) && mb_jinja_grow_over(p, made, b) ? made : NULL;
}

node *mb_jinja_parse_name(struct mb_jinja_parser *p)
{
    if (p->lexer.token.kind != MB_JINJA_T_NAME)
        return mb_jinja_fail_at(p, "a name");
    node *made = mb_jinja_new_node(p, MB_JINJA_N_NAME);
    if (made == NULL)
        return NULL;
    made->name = p->lexer.token.text;
    p->uses |= mb_jinja_is(made->name, "varargs")  ? MB_JINJA_USES_VARARGS
               : mb_jinja_is(made->name, "kwargs") ? MB_JINJA_USES_KWARGS
               : mb_jinja_is(made->name, "caller") ? MB_JINJA_USES_CALLER
                                                   : 0;
    return mb_jinja_next_token(p) ? made : NULL;
}
