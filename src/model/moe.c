/*
 * moe.c - the MLP of a layer: the router's choice, and the products of all experts that were chosen.
 *
 * Router (DeepSeek-V3, as `transformers` has it): scores are sigmoids; a correction bias, added only for
 * choosing, keeps experts evenly used; with several groups, only the best groups (by the sum of their two
 * best choice scores) may be chosen from; weights are the scores without bias, normalised and scaled.
 */
#include "model.h"
#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- the router's choice */

/* Index of the largest value that is not taken; the lowest among equals. A NaN is never larger. */
static size_t largest_left(const float *values, const bool *taken, size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (!taken[i] && (best == n || values[i] > values[best]))
            best = i;
    return best;
}

static float best_two(const float *choice, size_t n)
{
    float first = -INFINITY, second = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        float x = choice[i];
        second = x > first ? first : x > second ? x : second;
        first = x > first ? x : first;
    }
    return first + second;
}

/* The choice scores of groups that are not among the best become 0. */
static void limit_groups(const struct mb_config *c, float *choice)
{
    float score[MB_EXPERTS_MAX];
    bool taken[MB_EXPERTS_MAX] = {false};
    size_t n = c->n_experts / c->n_groups;
    for (size_t g = 0; g < c->n_groups; g++)
        score[g] = best_two(choice + g * n, n);
    for (size_t k = 0; k < c->n_groups_used; k++)
        taken[largest_left(score, taken, c->n_groups)] = true;
    for (size_t g = 0; g < c->n_groups; g++)
        for (size_t i = 0; i < n && !taken[g]; i++)
            choice[g * n + i] = 0;
}

static void choose_experts(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    float *scores = work->router + t * c->n_experts, *choice = work->choice + t * c->n_experts;
    bool taken[MB_EXPERTS_MAX] = {false};
    int32_t *chosen = work->chosen + t * c->n_used;
    float *weight = work->chosen_weight + t * c->n_used;
    model->vec->sigmoid(scores, c->n_experts, scores);
    for (size_t e = 0; e < c->n_experts; e++)
        choice[e] = scores[e] + layer->router_bias[e];
    if (c->n_groups > 1)
        limit_groups(c, choice);
    float sum = 0;
    for (size_t k = 0; k < c->n_used; k++) {
        size_t e = largest_left(choice, taken, c->n_experts);
        taken[e] = true;
        chosen[k] = (int32_t)e;
        weight[k] = scores[e];
        sum += scores[e];
    }
    size_t next = largest_left(choice, taken, c->n_experts);
    work->margin[t] = next == c->n_experts ? INFINITY : choice[chosen[c->n_used - 1]] - choice[next];
    for (size_t k = 0; k < c->n_used; k++) {
        if (c->norm_weights)
            weight[k] /= sum + 1e-20F;
        weight[k] *= c->routed_scale;
    }
}

static void report_routes(const struct mb_model *model, size_t layer)
{
    const struct mb_workspace *work = &model->work;
    size_t n_used = model->config.n_used;
    for (size_t t = 0; t < work->n_tokens; t++) {
        const struct mb_session_options *options = &work->segments[work->segment_of[t]].session->options;
        if (options->route != NULL)
            options->route(options->route_ctx, layer, work->pos[t], work->chosen + t * n_used,
                           work->chosen_weight + t * n_used, n_used, work->margin[t]);
    }
}

/* Gives every token and expert a slot, ordered by expert, then token. */
static void assign_slots(struct mb_model *model)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    uint32_t *first = work->expert_first; /* counts, then where the next one goes */
    size_t n = work->n_tokens * c->n_used;
    memset(first, 0, (c->n_experts + 1) * sizeof *first);
    for (size_t i = 0; i < n; i++)
        first[work->chosen[i] + 1]++;
    for (size_t e = 0; e < c->n_experts; e++)
        first[e + 1] += first[e];
    for (size_t i = 0; i < n; i++) {
        uint32_t slot = first[work->chosen[i]]++;
        work->slot[i] = slot;
        work->slot_in[slot] = work->normed_a.at[i / c->n_used];
        if (model->has_plain_experts)
            memcpy(work->slot_y + slot * c->d_model, work->normed + i / c->n_used * c->d_model,
                   c->d_model * sizeof *work->slot_y);
    }
    for (size_t e = c->n_experts; e > 0; e--)
        first[e] = first[e - 1];
    first[0] = 0;
}

/* ---------------------------------------------------------------- products */

/* hidden = silu(gate x) * (up x), from vector 'first' of hidden on; ready for add_down. */
static void add_gate_up(struct mb_model *model, const struct mb_mlp *mlp, struct mb_vectors in,
                        size_t n_tokens, float *hidden, const struct mb_activations *activations,
                        size_t first)
{
    size_t d_ff = (size_t)mlp->gate.matrix.n_rows;
    mb_stage_add(&model->stage, &(struct mb_product){
                                    .w = &mlp->gate,
                                    .up = &mlp->up,
                                    .in = in,
                                    .n_tokens = n_tokens,
                                    .y = hidden + first * d_ff,
                                    .y_stride = d_ff,
                                    .out = model->has_coded ? activations : NULL,
                                    .out_first = first,
                                });
}

/* y = down hidden, from vector 'first' of both on. */
static void add_down(struct mb_model *model, const struct mb_mlp *mlp, size_t n_tokens, const float *hidden,
                     const struct mb_activations *activations, float *y, size_t first)
{
    size_t d_ff = (size_t)mlp->gate.matrix.n_rows, d_model = model->config.d_model;
    mb_stage_add(&model->stage, &(struct mb_product){
                                    .w = &mlp->down,
                                    .in = {hidden + first * d_ff, d_ff, activations->at + first},
                                    .n_tokens = n_tokens,
                                    .y = y + first * d_model,
                                    .y_stride = d_model,
                                });
}

/* The dense MLP, or the shared expert: for all tokens, from normed to y. */
static void add_common_gate_up(struct mb_model *model, const struct mb_mlp *mlp)
{
    struct mb_workspace *work = &model->work;
    add_gate_up(model, mlp, mb_vectors_of(work->normed, model->config.d_model, &work->normed_a),
                work->n_tokens, work->hidden, &work->hidden_a, 0);
}

static void add_common_down(struct mb_model *model, const struct mb_mlp *mlp)
{
    struct mb_workspace *work = &model->work;
    add_down(model, mlp, work->n_tokens, work->hidden, &work->hidden_a, work->y, 0);
}

static void add_experts_gate_up(struct mb_model *model, const struct mb_layer *layer)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    for (size_t e = 0; e < c->n_experts; e++) {
        size_t first = work->expert_first[e], n = work->expert_first[e + 1] - first;
        struct mb_vectors in = {work->slot_y + first * c->d_model, c->d_model, work->slot_in + first};
        if (n > 0)
            add_gate_up(model, &layer->experts[e], in, n, work->slot_hidden, &work->slot_hidden_a, first);
    }
}

static void add_experts_down(struct mb_model *model, const struct mb_layer *layer)
{
    struct mb_workspace *work = &model->work;
    for (size_t e = 0; e < model->config.n_experts; e++) {
        size_t first = work->expert_first[e], n = work->expert_first[e + 1] - first;
        if (n > 0)
            add_down(model, &layer->experts[e], n, work->slot_hidden, &work->slot_hidden_a, work->slot_y,
                     first);
    }
}

/* y = the shared expert's output (or 0) + the chosen experts', in the order of the router's choice. */
static void combine(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)layer, (void)thread;
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    float *y = work->y + t * c->d_model;
    if (c->n_shared == 0)
        memset(y, 0, c->d_model * sizeof *y);
    for (size_t k = 0; k < c->n_used; k++)
        model->vec->axpy(work->chosen_weight[t * c->n_used + k],
                         work->slot_y + work->slot[t * c->n_used + k] * c->d_model, c->d_model, y);
}

void mb_route(struct mb_model *model, size_t layer_index)
{
    const struct mb_config *c = &model->config;
    const struct mb_layer *layer = &model->layers[layer_index];
    struct mb_workspace *work = &model->work;
    mb_stage_begin(&model->stage);
    mb_stage_add(&model->stage,
                 &(struct mb_product){.w = &layer->router,
                                      .in = mb_vectors_of(work->normed, c->d_model, &work->normed_a),
                                      .n_tokens = work->n_tokens,
                                      .y = work->router,
                                      .y_stride = c->n_experts});
    /* The shared expert does not wait for the router, so that it keeps the threads busy meanwhile. */
    if (c->n_shared > 0)
        add_common_gate_up(model, &layer->shared);
    mb_stage_run(&model->stage);
    mb_for_tokens(model, layer, choose_experts);
    report_routes(model, layer_index);
    assign_slots(model);
}

void mb_experts(struct mb_model *model, size_t layer_index)
{
    const struct mb_layer *layer = &model->layers[layer_index];
    mb_stage_begin(&model->stage);
    add_experts_gate_up(model, layer);
    mb_stage_run(&model->stage);
    mb_stage_begin(&model->stage);
    add_experts_down(model, layer);
    if (model->config.n_shared > 0)
        add_common_down(model, &layer->shared);
    mb_stage_run(&model->stage);
    mb_for_tokens(model, layer, combine);
}

void mb_dense_mlp(struct mb_model *model, const struct mb_layer *layer)
{
    mb_stage_begin(&model->stage);
    add_common_gate_up(model, &layer->mlp);
    mb_stage_run(&model->stage);
    mb_stage_begin(&model->stage);
    add_common_down(model, &layer->mlp);
    mb_stage_run(&model->stage);
}
