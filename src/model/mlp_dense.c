/*
 * mlp_dense.c - an MLP that all tokens go through: y = down (silu(gate x) * (up x)).
 */
#include "mlp.h"
#include "model.h"

struct dense_part {
    float *hidden; /* [n_pass_tokens][d_ff] */
    struct mb_activations hidden_a;
};

static void list(const struct mb_mlp_config *mlp, size_t d_model, struct mb_weight_list *weights)
{
    mb_list_matrix(weights, MB_W_GATE, mlp->d_ff, d_model, false);
    mb_list_matrix(weights, MB_W_UP, mlp->d_ff, d_model, false);
    mb_list_matrix(weights, MB_W_DOWN, d_model, mlp->d_ff, false);
}

static void place(const struct mb_mlp_config *mlp, size_t d_model, size_t n_pass_tokens, struct mb_placing *p,
                  void *to)
{
    (void)d_model;
    struct dense_part part;
    part.hidden = mb_take(p, n_pass_tokens * (uint64_t)mlp->d_ff, sizeof *part.hidden);
    part.hidden_a = mb_take_activations(p, n_pass_tokens, mlp->d_ff);
    if (to != NULL)
        *(struct dense_part *)to = part;
}

static enum mb_status run(struct mb_model *model, const struct mb_layer *layer, struct mb_error *err)
{
    (void)err;
    const struct dense_part *part = mb_mlp_part(model, layer);
    const struct mb_linear *w = layer->matrix;
    struct mb_stage *stage = &model->stage;
    size_t n = model->work.n_tokens;
    mb_lookahead_now(model, layer);
    mb_stage_begin(stage);
    mb_add_gate_up(stage, &w[MB_W_GATE], &w[MB_W_UP], &w[MB_W_DOWN], mb_normed(model), n, part->hidden,
                   &part->hidden_a, layer->forms[MB_READ_DOWN], 0);
    mb_stage_run(stage);
    mb_stage_begin(stage);
    mb_add_product(stage, &w[MB_W_DOWN], mb_vectors_of(part->hidden, layer->mlp->d_ff, &part->hidden_a), n,
                   model->work.y);
    mb_stage_run(stage);
    mb_lap(model, MB_TIMELINE_DENSE, layer, &model->timing.dense_ns);
    return MB_OK;
}

const struct mb_mlp_kind mb_mlp_dense = {
    .name = "dense", .list = list, .part_nbytes = sizeof(struct dense_part), .place = place, .run = run};
