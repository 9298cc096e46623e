/*
 * fuzz_trace.c - traces of routing, and what a simulation does with those that are sound.
 */
#include "fuzz.h"
#include <moebius/offload.h>
#include <stdlib.h>

enum { N_EXPERTS_MAX = 4096, N_TOKENS_MAX = 256 };

static void replay(const struct mb_trace *trace)
{
    static uint64_t nbytes[N_EXPERTS_MAX];
    const struct mb_trace_shape *shape = mb_trace_shape(trace);
    struct mb_trace_statistics statistics;
    struct mb_simulation result;
    size_t n = shape->n_layers * shape->n_experts;
    if (n > N_EXPERTS_MAX || mb_trace_n_tokens(trace) > N_TOKENS_MAX)
        return;
    for (size_t e = 0; e < n; e++)
        nbytes[e] = 1 + e % 3;
    mb_trace_statistics(trace, &statistics, NULL);
    static const char *const policies[] = {NULL, "lru", "hobbit", "belady"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        struct mb_simulation_options options = {.size = sizeof options,
                                                .policy = policies[i],
                                                .memory_nbytes = 3 * shape->n_used + n / 2,
                                                .nbytes = nbytes,
                                                .link = {sizeof options.link, 1000, 10, 2},
                                                .lookahead = i * 0.3};
        if (mb_simulate(trace, &options, &result, NULL) != MB_OK || result.n_hits > result.n_uses)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mb_trace *trace;
    struct mb_error err;
    if (mb_trace_parse("trace", (const char *)data, size, &trace, &err) != MB_OK)
        return 0;
    replay(trace);
    mb_trace_close(trace);
    return 0;
}
