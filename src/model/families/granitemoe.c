/*
 * granitemoe.c - Granite-MoE, and Granite-MoE-Shared with a shared expert: grouped-query attention,
 * multipliers of the embedding, of attention scores, of the residual stream and of logits, and experts in
 * every layer. Settings that are missing are what `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 32000);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 4096);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 32);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 2048);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-6);
    config->bos_id = 1;
    config->eos_default = 2;
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    config->embedding_multiplier = (float)mb_read_number_or(r, "embedding_multiplier", 1e-6, 1e6, 1);
    config->residual_multiplier = (float)mb_read_number_or(r, "residual_multiplier", 1e-6, 1e6, 1);
    config->logits_divisor = (float)mb_read_number_or(r, "logits_scaling", 1e-6, 1e6, 1);
    mb_read_only_text(r, "hidden_act", "silu");
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    mb_read_gqa(r, config, 32, 0, a);
    a->gqa.has_qkv_bias = a->gqa.has_o_bias = mb_read_bool_or(r, "attention_bias", false);
    a->softmax_scale = (float)mb_read_number_or(r, "attention_multiplier", 1e-6, 1e6, 1);
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){10000, 0}, &a->rope);
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->d_expert = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 11008);
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SOFTMAX_CHOSEN,
        .n_experts = mb_read_size_or(r, "num_local_experts", 1, MB_EXPERTS_MAX, 8),
        .n_used = mb_read_size_or(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX, 2),
        .n_groups = 1,
        .n_groups_used = 1,
        .scale = 1,
    };
    if (mlp->router.n_used > mlp->router.n_experts)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: num_experts_per_tok is more than num_local_experts", r->path);
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    config->n_attentions = config->n_mlps = 1;
    read_attention(r, config, &config->attentions[0]);
    read_experts(r, &config->mlps[0]);
}

static void read_config_shared(struct mb_config_reader *r, struct mb_config *config)
{
    read_config(r, config);
    config->mlps[0].d_shared = mb_read_size_or(r, "shared_intermediate_size", 0, MB_DIM_MAX, 0);
}

static const char *const names[MB_N_WEIGHTS] = {
    [MB_W_ROUTER] = "model.layers.{layer}.block_sparse_moe.router.layer.weight",
    [MB_W_EXPERT_GATE] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.gate_proj.weight",
    [MB_W_EXPERT_UP] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.up_proj.weight",
    [MB_W_EXPERT_DOWN] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.down_proj.weight",
    [MB_W_SHARED_GATE] = "model.layers.{layer}.block_sparse_moe.shared_experts.gate_proj.weight",
    [MB_W_SHARED_UP] = "model.layers.{layer}.block_sparse_moe.shared_experts.up_proj.weight",
    [MB_W_SHARED_DOWN] = "model.layers.{layer}.block_sparse_moe.shared_experts.down_proj.weight",
};

const struct mb_family mb_family_granitemoe = {
    .architectures = {"GraniteMoeForCausalLM"},
    .model_type = "granitemoe",
    .names = names,
    .read = read_config,
};

const struct mb_family mb_family_granitemoeshared = {
    .architectures = {"GraniteMoeSharedForCausalLM"},
    .model_type = "granitemoeshared",
    .names = names,
    .read = read_config_shared,
};
