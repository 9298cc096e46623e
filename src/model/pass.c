/*
 * pass.c - takes the tokens of a pass through all layers.
 */
#include "base/clock.h"
#include "model.h"
#include "rope.h"
#include <string.h>

/* Adds the time since *mark to *sum, and sets *mark to now. */
static void lap(uint64_t *mark, uint64_t *sum)
{
    uint64_t now = mb_now_ns();
    *sum += now - *mark;
    *mark = now;
}

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

void mb_vector_ready(const struct mb_model *model, const float *x, size_t n, const struct mb_activations *to,
                     size_t i)
{
    if (model->has_coded)
        mb_activate(model->kernels, x, n, to, i);
}

/* The embedding of a token, and the angles of its position. */
static void embed(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)layer, (void)thread;
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    const struct mb_matrix *m = &model->embedding.matrix;
    size_t id = (size_t)work->tokens[t];
    float *x = work->x + t * c->d_model;
    if (m->is_coded)
        model->kernels->rows(&m->coded, id, 1, x);
    else
        model->vec->widen(m->dtype, (const uint8_t *)m->dense + id * c->d_model * mb_dtype_nbytes(m->dtype),
                          c->d_model, x);
    mb_rope_angles(c->inv_freq, c->rope_factor, work->pos[t], c->d_rope, work->cos + t * (c->d_rope / 2),
                   work->sin + t * (c->d_rope / 2));
}

static void norm_to(struct mb_model *model, const float *w, size_t t)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    float *normed = work->normed + t * c->d_model;
    model->vec->rms_norm(work->x + t * c->d_model, w, c->d_model, c->norm_eps, normed);
    mb_vector_ready(model, normed, c->d_model, &work->normed_a, t);
}

static void norm_input(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    norm_to(model, layer->input_norm, t);
}

static void add_output(struct mb_model *model, size_t t)
{
    size_t n = model->config.d_model;
    model->vec->add(model->work.y + t * n, n, model->work.x + t * n);
}

static void add_and_norm_post(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    add_output(model, t);
    norm_to(model, layer->post_norm, t);
}

/* Behind a layer; 'layer' is the next one, or NULL. */
static void add_and_norm_next(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    add_output(model, t);
    if (layer != NULL)
        norm_input(model, layer, t, thread);
}

static void run_layer(struct mb_model *model, size_t i, uint64_t *mark)
{
    const struct mb_layer *layer = &model->layers[i];
    struct mb_model_timing *timing = &model->timing;
    mb_attention(model, i);
    mb_for_tokens(model, layer, add_and_norm_post);
    lap(mark, &timing->attention_ns);
    if (layer->is_moe) {
        mb_route(model, i);
        lap(mark, &timing->router_ns);
        mb_experts(model, i);
        lap(mark, &timing->experts_ns);
    } else {
        mb_dense_mlp(model, layer);
        lap(mark, &timing->dense_ns);
    }
    mb_for_tokens(model, i + 1 < model->config.n_layers ? layer + 1 : NULL, add_and_norm_next);
    lap(mark, &timing->attention_ns);
}

void mb_pass_run(struct mb_model *model)
{
    uint64_t mark = mb_now_ns();
    mb_for_tokens(model, NULL, embed);
    mb_for_tokens(model, &model->layers[0], norm_input);
    lap(&mark, &model->timing.embedding_ns);
    for (size_t i = 0; i < model->config.n_layers; i++)
        run_layer(model, i, &mark);
    model->timing.n_passes++;
    model->timing.n_tokens += model->work.n_tokens;
}

/* ---------------------------------------------------------------- logits */

/* Rows of logits that are wanted, until MB_PASS_LOGITS are together: one product for all of them. */
void mb_logits_add(struct mb_model *model, size_t token, float *to)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    size_t i = work->n_logits++;
    float *x = work->logits_x + i * c->d_model;
    model->vec->rms_norm(work->x + token * c->d_model, model->norm, c->d_model, c->norm_eps, x);
    mb_vector_ready(model, x, c->d_model, &work->logits_a, i);
    work->logits_to[i] = to;
    if (work->n_logits == MB_PASS_LOGITS)
        mb_logits_finish(model);
}

void mb_logits_finish(struct mb_model *model)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    if (work->n_logits == 0)
        return;
    uint64_t mark = mb_now_ns();
    float *y = work->n_logits == 1 ? work->logits_to[0] : work->logits;
    mb_stage_begin(&model->stage);
    mb_stage_add(&model->stage, &(struct mb_product){
                                    .w = &model->lm_head,
                                    .in = mb_vectors_of(work->logits_x, c->d_model, &work->logits_a),
                                    .n_tokens = work->n_logits,
                                    .y = y,
                                    .y_stride = c->n_vocab,
                                });
    mb_stage_run(&model->stage);
    for (size_t i = 0; i < work->n_logits && work->n_logits > 1; i++)
        memcpy(work->logits_to[i], y + i * c->n_vocab, c->n_vocab * sizeof *y);
    work->n_logits = 0;
    lap(&mark, &model->timing.logits_ns);
}
