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

/* Where a chat template comes from, for messages. */
struct mb_template {
    char *text;  /* owned; NULL: none */
    char *place; /* "FILE: chat_template". Owned. */
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
    bool added_are_text;         /* the decode steps leave added tokens as they are written */
    char *bos_token, *eos_token; /* of tokenizer_config.json; NULL: none */
    struct mb_template chat;
};

#endif
