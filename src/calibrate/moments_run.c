/*
 * moments_run.c - see moments_run.h.
 */
#include "moments_run.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BATCH_TOKENS = 4096,          /* the last pass of a batch may be short: it is one of many */
    LOGITS_MAX = 16 * 1024 * 1024 /* floats of logits at once: 64 MB */
};
#define NBYTES_DEFAULT ((uint64_t)4 << 30) /* where nobody says how much memory is free */

/* ---------------------------------------------------------------- opening */

static enum mb_status open_sessions(struct mb_moments_run *run, struct mb_error *err)
{
    const struct mb_windows *windows = run->windows;
    size_t n_ctx = mb_model_info(run->model)->n_ctx_train;
    struct mb_session_options options = {.size = sizeof options, .cache_type = MB_CACHE_F32};
    run->n_rows = LOGITS_MAX / run->n_vocab;
    run->n_rows = run->n_rows > 512 ? 512 : run->n_rows;
    run->n_rows = run->n_rows > n_ctx ? n_ctx : run->n_rows;
    run->n_rows = run->n_rows == 0 ? 1 : run->n_rows;
    options.n_ctx = run->n_rows;
    MB_TRY(mb_session_open(run->model, &options, &run->head, err));
    options.n_ctx = windows->n_longest;
    for (; run->n_sessions < windows->n && run->n_sessions < MB_RUN_WINDOWS; run->n_sessions++)
        MB_TRY(mb_session_open(run->model, &options, &run->sessions[run->n_sessions], err));
    return MB_OK;
}

static uint64_t memory_of(uint64_t wanted)
{
    uint64_t available = mb_memory_available();
    return wanted != 0 ? wanted : available == UINT64_MAX ? NBYTES_DEFAULT : available / 2;
}

enum mb_status mb_moments_run_open(struct mb_moments_run *run, struct mb_model *model,
                                   const struct mb_windows *windows, const struct mb_moments_options *options,
                                   struct mb_error *err)
{
    const struct mb_model_info *info = mb_model_info(model);
    if (windows->n == 0 || windows->n_longest > info->n_ctx_train)
        return mb_fail(err, MB_USAGE, "%zu windows, the longest of %zu tokens: the model's context is %zu",
                       windows->n, windows->n_longest, info->n_ctx_train);
    run->model = model;
    run->windows = windows;
    run->n_layers = info->n_layers;
    run->d_model = info->d_model;
    run->n_vocab = info->n_vocab;
    run->progress = options->progress;
    run->progress_ctx = options->progress_ctx;
    run->ops = mb_gram_ops();
    MB_TRY(mb_pool_create(options->n_threads, &run->pool, err));
    MB_TRY(open_sessions(run, err));
    run->zeros = mb_alloc(run->n_rows, sizeof *run->zeros);
    run->logits = mb_alloc(run->n_rows * (uint64_t)run->n_vocab, sizeof *run->logits);
    run->out = mb_alloc(MB_RUN_WINDOWS * (run->n_layers + 1), sizeof *run->out);
    run->states = mb_alloc(windows->n_tokens * (uint64_t)run->d_model, sizeof *run->states);
    if (run->zeros == NULL || run->logits == NULL || run->out == NULL || run->states == NULL)
        return mb_fail_memory(err, "the hidden states of the calibration text");
    run->nbytes_max = memory_of(options->nbytes_max);
    return MB_OK;
}

void mb_moments_run_close(struct mb_moments_run *run)
{
    mb_layer_inputs_close(&run->inputs);
    for (size_t i = 0; i < run->n_sessions; i++)
        mb_session_close(run->sessions[i]);
    mb_session_close(run->head);
    mb_pool_destroy(run->pool);
    free(run->zeros);
    free(run->logits);
    free(run->out);
    free(run->states);
}

/* ---------------------------------------------------------------- watching */

static double flops_of(const struct mb_layer_input *input, size_t n)
{
    return (double)n * (double)input->sum.n_values * (double)(input->sum.n_values + 1);
}

static void watch(void *ctx, const struct mb_matrix_input *in)
{
    struct mb_moments_run *run = ctx;
    struct mb_layer_input *input = mb_layer_inputs_find(&run->inputs, in->name);
    if (run->status != MB_OK || input == NULL)
        return;
    size_t i = (size_t)(input - run->inputs.at);
    if (i < run->group_first || i >= run->group_end)
        return;
    bool is_finite;
    uint64_t begun_ns = mb_now_ns();
    if (in->n_values != input->sum.n_values)
        run->status = mb_fail(&run->err, MB_UNSUPPORTED, "tensor %s: reads %zu values, has %zu columns",
                              in->name, in->n_values, input->sum.n_values);
    else if (!mb_moments_sum_add(&input->sum, in->x, in->stride, in->n, in->weights, run->ops, run->pool,
                                 &is_finite))
        run->status = is_finite ? mb_fail_memory(&run->err, "second moments")
                                : mb_fail(&run->err, MB_BAD_DATA,
                                          "tensor %s: its input is NaN or infinite after %" PRIu64
                                          " tokens of the calibration text: weights before it are damaged",
                                          in->name, input->sum.n_tokens);
    run->sum_flops += flops_of(input, in->n);
    run->sum_ns += mb_now_ns() - begun_ns;
}

/* ---------------------------------------------------------------- running */

static enum mb_status show(const struct mb_moments_run *run, size_t n_done, size_t group, size_t n_groups,
                           struct mb_error *err)
{
    char what[64];
    const size_t n = run->windows->n_tokens, n_parts = run->n_layers + 1;
    if (run->layer == run->n_layers)
        snprintf(what, sizeof what, "moments: head");
    else
        snprintf(what, sizeof what, "moments: layer %zu of %zu", run->layer + 1, run->n_layers);
    uint64_t done = (uint64_t)(run->layer - run->first_layer) * n + (group * n + n_done) / n_groups;
    uint64_t total = (uint64_t)(n_parts - run->first_layer) * n;
    if (run->progress != NULL && run->progress(run->progress_ctx, what, done / n_parts, total / n_parts))
        return mb_fail(err, MB_CANCELLED, "stopped in layer %zu of %zu", run->layer, n_parts);
    return MB_OK;
}

/* Windows from 'first' on that are read together, and their tokens. */
static size_t batch_of(const struct mb_moments_run *run, size_t first, size_t *n_tokens)
{
    const struct mb_windows *windows = run->windows;
    size_t n = 0;
    *n_tokens = 0;
    while (first + n < windows->n && n < run->n_sessions) {
        size_t more = windows->at[first + n].n_tokens;
        if (n > 0 && *n_tokens + more > BATCH_TOKENS)
            break;
        *n_tokens += more;
        n++;
    }
    return n;
}

/* is_last: the states go on to the next layer, in place. */
static enum mb_status run_batch(struct mb_moments_run *run, size_t first, size_t n, size_t token_at,
                                bool is_last, struct mb_error *err)
{
    struct mb_batch_item items[MB_RUN_WINDOWS] = {{0}};
    struct mb_hidden_states hidden[MB_RUN_WINDOWS];
    for (size_t i = 0; i < n; i++) {
        const struct mb_window *window = &run->windows->at[first + i];
        float *states = run->states + token_at * run->d_model, **out = run->out + i * (run->n_layers + 1);
        memset(out, 0, (run->n_layers + 1) * sizeof *out);
        out[run->layer + 1] = is_last ? states : NULL;
        hidden[i] = (struct mb_hidden_states){
            .first_layer = run->layer, .in = states, .out = out, .end_layer = run->layer + 1};
        items[i] = (struct mb_batch_item){.session = run->sessions[i],
                                          .tokens = window->tokens,
                                          .n_tokens = window->n_tokens,
                                          .hidden = &hidden[i]};
        mb_session_reset(run->sessions[i]);
        token_at += window->n_tokens;
    }
    return mb_decode(run->model, items, n, err);
}

static enum mb_status run_head(struct mb_moments_run *run, size_t token_at, size_t n, struct mb_error *err)
{
    struct mb_hidden_states hidden = {.first_layer = run->n_layers,
                                      .in = run->states + token_at * run->d_model};
    struct mb_batch_item item = {.session = run->head,
                                 .tokens = run->zeros,
                                 .n_tokens = n,
                                 .logits = run->logits,
                                 .all_logits = true,
                                 .hidden = &hidden};
    mb_session_reset(run->head);
    return mb_decode(run->model, &item, 1, err);
}

/* All tokens through the layer; 'group' of n_groups is summed up. */
static enum mb_status run_tokens(struct mb_moments_run *run, size_t group, size_t n_groups, bool is_last,
                                 struct mb_error *err)
{
    size_t n_all = run->windows->n_tokens;
    for (size_t token_at = 0, first = 0, n_tokens; token_at < n_all; token_at += n_tokens) {
        MB_TRY(show(run, token_at, group, n_groups, err));
        if (run->layer == run->n_layers) {
            n_tokens = n_all - token_at < run->n_rows ? n_all - token_at : run->n_rows;
            MB_TRY(run_head(run, token_at, n_tokens, err));
        } else {
            size_t n = batch_of(run, first, &n_tokens);
            MB_TRY(run_batch(run, first, n, token_at, is_last, err));
            first += n;
        }
        if (run->status != MB_OK)
            return mb_pass_on(err, run->status, &run->err);
    }
    run->n_runs++;
    return MB_OK;
}

/* ---------------------------------------------------------------- groups */

/* Inputs from 'first' on whose sums have room together: at least one. */
static size_t group_end(const struct mb_moments_run *run, size_t first)
{
    uint64_t nbytes = 0;
    size_t end = first;
    while (end < run->inputs.n) {
        nbytes += mb_moments_sum_nbytes(run->inputs.at[end].sum.n_values);
        if (end > first && nbytes > run->nbytes_max)
            break;
        end++;
    }
    return end;
}

static size_t n_groups_of(const struct mb_moments_run *run)
{
    size_t n = 0;
    for (size_t first = 0; first < run->inputs.n; first = group_end(run, first))
        n++;
    return n;
}

/* What each token passes has seen all of them: else an engine's kind of layer is not understood here. */
static enum mb_status check_seen(const struct mb_moments_run *run, const struct mb_layer_input *input,
                                 struct mb_error *err)
{
    uint64_t n = run->windows->n_tokens;
    if (input->expert < 0 ? input->sum.n_tokens == n : input->sum.n_tokens <= n)
        return MB_OK;
    return mb_fail(err, MB_UNSUPPORTED,
                   "tensor %s: its input was seen %" PRIu64 " times for %" PRIu64 " tokens",
                   input->matrices[0], input->sum.n_tokens, n);
}

static enum mb_status finish_group(struct mb_moments_run *run, mb_each_input_fn each, void *ctx,
                                   struct mb_error *err)
{
    for (size_t i = run->group_first; i < run->group_end; i++) {
        struct mb_layer_input *input = &run->inputs.at[i];
        uint64_t begun_ns = mb_now_ns();
        mb_moments_sum_finish(&input->sum, run->ops, run->pool);
        run->sum_ns += mb_now_ns() - begun_ns;
        MB_TRY(check_seen(run, input, err));
        MB_TRY(each(ctx, i, input, err));
        mb_moments_sum_close(&input->sum);
    }
    return MB_OK;
}

static enum mb_status run_groups(struct mb_moments_run *run, mb_each_input_fn each, void *ctx,
                                 struct mb_error *err)
{
    size_t n_groups = n_groups_of(run);
    run->group_end = 0;
    for (size_t group = 0; group < n_groups; group++) {
        run->group_first = run->group_end;
        run->group_end = group_end(run, run->group_first);
        MB_TRY(run_tokens(run, group, n_groups, group + 1 == n_groups, err));
        MB_TRY(finish_group(run, each, ctx, err));
    }
    return MB_OK;
}

enum mb_status mb_moments_run_layer(struct mb_moments_run *run, mb_each_input_fn each, void *ctx,
                                    struct mb_error *err)
{
    run->status = MB_OK;
    mb_model_watch_inputs(run->model, watch, run);
    enum mb_status status = run_groups(run, each, ctx, err);
    mb_model_watch_inputs(run->model, NULL, NULL);
    return status;
}
