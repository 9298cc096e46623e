/*
 * simulate.c - a trace in place of a model, a link in place of a disk: what a policy finds in memory, and how
 * long tokens take.
 *
 * A generated token goes through the layers one by one.  In each, attention and router take their time, then
 * all missing experts are asked for at once; those in memory are multiplied while they come, then each
 * missing one when it is there.  A prompt takes no time here: its experts are read once for each layer and
 * stay only where there is room, so that it throws nothing out.
 */
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "future.h"
#include "policy.h"
#include <stdlib.h>
#include <string.h>

enum { N_PASS_TOKENS = 512 };

struct simulator {
    const struct mb_trace *trace;
    const struct mb_simulation_options *options;
    struct mb_policy *policy;
    struct mb_future future; /* of belady */
    bool is_belady;
    struct mb_link link;
    bool has_link;
    size_t n_layers, n_experts, n_used;
    bool *is_loaded;  /* [n_layers * n_experts] */
    uint64_t *pinned; /* [n_layers * n_experts] number of the last wave that needs it */
    uint64_t wave;
    uint64_t used_nbytes, now_ns;
    struct mb_simulation *result;
};

static uint64_t nbytes_of(const struct simulator *s, size_t expert)
{
    return s->options->nbytes[expert];
}

static uint64_t compute_ns(const struct simulator *s, uint64_t nbytes)
{
    if (s->options->compute_bytes_per_s == 0)
        return 0;
    return (uint64_t)((double)nbytes * 1e9 / (double)s->options->compute_bytes_per_s);
}

/* ---------------------------------------------------------------- memory */

static bool may_evict(void *ctx, size_t expert)
{
    const struct simulator *s = ctx;
    return s->pinned[expert] != s->wave;
}

/* A wave always has room: mb_simulate refuses less memory than that. */
static void make_room(struct simulator *s, uint64_t nbytes)
{
    while (s->used_nbytes + nbytes > s->options->memory_nbytes) {
        size_t victim = mb_policy_victim(s->policy, may_evict, s);
        if (victim == MB_NO_EXPERT)
            return;
        mb_policy_evicted(s->policy, victim);
        s->is_loaded[victim] = false;
        s->used_nbytes -= nbytes_of(s, victim);
    }
}

static void load(struct simulator *s, size_t expert)
{
    s->is_loaded[expert] = true;
    s->used_nbytes += nbytes_of(s, expert);
    mb_policy_loaded(s->policy, expert);
}

static void touch(struct simulator *s, size_t expert, float gate, size_t token)
{
    mb_policy_touch(s->policy, expert, gate, token);
    if (s->is_belady)
        mb_policy_set_next_use(s->policy, expert, mb_future_next(&s->future, expert, token));
}

/* ---------------------------------------------------------------- generated tokens */

/* Loads what is missing of a wave, and returns when the last of it has been multiplied. */
static uint64_t read_missing(struct simulator *s, const size_t *experts, size_t n, uint64_t asked_ns,
                             uint64_t ready_ns, bool is_counted)
{
    for (size_t k = 0; k < n; k++) {
        size_t e = experts[k];
        make_room(s, nbytes_of(s, e));
        load(s, e);
        uint64_t there_ns = s->has_link ? mb_link_read(&s->link, asked_ns, nbytes_of(s, e)) : ready_ns;
        if (there_ns > ready_ns) {
            s->result->waited_ns += is_counted ? there_ns - ready_ns : 0;
            ready_ns = there_ns;
        }
        ready_ns += compute_ns(s, nbytes_of(s, e));
        s->result->read_nbytes += is_counted ? nbytes_of(s, e) : 0;
    }
    return ready_ns;
}

static void run_layer(struct simulator *s, size_t token, size_t layer, bool is_counted)
{
    struct mb_trace_token row = mb_trace_token(s->trace, token);
    const uint16_t *chosen = row.experts + layer * s->n_used;
    size_t missing[MB_TRACE_USED_MAX], n_missing = 0;
    s->now_ns += compute_ns(s, s->options->dense_nbytes / s->n_layers);
    uint64_t asked_ns = s->now_ns;
    if (*chosen == MB_TRACE_NONE)
        return;
    s->wave++;
    for (size_t k = 0; k < s->n_used; k++) {
        size_t e = layer * s->n_experts + chosen[k];
        s->pinned[e] = s->wave;
        touch(s, e, row.gates[layer * s->n_used + k], token);
        if (s->is_loaded[e])
            s->now_ns += compute_ns(s, nbytes_of(s, e));
        else
            missing[n_missing++] = e;
    }
    s->now_ns = read_missing(s, missing, n_missing, asked_ns, s->now_ns, is_counted);
    s->result->n_uses += is_counted ? s->n_used : 0;
    s->result->n_hits += is_counted ? s->n_used - n_missing : 0;
}

static void run_token(struct simulator *s, size_t token, bool is_counted)
{
    uint64_t began_ns = s->now_ns, busy_ns = s->link.busy_ns;
    for (size_t l = 0; l < s->n_layers; l++)
        run_layer(s, token, l, is_counted);
    if (!is_counted)
        return;
    s->result->n_tokens++;
    s->result->total_ns += s->now_ns - began_ns;
    s->result->busy_ns += s->link.busy_ns - busy_ns;
}

/* ---------------------------------------------------------------- prompts */

/* The tokens of a prompt that go through the layers together. */
static void run_pass(struct simulator *s, size_t first, size_t n)
{
    for (size_t l = 0; l < s->n_layers; l++) {
        s->wave++;
        for (size_t t = first; t < first + n; t++) {
            struct mb_trace_token row = mb_trace_token(s->trace, t);
            const uint16_t *chosen = row.experts + l * s->n_used;
            for (size_t k = 0; k < s->n_used && *chosen != MB_TRACE_NONE; k++) {
                size_t e = l * s->n_experts + chosen[k];
                bool is_read = s->is_loaded[e] || s->pinned[e] == s->wave; /* by this pass */
                s->pinned[e] = s->wave;
                touch(s, e, row.gates[l * s->n_used + k], first + n - 1);
                s->result->prompt_nbytes += is_read ? 0 : nbytes_of(s, e);
                if (!s->is_loaded[e] && s->used_nbytes + nbytes_of(s, e) <= s->options->memory_nbytes)
                    load(s, e);
            }
        }
    }
}

static bool is_prompt(const struct simulator *s, size_t token)
{
    return !s->options->are_all_generated && !mb_trace_token(s->trace, token).is_generated;
}

static size_t pass_at(const struct simulator *s, size_t first)
{
    uint32_t sequence = mb_trace_token(s->trace, first).sequence;
    size_t n = 1;
    while (n < N_PASS_TOKENS && first + n < mb_trace_n_tokens(s->trace) && is_prompt(s, first + n) &&
           mb_trace_token(s->trace, first + n).sequence == sequence)
        n++;
    return n;
}

static void run_all(struct simulator *s)
{
    uint32_t sequence = 0;
    size_t n_generated = 0;
    for (size_t t = 0, n; t < mb_trace_n_tokens(s->trace); t += n) {
        if (mb_trace_token(s->trace, t).sequence != sequence)
            mb_policy_begin_sequence(s->policy);
        sequence = mb_trace_token(s->trace, t).sequence;
        n = is_prompt(s, t) ? pass_at(s, t) : 1;
        if (is_prompt(s, t))
            run_pass(s, t, n);
        else
            run_token(s, t, n_generated++ >= s->options->n_warm);
    }
}

/* ---------------------------------------------------------------- one simulation */

static int from_largest(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* The most that a token's experts of one layer can need. */
static enum mb_status find_wave_nbytes(const struct simulator *s, uint64_t *wave_nbytes, struct mb_error *err)
{
    uint64_t *sorted = mb_alloc(s->n_experts, sizeof *sorted);
    if (sorted == NULL)
        return mb_fail_memory(err, "a simulation");
    *wave_nbytes = 0;
    for (size_t l = 0; l < s->n_layers; l++) {
        uint64_t sum = 0;
        memcpy(sorted, s->options->nbytes + l * s->n_experts, s->n_experts * sizeof *sorted);
        qsort(sorted, s->n_experts, sizeof *sorted, from_largest);
        for (size_t k = 0; k < s->n_used; k++)
            sum += sorted[k];
        *wave_nbytes = sum > *wave_nbytes ? sum : *wave_nbytes;
    }
    free(sorted);
    return MB_OK;
}

static enum mb_status check(const struct simulator *s, struct mb_error *err)
{
    uint64_t wave_nbytes;
    if (s->options->nbytes == NULL)
        return mb_fail(err, MB_USAGE, "a simulation needs the bytes of experts");
    for (size_t e = 0; e < s->n_layers * s->n_experts; e++)
        if (nbytes_of(s, e) > UINT64_MAX >> 24)
            return mb_fail(err, MB_USAGE, "an expert of %" PRIu64 " bytes", nbytes_of(s, e));
    MB_TRY(find_wave_nbytes(s, &wave_nbytes, err));
    if (s->options->memory_nbytes < wave_nbytes)
        return mb_fail(err, MB_USAGE,
                       "%" PRIu64
                       " bytes of memory for experts: a token's experts of one layer need %" PRIu64,
                       s->options->memory_nbytes, wave_nbytes);
    return MB_OK;
}

/* A byte more where the latency of a read is not hidden by others. */
static uint64_t request_nbytes(const struct simulator *s)
{
    if (!s->has_link)
        return 0;
    double seconds = (double)s->link.options.latency_ns * 1e-9 / s->link.options.depth;
    return (uint64_t)(seconds * (double)s->link.options.bytes_per_s);
}

static enum mb_status open_policy(struct simulator *s, struct mb_error *err)
{
    struct mb_policy_options options = {.size = sizeof options,
                                        .n_layers = s->n_layers,
                                        .n_experts = s->n_experts,
                                        .nbytes = s->options->nbytes,
                                        .request_nbytes = request_nbytes(s),
                                        .half_life = s->options->half_life,
                                        .usage = s->options->usage};
    if (!s->is_belady)
        return mb_policy_open(s->options->policy, &options, &s->policy, err);
    MB_TRY(mb_future_open(&s->future, s->trace, s->options->are_all_generated, err));
    return mb_policy_open_kind(&mb_policy_belady, &options, &s->policy, err);
}

static enum mb_status simulate(struct simulator *s, struct mb_error *err)
{
    size_t n = s->n_layers * s->n_experts;
    MB_TRY(check(s, err));
    if (s->has_link)
        MB_TRY(mb_link_init(&s->link, &s->options->link, err));
    MB_TRY(open_policy(s, err));
    s->is_loaded = mb_alloc(n, sizeof *s->is_loaded);
    s->pinned = mb_alloc(n, sizeof *s->pinned);
    if (s->is_loaded == NULL || s->pinned == NULL)
        return mb_fail_memory(err, "a simulation");
    run_all(s);
    return MB_OK;
}

enum mb_status mb_simulate(const struct mb_trace *trace, const struct mb_simulation_options *given,
                           struct mb_simulation *result, struct mb_error *err)
{
    struct mb_simulation_options options;
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    const struct mb_trace_shape *shape = mb_trace_shape(trace);
    struct simulator s = {
        .trace = trace,
        .options = &options,
        .is_belady = options.policy != NULL && strcmp(options.policy, mb_policy_belady.info.name) == 0,
        .has_link = options.link.bytes_per_s > 0,
        .n_layers = shape->n_layers,
        .n_experts = shape->n_experts,
        .n_used = shape->n_used,
        .result = result,
    };
    *result = (struct mb_simulation){0};
    enum mb_status status = simulate(&s, err);
    mb_policy_close(s.policy);
    mb_future_close(&s.future);
    free(s.is_loaded);
    free(s.pinned);
    return status;
}
