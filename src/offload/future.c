/*
 * future.c - all uses of a trace, expert by expert.
 */
#include "future.h"
#include "base/error.h"
#include "base/memory.h"
#include <stdlib.h>

/* Calls for each use that counts: fn adds it to its expert. */
static void each_use(struct mb_future *future, const struct mb_trace *trace, bool has_prompts,
                     void (*fn)(struct mb_future *future, size_t expert, size_t token))
{
    size_t n_used = mb_trace_shape(trace)->n_used;
    for (size_t t = 0; t < mb_trace_n_tokens(trace); t++) {
        struct mb_trace_token token = mb_trace_token(trace, t);
        for (size_t i = 0; i < future->n_layers * n_used && (token.is_generated || has_prompts); i++)
            if (token.experts[i] != MB_TRACE_NONE)
                fn(future, i / n_used * future->n_experts + token.experts[i], t);
    }
}

static void count(struct mb_future *future, size_t expert, size_t token)
{
    (void)token;
    future->first[expert + 1]++;
}

static void put(struct mb_future *future, size_t expert, size_t token)
{
    future->tokens[future->at[expert]++] = (uint32_t)token;
}

enum mb_status mb_future_open(struct mb_future *future, const struct mb_trace *trace, bool has_prompts,
                              struct mb_error *err)
{
    future->n_layers = mb_trace_shape(trace)->n_layers;
    future->n_experts = mb_trace_shape(trace)->n_experts;
    size_t n = future->n_layers * future->n_experts;
    future->first = mb_alloc(n + 1, sizeof *future->first);
    future->at = mb_alloc(n, sizeof *future->at);
    if (future->first == NULL || future->at == NULL)
        return mb_fail_memory(err, "the future of a trace");
    each_use(future, trace, has_prompts, count);
    for (size_t e = 0; e < n; e++) {
        future->first[e + 1] += future->first[e];
        future->at[e] = future->first[e];
    }
    future->tokens = mb_alloc(future->first[n], sizeof *future->tokens);
    if (future->tokens == NULL)
        return mb_fail_memory(err, "the future of a trace");
    each_use(future, trace, has_prompts, put);
    for (size_t e = 0; e < n; e++)
        future->at[e] = future->first[e];
    return MB_OK;
}

void mb_future_close(struct mb_future *future)
{
    free(future->first);
    free(future->at);
    free(future->tokens);
    *future = (struct mb_future){0};
}

uint64_t mb_future_next(struct mb_future *future, size_t expert, size_t token)
{
    size_t *at = &future->at[expert];
    while (*at < future->first[expert + 1] && future->tokens[*at] <= token)
        (*at)++;
    if (*at == future->first[expert + 1])
        return UINT64_MAX;
    return (uint64_t)future->tokens[*at] * future->n_layers + expert / future->n_experts;
}
