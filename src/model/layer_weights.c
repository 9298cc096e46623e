/*
 * layer_weights.c - see layer_weights.h.
 */
#include "layer_weights.h"
#include "attention.h"
#include "families/family.h"
#include "mlp.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

/* As most published checkpoints spell them. {layer} and {expert} are numbers from 0. */
static const char *const usual_names[MB_N_WEIGHTS] = {
    [MB_W_Q] = "model.layers.{layer}.self_attn.q_proj.weight",
    [MB_W_Q_A] = "model.layers.{layer}.self_attn.q_a_proj.weight",
    [MB_W_Q_B] = "model.layers.{layer}.self_attn.q_b_proj.weight",
    [MB_W_KV_A] = "model.layers.{layer}.self_attn.kv_a_proj_with_mqa.weight",
    [MB_W_KV_B] = "model.layers.{layer}.self_attn.kv_b_proj.weight",
    [MB_W_K] = "model.layers.{layer}.self_attn.k_proj.weight",
    [MB_W_V] = "model.layers.{layer}.self_attn.v_proj.weight",
    [MB_W_O] = "model.layers.{layer}.self_attn.o_proj.weight",
    [MB_W_GATE] = "model.layers.{layer}.mlp.gate_proj.weight",
    [MB_W_UP] = "model.layers.{layer}.mlp.up_proj.weight",
    [MB_W_DOWN] = "model.layers.{layer}.mlp.down_proj.weight",
    [MB_W_ROUTER] = "model.layers.{layer}.mlp.gate.weight",
    [MB_W_SHARED_GATE] = "model.layers.{layer}.mlp.shared_experts.gate_proj.weight",
    [MB_W_SHARED_UP] = "model.layers.{layer}.mlp.shared_experts.up_proj.weight",
    [MB_W_SHARED_DOWN] = "model.layers.{layer}.mlp.shared_experts.down_proj.weight",
    [MB_W_SHARED_SCORE] = "model.layers.{layer}.mlp.shared_expert_gate.weight",
    [MB_W_EXPERT_GATE] = "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight",
    [MB_W_EXPERT_UP] = "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight",
    [MB_W_EXPERT_DOWN] = "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight",
    [MB_W_INPUT_NORM] = "model.layers.{layer}.input_layernorm.weight",
    [MB_W_INPUT_NORM_BIAS] = "model.layers.{layer}.input_layernorm.bias",
    [MB_W_POST_NORM] = "model.layers.{layer}.post_attention_layernorm.weight",
    [MB_W_POST_NORM_BIAS] = "model.layers.{layer}.post_attention_layernorm.bias",
    [MB_W_Q_A_NORM] = "model.layers.{layer}.self_attn.q_a_layernorm.weight",
    [MB_W_KV_A_NORM] = "model.layers.{layer}.self_attn.kv_a_layernorm.weight",
    [MB_W_Q_NORM] = "model.layers.{layer}.self_attn.q_norm.weight",
    [MB_W_K_NORM] = "model.layers.{layer}.self_attn.k_norm.weight",
    [MB_W_ROUTER_BIAS] = "model.layers.{layer}.mlp.gate.e_score_correction_bias",
    [MB_W_EMBEDDING] = "model.embed_tokens.weight",
    [MB_W_FINAL_NORM] = "model.norm.weight",
    [MB_W_FINAL_NORM_BIAS] = "model.norm.bias",
    [MB_W_HEAD] = "lm_head.weight",
};

static void add(struct mb_weight_list *list, struct mb_weight weight)
{
    assert(list->n < MB_LAYER_WEIGHTS_MAX);
    list->at[list->n++] = weight;
}

void mb_list_matrix(struct mb_weight_list *list, enum mb_weight_id id, size_t n_rows, size_t n_cols,
                    bool has_bias)
{
    add(list, (struct mb_weight){.id = id, .n_rows = n_rows, .n_cols = n_cols, .has_bias = has_bias});
}

void mb_list_vector(struct mb_weight_list *list, enum mb_weight_id id, size_t n)
{
    add(list, (struct mb_weight){.id = id, .n_rows = n});
}

static void list_norm(const struct mb_config *config, enum mb_weight_id weight, enum mb_weight_id bias,
                      struct mb_weight_list *list)
{
    mb_list_vector(list, weight, config->d_model);
    if (config->has_layer_norms)
        mb_list_vector(list, bias, config->d_model);
}

void mb_list_layer(const struct mb_config *config, size_t layer, struct mb_weight_list *list)
{
    const struct mb_attention_config *attention = &config->attentions[config->attention_of[layer]];
    const struct mb_mlp_config *mlp = &config->mlps[config->mlp_of[layer]];
    list->n = 0;
    list_norm(config, MB_W_INPUT_NORM, MB_W_INPUT_NORM_BIAS, list);
    attention->kind->list(attention, config->d_model, list);
    list_norm(config, MB_W_POST_NORM, MB_W_POST_NORM_BIAS, list);
    mlp->kind->list(mlp, config->d_model, list);
}

/* Appends 'text' as far as there is room; returns the new length. */
static size_t append(char name[MB_NAME_NBYTES_MAX], size_t n, const char *text, size_t nbytes)
{
    assert(n + nbytes < MB_NAME_NBYTES_MAX);
    memcpy(name + n, text, nbytes);
    name[n + nbytes] = 0;
    return n + nbytes;
}

void mb_weight_name(const struct mb_config *config, enum mb_weight_id id, size_t layer, size_t expert,
                    char name[MB_NAME_NBYTES_MAX])
{
    const char *const *names = config->family->names;
    const char *from = names != NULL && names[id] != NULL ? names[id] : usual_names[id];
    size_t n = append(name, 0, "", 0);
    for (const char *brace; (brace = strchr(from, '{')) != NULL; from = strchr(brace, '}') + 1) {
        char digits[32];
        n = append(name, n, from, (size_t)(brace - from));
        int n_digits = snprintf(digits, sizeof digits, "%zu", brace[1] == 'l' ? layer : expert);
        n = append(name, n, digits, (size_t)n_digits);
    }
    append(name, n, from, strlen(from));
}
