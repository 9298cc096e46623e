/*
 * qwen3_moe.c - Qwen3-MoE: grouped-query attention with a norm for each head's query and key, a softmax
 * router, no shared expert.  Settings that are missing are what `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"

enum { DENSE, EXPERTS }; /* config->mlps */

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 151936);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 2048);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 24);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 32768);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-6);
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    mb_read_gqa(r, config, 32, 4, a);
    a->gqa.has_qkv_bias = a->gqa.has_o_bias = mb_read_bool_or(r, "attention_bias", false);
    a->gqa.qk_norm = MB_QK_NORM_HEADS;
    mb_read(r, "use_qk_norm"); /* transformers does not read it */
    size_t window =
        mb_read_size_or(r, "sliding_window", 1, MB_CTX_MAX, mb_is_null(r, "sliding_window") ? 0 : 4096);
    a->gqa.window = mb_read_bool_or(r, "use_sliding_window", false) ? window : 0;
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){10000, 0}, &a->rope);
}

static void read_experts(struct mb_config_reader *r, size_t n_experts, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->d_expert = mb_read_size_or(r, "moe_intermediate_size", 1, MB_DIM_MAX, 768);
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SOFTMAX,
        .n_experts = n_experts,
        .n_used = mb_read_size_or(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX, 8),
        .n_groups = 1,
        .n_groups_used = 1,
        .norm_weights = mb_read_bool_or(r, "norm_topk_prob", false),
        .scale = 1,
    };
    if (mlp->router.n_used > n_experts)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: num_experts_per_tok is more than num_experts", r->path);
}

static void read_mlps(struct mb_config_reader *r, struct mb_config *config)
{
    size_t n_experts = mb_read_size_or(r, "num_local_experts", 0, MB_EXPERTS_MAX, 128);
    n_experts = mb_read_size_or(r, "num_experts", 0, MB_EXPERTS_MAX, n_experts);
    config->n_mlps = n_experts > 0 ? 2 : 1;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 6144);
    if (n_experts > 0)
        read_experts(r, n_experts, &config->mlps[EXPERTS]);
    mb_read_sparse_layers(r, config, DENSE, n_experts > 0 ? EXPERTS : DENSE);
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    config->n_attentions = 1;
    read_attention(r, config, &config->attentions[0]);
    read_mlps(r, config);
}

const struct mb_family mb_family_qwen3_moe = {
    .architectures = {"Qwen3MoeForCausalLM"},
    .model_type = "qwen3_moe",
    .read = read_config,
};
