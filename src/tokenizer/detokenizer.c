/*
 * detokenizer.c - text while tokens come: bytes of tokens, strips at both ends of the text, whole characters.
 *
 * Bytes run through one stage after another.  Each holds what it cannot decide yet: a strip what may be the
 * end of the text, the last stage the beginning of a character.
 */
#include "base/error.h"
#include "base/utf8.h"
#include "decode.h"
#include <moebius/tokenizer.h>
#include <stdlib.h>
#include <string.h>

/* A strip step of the decoder in a stream. */
struct strip {
    const struct mb_decode_step *step;
    size_t n_what;
    size_t n_start_left; /* characters that may still go at the start; 0 once something else came */
    struct mb_bytes held;
};

struct mb_detokenizer {
    struct mb_decoding decoding; /* text: bytes on their way through the stages */
    bool skip_special, is_first;
    struct strip strips[MB_DECODE_STEPS_MAX];
    size_t n_strips;
    struct mb_bytes held; /* bytes that wait for the rest of their character */
    struct mb_bytes out;
};

/* ---------------------------------------------------------------- strips */

/* How many bytes of held go at the start of the text. */
static size_t strip_start(struct strip *s)
{
    size_t begin = 0;
    while (s->n_start_left > 0 && s->held.n - begin >= s->n_what) {
        bool is_what = memcmp(s->held.p + begin, s->step->what, s->n_what) == 0;
        begin += is_what ? s->n_what : 0;
        s->n_start_left = is_what ? s->n_start_left - 1 : 0;
    }
    if (s->n_start_left > 0 && memcmp(s->held.p + begin, s->step->what, s->held.n - begin) != 0)
        s->n_start_left = 0;
    return begin;
}

/* Whether p[0 .. n) is the character again and again; the last time perhaps the beginning of it. */
static bool repeats(const struct strip *s, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != s->step->what[i % s->n_what])
            return false;
    return true;
}

/* The longest end of p[0 .. n) that goes should the text end there or soon. */
static size_t undecided_end(const struct strip *s, const char *p, size_t n)
{
    size_t end = n / s->n_what < s->step->n_stop ? n : s->step->n_stop * s->n_what;
    while (!repeats(s, p + n - end, end))
        end--;
    return end;
}

/* The bytes of p[0 .. n) that go, the text ending there. */
static size_t strip_stop(const struct strip *s, const char *p, size_t n)
{
    size_t end = 0;
    for (size_t i = 0; i < s->step->n_stop && n - end >= s->n_what; i++, end += s->n_what)
        if (memcmp(p + n - end - s->n_what, s->step->what, s->n_what) != 0)
            break;
    return end;
}

/* 'text' goes in and what is decided comes out of it. false: no memory. */
static bool run_strip(struct strip *s, struct mb_bytes *text, bool is_end)
{
    if (!mb_bytes_put(&s->held, text->p, text->n))
        return false;
    text->n = 0;
    if (s->held.n == 0)
        return true;
    size_t begin = strip_start(s), n = s->held.n - begin, n_kept;
    const char *rest = s->held.p + begin;
    if (is_end)
        n_kept = strip_stop(s, rest, n);
    else
        n_kept = s->n_start_left > 0 ? n : undecided_end(s, rest, n);
    if (!mb_bytes_put(text, rest, n - n_kept))
        return false;
    memmove(s->held.p, rest + n - n_kept, n_kept);
    s->held.n = is_end ? 0 : n_kept;
    return true;
}

/* ---------------------------------------------------------------- characters */

/* The text's bytes become out, but for those that begin a character at its end. */
static bool put_characters(struct mb_detokenizer *d, bool is_end)
{
    struct mb_bytes *held = &d->held, *text = &d->decoding.text;
    if (!mb_bytes_put(held, text->p, text->n))
        return false;
    size_t n = is_end ? held->n : mb_utf8_whole(held->p, held->n);
    if (n > 0) {
        if (!mb_utf8_replace(&d->out, held->p, n))
            return false;
        memmove(held->p, held->p + n, held->n - n);
        held->n -= n;
    }
    return mb_bytes_put(&d->out, "", 1);
}

static enum mb_status finish_step(struct mb_detokenizer *d, bool is_end, const char **text,
                                  size_t *text_nbytes, struct mb_error *err)
{
    bool is_done = true;
    d->out.n = 0;
    for (size_t i = 0; i < d->n_strips && is_done; i++)
        is_done = run_strip(&d->strips[i], &d->decoding.text, is_end);
    if (!is_done || !put_characters(d, is_end))
        return mb_fail_memory(err, "the text of the tokens");
    *text = d->out.p;
    *text_nbytes = d->out.n - 1;
    return MB_OK;
}

/* ---------------------------------------------------------------- the interface */

enum mb_status mb_detokenizer_open(const struct mb_tokenizer *tokenizer, bool skip_special,
                                   struct mb_detokenizer **detokenizer, struct mb_error *err)
{
    struct mb_detokenizer *d = calloc(1, sizeof *d);
    if (d == NULL)
        return mb_fail_memory(err, "the detokenizer");
    d->decoding.tokenizer = tokenizer;
    d->skip_special = skip_special;
    for (size_t i = 0; i < tokenizer->n_decode_steps; i++) {
        const struct mb_decode_step *step = &tokenizer->decode_steps[i];
        if (step->kind == MB_DECODE_STRIP && step->what[0] != '\0')
            d->strips[d->n_strips++] = (struct strip){.step = step, .n_what = strlen(step->what)};
    }
    mb_detokenizer_reset(d);
    *detokenizer = d;
    return MB_OK;
}

void mb_detokenizer_close(struct mb_detokenizer *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->n_strips; i++)
        free(d->strips[i].held.p);
    mb_decoding_free(&d->decoding);
    free(d->held.p);
    free(d->out.p);
    free(d);
}

void mb_detokenizer_reset(struct mb_detokenizer *d)
{
    d->is_first = true;
    d->held.n = 0;
    for (size_t i = 0; i < d->n_strips; i++) {
        d->strips[i].held.n = 0;
        d->strips[i].n_start_left = d->strips[i].step->n_start;
    }
}

enum mb_status mb_detokenizer_add(struct mb_detokenizer *d, const int32_t *ids, size_t n_ids,
                                  const char **text, size_t *text_nbytes, struct mb_error *err)
{
    const struct mb_tokenizer *tokenizer = d->decoding.tokenizer;
    d->decoding.text.n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        if (!mb_tokenizer_has(tokenizer, ids[i]) ||
            (d->skip_special && tokenizer->bpe.vocab.tokens[ids[i]].is_special))
            continue;
        if (!mb_decode_token(&d->decoding, ids[i], d->is_first))
            return mb_fail_memory(err, "the text of the tokens");
        d->is_first = false;
    }
    return finish_step(d, false, text, text_nbytes, err);
}

enum mb_status mb_detokenizer_flush(struct mb_detokenizer *d, const char **text, size_t *text_nbytes,
                                    struct mb_error *err)
{
    d->decoding.text.n = 0;
    MB_TRY(finish_step(d, true, text, text_nbytes, err));
    mb_detokenizer_reset(d);
    return MB_OK;
}
