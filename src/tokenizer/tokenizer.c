/*
 * tokenizer.c - closes tokenizers, and looks tokens up.
 */
#include "tokenizer_impl.h"

void mb_tokenizer_close(struct mb_tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    mb_bpe_free(&tokenizer->bpe);
    mb_normalizers_free(&tokenizer->normalizers);
    mb_added_free(&tokenizer->raw_added);
    mb_added_free(&tokenizer->normalized_added);
    mb_pretoken_steps_free(&tokenizer->pretoken_steps);
    for (size_t i = 0; i < tokenizer->n_decode_steps; i++) {
        free(tokenizer->decode_steps[i].what);
        free(tokenizer->decode_steps[i].with);
    }
    free(tokenizer->before.p);
    free(tokenizer->after.p);
    free(tokenizer->bos_token);
    free(tokenizer->eos_token);
    free(tokenizer->chat.text);
    free(tokenizer->chat.place);
    free(tokenizer);
}

size_t mb_tokenizer_n_vocab(const struct mb_tokenizer *tokenizer)
{
    return tokenizer->bpe.vocab.n_ids;
}

bool mb_tokenizer_has(const struct mb_tokenizer *tokenizer, int32_t id)
{
    const struct mb_vocab *vocab = &tokenizer->bpe.vocab;
    return id >= 0 && (size_t)id < vocab->n_ids && vocab->tokens[id].exists;
}

int32_t mb_tokenizer_id(const struct mb_tokenizer *tokenizer, const char *content)
{
    return mb_vocab_find(&tokenizer->bpe.vocab, content, strlen(content));
}
