/*
 * added.h - added tokens: found in the text before anything else looks at it.
 *
 * Leftmost match first, the longest among those that begin there, and no overlaps: what the `tokenizers`
 * package does.
 */
#ifndef MB_TOKENIZER_ADDED_H
#define MB_TOKENIZER_ADDED_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MB_ADDED_NBYTES_MAX = 1024 }; /* of a token: bounds the time of a search */

struct mb_added_token {
    int32_t id;
    bool single_word;    /* only between characters that are not part of a word */
    bool lstrip, rstrip; /* takes the white space beside it */
};

struct mb_trie_node {
    uint32_t child, sibling; /* 0: none */
    int32_t token;           /* index into tokens; -1: none ends here */
    uint8_t byte;
};

struct mb_added {
    struct mb_added_token *tokens;
    struct mb_trie_node *nodes; /* node 0 is the root */
    size_t n_tokens, tokens_cap, n_nodes, nodes_cap;
    uint32_t first[256]; /* the root's child by byte; 0: none */
};

/* 'content' has 1 .. MB_ADDED_NBYTES_MAX bytes; the first of two tokens with one content counts. */
bool mb_added_put(struct mb_added *added, const char *content, size_t nbytes, struct mb_added_token token);
void mb_added_free(struct mb_added *added);

struct mb_added_match {
    size_t begin, end; /* of the token with the white space that it takes */
    int32_t id;
};

/*
 * Finds the next token from *pos on, whose text may begin no earlier than 'floor' (what earlier tokens have
 * taken); moves *pos past its content. false: none.
 */
bool mb_added_next(const struct mb_added *added, const char *text, size_t n, size_t *pos, size_t floor,
                   struct mb_added_match *match);

#endif
