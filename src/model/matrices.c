/*
 * matrices.c - the list of all matrices that a model works with.
 */
#include "base/error.h"
#include "base/memory.h"
#include "mlp.h"
#include "model.h"
#include <assert.h>

static const struct {
    enum mb_matrix_kind kind;
    const char *part;
} kinds[MB_N_EXPERT_END] = {
    [MB_W_Q] = {MB_MATRIX_ATTENTION, "q"},           [MB_W_Q_A] = {MB_MATRIX_ATTENTION, "q_a"},
    [MB_W_Q_B] = {MB_MATRIX_ATTENTION, "q_b"},       [MB_W_KV_A] = {MB_MATRIX_ATTENTION, "kv_a"},
    [MB_W_KV_B] = {MB_MATRIX_ATTENTION, "kv_b"},     [MB_W_K] = {MB_MATRIX_ATTENTION, "k"},
    [MB_W_V] = {MB_MATRIX_ATTENTION, "v"},           [MB_W_O] = {MB_MATRIX_ATTENTION, "o"},
    [MB_W_GATE] = {MB_MATRIX_DENSE, "gate"},         [MB_W_UP] = {MB_MATRIX_DENSE, "up"},
    [MB_W_DOWN] = {MB_MATRIX_DENSE, "down"},         [MB_W_ROUTER] = {MB_MATRIX_ROUTER, ""},
    [MB_W_SHARED_GATE] = {MB_MATRIX_SHARED, "gate"}, [MB_W_SHARED_UP] = {MB_MATRIX_SHARED, "up"},
    [MB_W_SHARED_DOWN] = {MB_MATRIX_SHARED, "down"}, [MB_W_SHARED_SCORE] = {MB_MATRIX_ROUTER, ""},
    [MB_W_EXPERT_GATE] = {MB_MATRIX_EXPERT, "gate"}, [MB_W_EXPERT_UP] = {MB_MATRIX_EXPERT, "up"},
    [MB_W_EXPERT_DOWN] = {MB_MATRIX_EXPERT, "down"},
};

/* 'name' is that of a matrix that has been bound. */
static void add(struct mb_model *model, struct mb_model_matrix matrix, const char *name)
{
    const struct mb_weight_info *weight = mb_index_find(model->index, name);
    assert(weight != NULL);
    matrix.name = weight->name;
    matrix.n_rows = weight->n_rows;
    matrix.n_cols = (size_t)weight->n_cols;
    matrix.dtype = (enum mb_dtype)weight->type;
    matrix.is_coded = weight->is_coded;
    matrix.eps = weight->eps;
    model->matrices[model->n_matrices++] = matrix;
}

static void add_of_layer(struct mb_model *model, enum mb_weight_id id, size_t layer, int expert)
{
    char name[MB_NAME_NBYTES_MAX];
    mb_weight_name(&model->config, id, layer, expert < 0 ? 0 : (size_t)expert, name);
    add(model,
        (struct mb_model_matrix){
            .kind = kinds[id].kind, .part = kinds[id].part, .layer = (int)layer, .expert = expert},
        name);
}

static size_t n_experts_of(const struct mb_layer *layer)
{
    return layer->mlp->kind->has_experts ? layer->mlp->router.n_experts : 0;
}

/* Experts' matrices follow one another in the list of weights; each expert has all of its own together. */
static void add_layer(struct mb_model *model, const struct mb_layer *layer, const struct mb_weight_list *list)
{
    for (size_t k = 0; k < list->n; k++)
        if (list->at[k].id < MB_N_LAYER_MATRICES)
            add_of_layer(model, list->at[k].id, layer->index, -1);
    for (size_t e = 0; e < n_experts_of(layer); e++)
        for (size_t k = 0; k < list->n; k++)
            if (mb_is_expert_matrix(list->at[k].id))
                add_of_layer(model, list->at[k].id, layer->index, (int)e);
}

/* A tied model whose embedding is missing has the head in its place (layers.c). */
static void add_embedding_and_head(struct mb_model *model)
{
    char embedding[MB_NAME_NBYTES_MAX], head[MB_NAME_NBYTES_MAX];
    struct mb_model_matrix matrix = {.kind = MB_MATRIX_EMBEDDING, .part = "", .layer = -1, .expert = -1};
    mb_weight_name(&model->config, MB_W_EMBEDDING, 0, 0, embedding);
    mb_weight_name(&model->config, MB_W_HEAD, 0, 0, head);
    add(model, matrix, mb_index_find(model->index, embedding) != NULL ? embedding : head);
    matrix.kind = MB_MATRIX_HEAD;
    if (model->has_own_head)
        add(model, matrix, head);
}

enum mb_status mb_matrices_list(struct mb_model *model, struct mb_error *err)
{
    struct mb_weight_list list;
    size_t n = 2, n_layers = model->config.n_layers;
    for (size_t i = 0; i < n_layers; i++)
        n += MB_LAYER_WEIGHTS_MAX + MB_N_EXPERT_MATRICES * n_experts_of(&model->layers[i]);
    model->matrices = mb_alloc(n, sizeof *model->matrices);
    if (model->matrices == NULL)
        return mb_fail_memory(err, "the list of matrices");
    for (size_t i = 0; i < n_layers; i++) {
        mb_list_layer(&model->config, i, &list);
        add_layer(model, &model->layers[i], &list);
    }
    add_embedding_and_head(model);
    return MB_OK;
}

const struct mb_model_matrix *mb_model_matrices(const struct mb_model *model, size_t *n)
{
    *n = model->n_matrices;
    return model->matrices;
}

struct mb_matrix mb_model_weights(const struct mb_model *model, size_t i)
{
    struct mb_matrix matrix = {0};
    enum mb_status status = mb_store_original(model->store, model->matrices[i].name, &matrix, NULL);
    assert(status == MB_OK || status == MB_UNSUPPORTED); /* all of the list are in use; or it is streamed */
    (void)status;
    return matrix;
}

void mb_model_watch_routes(struct mb_model *model, mb_route_fn route, void *ctx)
{
    model->route = route;
    model->route_ctx = ctx;
}

void mb_model_cancel_when(struct mb_model *model, mb_cancel_fn is_cancelled, void *ctx)
{
    model->is_cancelled = is_cancelled;
    model->cancel_ctx = ctx;
}
