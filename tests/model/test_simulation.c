/*
 * test_simulation.c - the store and the simulator of offload.h do the same: what one finds in memory, the
 * other finds too.
 */
#include "cmocka_all.h"
#include "coded_reference.h"
#include <moebius/engine.h>
#include <moebius/offload.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LAYERS = 8, N_EXPERTS = 16, N_USED = 3, N_TOKENS = 120, FIRST_LAYER = 1 };

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static enum mb_status open_with(uint64_t limit, const char *policy, struct mb_model **model,
                                struct mb_error *err)
{
    const struct mb_model_options options = {.size = sizeof options,
                                             .n_threads = 2,
                                             .memory_nbytes = limit,
                                             .n_ctx = N_TOKENS,
                                             .expert_policy = policy,
                                             .lookahead = MB_LOOKAHEAD_OFF};
    return mb_model_open(test_path("coded"), &options, model, err);
}

/* A model that has room for n_held of its experts, or a few more. */
static struct mb_model *open_holding(const char *policy, size_t n_held)
{
    struct mb_model *model;
    struct mb_error err;
    unsigned long n_mib = 0;
    assert_int_equal(open_with(1 << 20, policy, &model, &err), MB_NO_MEMORY);
    const char *words = strstr(err.msg, "at least ");
    if (words == NULL || sscanf(words, "at least %lu MiB", &n_mib) != 1)
        fail_msg("no limit that works: %s", err.msg);
    for (uint64_t limit = (uint64_t)n_mib << 20;; limit += 1 << 19) {
        enum mb_status status = open_with(limit, policy, &model, &err);
        if (status == MB_NO_MEMORY)
            continue;
        must(status, &err);
        if (mb_model_info(model)->memory.n_experts_held >= n_held)
            return model;
        mb_model_close(model);
    }
}

struct recorder {
    struct mb_trace *trace;
    struct mb_error err;
};

/* An mb_route_fn. */
static void record(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                   size_t n_experts, float margin)
{
    struct recorder *r = ctx;
    (void)margin;
    must(mb_trace_route(r->trace, pos, layer, experts, weights, n_experts, &r->err), &r->err);
}

/* Feeds tokens one by one, as generated ones. */
static void run(struct mb_model *model, struct recorder *r)
{
    const struct mb_session_options options = {
        .size = sizeof options, .n_ctx = N_TOKENS, .route = record, .route_ctx = r};
    struct mb_session *session;
    struct mb_error *err = &r->err;
    must(mb_session_open(model, &options, &session, err), err);
    for (size_t i = 0; i < N_TOKENS; i++) {
        const int32_t token = (int32_t)((i * 331 + 7) % mb_model_info(model)->n_vocab);
        const struct mb_batch_item item = {
            .session = session, .tokens = &token, .n_tokens = 1, .is_generated = true};
        must(mb_trace_add(r->trace, 0, true, err), err);
        must(mb_decode(model, &item, 1, err), err);
    }
    mb_session_close(session);
}

static struct mb_simulation simulate(const struct mb_trace *trace, const char *policy, size_t n_held)
{
    uint64_t nbytes[N_LAYERS * N_EXPERTS]; /* a slot has the size of the largest expert */
    struct mb_simulation result;
    struct mb_error err;
    for (size_t e = 0; e < N_LAYERS * N_EXPERTS; e++)
        nbytes[e] = 1;
    const struct mb_simulation_options options = {
        .size = sizeof options, .policy = policy, .memory_nbytes = n_held, .nbytes = nbytes};
    must(mb_simulate(trace, &options, &result, &err), &err);
    return result;
}

static void compare(const char *policy, size_t n_held_wanted)
{
    static const struct mb_trace_shape shape = {N_LAYERS, N_EXPERTS, N_USED};
    uint32_t layers[N_LAYERS];
    struct recorder r;
    for (uint32_t l = 0; l < N_LAYERS; l++)
        layers[l] = FIRST_LAYER + l;
    struct mb_model *model = open_holding(policy, n_held_wanted);
    size_t n_held = mb_model_info(model)->memory.n_experts_held;
    must(mb_trace_open(&shape, layers, &r.trace, &r.err), &r.err);
    run(model, &r);
    struct mb_store_traffic traffic = mb_model_traffic(model);
    struct mb_simulation simulated = simulate(r.trace, policy, n_held);
    assert_true(n_held < (size_t)N_LAYERS * N_EXPERTS);
    if (traffic.n_acquired != simulated.n_uses || traffic.n_acquired - traffic.n_misses != simulated.n_hits ||
        traffic.n_read != simulated.read_nbytes)
        fail_msg("%s, %zu experts: %llu hits of %llu, %llu read; simulated %llu of %llu, %llu", policy,
                 n_held, (unsigned long long)(traffic.n_acquired - traffic.n_misses),
                 (unsigned long long)traffic.n_acquired, (unsigned long long)traffic.n_read,
                 (unsigned long long)simulated.n_hits, (unsigned long long)simulated.n_uses,
                 (unsigned long long)simulated.read_nbytes);
    assert_in_range(simulated.n_hits, simulated.n_uses / 20, simulated.n_uses);
    mb_trace_close(r.trace);
    mb_model_close(model);
}

static void a_simulation_finds_in_memory_what_the_store_finds(void **state)
{
    (void)state;
    static const char *const policies[] = {"blend", "lru", "edgemoe"};
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        for (size_t n_held = 32; n_held <= 80; n_held += 48)
            compare(policies[i], n_held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_simulation_finds_in_memory_what_the_store_finds),
    };
    return cmocka_run_group_tests(tests, coded_reference_begin, test_folder_end);
}
