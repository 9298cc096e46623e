/*
 * forward.c - takes the tokens of a pass through all layers, and makes logits of them.
 */
#include "attention.h"
#include "base/clock.h"
#include "base/error.h"
#include "mlp.h"
#include "model.h"
#include "rope.h"
#include <string.h>

static void embed_token(struct mb_model *model, size_t id, float *x)
{
    const struct mb_config *c = &model->config;
    const struct mb_matrix *m = model->embedding.matrix;
    if (m->is_coded)
        model->kernels->decode_rows(&m->coded, id, 1, x);
    else
        model->ops->widen(m->dtype, (const uint8_t *)m->dense + id * c->d_model * mb_dtype_nbytes(m->dtype),
                          c->d_model, x);
    if (c->embedding_multiplier != 0)
        model->ops->scale(c->embedding_multiplier, c->d_model, x);
}

/* Where a token enters its first layer: its embedding or given hidden states, and the angles of its position
 * for each attention. */
static void enter(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)layer, (void)thread;
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    const struct mb_segment *segment = &work->segments[work->segment_of[t]];
    bool is_long = segment->session->is_long;
    float *x = work->x + t * c->d_model;
    if (segment->hidden != NULL && segment->hidden->first_layer > 0)
        memcpy(x, segment->hidden->in + (segment->hidden_at + t - segment->first) * c->d_model,
               c->d_model * sizeof *x);
    else
        embed_token(model, (size_t)work->tokens[t], x);
    for (size_t i = 0; i < c->n_attentions; i++) {
        const struct mb_rope *rope = &c->attentions[i].rope;
        size_t at = t * (rope->n_dims / 2);
        mb_rope_angles(is_long ? rope->long_inv_freq : rope->inv_freq,
                       is_long ? rope->long_factor : rope->factor, work->pos[t], rope->n_dims,
                       work->angles[i].cos + at, work->angles[i].sin + at);
    }
}

/* The norm of the residual stream of token t. */
static void norm(const struct mb_model *model, const float *w, const float *bias, size_t t, float *out)
{
    const struct mb_config *c = &model->config;
    const float *x = model->work.x + t * c->d_model;
    if (c->has_layer_norms)
        model->ops->layer_norm(x, w, bias, c->d_model, c->norm_eps, out);
    else
        model->ops->rms_norm(x, w, c->d_model, c->norm_eps, out);
}

static void norm_to(struct mb_model *model, const struct mb_layer *layer, enum mb_weight_id w,
                    enum mb_weight_id bias, size_t t)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    float *normed = work->normed + t * c->d_model;
    norm(model, mb_layer_vector(layer, w), mb_layer_vector(layer, bias), t, normed);
    mb_vector_ready(model, layer->forms[w == MB_W_INPUT_NORM ? MB_READ_ATTENTION : MB_READ_MLP], normed,
                    c->d_model, &work->normed_a, t);
}

static void norm_input(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    norm_to(model, layer, MB_W_INPUT_NORM, MB_W_INPUT_NORM_BIAS, t);
}

static void add_output(struct mb_model *model, size_t t)
{
    const struct mb_config *c = &model->config;
    const float *y = model->work.y + t * c->d_model;
    float *x = model->work.x + t * c->d_model;
    if (c->residual_multiplier != 0)
        model->ops->axpy(c->residual_multiplier, y, c->d_model, x);
    else
        model->ops->add(y, c->d_model, x);
}

static void add_and_norm_post(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    add_output(model, t);
    norm_to(model, layer, MB_W_POST_NORM, MB_W_POST_NORM_BIAS, t);
}

/* After a layer; 'layer' is the next one, or NULL. */
static void add_and_norm_next(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    add_output(model, t);
    if (layer != NULL)
        norm_input(model, layer, t, thread);
}

static enum mb_status run_layer(struct mb_model *model, const struct mb_layer *layer, struct mb_error *err)
{
    bool is_last = layer->index + 1 == model->config.n_layers;
    layer->attention->kind->run(model, layer);
    mb_for_tokens(model, layer, add_and_norm_post);
    mb_lap(model, MB_TIMELINE_ATTENTION, layer, &model->timing.attention_ns);
    MB_TRY(layer->mlp->kind->run(model, layer, err));
    mb_for_tokens(model, is_last ? NULL : layer + 1, add_and_norm_next);
    mb_lap(model, MB_TIMELINE_NORM, layer, &model->timing.attention_ns);
    return MB_OK;
}

/* Hands out the hidden states at the input of a layer to those who want them. */
static void hand_out(const struct mb_model *model, size_t layer)
{
    const struct mb_workspace *work = &model->work;
    size_t d_model = model->config.d_model;
    for (size_t s = 0; s < work->n_segments; s++) {
        const struct mb_segment *segment = &work->segments[s];
        float *const *out = segment->hidden != NULL ? segment->hidden->out : NULL;
        if (out != NULL && out[layer] != NULL)
            memcpy(out[layer] + segment->hidden_at * d_model, work->x + segment->first * d_model,
                   segment->n * d_model * sizeof *work->x);
    }
}

enum mb_status mb_pass_run(struct mb_model *model, size_t first_layer, size_t end_layer, struct mb_error *err)
{
    const uint64_t begun_ns = mb_now_ns();
    model->mark_ns = begun_ns;
    mb_for_tokens(model, NULL, enter);
    if (first_layer < end_layer)
        mb_for_tokens(model, &model->layers[first_layer], norm_input);
    mb_lookahead_enter(model, first_layer, end_layer);
    mb_lap(model, MB_TIMELINE_EMBEDDING, NULL, &model->timing.embedding_ns);
    for (size_t i = first_layer; i < end_layer; i++) {
        hand_out(model, i);
        MB_TRY(run_layer(model, &model->layers[i], err));
    }
    hand_out(model, end_layer);
    mb_show_pass(model, begun_ns);
    model->n_passed += model->work.n_tokens;
    model->timing.n_passes++;
    model->timing.n_tokens += model->work.n_tokens;
    return MB_OK;
}

/* ---------------------------------------------------------------- logits */

/* Rows of logits that are wanted, until n_logits_max are together: one product for all of them. */
void mb_logits_add(struct mb_model *model, size_t token, float *to)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    size_t i = work->n_logits++;
    float *x = work->logits_x + i * c->d_model;
    norm(model, model->norm, model->norm_bias, token, x);
    if (c->logits_divisor != 0) /* the product is linear, and x is shorter than its logits */
        model->ops->scale(1.0F / c->logits_divisor, c->d_model, x);
    mb_vector_ready(model, model->head_forms, x, c->d_model, &work->logits_a, i);
    work->logits_to[i] = to;
    if (work->n_logits == work->n_logits_max)
        mb_logits_finish(model);
}

void mb_logits_finish(struct mb_model *model)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    if (work->n_logits == 0)
        return;
    model->mark_ns = mb_now_ns();
    float *y = work->n_logits == 1 ? work->logits_to[0] : work->logits;
    mb_stage_begin(&model->stage);
    mb_add_product(&model->stage, &model->head, mb_vectors_of(work->logits_x, c->d_model, &work->logits_a),
                   work->n_logits, y);
    mb_stage_run(&model->stage);
    for (size_t i = 0; i < work->n_logits && work->n_logits > 1; i++)
        memcpy(work->logits_to[i], y + i * c->n_vocab, c->n_vocab * sizeof *y);
    work->n_logits = 0;
    mb_lap(model, MB_TIMELINE_LOGITS, NULL, &model->timing.logits_ns);
}
