/*
 * layers.c - finds every weight that the list of a layer names (layer_weights.h), and counts them.
 */
#include "base/error.h"
#include "base/memory.h"
#include "mlp.h"
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum mb_status load_matrix(struct mb_model *model, const char *name, size_t n_rows, size_t n_cols,
                                  struct mb_linear *linear, struct mb_error *err)
{
    MB_TRY(mb_store_matrix(model->store, name, n_rows, n_cols, &linear->matrix, err));
    model->has_coded = model->has_coded || linear->matrix->is_coded;
    return MB_OK;
}

static enum mb_status load_vector(struct mb_model *model, const char *name, size_t n, float **vector,
                                  struct mb_error *err)
{
    *vector = mb_alloc(n, sizeof **vector);
    if (*vector == NULL)
        return mb_fail_memory(err, "a vector of weights");
    return mb_store_vector(model->store, name, n, *vector, err);
}

/* The name of a matrix ends in "weight", that of its bias in "bias". */
static void bias_name(char name[MB_NAME_NBYTES_MAX])
{
    char *end = strrchr(name, '.') + 1;
    snprintf(end, (size_t)(name + MB_NAME_NBYTES_MAX - end), "bias");
}

/* The vector that a matrix reads; MB_N_READ: none that is ready before its stage. */
static enum mb_read read_by(enum mb_weight_id id)
{
    switch (id) {
    case MB_W_Q:
    case MB_W_Q_A:
    case MB_W_KV_A:
    case MB_W_K:
    case MB_W_V:
        return MB_READ_ATTENTION;
    case MB_W_Q_B:
        return MB_READ_Q_A;
    case MB_W_KV_B:
        return MB_N_READ;
    case MB_W_O:
        return MB_READ_O;
    case MB_W_DOWN:
        return MB_READ_DOWN;
    case MB_W_SHARED_DOWN:
        return MB_READ_SHARED_DOWN;
    case MB_W_EXPERT_DOWN:
        return MB_READ_EXPERT_DOWN;
    default:
        return MB_READ_MLP;
    }
}

static void add_form(const struct mb_model *model, struct mb_layer *layer, enum mb_weight_id id,
                     const struct mb_matrix *matrix)
{
    if (read_by(id) < MB_N_READ)
        layer->forms[read_by(id)] |= mb_form_of(&model->stage, matrix);
}

/* Of whatever name: the engine knows what to do with exponents in the input of these alone. */
static enum mb_status check_exponents(const struct mb_model *model, const char *name, enum mb_weight_id id,
                                      struct mb_error *err)
{
    const struct mb_weight_info *weight = mb_index_find(model->index, name);
    if (!weight->has_exponents || id == MB_W_DOWN || id == MB_W_SHARED_DOWN || id == MB_W_EXPERT_DOWN)
        return MB_OK;
    return mb_fail(err, MB_UNSUPPORTED,
                   "%s: tensor %s: exponents of columns are supported in down_proj alone",
                   mb_tensor_path(model->ckpt, weight->tensor), name);
}

static enum mb_status load_weight(struct mb_model *model, struct mb_layer *layer,
                                  const struct mb_weight *weight, struct mb_error *err)
{
    char name[MB_NAME_NBYTES_MAX];
    mb_weight_name(&model->config, weight->id, layer->index, 0, name);
    if (weight->n_cols == 0)
        return load_vector(model, name, weight->n_rows, &layer->vector[weight->id - MB_N_EXPERT_END], err);
    struct mb_linear *linear = &layer->matrix[weight->id];
    MB_TRY(load_matrix(model, name, weight->n_rows, weight->n_cols, linear, err));
    MB_TRY(check_exponents(model, name, weight->id, err));
    linear->place = (struct mb_matrix_place){(int)weight->id, layer->index, 0};
    add_form(model, layer, weight->id, linear->matrix);
    if (!weight->has_bias)
        return MB_OK;
    bias_name(name);
    return load_vector(model, name, weight->n_rows, &linear->bias, err);
}

/* Says what an expert is made of; its bytes are had by mb_store_acquire. */
static enum mb_status bind_expert(struct mb_model *model, struct mb_layer *layer,
                                  const struct mb_weight_list *list, size_t expert, struct mb_error *err)
{
    char names[MB_N_EXPERT_MATRICES][MB_NAME_NBYTES_MAX];
    struct mb_expert_part parts[MB_N_EXPERT_MATRICES];
    for (size_t i = 0; i < list->n; i++) {
        const struct mb_weight *weight = &list->at[i];
        if (!mb_is_expert_matrix(weight->id))
            continue;
        size_t at = weight->id - MB_N_LAYER_MATRICES;
        mb_weight_name(&model->config, weight->id, layer->index, expert, names[at]);
        parts[at] = (struct mb_expert_part){names[at], weight->n_rows, weight->n_cols};
    }
    MB_TRY(mb_store_bind_expert(model->store, layer->index, expert, parts, MB_N_EXPERT_MATRICES, err));
    for (size_t i = 0; i < MB_N_EXPERT_MATRICES; i++) {
        MB_TRY(check_exponents(model, names[i], MB_N_LAYER_MATRICES + i, err));
        const struct mb_weight_info *weight = mb_index_find(model->index, names[i]);
        bool is_coded = weight->is_coded;
        add_form(model, layer, MB_N_LAYER_MATRICES + i,
                 &(struct mb_matrix){.is_coded = is_coded, .bits_per_weight = mb_bits_per_weight(weight)});
        model->has_coded = model->has_coded || is_coded;
        model->has_plain_experts = model->has_plain_experts || !is_coded;
    }
    return MB_OK;
}

/* Shared experts that config.json does not tell of: without them, answers would be wrong. */
static enum mb_status check_no_shared(const struct mb_model *model, const struct mb_layer *layer,
                                      struct mb_error *err)
{
    char name[MB_NAME_NBYTES_MAX];
    mb_weight_name(&model->config, MB_W_SHARED_GATE, layer->index, 0, name);
    if (layer->mlp->d_shared > 0 || mb_index_find(model->index, name) == NULL)
        return MB_OK;
    return mb_fail(err, MB_BAD_DATA,
                   "%s: tensor %s is there, but config.json says that there is no shared expert",
                   mb_checkpoint_path(model->ckpt), name);
}

/* Any coded matrix may come to lie over any other: vectors are ready in both forms. */
void mb_layers_need_all_forms(struct mb_model *model)
{
    for (size_t i = 0; i < model->config.n_layers; i++)
        for (size_t k = 0; k < MB_N_READ; k++)
            model->layers[i].forms[k] = MB_EXACT_FORM | MB_FAST_FORM;
    model->head_forms = MB_EXACT_FORM | MB_FAST_FORM;
}

static enum mb_status load_layer(struct mb_model *model, size_t i, struct mb_error *err)
{
    const struct mb_config *c = &model->config;
    struct mb_layer *layer = &model->layers[i];
    struct mb_weight_list list;
    layer->index = i;
    layer->attention = &c->attentions[c->attention_of[i]];
    layer->mlp = &c->mlps[c->mlp_of[i]];
    mb_list_layer(c, i, &list);
    for (size_t k = 0; k < list.n; k++)
        if (!mb_is_expert_matrix(list.at[k].id))
            MB_TRY(load_weight(model, layer, &list.at[k], err));
    if (layer->mlp->kind->has_experts)
        MB_TRY(check_no_shared(model, layer, err));
    for (size_t e = 0; layer->mlp->kind->has_experts && e < layer->mlp->router.n_experts; e++)
        MB_TRY(bind_expert(model, layer, &list, e, err));
    return MB_OK;
}

/*
 * As transformers: a head of its own counts even where config.json ties it to the embedding, and if one of
 * the two is missing then, the other one is both.  A head that is missing without that is an error:
 * transformers would draw its weights.
 */
static enum mb_status load_embedding_and_head(struct mb_model *model, struct mb_error *err)
{
    const struct mb_config *c = &model->config;
    char embedding[MB_NAME_NBYTES_MAX], head[MB_NAME_NBYTES_MAX];
    mb_weight_name(c, MB_W_EMBEDDING, 0, 0, embedding);
    mb_weight_name(c, MB_W_HEAD, 0, 0, head);
    bool has_head = mb_index_find(model->index, head) != NULL;
    bool has_embedding = mb_index_find(model->index, embedding) != NULL;
    model->has_own_head = !c->is_tied || (has_head && has_embedding);
    bool is_head = c->is_tied && has_head && !has_embedding;
    MB_TRY(load_matrix(model, is_head ? head : embedding, c->n_vocab, c->d_model, &model->embedding, err));
    model->embedding.place.id = is_head ? MB_W_HEAD : MB_W_EMBEDDING;
    model->head = model->embedding;
    if (model->has_own_head) {
        MB_TRY(load_matrix(model, head, c->n_vocab, c->d_model, &model->head, err));
        model->head.place.id = MB_W_HEAD;
    }
    model->head_forms = mb_form_of(&model->stage, model->head.matrix);
    bias_name(head);
    return c->has_head_bias ? load_vector(model, head, c->n_vocab, &model->head.bias, err) : MB_OK;
}

static enum mb_status load_final_norm(struct mb_model *model, struct mb_error *err)
{
    const struct mb_config *c = &model->config;
    char name[MB_NAME_NBYTES_MAX];
    mb_weight_name(c, MB_W_FINAL_NORM, 0, 0, name);
    MB_TRY(load_vector(model, name, c->d_model, &model->norm, err));
    if (!c->has_layer_norms)
        return MB_OK;
    mb_weight_name(c, MB_W_FINAL_NORM_BIAS, 0, 0, name);
    return load_vector(model, name, c->d_model, &model->norm_bias, err);
}

enum mb_status mb_layers_load(struct mb_model *model, struct mb_error *err)
{
    size_t n_layers = model->config.n_layers;
    model->layers = mb_alloc(n_layers, sizeof *model->layers);
    if (model->layers == NULL)
        return mb_fail_memory(err, "the layers");
    MB_TRY(load_embedding_and_head(model, err));
    MB_TRY(load_final_norm(model, err));
    for (size_t i = 0; i < n_layers; i++)
        MB_TRY(load_layer(model, i, err));
    MB_TRY(mb_matrices_list(model, err));
    return mb_notes_make(model, err);
}

void mb_layers_free(struct mb_model *model)
{
    for (size_t i = 0; model->layers != NULL && i < model->config.n_layers; i++) {
        struct mb_layer *layer = &model->layers[i];
        for (size_t k = 0; k < MB_N_LAYER_VECTORS; k++)
            free(layer->vector[k]);
        for (size_t k = 0; k < MB_N_LAYER_MATRICES; k++)
            free(layer->matrix[k].bias);
        free(layer->dropped);
    }
    free(model->layers);
    free(model->norm);
    free(model->norm_bias);
    free(model->head.bias);
    free(model->matrices);
    free(model->notes.p);
}

/* ---------------------------------------------------------------- counting */

/* Bytes that a product with a matrix reads. */
static double nbytes_of(const struct mb_model *model, enum mb_weight_id id, size_t layer, size_t expert)
{
    char name[MB_NAME_NBYTES_MAX];
    mb_weight_name(&model->config, id, layer, expert, name);
    return (double)mb_store_product_nbytes(model->store, name);
}

static double head_nbytes(const struct mb_model *model)
{
    char name[MB_NAME_NBYTES_MAX];
    mb_weight_name(&model->config, MB_W_HEAD, 0, 0, name);
    bool has_head = mb_index_find(model->index, name) != NULL;
    return nbytes_of(model, has_head ? MB_W_HEAD : MB_W_EMBEDDING, 0, 0);
}

static void count_weight(const struct mb_model *model, const struct mb_layer *layer,
                         const struct mb_weight *weight, uint64_t *n_params, double *token_nbytes)
{
    size_t n_cols = weight->n_cols == 0 ? 1 : weight->n_cols, n_times = 1;
    double share = 1; /* of a token */
    if (mb_is_expert_matrix(weight->id)) {
        n_times = layer->mlp->router.n_experts;
        share = (double)layer->mlp->router.n_used / (double)n_times;
    }
    *n_params += n_times * ((uint64_t)weight->n_rows * n_cols + (weight->has_bias ? weight->n_rows : 0));
    for (size_t e = 0; e < n_times && weight->n_cols > 0; e++)
        *token_nbytes += share * nbytes_of(model, weight->id, layer->index, e);
}

void mb_layers_count(const struct mb_model *model, uint64_t *n_params, uint64_t *token_nbytes)
{
    const struct mb_config *c = &model->config;
    uint64_t n = (uint64_t)c->n_vocab * c->d_model * (model->has_own_head ? 2 : 1);
    n += c->d_model * (c->has_layer_norms ? 2U : 1U) + (c->has_head_bias ? c->n_vocab : 0);
    double nbytes = head_nbytes(model);
    struct mb_weight_list list;
    for (size_t i = 0; i < c->n_layers; i++) {
        mb_list_layer(c, i, &list);
        for (size_t k = 0; k < list.n; k++)
            count_weight(model, &model->layers[i], &list.at[k], &n, &nbytes);
    }
    *n_params = n;
    *token_nbytes = (uint64_t)nbytes;
}
