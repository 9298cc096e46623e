/*
 * engine.c - opens a model and says what it is.
 */
#include "base/error.h"
#include "model.h"
#include <stdlib.h>
#include <string.h>

/* Bytes that a product with this matrix reads. */
static uint64_t matrix_nbytes(const struct mb_linear *linear)
{
    const struct mb_matrix *m = &linear->matrix;
    if (!m->is_coded)
        return m->n_rows * m->n_cols * mb_dtype_nbytes(m->dtype);
    return m->coded.data_nbytes + 3 * m->coded.n_groups; /* kinds and escape counts; outlier counts are few */
}

static uint64_t matrix_n(const struct mb_linear *linear)
{
    return linear->matrix.n_rows * linear->matrix.n_cols;
}

static void count_matrix(const struct mb_linear *linear, double share, uint64_t *n_params,
                         double *token_nbytes)
{
    *n_params += matrix_n(linear);
    *token_nbytes += share * (double)matrix_nbytes(linear);
}

static void count_mlp(const struct mb_mlp *mlp, double share, uint64_t *n_params, double *token_nbytes)
{
    count_matrix(&mlp->gate, share, n_params, token_nbytes);
    count_matrix(&mlp->up, share, n_params, token_nbytes);
    count_matrix(&mlp->down, share, n_params, token_nbytes);
}

static void count_weights(struct mb_model *model)
{
    const struct mb_config *c = &model->config;
    uint64_t n = c->d_model;
    double nbytes = 0;
    for (size_t i = 0; i < c->n_layers; i++) {
        const struct mb_layer *layer = &model->layers[i];
        n += 2 * c->d_model + c->kv_rank + c->q_rank;
        if (c->q_rank == 0) {
            count_matrix(&layer->q, 1, &n, &nbytes);
        } else {
            count_matrix(&layer->q_a, 1, &n, &nbytes);
            count_matrix(&layer->q_b, 1, &n, &nbytes);
        }
        count_matrix(&layer->kv_a, 1, &n, &nbytes);
        count_matrix(&layer->kv_b, 1, &n, &nbytes);
        count_matrix(&layer->o, 1, &n, &nbytes);
        if (!layer->is_moe) {
            count_mlp(&layer->mlp, 1, &n, &nbytes);
            continue;
        }
        n += c->n_experts;
        count_matrix(&layer->router, 1, &n, &nbytes);
        for (size_t e = 0; e < c->n_experts; e++)
            count_mlp(&layer->experts[e], (double)c->n_used / (double)c->n_experts, &n, &nbytes);
        if (c->n_shared > 0)
            count_mlp(&layer->shared, 1, &n, &nbytes);
    }
    count_matrix(&model->lm_head, 1, &n, &nbytes);
    if (model->has_own_head)
        n += matrix_n(&model->embedding);
    model->info.n_params = n;
    model->info.token_nbytes = (uint64_t)nbytes;
}

static void fill_info(struct mb_model *model)
{
    const struct mb_config *c = &model->config;
    count_weights(model);
    model->info.architecture = c->architecture;
    model->info.is_coded = mb_checkpoint_is_coded(model->ckpt);
    model->info.n_vocab = c->n_vocab;
    model->info.n_layers = c->n_layers;
    model->info.d_model = c->d_model;
    model->info.n_ctx_train = c->n_ctx;
    model->info.n_experts = c->n_experts;
    model->info.n_experts_used = c->n_used;
    model->info.bos_id = c->bos_id;
    model->info.eos_ids = c->eos_ids;
    model->info.n_eos_ids = c->n_eos_ids;
    model->info.memory = mb_weights_memory(model->weights);
    model->info.work_nbytes = model->work_nbytes;
    model->info.n_threads = mb_pool_n_threads(model->pool);
    model->info.notes = model->notes;
}

static enum mb_status open_parts(struct mb_model *model, const char *path, int n_threads,
                                 struct mb_error *err)
{
    enum mb_status status = mb_checkpoint_open(path, &model->ckpt, err);
    if (status == MB_OK)
        status = mb_config_read(model->ckpt, &model->config, err);
    if (status == MB_OK)
        status = mb_pool_create(n_threads, &model->pool, err);
    if (status == MB_OK)
        status = mb_weights_load(model->ckpt, n_threads, &model->weights, err);
    if (status == MB_OK)
        status = mb_layers_load(model, err);
    if (status == MB_OK)
        status = mb_workspace_create(model, err);
    return status;
}

enum mb_status mb_model_open(const char *path, const struct mb_model_options *options,
                             struct mb_model **model, struct mb_error *err)
{
    struct mb_model *m = calloc(1, sizeof *m);
    if (m == NULL)
        return mb_fail_memory(err, "the model");
    m->kernels = mb_kernels();
    m->vec = mb_vec();
    enum mb_status status = open_parts(m, path, options == NULL ? 0 : options->n_threads, err);
    if (status != MB_OK) {
        mb_model_close(m);
        return status;
    }
    fill_info(m);
    *model = m;
    return MB_OK;
}

void mb_model_close(struct mb_model *model)
{
    if (model == NULL)
        return;
    mb_workspace_free(model);
    mb_layers_free(model);
    mb_weights_free(model->weights);
    mb_checkpoint_close(model->ckpt);
    mb_pool_destroy(model->pool);
    free(model);
}

const struct mb_model_info *mb_model_info(const struct mb_model *model)
{
    return &model->info;
}

struct mb_model_timing mb_model_timing(const struct mb_model *model)
{
    struct mb_model_timing timing = model->timing;
    timing.waiting_ns = mb_pool_waited_ns(model->pool) - model->waited_before_ns;
    return timing;
}

void mb_model_timing_reset(struct mb_model *model)
{
    model->timing = (struct mb_model_timing){0};
    model->waited_before_ns = mb_pool_waited_ns(model->pool);
}
