/*
 * vocab.h - which id a token's content has, and the content of an id.
 *
 * Ids may have holes; two tokens never share an id or a content.
 */
#ifndef MB_TOKENIZER_VOCAB_H
#define MB_TOKENIZER_VOCAB_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MB_VOCAB_ID_MAX = (1 << 24) - 1, /* the largest vocabulary known has 2^18 tokens */
    MB_TOKEN_NBYTES_MAX = 65535,
};

struct mb_token {
    uint32_t pos; /* of its content in 'text' */
    uint32_t nbytes;
    bool exists, is_added, is_special;
    bool is_model;    /* of the model's own vocabulary: words are made of these alone */
    uint32_t i_added; /* of an added token: its index in the list of them */
};

struct mb_vocab {
    struct mb_bytes text;     /* contents one after the other */
    struct mb_token *tokens;  /* [n_ids], holes have exists = false */
    size_t n_ids, tokens_cap; /* largest id + 1 */
    size_t n_tokens;
    uint32_t *slots; /* id + 1 by hash; 0: empty */
    size_t n_slots;  /* a power of two */
    uint64_t seed;   /* random, so that a file cannot be made to collide */
};

enum mb_vocab_put { MB_VOCAB_PUT, MB_VOCAB_SAME_CONTENT, MB_VOCAB_SAME_ID, MB_VOCAB_NO_MEMORY };

/* An empty vocabulary for about n tokens. false: no memory. */
bool mb_vocab_init(struct mb_vocab *vocab, size_t n);
void mb_vocab_free(struct mb_vocab *vocab);

/* 'id' is 0 .. MB_VOCAB_ID_MAX, nbytes at most MB_TOKEN_NBYTES_MAX. */
enum mb_vocab_put mb_vocab_put(struct mb_vocab *vocab, const char *content, size_t nbytes, int32_t id);

int32_t mb_vocab_find(const struct mb_vocab *vocab, const char *content, size_t nbytes); /* -1: none */

static inline const char *mb_vocab_content(const struct mb_vocab *vocab, int32_t id, size_t *nbytes)
{
    *nbytes = vocab->tokens[id].nbytes;
    return vocab->text.p + vocab->tokens[id].pos;
}

/* A number that differs from run to run, to seed hashes. */
uint64_t mb_random_seed(void);

#endif
