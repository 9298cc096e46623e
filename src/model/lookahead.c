/*
 * lookahead.c - the next layer's router on the hidden state before this layer's MLP.
 *
 * What the MLP adds to the residual stream is small beside the stream, so the next router mostly chooses the
 * same experts without it.  The first layer with experts is also asked where tokens enter, before its
 * attention.  A guess changes what is in memory, never a result.
 */
#include "lookahead.h"
#include "base/error.h"
#include "base/memory.h"
#include "mlp.h"
#include "model.h"
#include "router.h"
#include <stdlib.h>

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

enum mb_status mb_lookahead_create(struct mb_model *model, struct mb_error *err)
{
    const struct mb_config *c = &model->config;
    struct mb_lookahead *l = &model->lookahead;
    size_t n_experts = 1, n_used = 1;
    for (size_t i = 0; i < c->n_mlps; i++) {
        n_experts = max_size(n_experts, c->mlps[i].router.n_experts);
        n_used = max_size(n_used, c->mlps[i].router.n_used);
    }
    l->normed = mb_alloc(MB_LOOKAHEAD_TOKENS * c->d_model, sizeof *l->normed);
    l->scores = mb_alloc(MB_LOOKAHEAD_TOKENS * n_experts, sizeof *l->scores);
    l->choice = mb_alloc(n_experts, sizeof *l->choice);
    l->weights = mb_alloc(n_used, sizeof *l->weights);
    l->chosen = mb_alloc(MB_LOOKAHEAD_TOKENS * n_used, sizeof *l->chosen);
    if (l->normed == NULL || l->scores == NULL || l->choice == NULL || l->weights == NULL ||
        l->chosen == NULL)
        return mb_fail_memory(err, "the scores of the next layer's router");
    return MB_OK;
}

void mb_lookahead_free(struct mb_model *model)
{
    free(model->lookahead.normed);
    free(model->lookahead.scores);
    free(model->lookahead.choice);
    free(model->lookahead.weights);
    free(model->lookahead.chosen);
}

/* Whether guesses are made in this pass. */
static bool guesses(const struct mb_model *model)
{
    const struct mb_workspace *work = &model->work;
    if (model->lookahead.normed == NULL || model->stage.watch != NULL || work->n_tokens > MB_LOOKAHEAD_TOKENS)
        return false;
    for (size_t s = 0; s < work->n_segments; s++)
        if (!work->segments[s].is_generated)
            return false;
    return true;
}

static bool can_guess(const struct mb_layer *layer)
{
    return layer->mlp->kind->has_experts && !layer->matrix[MB_W_ROUTER].matrix->is_coded;
}

/* The layer whose experts are guessed; NULL: none is. */
static const struct mb_layer *next_of(const struct mb_model *model, const struct mb_layer *layer)
{
    if (!guesses(model) || layer->index + 1 >= model->config.n_layers)
        return NULL;
    return can_guess(layer + 1) ? layer + 1 : NULL;
}

/* The input that the next layer's router would have. */
static struct mb_vectors guess_input(struct mb_model *model, const struct mb_layer *next)
{
    const struct mb_config *c = &model->config;
    const size_t d_model = c->d_model;
    for (size_t t = 0; t < model->work.n_tokens; t++) {
        const float *x = model->work.x + t * d_model, *w = mb_layer_vector(next, MB_W_POST_NORM);
        float *normed = model->lookahead.normed + t * d_model;
        if (c->has_layer_norms)
            model->ops->layer_norm(x, w, mb_layer_vector(next, MB_W_POST_NORM_BIAS), d_model, c->norm_eps,
                                   normed);
        else
            model->ops->rms_norm(x, w, d_model, c->norm_eps, normed);
    }
    return (struct mb_vectors){.x = model->lookahead.normed, .stride = d_model};
}

void mb_lookahead_add(struct mb_model *model, const struct mb_layer *layer)
{
    const struct mb_layer *next = next_of(model, layer);
    if (next != NULL)
        mb_add_product(&model->stage, &next->matrix[MB_W_ROUTER], guess_input(model, next),
                       model->work.n_tokens, model->lookahead.scores);
}

/* What the scores say, to the store. */
static void tell(struct mb_model *model, const struct mb_layer *next, enum mb_store_hint hint)
{
    const struct mb_lookahead *l = &model->lookahead;
    const struct mb_router_config *r = &next->mlp->router;
    for (size_t t = 0; t < model->work.n_tokens; t++)
        mb_router_choose(r, model->ops, mb_layer_vector(next, MB_W_ROUTER_BIAS), next->dropped,
                         l->scores + t * r->n_experts, l->choice, l->chosen + t * r->n_used, l->weights);
    mb_impose_routing(model, next, true, l->chosen);
    mb_store_prefetch(model->store, next->index, (const uint32_t *)l->chosen,
                      model->work.n_tokens * r->n_used, hint);
}

static void guess_now(struct mb_model *model, const struct mb_layer *next, enum mb_store_hint hint)
{
    const struct mb_vectors in = guess_input(model, next);
    const size_t n_experts = next->mlp->router.n_experts;
    mb_linear_rows(&model->stage, &next->matrix[MB_W_ROUTER], 0, n_experts, &in, model->work.n_tokens,
                   model->lookahead.scores, n_experts, NULL);
    tell(model, next, hint);
}

void mb_lookahead_now(struct mb_model *model, const struct mb_layer *layer)
{
    const struct mb_layer *next = next_of(model, layer);
    if (next != NULL)
        guess_now(model, next, MB_HINT_NEAR);
}

void mb_lookahead_enter(struct mb_model *model, size_t first_layer, size_t end_layer)
{
    while (first_layer < end_layer && !model->layers[first_layer].mlp->kind->has_experts)
        first_layer++;
    if (first_layer < end_layer && can_guess(&model->layers[first_layer]) && guesses(model))
        guess_now(model, &model->layers[first_layer], MB_HINT_FAR);
}

void mb_lookahead_tell(struct mb_model *model, const struct mb_layer *layer)
{
    const struct mb_layer *next = next_of(model, layer);
    if (next != NULL)
        tell(model, next, MB_HINT_NEAR);
}
