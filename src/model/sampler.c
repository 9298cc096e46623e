/*
 * sampler.c - picks the next token: greedy, or by chance as llama.cpp's chain does it (top-k, top-p, min-p,
 * then temperature).  The generator is xoshiro256** (public domain, prng.di.unimi.it), seeded by splitmix64.
 */
#include "base/error.h"
#include "base/options.h"
#include "base/splitmix.h"
#include "float_ops.h"
#include <math.h>
#include <moebius/engine.h>
#include <stdint.h>
#include <string.h>

static uint64_t rotate_left(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

static uint64_t next_random(uint64_t s[4])
{
    uint64_t result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

static enum mb_status check_number(const char *what, float x, struct mb_error *err)
{
    return x >= 0 ? MB_OK : mb_fail(err, MB_USAGE, "sampling: %s has to be 0 or more", what); /* also NaN */
}

enum mb_status mb_sampler_init(struct mb_sampler *sampler, const struct mb_sampler_options *options,
                               struct mb_error *err)
{
    struct mb_sampler_options o;
    MB_TRY(MB_OPTIONS_TAKE(o, options, err));
    MB_TRY(check_number("temperature", o.temperature, err));
    MB_TRY(check_number("top-p", o.top_p, err));
    MB_TRY(check_number("min-p", o.min_p, err));
    uint64_t seed = o.seed;
    sampler->options = o;
    for (size_t i = 0; i < 4; i++)
        sampler->state[i] = mb_splitmix_next(&seed);
    return MB_OK;
}

/* Token ids that may be picked, and room for their probabilities. */
struct candidates {
    const float *logits;
    float *weight; /* [n] */
    int32_t *id;   /* [n] */
    size_t n;
    float most; /* the largest logit */
};

/* a comes before b: the larger logit, the lower id among equals. */
static bool is_before(const float *logits, int32_t a, int32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* Makes ids [0, n) a heap again, where only 'at' may be smaller than what is below it. */
static void sift_down(const float *logits, int32_t *id, size_t at, size_t n)
{
    for (;;) {
        size_t best = at, left = 2 * at + 1;
        for (size_t child = left; child < left + 2 && child < n; child++)
            if (is_before(logits, id[child], id[best]))
                best = child;
        if (best == at)
            return;
        int32_t swapped = id[at];
        id[at] = id[best];
        id[best] = swapped;
        at = best;
    }
}

/*
 * Keeps the n_most largest, or as many of the largest as reach 'mass' of the sum of exp(logit - most).  They
 * are popped off a heap into the room that it leaves at its end, the largest last, and then turned round.
 */
static void keep_largest(struct candidates *c, size_t n_most, double mass)
{
    size_t n_heap = c->n;
    double sum = 0;
    for (size_t at = n_heap / 2; at-- > 0;)
        sift_down(c->logits, c->id, at, n_heap);
    while (n_heap > 0 && c->n - n_heap < n_most && sum < mass) {
        int32_t top = c->id[0];
        c->id[0] = c->id[--n_heap];
        c->id[n_heap] = top;
        sift_down(c->logits, c->id, 0, n_heap);
        float weight = c->logits[top];
        mb_float_ops()->exp_sum(&weight, 1, 1, c->most);
        sum += (double)weight;
    }
    size_t n_kept = c->n - n_heap;
    memmove(c->id, c->id + n_heap, n_kept * sizeof *c->id);
    for (size_t i = 0; i < n_kept / 2; i++) {
        int32_t swapped = c->id[i];
        c->id[i] = c->id[n_kept - 1 - i];
        c->id[n_kept - 1 - i] = swapped;
    }
    c->n = n_kept;
}

/* weight = exp((logit - most) / temperature); returns their sum. */
static double weigh(struct candidates *c, float temperature)
{
    for (size_t i = 0; i < c->n; i++)
        c->weight[i] = c->logits[c->id[i]] - c->most;
    mb_float_ops()->exp_sum(c->weight, c->n, 1.0F / temperature, 0);
    double sum = 0;
    for (size_t i = 0; i < c->n; i++)
        sum += (double)c->weight[i];
    return sum;
}

static void keep_probable(struct candidates *c, float min_p)
{
    size_t n = 0;
    weigh(c, 1);
    for (size_t i = 0; i < c->n; i++)
        if (c->weight[i] >= min_p || c->logits[c->id[i]] == c->most)
            c->id[n++] = c->id[i];
    c->n = n;
}

static int32_t draw(struct mb_sampler *sampler, struct candidates *c)
{
    double left = weigh(c, sampler->options.temperature);
    left *= (double)(next_random(sampler->state) >> 11) * 0x1p-53;
    for (size_t i = 0; i + 1 < c->n; i++) {
        left -= (double)c->weight[i];
        if (left < 0)
            return c->id[i];
    }
    return c->id[c->n - 1];
}

enum mb_status mb_sampler_pick(struct mb_sampler *sampler, const float *logits, size_t n_vocab, void *scratch,
                               int32_t *token, struct mb_error *err)
{
    const struct mb_sampler_options *o = &sampler->options;
    size_t best = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        if (logits[i] != logits[i])
            return mb_fail(err, MB_BAD_DATA, "the logit of token %zu is NaN", i);
        best = logits[i] > logits[best] ? i : best;
    }
    *token = (int32_t)best;
    if (!(o->temperature > 0))
        return MB_OK;
    if (!isfinite(logits[best]))
        return mb_fail(err, MB_BAD_DATA, "the largest logit is infinite");
    struct candidates c = {.logits = logits, .weight = scratch, .n = n_vocab, .most = logits[best]};
    c.id = (int32_t *)(c.weight + n_vocab);
    for (size_t i = 0; i < n_vocab; i++)
        c.id[i] = (int32_t)i;
    if (o->top_k > 0 && (size_t)o->top_k < c.n)
        keep_largest(&c, (size_t)o->top_k, INFINITY);
    if (o->top_p < 1)
        keep_largest(&c, SIZE_MAX, (double)o->top_p * weigh(&c, 1));
    if (c.n == 0) /* top-p of 0 */
        return MB_OK;
    if (o->min_p > 0)
        keep_probable(&c, o->min_p);
    *token = draw(sampler, &c);
    return MB_OK;
}
