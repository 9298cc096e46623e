/*
 * tokens.c - what the forward pass, attention and MLPs do alike for every token of a pass.
 */
#include "model.h"

struct token_work {
    struct mb_model *model;
    const struct mb_layer *layer;
    mb_token_fn fn;
};

static void token_task(void *ctx, size_t task, int thread)
{
    const struct token_work *work = ctx;
    work->fn(work->model, work->layer, task, thread);
}

void mb_for_tokens(struct mb_model *model, const struct mb_layer *layer, mb_token_fn fn)
{
    struct token_work work = {model, layer, fn};
    mb_pool_run(model->pool, model->work.n_tokens, token_task, &work);
}

void mb_vector_ready(const struct mb_model *model, unsigned forms, const float *x, size_t n,
                     const struct mb_activations *to, size_t i)
{
    mb_activate(model->kernels, forms, x, n, to, i);
}

struct mb_vectors mb_normed(const struct mb_model *model)
{
    return mb_vectors_of(model->work.normed, model->config.d_model, &model->work.normed_a);
}
