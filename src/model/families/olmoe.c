/*
 * olmoe.c - OLMoE: grouped-query attention with norms over all heads and limits for queries, keys and values,
 * experts in every layer.  Settings that are missing are what `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 50304);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 2048);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 16);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 4096);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-5);
    config->eos_default = 50279;
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    mb_read_gqa(r, config, 16, 0, a);
    a->gqa.has_qkv_bias = a->gqa.has_o_bias = mb_read_bool_or(r, "attention_bias", false);
    a->gqa.qk_norm = MB_QK_NORM_WHOLE;
    a->gqa.clip = (float)mb_read_number_or(r, "clip_qkv", 1e-30, 1e30, 0);
    if (a->n_heads * a->gqa.d_head != config->d_model) /* the norms have hidden_size weights */
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: num_attention_heads x head_dim is not hidden_size", r->path);
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){10000, 0}, &a->rope);
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->d_expert = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 2048);
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SOFTMAX,
        .n_experts = mb_read_aliased_or(r, "num_experts", "num_local_experts", 1, MB_EXPERTS_MAX, 64),
        .n_used = mb_read_size_or(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX, 8),
        .n_groups = 1,
        .n_groups_used = 1,
        .norm_weights = mb_read_bool_or(r, "norm_topk_prob", false),
        .scale = 1,
    };
    if (mlp->router.n_used > mlp->router.n_experts)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: num_experts_per_tok is more than num_experts", r->path);
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    config->n_attentions = config->n_mlps = 1;
    read_attention(r, config, &config->attentions[0]);
    read_experts(r, &config->mlps[0]);
}

const struct mb_family mb_family_olmoe = {
    .architectures = {"OlmoeForCausalLM"},
    .model_type = "olmoe",
    .read = read_config,
};
