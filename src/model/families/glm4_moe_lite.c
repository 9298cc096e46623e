/*
 * glm4_moe_lite.c - GLM-4.7-Flash: latent attention, a sigmoid router with a correction bias and groups,
 * shared experts, and dense layers where mlp_layer_types says so.  Settings that are missing are what
 * `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"
#include <string.h>

enum { DENSE, EXPERTS }; /* config->mlps */

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 154880);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 2048);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 47);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 202752);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-5);
    config->bos_id = 0;
    config->eos_default = 1;
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    static const struct mb_mla_defaults defaults = {
        .n_heads = 20, .q_rank = 768, .kv_rank = 512, .d_nope = 192, .d_rope = 64, .d_v = 256};
    mb_read_mla(r, config, &defaults, a);
    a->rope.is_interleaved = mb_read_bool_or(r, "rope_interleave", true);
    if (mb_read_size_or(r, "head_dim", 1, MB_DIM_MAX, a->rope.n_dims) != a->rope.n_dims)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: head_dim is not qk_rope_head_dim", r->path);
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    static const struct mb_router_config defaults = {
        .n_experts = 64, .n_used = 4, .n_groups = 1, .n_groups_used = 1, .norm_weights = true, .scale = 1.8F};
    mlp->kind = &mb_mlp_experts;
    mb_read_sigmoid_router(r, &defaults, &mlp->router);
    mb_read_shared_experts(r, mb_read_size_or(r, "moe_intermediate_size", 1, MB_DIM_MAX, 1536), 1, mlp);
    mb_read_only_text(r, "scoring_func", "sigmoid"); /* transformers reads neither */
    mb_read_only_text(r, "topk_method", "noaux_tc");
}

/* The first layer alone is dense, unless mlp_layer_types says otherwise; first_k_dense_replace is not read.
 */
static void read_layers(struct mb_config_reader *r, struct mb_config *config)
{
    const json_t *types = mb_read(r, "mlp_layer_types"), *type;
    size_t i;
    if (types == NULL && mb_read_size_or(r, "first_k_dense_replace", 0, MB_LAYERS_MAX, 1) != 1)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: first_k_dense_replace is not 1: mlp_layer_types has to say that",
                     r->path);
    for (i = 0; i < config->n_layers; i++)
        config->mlp_of[i] = i == 0 ? DENSE : EXPERTS;
    if (types != NULL && json_array_size(types) != config->n_layers)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: mlp_layer_types is not a list of num_hidden_layers kinds", r->path);
    if (r->status != MB_OK)
        return;
    json_array_foreach(types, i, type)
    {
        const char *name = json_string_value(type);
        config->mlp_of[i] = name != NULL && strcmp(name, "sparse") == 0 ? EXPERTS : DENSE;
        if (name == NULL || (config->mlp_of[i] == DENSE && strcmp(name, "dense") != 0))
            MB_READ_FAIL(r, MB_BAD_DATA, "%s: mlp_layer_types has something that is not dense or sparse",
                         r->path);
    }
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    config->n_attentions = 1;
    read_attention(r, config, &config->attentions[0]);
    config->n_mlps = 2;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 10240);
    read_experts(r, &config->mlps[EXPERTS]);
    mb_read(r, "first_k_dense_replace");
    read_layers(r, config);
}

const struct mb_family mb_family_glm4_moe_lite = {
    .architectures = {"Glm4MoeLiteForCausalLM"},
    .model_type = "glm4_moe_lite",
    .read = read_config,
};
