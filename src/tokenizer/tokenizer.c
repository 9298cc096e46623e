/*
 * tokenizer.c - closes tokenizers, and looks tokens up.
 */
#include "tokenizer_impl.h"

void mb_templates_free(struct mb_tokenizer *tokenizer)
{
    for (size_t i = 0; i < tokenizer->n_templates; i++) {
        free(tokenizer->templates[i].name);
        free(tokenizer->templates[i].text);
        free(tokenizer->templates[i].place);
    }
    free(tokenizer->templates);
    tokenizer->templates = NULL;
    tokenizer->n_templates = 0;
}

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
    free(tokenizer->added.items);
    for (size_t i = 0; i < tokenizer->n_names; i++) {
        free(tokenizer->names[i].key);
        free(tokenizer->names[i].content);
    }
    free(tokenizer->names);
    mb_templates_free(tokenizer);
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
