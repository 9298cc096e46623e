/*
 * imposed.c - routing that comes from outside, for measurements (mb_model_impose_routing).
 */
#include "model.h"

void mb_model_impose_routing(struct mb_model *model, mb_impose_fn impose, void *ctx)
{
    model->impose = impose;
    model->impose_ctx = ctx;
}

void mb_impose_routing(struct mb_model *model, const struct mb_layer *layer, bool is_guess, int32_t *chosen)
{
    const size_t n_used = layer->mlp->router.n_used;
    for (size_t t = 0; t < model->work.n_tokens && model->impose != NULL; t++)
        model->impose(model->impose_ctx, model->n_passed + t, layer->index, is_guess, chosen + t * n_used,
                      n_used);
}
