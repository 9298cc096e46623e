/*
 * trace.c - routing in memory, token by token.
 */
#include "trace.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/memory.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOP = 8, N_FIRST = 128 };

static enum mb_status check_shape(const struct mb_trace_shape *shape, struct mb_error *err)
{
    if (shape->n_layers == 0 || shape->n_experts == 0 || shape->n_used == 0 ||
        shape->n_used > shape->n_experts || shape->n_used > MB_TRACE_USED_MAX ||
        shape->n_experts >= MB_TRACE_NONE || shape->n_layers > MB_POLICY_EXPERTS_MAX / shape->n_experts)
        return mb_fail(err, MB_USAGE,
                       "a trace of %zu layers of %zu experts, of which a token uses %zu: at most %d experts "
                       "together, %d a layer, %d used",
                       shape->n_layers, shape->n_experts, shape->n_used, MB_POLICY_EXPERTS_MAX,
                       MB_TRACE_NONE - 1, MB_TRACE_USED_MAX);
    return MB_OK;
}

enum mb_status mb_trace_open(const struct mb_trace_shape *shape, const uint32_t *layers,
                             struct mb_trace **trace, struct mb_error *err)
{
    *trace = NULL;
    MB_TRY(check_shape(shape, err));
    for (size_t l = 1; layers != NULL && l < shape->n_layers; l++)
        if (layers[l] <= layers[l - 1])
            return mb_fail(err, MB_USAGE, "a trace whose layers are not in order: %u after %u",
                           (unsigned)layers[l], (unsigned)layers[l - 1]);
    struct mb_trace *made = calloc(1, sizeof *made);
    uint32_t *copy = mb_alloc(shape->n_layers, sizeof *copy);
    if (made == NULL || copy == NULL) {
        free(made);
        free(copy);
        return mb_fail_memory(err, "a trace");
    }
    for (size_t l = 0; l < shape->n_layers; l++)
        copy[l] = layers != NULL ? layers[l] : (uint32_t)l;
    made->shape = *shape;
    made->layers = copy;
    *trace = made;
    return MB_OK;
}

void mb_trace_close(struct mb_trace *trace)
{
    if (trace == NULL)
        return;
    free(trace->layers);
    free(trace->sequences);
    free(trace->generated);
    free(trace->experts);
    free(trace->gates);
    free(trace);
}

const struct mb_trace_shape *mb_trace_shape(const struct mb_trace *trace)
{
    return &trace->shape;
}

const uint32_t *mb_trace_layers(const struct mb_trace *trace)
{
    return trace->layers;
}

size_t mb_trace_n_tokens(const struct mb_trace *trace)
{
    return trace->n_tokens;
}

struct mb_trace_token mb_trace_token(const struct mb_trace *trace, size_t i)
{
    size_t at = i * mb_trace_row(trace);
    return (struct mb_trace_token){trace->sequences[i], trace->generated[i], trace->experts + at,
                                   trace->gates + at};
}

size_t mb_trace_find_layer(const struct mb_trace *trace, size_t layer)
{
    size_t low = 0, high = trace->shape.n_layers;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trace->layers[middle] < layer)
            low = middle + 1;
        else
            high = middle;
    }
    return low < trace->shape.n_layers && trace->layers[low] == layer ? low : SIZE_MAX;
}

/* ---------------------------------------------------------------- filling */

static bool reserve(struct mb_trace *trace)
{
    size_t n = trace->n_tokens, row = mb_trace_row(trace);
    void *sequences = trace->sequences, *generated = trace->generated, *experts = trace->experts,
         *gates = trace->gates;
    bool is_there = mb_grow(&sequences, &trace->sequences_cap, n, 1, sizeof *trace->sequences) &&
                    mb_grow(&generated, &trace->generated_cap, n, 1, sizeof *trace->generated) &&
                    mb_grow(&experts, &trace->experts_cap, n * row, row, sizeof *trace->experts) &&
                    mb_grow(&gates, &trace->gates_cap, n * row, row, sizeof *trace->gates);
    trace->sequences = sequences;
    trace->generated = generated;
    trace->experts = experts;
    trace->gates = gates;
    return is_there;
}

enum mb_status mb_trace_add(struct mb_trace *trace, uint32_t sequence, bool is_generated,
                            struct mb_error *err)
{
    size_t n = trace->n_tokens, row = mb_trace_row(trace);
    uint32_t last = n > 0 ? trace->sequences[n - 1] : 0;
    if (sequence != last && (n == 0 || sequence - last != 1))
        return mb_fail(err, MB_USAGE, "sequence %u follows sequence %u: sequences are 0, 1, 2, ...",
                       (unsigned)sequence, (unsigned)last);
    if (n == MB_TRACE_TOKENS_MAX)
        return mb_fail(err, MB_USAGE, "a trace has at most %d tokens", MB_TRACE_TOKENS_MAX);
    if (!reserve(trace))
        return mb_fail_memory(err, "a trace");
    trace->sequences[n] = sequence;
    trace->generated[n] = is_generated;
    for (size_t k = 0; k < row; k++) {
        trace->experts[n * row + k] = MB_TRACE_NONE;
        trace->gates[n * row + k] = 0;
    }
    trace->n_tokens++;
    return MB_OK;
}

enum mb_status mb_trace_route(struct mb_trace *trace, size_t i, size_t layer, const int32_t *experts,
                              const float *gates, size_t n_used, struct mb_error *err)
{
    size_t l = mb_trace_find_layer(trace, layer);
    if (i >= trace->n_tokens || l == SIZE_MAX || n_used != trace->shape.n_used)
        return mb_fail(err, MB_USAGE, "a trace has no token %zu that uses %zu experts in layer %zu", i,
                       n_used, layer);
    size_t at = i * mb_trace_row(trace) + l * n_used;
    for (size_t k = 0; k < n_used; k++) {
        if (experts[k] < 0 || (size_t)experts[k] >= trace->shape.n_experts)
            return mb_fail(err, MB_USAGE, "layer %zu has no expert %d", layer, (int)experts[k]);
        for (size_t other = 0; other < k; other++)
            if (experts[other] == experts[k])
                return mb_fail(err, MB_USAGE, "layer %zu: expert %d is there twice", layer, (int)experts[k]);
    }
    for (size_t k = 0; k < n_used; k++) {
        trace->experts[at + k] = (uint16_t)experts[k];
        trace->gates[at + k] = gates[k];
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- statistics */

static const uint16_t *row_of(const struct mb_trace *trace, size_t token, size_t layer)
{
    return trace->experts + token * mb_trace_row(trace) + layer * trace->shape.n_used;
}

static size_t n_common(const uint16_t *a, const uint16_t *b, size_t n)
{
    size_t n_found = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++)
            n_found += a[i] == b[k] ? 1 : 0;
    return n_found;
}

/* With the token that is 'lag' before it, where both are of one sequence and pass the layer. */
static double overlap(const struct mb_trace *trace, size_t lag)
{
    uint64_t n_found = 0, n = 0;
    for (size_t t = lag; t < trace->n_tokens; t++) {
        if (trace->sequences[t] != trace->sequences[t - lag])
            continue;
        for (size_t l = 0; l < trace->shape.n_layers; l++) {
            const uint16_t *now = row_of(trace, t, l), *before = row_of(trace, t - lag, l);
            if (*now == MB_TRACE_NONE || *before == MB_TRACE_NONE)
                continue;
            n_found += n_common(now, before, trace->shape.n_used);
            n += trace->shape.n_used;
        }
    }
    return n > 0 ? (double)n_found / (double)n : NAN;
}

/* Uses of each expert of a layer by the first n_tokens. Returns all together. */
static uint64_t count(const struct mb_trace *trace, size_t layer, size_t n_tokens, uint64_t *uses)
{
    uint64_t n = 0;
    memset(uses, 0, trace->shape.n_experts * sizeof *uses);
    for (size_t t = 0; t < n_tokens; t++) {
        const uint16_t *row = row_of(trace, t, layer);
        for (size_t k = 0; k < trace->shape.n_used && *row != MB_TRACE_NONE; k++) {
            uses[row[k]]++;
            n++;
        }
    }
    return n;
}

static int from_most(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

enum mb_status mb_trace_statistics(const struct mb_trace *trace, struct mb_trace_statistics *s,
                                   struct mb_error *err)
{
    size_t n_experts = trace->shape.n_experts, n_layers = trace->shape.n_layers;
    uint64_t *uses = mb_alloc(n_experts, sizeof *uses), n_top = 0, n = 0, n_used = 0;
    if (uses == NULL)
        return mb_fail_memory(err, "statistics of a trace");
    for (size_t l = 0; l < n_layers; l++) {
        n += count(trace, l, trace->n_tokens, uses);
        qsort(uses, n_experts, sizeof *uses, from_most);
        for (size_t e = 0; e < TOP && e < n_experts; e++)
            n_top += uses[e];
        if (trace->n_tokens < N_FIRST)
            continue;
        count(trace, l, N_FIRST, uses);
        for (size_t e = 0; e < n_experts; e++)
            n_used += uses[e] > 0 ? 1 : 0;
    }
    free(uses);
    s->top_share = n > 0 ? (double)n_top / (double)n : NAN;
    s->overlap = overlap(trace, 1);
    s->overlap_8 = overlap(trace, 8);
    s->in_128 = trace->n_tokens >= N_FIRST ? (double)n_used / (double)n_layers : NAN;
    return MB_OK;
}
