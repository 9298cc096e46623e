/*
 * tokenizer_impl.h - what an open tokenizer holds.
 */
#ifndef MB_TOKENIZER_IMPL_H
#define MB_TOKENIZER_IMPL_H

#include "added.h"
#include "bpe.h"
#include "normalize.h"
#include "pretokenize.h"
#include <moebius/tokenizer.h>

enum mb_decode_kind {
    MB_DECODE_BYTE_LEVEL,    /* visible characters back to bytes */
    MB_DECODE_REPLACE,       /* 'what' by 'with' */
    MB_DECODE_METASPACE,     /* 'what' by a space, or by nothing in the first token when 'drop_first' */
    MB_DECODE_BYTE_FALLBACK, /* <0xNN> to a byte */
    MB_DECODE_STRIP,         /* up to n_start and n_stop of the character 'what' off the ends of the text */
};

struct mb_decode_step {
    enum mb_decode_kind kind;
    char *what, *with; /* owned */
    bool drop_first;
    size_t n_start, n_stop;
};

enum { MB_DECODE_STEPS_MAX = 8 };

/* An added token as the files say it, in their order. Its content is that of its id. */
struct mb_added_entry {
    struct mb_added_token token;
    bool normalized, is_special;
};

struct mb_added_list {
    struct mb_added_entry *items;
    size_t n, cap;
    int32_t next_id; /* of a token that the vocabulary does not have */
};

/* "bos_token" and what it is; a variable of templates. Both owned. */
struct mb_name {
    char *key, *content;
};

struct mb_chat_template {
    char *name;  /* "default", "tool_use" */
    char *text;  /* owned, as all */
    char *place; /* where it comes from, for messages: "FILE: chat_template" */
};

struct mb_tokenizer {
    struct mb_bpe bpe;
    struct mb_normalizers normalizers;
    struct mb_added raw_added;        /* found in the text as it is */
    struct mb_added normalized_added; /* found after normalizing */
    struct mb_pretoken_steps pretoken_steps;
    struct mb_ids before, after; /* what add_special puts around the text */
    struct mb_decode_step decode_steps[MB_DECODE_STEPS_MAX];
    size_t n_decode_steps;
    bool is_joined;      /* while loading: the decoders so far have made one text of the tokens */
    bool added_are_text; /* the decode steps leave added tokens as they are written */
    struct mb_added_list added;
    struct mb_name *names;
    size_t n_names;
    struct mb_chat_template *templates;
    size_t n_templates;
};

/* Forgets the chat templates. */
void mb_templates_free(struct mb_tokenizer *tokenizer);

#endif
