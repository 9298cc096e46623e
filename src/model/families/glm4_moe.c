/*
 * glm4_moe.c - GLM-4.5-MoE: grouped-query attention whose heads are rotated in part, a sigmoid router with a
 * correction bias and groups, shared experts, and a few dense layers before all others.  Settings that are
 * missing are what `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"

enum { DENSE, EXPERTS }; /* config->mlps */

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 151552);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 4096);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 46);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 131072);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-5);
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    mb_read_gqa(r, config, 96, 8, a);
    a->gqa.has_qkv_bias = mb_read_bool_or(r, "attention_bias", false);
    a->gqa.qk_norm = mb_read_bool_or(r, "use_qk_norm", false) ? MB_QK_NORM_HEADS : MB_QK_NORM_NONE;
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){10000, 0.5}, &a->rope);
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    static const struct mb_router_config defaults = {
        .n_experts = 128, .n_used = 8, .n_groups = 1, .n_groups_used = 1, .norm_weights = true, .scale = 1};
    mlp->kind = &mb_mlp_experts;
    mb_read_sigmoid_router(r, &defaults, &mlp->router);
    mb_read_shared_experts(r, mb_read_size_or(r, "moe_intermediate_size", 1, MB_DIM_MAX, 1408), 1, mlp);
    mb_read_only_text(r, "scoring_func", "sigmoid"); /* transformers does not read it */
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    config->n_attentions = 1;
    read_attention(r, config, &config->attentions[0]);
    config->n_mlps = 2;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 10944);
    read_experts(r, &config->mlps[EXPERTS]);
    mb_read_first_dense(r, config, 1, DENSE, EXPERTS);
}

const struct mb_family mb_family_glm4_moe = {
    .architectures = {"Glm4MoeForCausalLM"},
    .model_type = "glm4_moe",
    .read = read_config,
};
