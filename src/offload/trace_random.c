/*
 * trace_random.c - routing by chance with the statistics of a real model.
 *
 * The i-th popular expert of a layer has the weight 1 / (i + c)^2, which gives the share of the most used
 * ones by c; each expert of a token is kept for the next one with a chance r, which gives the overlap; the
 * other places are drawn by weight.  Both are found by trying: tokens of one layer, halving what is left
 * between too little and too much.  All by arithmetic that IEEE 754 rounds exactly: the same trace on every
 * machine.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/splitmix.h"
#include <math.h>
#include <moebius/offload.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOKENS = 1000, N_TRIED = 4096, N_ROUNDS = 5, N_HALVES = 14, N_REJECTED_MAX = 64, TOP = 8 };
static const double flatness_min = 0.02, flatness_max = 1e6, tolerance = 0.01;

struct chance {
    uint64_t state;
};

static double next_share(struct chance *chance) /* 0 to 1, without 1 */
{
    return (double)(mb_splitmix_next(&chance->state) >> 11) * 0x1p-53;
}

struct layer {
    size_t n_experts, n_used;
    double *up_to;  /* [n_experts] sum of the weights up to each, by popularity */
    size_t *expert; /* [n_experts] by popularity */
    bool *is_used;  /* [n_experts] by popularity: of the present token */
    size_t *used;   /* [n_used] by popularity: of the present token */
    double keep;    /* r */
};

static void set_weights(struct layer *layer, double flatness)
{
    double sum = 0;
    for (size_t i = 0; i < layer->n_experts; i++) {
        double x = 1 + (double)i / flatness; /* as 1 / (i + c)^2, times c^2 */
        layer->up_to[i] = sum += 1 / (x * x);
    }
}

static size_t find(const struct layer *layer, double at)
{
    size_t low = 0, high = layer->n_experts - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (layer->up_to[middle] <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* One that is not used yet. */
static size_t draw(const struct layer *layer, struct chance *chance)
{
    for (size_t i = 0; i < N_REJECTED_MAX; i++) {
        size_t e = find(layer, next_share(chance) * layer->up_to[layer->n_experts - 1]);
        if (!layer->is_used[e])
            return e;
    }
    size_t e = 0; /* all that weighs something is used: the most popular of the rest */
    while (layer->is_used[e])
        e++;
    return e;
}

/* The token after the one in 'used'. */
static void step(struct layer *layer, bool is_first, struct chance *chance)
{
    size_t n = 0;
    for (size_t k = 0; k < layer->n_used && !is_first; k++) {
        bool is_kept = next_share(chance) < layer->keep;
        layer->is_used[layer->used[k]] = is_kept;
        if (is_kept)
            layer->used[n++] = layer->used[k];
    }
    for (; n < layer->n_used; n++) {
        layer->used[n] = draw(layer, chance);
        layer->is_used[layer->used[n]] = true;
    }
}

static void begin(struct layer *layer)
{
    memset(layer->is_used, 0, layer->n_experts * sizeof *layer->is_used);
}

/* ---------------------------------------------------------------- finding c and r */

struct tried {
    double top_share, overlap;
};

static struct tried try_layer(struct layer *layer, size_t *uses, bool *before)
{
    struct chance chance = {1};
    size_t n_common = 0, n_top = 0;
    begin(layer);
    memset(uses, 0, layer->n_experts * sizeof *uses);
    for (size_t t = 0; t < N_TRIED; t++) {
        memcpy(before, layer->is_used, layer->n_experts * sizeof *before);
        step(layer, t == 0, &chance);
        for (size_t k = 0; k < layer->n_used; k++) {
            uses[layer->used[k]]++;
            n_common += before[layer->used[k]] ? 1 : 0;
        }
    }
    for (size_t e = 0; e < TOP && e < layer->n_experts; e++)
        n_top += uses[e];
    double n = (double)(N_TRIED * layer->n_used);
    return (struct tried){(double)n_top / n, (double)n_common / (n - (double)layer->n_used)};
}

struct search {
    struct layer layer;
    size_t *uses;    /* [n_experts] */
    bool *before;    /* [n_experts] */
    double flatness; /* c */
};

static struct tried try_flatness(struct search *s, double flatness)
{
    set_weights(&s->layer, flatness);
    return try_layer(&s->layer, s->uses, s->before);
}

/* More flatness, less share; on a logarithmic scale. */
static void find_flatness(struct search *s, double top_share)
{
    double low = flatness_min, high = flatness_max;
    for (int i = 0; i < 2 * N_HALVES; i++) {
        double middle = sqrt(low * high);
        if (try_flatness(s, middle).top_share > top_share)
            low = middle;
        else
            high = middle;
    }
    s->flatness = sqrt(low * high);
    set_weights(&s->layer, s->flatness);
}

static void find_keep(struct search *s, double overlap)
{
    double low = 0, high = 1;
    for (int i = 0; i < N_HALVES; i++) {
        s->layer.keep = (low + high) / 2;
        if (try_layer(&s->layer, s->uses, s->before).overlap < overlap)
            low = s->layer.keep;
        else
            high = s->layer.keep;
    }
}

static enum mb_status find_both(struct search *s, const struct mb_trace_random *random, struct mb_error *err)
{
    s->layer.keep = 0;
    s->flatness = flatness_max;
    set_weights(&s->layer, s->flatness);
    for (int i = 0; i < N_ROUNDS; i++) {
        if (random->top_share > 0)
            find_flatness(s, random->top_share);
        if (random->overlap > 0)
            find_keep(s, random->overlap);
    }
    struct tried tried = try_layer(&s->layer, s->uses, s->before);
    if (random->top_share > 0 && !(fabs(tried.top_share - random->top_share) < tolerance))
        return mb_fail(err, MB_USAGE,
                       "no routing of %zu of %zu experts has %.1f %% of its uses in the %d most used ones",
                       s->layer.n_used, s->layer.n_experts, 100 * random->top_share, TOP);
    if (random->overlap > 0 && !(fabs(tried.overlap - random->overlap) < tolerance))
        return mb_fail(err, MB_USAGE,
                       "an overlap of %.1f %% with the token before: experts as popular as that have %.1f %% "
                       "or more",
                       100 * random->overlap, 100 * tried.overlap);
    return MB_OK;
}

/* ---------------------------------------------------------------- making */

static void shuffle(struct layer *layer, struct chance *chance)
{
    for (size_t i = 0; i < layer->n_experts; i++)
        layer->expert[i] = i;
    for (size_t i = layer->n_experts; i > 1; i--) {
        size_t k = (size_t)(next_share(chance) * (double)i), e = layer->expert[i - 1];
        layer->expert[i - 1] = layer->expert[k];
        layer->expert[k] = e;
    }
}

/* Weights fall evenly and sum to 1. */
static float gate_of(size_t k, size_t n_used)
{
    return (float)(2.0 * (double)(n_used - k) / ((double)n_used * (double)(n_used + 1)));
}

static enum mb_status fill_layer(struct layer *layer, size_t number, uint64_t seed, struct mb_trace *trace,
                                 struct mb_error *err)
{
    struct chance chance = {seed};
    chance.state = mb_splitmix_next(&chance.state) + number * UINT64_C(0xd1342543de82ef95);
    int32_t experts[MB_TRACE_USED_MAX];
    float gates[MB_TRACE_USED_MAX];
    shuffle(layer, &chance);
    begin(layer);
    for (size_t t = 0; t < mb_trace_n_tokens(trace); t++) {
        step(layer, t == 0, &chance);
        for (size_t k = 0; k < layer->n_used; k++) {
            experts[k] = (int32_t)layer->expert[layer->used[k]];
            gates[k] = gate_of(k, layer->n_used);
        }
        MB_TRY(mb_trace_route(trace, t, number, experts, gates, layer->n_used, err));
    }
    return MB_OK;
}

static enum mb_status fill(struct search *s, const struct mb_trace_random *random, struct mb_trace *trace,
                           struct mb_error *err)
{
    MB_TRY(find_both(s, random, err));
    for (size_t t = 0, n = random->n_tokens > 0 ? random->n_tokens : N_TOKENS; t < n; t++)
        MB_TRY(mb_trace_add(trace, 0, true, err));
    for (size_t l = 0; l < random->shape.n_layers; l++)
        MB_TRY(fill_layer(&s->layer, l, random->seed, trace, err));
    return MB_OK;
}

static enum mb_status search_open(struct search *s, const struct mb_trace_shape *shape, struct mb_error *err)
{
    size_t n = shape->n_experts;
    s->layer = (struct layer){.n_experts = n,
                              .n_used = shape->n_used,
                              .up_to = mb_alloc(n, sizeof *s->layer.up_to),
                              .expert = mb_alloc(n, sizeof *s->layer.expert),
                              .is_used = mb_alloc(n, sizeof *s->layer.is_used),
                              .used = mb_alloc(shape->n_used, sizeof *s->layer.used)};
    s->uses = mb_alloc(n, sizeof *s->uses);
    s->before = mb_alloc(n, sizeof *s->before);
    bool is_there = s->layer.up_to != NULL && s->layer.expert != NULL && s->layer.is_used != NULL &&
                    s->layer.used != NULL && s->uses != NULL && s->before != NULL;
    return is_there ? MB_OK : mb_fail_memory(err, "a trace");
}

static void search_close(struct search *s)
{
    free(s->layer.up_to);
    free(s->layer.expert);
    free(s->layer.is_used);
    free(s->layer.used);
    free(s->uses);
    free(s->before);
}

enum mb_status mb_trace_make(const struct mb_trace_random *given, struct mb_trace **trace,
                             struct mb_error *err)
{
    struct mb_trace_random random;
    struct search search = {0};
    MB_TRY(MB_OPTIONS_TAKE(random, given, err));
    if (!(random.top_share >= 0 && random.top_share <= 1 && random.overlap >= 0 && random.overlap <= 1))
        return mb_fail(err, MB_USAGE, "shares of a trace are from 0 to 1");
    MB_TRY(mb_trace_open(&random.shape, NULL, trace, err));
    enum mb_status status = search_open(&search, &random.shape, err);
    if (status == MB_OK)
        status = fill(&search, &random, *trace, err);
    search_close(&search);
    if (status != MB_OK) {
        mb_trace_close(*trace);
        *trace = NULL;
    }
    return status;
}
