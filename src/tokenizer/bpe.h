/*
 * bpe.h - the merges of a byte pair encoding, and words to ids.
 *
 * struct mb_bpe is read-only once loaded; what a call needs is in its struct mb_bpe_work.
 */
#ifndef MB_TOKENIZER_BPE_H
#define MB_TOKENIZER_BPE_H

#include "vocab.h"

struct mb_merge {
    uint64_t pair; /* left id in the high half, right id in the low; MB_NO_PAIR: empty */
    uint32_t rank; /* its place in the list: lower goes first */
    int32_t id;    /* what the two become */
};

#define MB_NO_PAIR UINT64_MAX

struct mb_bpe {
    struct mb_vocab vocab;
    struct mb_merge *merges; /* [n_slots] by hash */
    unsigned slot_shift;     /* 64 - log2(n_slots) */
    uint64_t multiplier;     /* odd, random */
    bool is_byte_level;      /* words are bytes, looked up by the visible characters that stand for them */
    bool byte_fallback;      /* unknown characters become <0xNN> tokens */
    bool fuse_unk;
    bool ignore_merges;        /* a word that is a token is that token */
    int32_t unk_id;            /* -1: unknown characters are dropped */
    int32_t byte_ids[256];     /* is_byte_level: of each byte's character; -1: none */
    int32_t fallback_ids[256]; /* byte_fallback: of <0xNN>; -1: none */
};

/* The visible character (UTF-8, at most 2 bytes) that shows a byte in byte-level vocabularies. */
size_t mb_byte_char(uint8_t byte, char out[4]);
int mb_char_byte(uint32_t code); /* and back; -1: shows none */

/* Room for n merges. false: no memory. */
bool mb_bpe_init_merges(struct mb_bpe *bpe, size_t n);

/* false: the pair is there already. */
bool mb_bpe_add_merge(struct mb_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);

/* Fills byte_ids and fallback_ids from the vocabulary. */
void mb_bpe_index_bytes(struct mb_bpe *bpe);
void mb_bpe_free(struct mb_bpe *bpe);

struct mb_bpe_work {
    const struct mb_bpe *bpe;
    struct mb_ids ids;              /* the result */
    struct mb_word_entry *cache;    /* [n_cache]: words seen in this call */
    size_t n_cache;                 /* a power of two */
    struct mb_ids symbols;          /* of the word at hand */
    struct mb_bytes mapped;         /* the word in visible characters */
    struct mb_long_word *long_word; /* arrays for words over some length; made when first needed */
};

/* For a text of about text_nbytes. false: no memory. */
bool mb_bpe_work_init(struct mb_bpe_work *work, const struct mb_bpe *bpe, size_t text_nbytes);
void mb_bpe_work_free(struct mb_bpe_work *work);

/* Appends a word's ids to work->ids. false: no memory. */
bool mb_bpe_word(struct mb_bpe_work *work, const char *word, size_t nbytes);

#endif
