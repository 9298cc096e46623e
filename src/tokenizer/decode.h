/*
 * decode.h - one token after another to bytes, as decode.c and detokenizer.c need it.
 */
#ifndef MB_TOKENIZER_DECODE_H
#define MB_TOKENIZER_DECODE_H

#include "base/buf.h"
#include "tokenizer_impl.h"

/* Zeroed but for the tokenizer. */
struct mb_decoding {
    const struct mb_tokenizer *tokenizer;
    struct mb_bytes text; /* of the tokens so far */
    struct mb_bytes spare[2];
};

/*
 * Appends the text of a token, which the tokenizer has to know, to d->text; 'is_first': no token with a text
 * came before. Strip steps are left to the caller: they are for the whole text. false: no memory.
 */
bool mb_decode_token(struct mb_decoding *d, int32_t id, bool is_first);

void mb_decoding_free(struct mb_decoding *d);

#endif
