/*
 * layers.c - finds every weight that config.json asks for, by the names that published checkpoints use.
 */
#include "base/error.h"
#include "base/memory.h"
#include "model.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_NBYTES_MAX = 256 };

/* Looking things up: the first failure is kept. */
struct finding {
    struct mb_model *model;
    enum mb_status status;
    struct mb_error *err;
};

static void name_of(char name[NAME_NBYTES_MAX], const char *format, va_list args)
{
    vsnprintf(name, NAME_NBYTES_MAX, format, args);
}

__attribute__((format(printf, 5, 6))) static void find_matrix(struct finding *f, uint64_t n_rows,
                                                              uint64_t n_cols, struct mb_linear *linear,
                                                              const char *format, ...)
{
    char name[NAME_NBYTES_MAX];
    va_list args;
    if (f->status != MB_OK)
        return;
    va_start(args, format);
    name_of(name, format, args);
    va_end(args);
    f->status = mb_weights_matrix(f->model->weights, name, n_rows, n_cols, &linear->matrix, f->err);
    f->model->has_coded = f->model->has_coded || (f->status == MB_OK && linear->matrix.is_coded);
}

__attribute__((format(printf, 4, 5))) static float *find_vector(struct finding *f, uint64_t n,
                                                                bool may_be_missing, const char *format, ...)
{
    char name[NAME_NBYTES_MAX];
    va_list args;
    if (f->status != MB_OK)
        return NULL;
    va_start(args, format);
    name_of(name, format, args);
    va_end(args);
    if (may_be_missing && !mb_weights_has(f->model->weights, name))
        return NULL;
    float *vector = mb_alloc(n, sizeof *vector);
    if (vector == NULL)
        f->status = mb_fail_memory(f->err, "a vector of weights");
    else
        f->status = mb_weights_vector(f->model->weights, name, n, vector, f->err);
    if (f->status != MB_OK) {
        free(vector);
        return NULL;
    }
    return vector;
}

static void find_mlp(struct finding *f, size_t d_model, size_t d_ff, struct mb_mlp *mlp, const char *prefix)
{
    find_matrix(f, d_ff, d_model, &mlp->gate, "%s.gate_proj.weight", prefix);
    find_matrix(f, d_ff, d_model, &mlp->up, "%s.up_proj.weight", prefix);
    find_matrix(f, d_model, d_ff, &mlp->down, "%s.down_proj.weight", prefix);
}

static void find_attention(struct finding *f, struct mb_layer *layer, size_t i)
{
    const struct mb_config *c = &f->model->config;
    size_t q_rows = c->n_heads * (c->d_nope + c->d_rope);
    if (c->q_rank == 0) {
        find_matrix(f, q_rows, c->d_model, &layer->q, "model.layers.%zu.self_attn.q_proj.weight", i);
    } else {
        find_matrix(f, c->q_rank, c->d_model, &layer->q_a, "model.layers.%zu.self_attn.q_a_proj.weight", i);
        find_matrix(f, q_rows, c->q_rank, &layer->q_b, "model.layers.%zu.self_attn.q_b_proj.weight", i);
        layer->q_a_norm =
            find_vector(f, c->q_rank, false, "model.layers.%zu.self_attn.q_a_layernorm.weight", i);
        if (c->has_bias)
            layer->q_a.bias = find_vector(f, c->q_rank, false, "model.layers.%zu.self_attn.q_a_proj.bias", i);
    }
    find_matrix(f, c->kv_rank + c->d_rope, c->d_model, &layer->kv_a,
                "model.layers.%zu.self_attn.kv_a_proj_with_mqa.weight", i);
    find_matrix(f, c->n_heads * (c->d_nope + c->d_v), c->kv_rank, &layer->kv_b,
                "model.layers.%zu.self_attn.kv_b_proj.weight", i);
    find_matrix(f, c->d_model, c->n_heads * c->d_v, &layer->o, "model.layers.%zu.self_attn.o_proj.weight", i);
    layer->kv_a_norm =
        find_vector(f, c->kv_rank, false, "model.layers.%zu.self_attn.kv_a_layernorm.weight", i);
    if (c->has_bias) {
        layer->kv_a.bias = find_vector(f, c->kv_rank + c->d_rope, false,
                                       "model.layers.%zu.self_attn.kv_a_proj_with_mqa.bias", i);
        layer->o.bias = find_vector(f, c->d_model, false, "model.layers.%zu.self_attn.o_proj.bias", i);
    }
}

static void find_moe(struct finding *f, struct mb_layer *layer, size_t i)
{
    const struct mb_config *c = &f->model->config;
    char prefix[NAME_NBYTES_MAX];
    find_matrix(f, c->n_experts, c->d_model, &layer->router, "model.layers.%zu.mlp.gate.weight", i);
    layer->router_bias =
        find_vector(f, c->n_experts, false, "model.layers.%zu.mlp.gate.e_score_correction_bias", i);
    if (f->status != MB_OK)
        return;
    layer->experts = mb_alloc(c->n_experts, sizeof *layer->experts);
    if (layer->experts == NULL) {
        f->status = mb_fail_memory(f->err, "the experts of a layer");
        return;
    }
    for (size_t e = 0; e < c->n_experts && f->status == MB_OK; e++) {
        snprintf(prefix, sizeof prefix, "model.layers.%zu.mlp.experts.%zu", i, e);
        find_mlp(f, c->d_model, c->d_expert, &layer->experts[e], prefix);
        const struct mb_mlp *expert = &layer->experts[e];
        f->model->has_plain_experts =
            f->model->has_plain_experts || !expert->gate.matrix.is_coded || !expert->up.matrix.is_coded;
    }
    snprintf(prefix, sizeof prefix, "model.layers.%zu.mlp.shared_experts", i);
    if (c->n_shared > 0)
        find_mlp(f, c->d_model, c->n_shared * c->d_expert, &layer->shared, prefix);
}

static void find_layer(struct finding *f, size_t i)
{
    const struct mb_config *c = &f->model->config;
    struct mb_layer *layer = &f->model->layers[i];
    char prefix[NAME_NBYTES_MAX];
    layer->is_moe = i >= c->n_dense_layers;
    layer->input_norm = find_vector(f, c->d_model, false, "model.layers.%zu.input_layernorm.weight", i);
    layer->post_norm =
        find_vector(f, c->d_model, false, "model.layers.%zu.post_attention_layernorm.weight", i);
    find_attention(f, layer, i);
    snprintf(prefix, sizeof prefix, "model.layers.%zu.mlp", i);
    if (layer->is_moe)
        find_moe(f, layer, i);
    else
        find_mlp(f, c->d_model, c->d_ff, &layer->mlp, prefix);
}

/* Layers behind the last one are for predicting several tokens: they are left alone, and said. */
static enum mb_status note_extra_layers(struct mb_model *model, struct mb_error *err)
{
    size_t n_extra = 0;
    for (size_t i = model->config.n_layers; i < model->config.n_layers + 64; i++) {
        char name[NAME_NBYTES_MAX];
        snprintf(name, sizeof name, "model.layers.%zu.input_layernorm.weight", i);
        n_extra += mb_weights_has(model->weights, name);
    }
    int n = n_extra == 0 ? asprintf(&model->notes, "%s", "")
                         : asprintf(&model->notes,
                                    "%zu layer%s beyond num_hidden_layers (multi-token prediction) not run\n",
                                    n_extra, n_extra == 1 ? "" : "s");
    if (n >= 0)
        return MB_OK;
    model->notes = NULL;
    return mb_fail_memory(err, "the name of a tensor");
}

enum mb_status mb_layers_load(struct mb_model *model, struct mb_error *err)
{
    const struct mb_config *c = &model->config;
    struct finding f = {.model = model, .err = err};
    model->layers = mb_alloc(c->n_layers, sizeof *model->layers);
    if (model->layers == NULL)
        return mb_fail_memory(err, "the layers");
    find_matrix(&f, c->n_vocab, c->d_model, &model->embedding, "model.embed_tokens.weight");
    model->norm = find_vector(&f, c->d_model, false, "model.norm.weight");
    model->has_own_head = !c->is_tied && mb_weights_has(model->weights, "lm_head.weight");
    if (!model->has_own_head)
        model->lm_head = model->embedding;
    else
        find_matrix(&f, c->n_vocab, c->d_model, &model->lm_head, "lm_head.weight");
    for (size_t i = 0; i < c->n_layers && f.status == MB_OK; i++)
        find_layer(&f, i);
    return f.status == MB_OK ? note_extra_layers(model, err) : f.status;
}

void mb_layers_free(struct mb_model *model)
{
    for (size_t i = 0; model->layers != NULL && i < model->config.n_layers; i++) {
        struct mb_layer *layer = &model->layers[i];
        free(layer->input_norm);
        free(layer->post_norm);
        free(layer->q_a_norm);
        free(layer->kv_a_norm);
        free((void *)layer->q_a.bias);
        free((void *)layer->kv_a.bias);
        free((void *)layer->o.bias);
        free(layer->router_bias);
        free(layer->experts);
    }
    free(model->layers);
    free(model->norm);
    free(model->notes);
}
