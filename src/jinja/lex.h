/*
 * lex.h - texts and tokens of a chat template, white space control included.
 *
 * As transformers sets Jinja up, with trim_blocks and lstrip_blocks on.
 */
#ifndef MB_JINJA_LEX_H
#define MB_JINJA_LEX_H

#include "value.h"

enum mb_jinja_token_kind {
    MB_JINJA_T_NAME,
    MB_JINJA_T_STRING, /* value: unescaped */
    MB_JINJA_T_INT,
    MB_JINJA_T_FLOAT,
    MB_JINJA_T_OP,  /* text: the operator */
    MB_JINJA_T_END, /* of the tag */
};

struct mb_jinja_token {
    enum mb_jinja_token_kind kind;
    string_t text;
    int64_t number;
    double real;
    int line;
};

enum mb_jinja_tag { MB_JINJA_TAG_NONE, MB_JINJA_TAG_VARIABLE, MB_JINJA_TAG_BLOCK, MB_JINJA_TAG_COMMENT };

struct mb_jinja_lexer {
    run_t *run;
    const char *p; /* newlines are \n */
    size_t n, i;
    int line;
    enum mb_jinja_tag tag; /* the one that is open */
    int n_open;            /* brackets in it */
    struct mb_jinja_token token;
};

/* Copies the text with its newlines made \n, less one at its end. */
bool mb_jinja_lex_begin(struct mb_jinja_lexer *lexer, run_t *run, const char *text, size_t n);

/* The text up to the next tag; lexer->tag says which follows. A comment is skipped with it. */
bool mb_jinja_lex_text(struct mb_jinja_lexer *lexer, string_t *text);

/* The next token of the open tag, into lexer->token. */
bool mb_jinja_lex_token(struct mb_jinja_lexer *lexer);

#endif
