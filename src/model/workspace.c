/*
 * workspace.c - all memory of a pass, made once: one mapping for the rows of tokens, whose pages exist only
 * as far as they are used, and each thread's scratch memory.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "model.h"
#include <stdlib.h>

/* Gives places one behind the other; with base NULL it only counts. */
struct placing {
    uint8_t *base;
    uint64_t at;
};

static void *take(struct placing *p, uint64_t n, uint64_t elem_nbytes)
{
    void *place = p->base == NULL ? NULL : p->base + p->at;
    p->at += mb_round_up(n * elem_nbytes + MB_SLACK_NBYTES, 64);
    return place;
}

static struct mb_activations take_activations(struct placing *p, uint64_t n, size_t n_values)
{
    size_t plane_nbytes = mb_activation_plane_nbytes(n_values);
    struct mb_activations a = {.plane_nbytes = plane_nbytes};
    a.at = take(p, n, sizeof *a.at);
    a.planes = take(p, 2 * n, plane_nbytes);
    return a;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The longest hidden vector of a dense MLP or of the shared experts. */
static size_t n_hidden(const struct mb_config *c)
{
    return max_size(c->n_dense_layers > 0 ? c->d_ff : 0, c->n_shared * c->d_expert);
}

static void place_attention(const struct mb_config *c, struct placing *p, struct mb_workspace *w)
{
    const uint64_t n = MB_PASS_TOKENS, f = sizeof(float);
    size_t latent = c->kv_rank + c->d_rope;
    w->cos = take(p, n * (c->d_rope / 2), f);
    w->sin = take(p, n * (c->d_rope / 2), f);
    w->q_a = take(p, n * c->q_rank, f);
    w->q_a_a = take_activations(p, n, c->q_rank);
    w->q = take(p, n * c->n_heads * (c->d_nope + c->d_rope), f);
    w->kv = take(p, n * latent, f);
    w->latent_q = take(p, n * c->n_heads * latent, f);
    w->n_chunks_max = max_size(c->n_ctx / MB_CHUNK_TOKENS + 1, 64);
    w->partial = take(p, w->n_chunks_max * c->n_heads * (c->kv_rank + 2), f);
    w->chunks_left = take(p, n * mb_attention_n_groups(c), sizeof *w->chunks_left);
    w->o = take(p, n * c->n_heads * c->d_v, f);
    w->o_a = take_activations(p, n, c->n_heads * c->d_v);
}

static void place_experts(const struct mb_config *c, struct placing *p, struct mb_workspace *w)
{
    const uint64_t n = MB_PASS_TOKENS, f = sizeof(float), n_slots = n * c->n_used;
    w->router = take(p, n * c->n_experts, f);
    w->choice = take(p, n * c->n_experts, f);
    w->chosen = take(p, n_slots, sizeof *w->chosen);
    w->chosen_weight = take(p, n_slots, f);
    w->margin = take(p, n, f);
    w->slot = take(p, n_slots, sizeof *w->slot);
    w->slot_in = take(p, n_slots, sizeof *w->slot_in);
    w->slot_hidden = take(p, n_slots * c->d_expert, f);
    w->slot_hidden_a = take_activations(p, n_slots, c->d_expert);
    w->slot_y = take(p, n_slots * c->d_model, f);
    w->expert_first = take(p, c->n_experts + 1, sizeof *w->expert_first);
}

static void place(const struct mb_config *c, struct placing *p, struct mb_workspace *w)
{
    const uint64_t n = MB_PASS_TOKENS, f = sizeof(float);
    w->tokens = take(p, n, sizeof *w->tokens);
    w->pos = take(p, n, sizeof *w->pos);
    w->segment_of = take(p, n, sizeof *w->segment_of);
    w->segments = take(p, n, sizeof *w->segments);
    w->x = take(p, n * c->d_model, f);
    w->normed = take(p, n * c->d_model, f);
    w->normed_a = take_activations(p, n, c->d_model);
    w->y = take(p, n * c->d_model, f);
    w->hidden = take(p, n * n_hidden(c), f);
    w->hidden_a = take_activations(p, n, n_hidden(c));
    place_attention(c, p, w);
    place_experts(c, p, w);
    w->logits = take(p, MB_PASS_LOGITS * (uint64_t)c->n_vocab, f);
    w->logits_x = take(p, MB_PASS_LOGITS * (uint64_t)c->d_model, f);
    w->logits_a = take_activations(p, MB_PASS_LOGITS, c->d_model);
}

/* ---------------------------------------------------------------- stages and threads */

/* What is largest over all matrices. */
struct needs {
    size_t n_products, n_pieces, coded_nbytes, n_up;
};

static void need_matrix(struct needs *needs, const struct mb_linear *linear)
{
    const struct mb_matrix *m = &linear->matrix;
    if (m->is_coded)
        needs->coded_nbytes = max_size(needs->coded_nbytes, mb_matmul_scratch_nbytes(&m->coded));
}

static size_t need_mlp(struct needs *needs, const struct mb_mlp *mlp)
{
    need_matrix(needs, &mlp->gate);
    need_matrix(needs, &mlp->up);
    need_matrix(needs, &mlp->down);
    needs->n_up = max_size(needs->n_up, MB_PASS_TOKENS * mb_piece_rows(&mlp->gate.matrix));
    return max_size(mb_n_pieces(&mlp->gate.matrix), mb_n_pieces(&mlp->down.matrix));
}

static size_t need_attention(struct needs *needs, const struct mb_config *c, const struct mb_layer *layer)
{
    size_t n = 0;
    const struct mb_linear *q = c->q_rank == 0 ? &layer->q : &layer->q_a;
    need_matrix(needs, q);
    need_matrix(needs, &layer->kv_a);
    need_matrix(needs, &layer->kv_b);
    need_matrix(needs, &layer->o);
    n = max_size(mb_n_pieces(&q->matrix) + mb_n_pieces(&layer->kv_a.matrix), mb_n_pieces(&layer->o.matrix));
    if (c->q_rank > 0) {
        need_matrix(needs, &layer->q_b);
        n = max_size(n, mb_n_pieces(&layer->q_b.matrix));
    }
    if (layer->kv_b.matrix.is_coded)
        needs->coded_nbytes =
            max_size(needs->coded_nbytes, mb_matvec_transposed_scratch_nbytes(&layer->kv_b.matrix.coded));
    return n;
}

static size_t need_moe(struct needs *needs, const struct mb_config *c, const struct mb_layer *layer)
{
    size_t n_experts = 0, n_shared = 0;
    need_matrix(needs, &layer->router);
    for (size_t e = 0; e < c->n_experts; e++)
        n_experts += need_mlp(needs, &layer->experts[e]);
    if (c->n_shared > 0)
        n_shared = need_mlp(needs, &layer->shared);
    return max_size(n_experts, mb_n_pieces(&layer->router.matrix)) + n_shared;
}

static struct needs find_needs(const struct mb_model *model)
{
    const struct mb_config *c = &model->config;
    struct needs needs = {.n_products = c->n_experts + 2, .n_pieces = mb_n_pieces(&model->lm_head.matrix)};
    need_matrix(&needs, &model->lm_head);
    for (size_t i = 0; i < c->n_layers; i++) {
        const struct mb_layer *layer = &model->layers[i];
        needs.n_pieces = max_size(needs.n_pieces, need_attention(&needs, c, layer));
        needs.n_pieces = max_size(needs.n_pieces,
                                  layer->is_moe ? need_moe(&needs, c, layer) : need_mlp(&needs, &layer->mlp));
    }
    return needs;
}

static enum mb_status create_threads(struct mb_model *model, const struct needs *needs, struct mb_error *err)
{
    const struct mb_config *c = &model->config;
    size_t n_threads = (size_t)mb_pool_n_threads(model->pool);
    size_t planes_nbytes = 2 * mb_attention_planes_n() * mb_attention_plane_nbytes(c) + MB_SLACK_NBYTES;
    model->scratch = mb_alloc(n_threads, sizeof *model->scratch);
    if (model->scratch == NULL)
        return mb_fail_memory(err, "the scratch memory of the threads");
    for (size_t i = 0; i < n_threads; i++) {
        struct mb_thread_scratch *s = &model->scratch[i];
        s->coded = mb_alloc(needs->coded_nbytes + MB_SLACK_NBYTES, 1);
        s->up = mb_alloc(needs->n_up, sizeof *s->up);
        s->attention = mb_alloc(mb_attention_scratch_n(c), sizeof *s->attention);
        s->planes = mb_alloc(planes_nbytes, 1);
        if (s->coded == NULL || s->up == NULL || s->attention == NULL || s->planes == NULL)
            return mb_fail_memory(err, "the scratch memory of the threads");
    }
    return MB_OK;
}

enum mb_status mb_workspace_create(struct mb_model *model, struct mb_error *err)
{
    struct needs needs = find_needs(model);
    struct placing p = {0};
    place(&model->config, &p, &model->work);
    model->work_nbytes = p.at;
    model->work_pages = mb_sparse_alloc(p.at);
    if (model->work_pages == NULL)
        return mb_fail_memory(err, "the activations of a batch");
    p = (struct placing){.base = model->work_pages};
    place(&model->config, &p, &model->work);
    model->stage = (struct mb_stage){
        .kernels = model->kernels,
        .vec = model->vec,
        .pool = model->pool,
        .products = mb_alloc(needs.n_products, sizeof *model->stage.products),
        .pieces = mb_alloc(needs.n_pieces, sizeof *model->stage.pieces),
        .n_products_max = needs.n_products,
        .n_pieces_max = needs.n_pieces,
    };
    if (model->stage.products == NULL || model->stage.pieces == NULL)
        return mb_fail_memory(err, "the pieces of a stage");
    enum mb_status status = create_threads(model, &needs, err);
    model->stage.scratch = model->scratch;
    return status;
}

void mb_workspace_free(struct mb_model *model)
{
    for (int i = 0; model->scratch != NULL && i < mb_pool_n_threads(model->pool); i++) {
        free(model->scratch[i].coded);
        free(model->scratch[i].up);
        free(model->scratch[i].attention);
        free(model->scratch[i].planes);
    }
    free(model->scratch);
    free(model->stage.products);
    free(model->stage.pieces);
    mb_pages_free(model->work_pages, model->work_nbytes);
}
