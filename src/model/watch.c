/*
 * watch.c - shows the inputs of matrices to a caller who gathers statistics of them.
 */
#include "mlp.h"
#include "model.h"

static void show(void *ctx, const struct mb_linear *w, const struct mb_vectors *in, size_t n_tokens)
{
    const struct mb_model *model = ctx;
    char name[MB_NAME_NBYTES_MAX];
    enum mb_weight_id id = (enum mb_weight_id)w->place.id;
    bool is_expert = mb_is_expert_matrix(id), is_of_layer = id < MB_N_EXPERT_END;
    mb_weight_name(&model->config, id, w->place.layer, w->place.expert, name);
    struct mb_matrix_input input = {
        .name = name,
        .layer = is_of_layer ? w->place.layer : SIZE_MAX,
        .expert = is_expert ? w->place.expert : SIZE_MAX,
        .x = in->x,
        .stride = in->stride,
        .n_values = w->matrix->n_cols,
        .n = n_tokens,
        .weights =
            is_expert ? mb_expert_weights(model, &model->layers[w->place.layer], w->place.expert) : NULL,
    };
    model->watch(model->watch_ctx, &input);
}

/* Inputs of experts are kept as floats from now on, which changes no result. */
void mb_model_watch_inputs(struct mb_model *model, mb_matrix_input_fn fn, void *ctx)
{
    model->watch = fn;
    model->watch_ctx = ctx;
    model->stage.watch = fn != NULL ? show : NULL;
    model->stage.watch_ctx = model;
    model->has_plain_experts = model->has_plain_experts || fn != NULL;
}
