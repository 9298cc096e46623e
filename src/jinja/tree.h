/*
 * tree.h - the syntax tree of a template.
 */
#ifndef MB_JINJA_TREE_H
#define MB_JINJA_TREE_H

#include "value.h"

enum mb_jinja_node_kind {
    /* statements */
    MB_JINJA_N_BLOCK,  /* items */
    MB_JINJA_N_TEXT,   /* name: the text */
    MB_JINJA_N_OUTPUT, /* a */
    MB_JINJA_N_IF,     /* a: condition, b: block, c: else (a block, an IF, or NULL) */
    MB_JINJA_N_FOR,    /* e: target, a: what is gone through, b: its condition or NULL, c: block, d:
                          else or NULL */
    MB_JINJA_N_SET,   /* a: TARGETS, NAME or ATTRIBUTE of a namespace, b: value; or c: block whose text is the
                         value, after the FILTERs b of the PRINTED block */
    MB_JINJA_N_MACRO, /* name; items: parameters, NAMEs or KEYWORDs with their defaults; c: block */
    MB_JINJA_N_CALL_BLOCK,   /* a: CALL, b: MACRO that is its caller */
    MB_JINJA_N_SCOPE,        /* items: SETs, c: block, in a scope of its own: with, generation */
    MB_JINJA_N_FILTER_BLOCK, /* b: FILTERs of the PRINTED block c */
    MB_JINJA_N_BREAK,
    MB_JINJA_N_CONTINUE,
    /* expressions */
    MB_JINJA_N_LITERAL,         /* value */
    MB_JINJA_N_NAME,            /* name */
    MB_JINJA_N_LIST,            /* items */
    MB_JINJA_N_TUPLE,           /* items */
    MB_JINJA_N_TARGETS,         /* items: several NAMEs or TARGETS, which share the items of a value */
    MB_JINJA_N_PRINTED,         /* the text of a block, which its filters take */
    MB_JINJA_N_DICT,            /* items: key, value, key, value... */
    MB_JINJA_N_ATTRIBUTE,       /* a.name */
    MB_JINJA_N_INDEX,           /* a[b] */
    MB_JINJA_N_SLICE,           /* a[b:c:d], each of b, c, d may be NULL */
    MB_JINJA_N_CALL,            /* a(items) */
    MB_JINJA_N_KEYWORD,         /* name=a, among a call's items */
    MB_JINJA_N_SPREAD,          /* *a, among a call's items */
    MB_JINJA_N_SPREAD_KEYWORDS, /* **a */
    MB_JINJA_N_FILTER,          /* a | name(items) */
    MB_JINJA_N_TEST,            /* a is name items */
    MB_JINJA_N_NOT,
    MB_JINJA_N_NEGATIVE,
    MB_JINJA_N_AND,
    MB_JINJA_N_OR,
    MB_JINJA_N_BINARY,  /* a op b */
    MB_JINJA_N_COMPARE, /* a, then items: OPERANDs */
    MB_JINJA_N_OPERAND, /* op a */
    MB_JINJA_N_CHOICE,  /* a if b else c (may be NULL) */
};

enum mb_jinja_op {
    MB_JINJA_ADD,
    MB_JINJA_SUB,
    MB_JINJA_MUL,
    MB_JINJA_DIV,
    MB_JINJA_FLOOR_DIV,
    MB_JINJA_MOD,
    MB_JINJA_POWER,
    MB_JINJA_CONCAT,
    MB_JINJA_EQ,
    MB_JINJA_NE,
    MB_JINJA_LT,
    MB_JINJA_LE,
    MB_JINJA_GT,
    MB_JINJA_GE,
    MB_JINJA_IN,
    MB_JINJA_NOT_IN,
};

/* What a macro's body mentions: whether calls may give more than the parameters take. */
enum { MB_JINJA_USES_VARARGS = 1, MB_JINJA_USES_KWARGS = 2, MB_JINJA_USES_CALLER = 4 };

struct mb_jinja_node {
    enum mb_jinja_node_kind kind;
    enum mb_jinja_op op;
    int line;
    int height;        /* of the tree below: bounds the depth of evaluation */
    bool is_recursive; /* of a FOR */
    unsigned uses;     /* of a MACRO */
    string_t name;
    value_t value;
    struct mb_jinja_node *a, *b, *c, *d, *e;
    struct mb_jinja_node **items;
    size_t n_items, cap;
};

#endif
