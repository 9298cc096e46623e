/*
 * vocab.c - an open-addressing table from contents to ids.
 */
#define XXH_INLINE_ALL
#include "vocab.h"
#include <sys/random.h>
#include <time.h>
#include <xxhash.h>

uint64_t mb_random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed)
        return seed;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u;
}

static size_t slots_for(size_t n_tokens)
{
    size_t n_slots = 64;
    while (n_slots < n_tokens * 2)
        n_slots *= 2;
    return n_slots;
}

bool mb_vocab_init(struct mb_vocab *vocab, size_t n)
{
    *vocab = (struct mb_vocab){.n_slots = slots_for(n), .seed = mb_random_seed()};
    vocab->slots = calloc(vocab->n_slots, sizeof *vocab->slots);
    /* Text is there even when the only token is the empty one: NULL + 0 is not defined. */
    return vocab->slots != NULL && mb_bytes_reserve(&vocab->text, 1);
}

void mb_vocab_free(struct mb_vocab *vocab)
{
    free(vocab->text.p);
    free(vocab->tokens);
    free(vocab->slots);
    *vocab = (struct mb_vocab){0};
}

/* The slot of a content, or the empty one where it would go. */
static size_t find_slot(const struct mb_vocab *vocab, const char *content, size_t nbytes)
{
    size_t i = XXH3_64bits_withSeed(content, nbytes, vocab->seed) & (vocab->n_slots - 1);
    for (; vocab->slots[i] != 0; i = (i + 1) & (vocab->n_slots - 1)) {
        const struct mb_token *token = &vocab->tokens[vocab->slots[i] - 1];
        if (token->nbytes == nbytes && memcmp(vocab->text.p + token->pos, content, nbytes) == 0)
            break;
    }
    return i;
}

static bool grow_slots(struct mb_vocab *vocab)
{
    size_t n_slots = slots_for(vocab->n_tokens + 1);
    if (n_slots <= vocab->n_slots)
        return true;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (slots == NULL)
        return false;
    free(vocab->slots);
    vocab->slots = slots;
    vocab->n_slots = n_slots;
    for (size_t id = 0; id < vocab->n_ids; id++) {
        const struct mb_token *token = &vocab->tokens[id];
        if (token->exists)
            slots[find_slot(vocab, vocab->text.p + token->pos, token->nbytes)] = (uint32_t)id + 1;
    }
    return true;
}

static bool reach_id(struct mb_vocab *vocab, size_t id)
{
    if (id < vocab->n_ids)
        return true;
    void *tokens = vocab->tokens;
    size_t n_more = id + 1 - vocab->n_ids;
    if (!mb_grow(&tokens, &vocab->tokens_cap, vocab->n_ids, n_more, sizeof *vocab->tokens))
        return false;
    vocab->tokens = tokens;
    memset(vocab->tokens + vocab->n_ids, 0, n_more * sizeof *vocab->tokens);
    vocab->n_ids = id + 1;
    return true;
}

enum mb_vocab_put mb_vocab_put(struct mb_vocab *vocab, const char *content, size_t nbytes, int32_t id)
{
    if (!grow_slots(vocab) || !reach_id(vocab, (size_t)id))
        return MB_VOCAB_NO_MEMORY;
    size_t slot = find_slot(vocab, content, nbytes);
    if (vocab->slots[slot] != 0)
        return MB_VOCAB_SAME_CONTENT;
    struct mb_token *token = &vocab->tokens[id];
    if (token->exists)
        return MB_VOCAB_SAME_ID;
    size_t pos = vocab->text.n;
    if (pos > UINT32_MAX - nbytes || !mb_bytes_put(&vocab->text, content, nbytes))
        return MB_VOCAB_NO_MEMORY;
    *token = (struct mb_token){.pos = (uint32_t)pos, .nbytes = (uint32_t)nbytes, .exists = true};
    vocab->slots[slot] = (uint32_t)id + 1;
    vocab->n_tokens++;
    return MB_VOCAB_PUT;
}

int32_t mb_vocab_find(const struct mb_vocab *vocab, const char *content, size_t nbytes)
{
    return (int32_t)vocab->slots[find_slot(vocab, content, nbytes)] - 1;
}
