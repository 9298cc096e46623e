/*
 * workspace.c - all memory of a pass, made once: one mapping for the rows of tokens, whose pages exist only
 * as far as they are used, and each thread's scratch memory.
 */
#include "workspace.h"
#include "attention.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/max.h"
#include "base/memory.h"
#include "mlp.h"
#include "model.h"
#include <stdlib.h>

void *mb_take(struct mb_placing *p, uint64_t n, uint64_t elem_nbytes)
{
    void *place = p->base == NULL ? NULL : p->base + p->at;
    p->at += mb_round_up(n * elem_nbytes + MB_SLACK_NBYTES, 64);
    return place;
}

struct mb_activations mb_take_activations(struct mb_placing *p, uint64_t n, size_t n_values)
{
    struct mb_activation *at = mb_take(p, n, sizeof *at);
    void *memory = mb_take(p, 1, mb_activations_nbytes((size_t)n, n_values));
    struct mb_activations a = mb_activations_in(at, memory, (size_t)n, n_values);
    a.fast = mb_take(p, n, sizeof *a.fast);
    a.bytes_nbytes = mb_activation_fast_nbytes(n_values);
    a.bytes = mb_take(p, n, a.bytes_nbytes);
    a.fast_planes = mb_take(p, n, 2 * a.plane_nbytes);
    a.fast_wide = mb_take(p, n, a.wide_nbytes);
    return a;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Kinds use the same memory: attentions run one after another, and so do MLPs. Their parts lie apart. */
static void place_kinds(const struct mb_config *c, struct mb_placing *p, struct mb_workspace *w)
{
    for (size_t i = 0; i < c->n_attentions; i++)
        w->attention[i] = mb_take(p, 1, c->attentions[i].kind->part_nbytes);
    for (size_t i = 0; i < c->n_mlps; i++)
        w->mlp[i] = mb_take(p, 1, c->mlps[i].kind->part_nbytes);
    uint64_t begin = p->at, end = begin;
    for (size_t i = 0; i < c->n_attentions; i++, end = mb_max_u64(end, p->at)) {
        p->at = begin;
        c->attentions[i].kind->place(&c->attentions[i], c->n_pass_tokens, w->n_chunks_max, p,
                                     w->attention[i]);
    }
    begin = end;
    for (size_t i = 0; i < c->n_mlps; i++, end = mb_max_u64(end, p->at)) {
        p->at = begin;
        c->mlps[i].kind->place(&c->mlps[i], c->d_model, c->n_pass_tokens, p, w->mlp[i]);
    }
    p->at = end;
}

static void place(const struct mb_config *c, struct mb_placing *p, struct mb_workspace *w)
{
    const uint64_t n = c->n_pass_tokens, f = sizeof(float);
    w->tokens = mb_take(p, n, sizeof *w->tokens);
    w->pos = mb_take(p, n, sizeof *w->pos);
    w->segment_of = mb_take(p, n, sizeof *w->segment_of);
    w->segments = mb_take(p, n, sizeof *w->segments);
    w->x = mb_take(p, n * c->d_model, f);
    w->normed = mb_take(p, n * c->d_model, f);
    w->normed_a = mb_take_activations(p, n, c->d_model);
    w->y = mb_take(p, n * c->d_model, f);
    for (size_t i = 0; i < c->n_attentions; i++) {
        w->angles[i].cos = mb_take(p, n * (c->attentions[i].rope.n_dims / 2), f);
        w->angles[i].sin = mb_take(p, n * (c->attentions[i].rope.n_dims / 2), f);
    }
    w->n_chunks_max = max_size(c->n_ctx / MB_CHUNK_TOKENS + 1, 64);
    place_kinds(c, p, w);
    w->n_logits_max = n < MB_PASS_LOGITS ? n : MB_PASS_LOGITS;
    w->logits = mb_take(p, w->n_logits_max * c->n_vocab, f);
    w->logits_x = mb_take(p, w->n_logits_max * c->d_model, f);
    w->logits_a = mb_take_activations(p, w->n_logits_max, c->d_model);
}

/* ---------------------------------------------------------------- stages and threads */

/* Enough for any stage, and for any thread. */
struct needs {
    size_t n_products, n_pieces, coded_nbytes, n_up, n_floats, planes_nbytes;
};

/* Shapes are enough: a matrix may become coded or plain while the model is open (mb_model_overlay). */
static void need_matrix(struct needs *needs, const struct mb_config *c, const struct mb_weight *weight)
{
    size_t n_cols = weight->n_cols;
    if (mb_is_gate(weight->id))
        needs->n_up = max_size(
            needs->n_up, max_size(c->n_pass_tokens * mb_piece_rows(weight->n_rows, n_cols), weight->n_rows));
    needs->coded_nbytes = max_size(needs->coded_nbytes, mb_kernels()->matmul_scratch_nbytes(n_cols));
    if (weight->is_transposed)
        needs->coded_nbytes = max_size(needs->coded_nbytes, mb_kernels()->transposed_scratch_nbytes(n_cols));
}

/* No stage has more than all products of a layer. */
static void need_layer(struct needs *needs, const struct mb_config *c, size_t layer)
{
    struct mb_weight_list list;
    size_t n_products = 0, n_pieces = 0;
    mb_list_layer(c, layer, &list);
    for (size_t i = 0; i < list.n; i++) {
        const struct mb_weight *weight = &list.at[i];
        if (weight->n_cols == 0)
            continue;
        size_t n_experts = c->mlps[c->mlp_of[layer]].router.n_experts;
        n_experts = n_experts < MB_STORE_WAVE ? n_experts : MB_STORE_WAVE;
        size_t n = mb_is_expert_matrix(weight->id) ? n_experts : 1;
        need_matrix(needs, c, weight);
        n_products += n;
        n_pieces += n * mb_n_pieces(weight->n_rows, weight->n_cols);
    }
    needs->n_products = max_size(needs->n_products, n_products);
    needs->n_pieces = max_size(needs->n_pieces, n_pieces);
}

static struct needs find_needs(const struct mb_config *c)
{
    struct needs needs = {.n_products = 1, .n_pieces = mb_n_pieces(c->n_vocab, c->d_model)};
    need_matrix(&needs, c, &(struct mb_weight){.id = MB_W_HEAD, .n_rows = c->n_vocab, .n_cols = c->d_model});
    for (size_t i = 0; i < c->n_layers; i++)
        need_layer(&needs, c, i);
    for (size_t i = 0; i < c->n_attentions; i++) {
        struct mb_attention_scratch scratch = c->attentions[i].kind->scratch(&c->attentions[i]);
        needs.n_floats = max_size(needs.n_floats, scratch.n_floats);
        needs.planes_nbytes = max_size(needs.planes_nbytes, scratch.planes_nbytes);
    }
    return needs;
}

uint64_t mb_workspace_nbytes(const struct mb_config *c, int n_threads)
{
    struct needs needs = find_needs(c);
    struct mb_workspace work = {0};
    struct mb_placing p = {0};
    place(c, &p, &work);
    uint64_t thread_nbytes = needs.n_up * sizeof(float) + needs.n_floats * sizeof(float) +
                             needs.planes_nbytes + needs.coded_nbytes + 2 * MB_SLACK_NBYTES;
    return p.at + (uint64_t)n_threads * thread_nbytes + needs.n_products * sizeof(struct mb_product) +
           needs.n_pieces * sizeof(struct mb_piece);
}

static enum mb_status create_threads(struct mb_model *model, const struct needs *needs, struct mb_error *err)
{
    size_t n_threads = (size_t)mb_pool_n_threads(model->pool);
    model->scratch = mb_alloc(n_threads, sizeof *model->scratch);
    if (model->scratch == NULL)
        return mb_fail_memory(err, "the scratch memory of the threads");
    for (size_t i = 0; i < n_threads; i++) {
        struct mb_thread_scratch *s = &model->scratch[i];
        s->up = mb_alloc(needs->n_up, sizeof *s->up);
        s->attention = mb_alloc(needs->n_floats, sizeof *s->attention);
        s->planes = mb_alloc(needs->planes_nbytes + MB_SLACK_NBYTES, 1);
        if (s->up == NULL || s->attention == NULL || s->planes == NULL)
            return mb_fail_memory(err, "the scratch memory of the threads");
    }
    return MB_OK;
}

enum mb_status mb_workspace_create(struct mb_model *model, struct mb_error *err)
{
    struct needs needs = find_needs(&model->config);
    struct mb_placing p = {0};
    place(&model->config, &p, &model->work);
    model->work_nbytes = p.at;
    model->work_pages = mb_sparse_alloc(p.at);
    if (model->work_pages == NULL)
        return mb_fail_memory(err, "the activations of a batch");
    p = (struct mb_placing){.base = model->work_pages};
    place(&model->config, &p, &model->work);
    model->stage = (struct mb_stage){
        .kernels = model->kernels,
        .fast_bits_max = model->stage.fast_bits_max,
        .timeline = model->stage.timeline,
        .ops = model->ops,
        .pool = model->pool,
        .products = mb_alloc(needs.n_products, sizeof *model->stage.products),
        .pieces = mb_alloc(needs.n_pieces, sizeof *model->stage.pieces),
        .n_products_max = needs.n_products,
        .n_pieces_max = needs.n_pieces,
        .n_vectors_max = model->config.n_pass_tokens,
    };
    if (model->stage.products == NULL || model->stage.pieces == NULL)
        return mb_fail_memory(err, "the pieces of a stage");
    model->coded_scratch_nbytes = needs.coded_nbytes + MB_SLACK_NBYTES;
    MB_TRY(create_threads(model, &needs, err));
    model->stage.scratch = model->scratch;
    return model->has_coded ? mb_workspace_add_coded(model, err) : MB_OK;
}

enum mb_status mb_workspace_add_coded(struct mb_model *model, struct mb_error *err)
{
    for (int i = 0; i < mb_pool_n_threads(model->pool); i++) {
        struct mb_thread_scratch *s = &model->scratch[i];
        if (s->coded == NULL && (s->coded = mb_alloc(model->coded_scratch_nbytes, 1)) == NULL)
            return mb_fail_memory(err, "the scratch memory of the threads");
    }
    return MB_OK;
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
