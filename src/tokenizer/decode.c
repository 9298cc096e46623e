/*
 * decode.c - ids to text, token by token.
 *
 * Bytes come out as they are; where they are not UTF-8 the `tokenizers` package would show U+FFFD.
 */
#include "decode.h"
#include "base/error.h"
#include "base/utf8.h"
#include "tokenizer_impl.h"
#include <stdio.h>

/* A token with a character that shows no byte (an added one, mostly) is taken as it is. */
static bool put_byte_level(struct mb_bytes *out, const char *token, size_t n)
{
    size_t out_n = out->n;
    if (!mb_bytes_reserve(out, n))
        return false;
    for (size_t i = 0; i < n; i += mb_utf8_nbytes(token[i])) {
        int byte = mb_char_byte(mb_utf8_get(token + i));
        if (byte < 0) {
            out->n = out_n;
            return mb_bytes_put(out, token, n);
        }
        out->p[out->n++] = (char)byte;
    }
    return true;
}

static bool put_replaced(struct mb_bytes *out, const char *token, size_t n, const char *what,
                         const char *with)
{
    size_t n_what = strlen(what);
    const char *end = token + n;
    for (;;) {
        const char *hit = memmem(token, (size_t)(end - token), what, n_what);
        if (!mb_bytes_put(out, token, (size_t)((hit == NULL ? end : hit) - token)))
            return false;
        if (hit == NULL)
            return true;
        if (!mb_bytes_put(out, with, strlen(with)))
            return false;
        token = hit + n_what;
    }
}

static bool put_fallback(struct mb_bytes *out, const char *token, size_t n)
{
    unsigned byte;
    char text[8] = "";
    if (n != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>')
        return mb_bytes_put(out, token, n);
    memcpy(text, token + 3, 2);
    if (strspn(text, "0123456789ABCDEFabcdef") != 2 || sscanf(text, "%x", &byte) != 1)
        return mb_bytes_put(out, token, n);
    char c = (char)byte;
    return mb_bytes_put(out, &c, 1);
}

static bool apply_step(const struct mb_decode_step *step, bool is_first, struct mb_bytes *out,
                       const char *token, size_t n)
{
    switch (step->kind) {
    case MB_DECODE_BYTE_LEVEL:
        return put_byte_level(out, token, n);
    case MB_DECODE_REPLACE:
        return put_replaced(out, token, n, step->what, step->with);
    case MB_DECODE_METASPACE:
        return put_replaced(out, token, n, step->what, is_first && step->drop_first ? "" : " ");
    case MB_DECODE_BYTE_FALLBACK:
        return put_fallback(out, token, n);
    default: /* STRIP is for the whole text */
        return mb_bytes_put(out, token, n);
    }
}

bool mb_decode_token(struct mb_decoding *d, int32_t id, bool is_first)
{
    const struct mb_tokenizer *t = d->tokenizer;
    size_t n;
    const char *token = mb_vocab_content(&t->bpe.vocab, id, &n);
    if (t->added_are_text && t->bpe.vocab.tokens[id].is_added)
        return mb_bytes_put(&d->text, token, n);
    const struct mb_bytes *from = NULL; /* what the step before wrote */
    for (size_t i = 0; i < t->n_decode_steps; i++) {
        struct mb_bytes *to = &d->spare[i % 2];
        to->n = 0;
        if (!mb_bytes_reserve(to, 1) ||
            !apply_step(&t->decode_steps[i], is_first, to, from == NULL ? token : from->p,
                        from == NULL ? n : from->n))
            return false;
        from = to;
    }
    if (from != NULL)
        return mb_bytes_put(&d->text, from->p, from->n);
    return mb_bytes_put(&d->text, token, n);
}

void mb_decoding_free(struct mb_decoding *d)
{
    free(d->text.p);
    free(d->spare[0].p);
    free(d->spare[1].p);
}

/* Takes the characters off both ends of the text. */
static void strip(struct mb_bytes *text, const struct mb_decode_step *step)
{
    size_t n_what = strlen(step->what), begin = 0;
    for (size_t i = 0; i < step->n_start && text->n - begin >= n_what; i++, begin += n_what)
        if (memcmp(text->p + begin, step->what, n_what) != 0)
            break;
    for (size_t i = 0; i < step->n_stop && text->n - begin >= n_what; i++, text->n -= n_what)
        if (memcmp(text->p + text->n - n_what, step->what, n_what) != 0)
            break;
    text->n -= begin;
    memmove(text->p, text->p + begin, text->n);
}

static enum mb_status decode_all(struct mb_decoding *d, const int32_t *ids, size_t n_ids, bool skip_special,
                                 struct mb_error *err)
{
    const struct mb_vocab *vocab = &d->tokenizer->bpe.vocab;
    bool is_first = true;
    if (!mb_bytes_reserve(&d->text, n_ids * 4 + 1))
        return mb_fail_memory(err, "the text of the tokens");
    for (size_t i = 0; i < n_ids; i++) {
        if (!mb_tokenizer_has(d->tokenizer, ids[i]))
            return mb_fail(err, MB_BAD_DATA, "id %d at position %zu is not in the vocabulary", ids[i], i);
        if (skip_special && vocab->tokens[ids[i]].is_special)
            continue;
        if (!mb_decode_token(d, ids[i], is_first))
            return mb_fail_memory(err, "the text of the tokens");
        is_first = false;
    }
    for (size_t i = 0; i < d->tokenizer->n_decode_steps; i++)
        if (d->tokenizer->decode_steps[i].kind == MB_DECODE_STRIP)
            strip(&d->text, &d->tokenizer->decode_steps[i]);
    return mb_bytes_put(&d->text, "", 1) ? MB_OK : mb_fail_memory(err, "the text of the tokens");
}

enum mb_status mb_tokenizer_decode(const struct mb_tokenizer *tokenizer, const int32_t *ids, size_t n_ids,
                                   bool skip_special, char **text, size_t *text_nbytes, struct mb_error *err)
{
    struct mb_decoding d = {.tokenizer = tokenizer};
    enum mb_status status = decode_all(&d, ids, n_ids, skip_special, err);
    if (status == MB_OK) {
        *text = d.text.p;
        *text_nbytes = d.text.n - 1;
        d.text.p = NULL; /* the caller's now */
    }
    mb_decoding_free(&d);
    return status;
}
