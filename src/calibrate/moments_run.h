/*
 * moments_run.h - a model runs one layer at a time over all windows, and the layer's inputs are summed up.
 */
#ifndef MB_CALIBRATE_MOMENTS_RUN_H
#define MB_CALIBRATE_MOMENTS_RUN_H

#include "moments_inputs.h"
#include <moebius/calibrate.h>

enum { MB_RUN_WINDOWS = 64 };

struct mb_moments_run {
    struct mb_model *model;
    const struct mb_windows *windows;
    size_t n_layers, d_model, n_vocab;
    struct mb_session *sessions[MB_RUN_WINDOWS];
    size_t n_sessions;
    struct mb_session *head; /* makes logits, n_rows at a time */
    size_t n_rows;
    int32_t *zeros; /* [n_rows] tokens that nothing looks at */
    float *logits;  /* [n_rows][n_vocab] which nobody reads */
    float **out;    /* [MB_RUN_WINDOWS][n_layers + 1] */
    float *states;  /* [tokens of all windows][d_model] at the input of the layer at hand */
    struct mb_pool *pool;
    const struct mb_gram_ops *ops;
    uint64_t nbytes_max;
    mb_progress_fn progress;
    void *progress_ctx;
    size_t first_layer; /* of this call: progress begins there */

    /* The layer at hand. */
    size_t layer;
    struct mb_layer_inputs inputs;
    size_t group_first, group_end; /* inputs that are summed now */
    enum mb_status status;         /* of the watching function */
    struct mb_error err;

    uint64_t sum_ns;
    double sum_flops;
    size_t n_runs;
};

/* Begins zeroed; after a failure the caller closes it. */
enum mb_status mb_moments_run_open(struct mb_moments_run *run, struct mb_model *model,
                                   const struct mb_windows *windows, const struct mb_moments_options *options,
                                   struct mb_error *err);
void mb_moments_run_close(struct mb_moments_run *run);

/*
 * Sums up the inputs of run->layer (n_layers: of the head), a group of them after another: after each group
 * 'each' gets those of it, and their memory is freed.  Afterwards the states are at the next layer's input.
 */
typedef enum mb_status (*mb_each_input_fn)(void *ctx, size_t i, const struct mb_layer_input *input,
                                           struct mb_error *err);
enum mb_status mb_moments_run_layer(struct mb_moments_run *run, mb_each_input_fn each, void *ctx,
                                    struct mb_error *err);

#endif
