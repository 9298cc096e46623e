/*
 * minimax_m2.c - MiniMax-M2: grouped-query attention with norms over all heads, whose heads are rotated in
 * part, and experts in every layer, by a sigmoid router with a correction bias.  Settings that are missing
 * are what `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"
#include <math.h>

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 200064);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 3072);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 62);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 196608);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-6);
    config->bos_id = 200034;
    config->eos_default = 200020;
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

/* What the published code reads and transformers does not: only what both do. */
static void read_switches(struct mb_config_reader *r)
{
    if (!mb_read_bool_or(r, "use_qk_norm", true) || !mb_read_bool_or(r, "use_routing_bias", true))
        MB_READ_FAIL(r, MB_UNSUPPORTED,
                     "%s: use_qk_norm or use_routing_bias is false; only true is supported", r->path);
    mb_read_only_text(r, "qk_norm_type", "per_layer");
    mb_read_only_text(r, "scoring_func", "sigmoid");
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    mb_read_gqa(r, config, 48, 8, a);
    a->gqa.d_head = mb_read_size_or(r, "head_dim", 2, MB_ROPE_DIMS_MAX, 128);
    a->softmax_scale = 1.0F / sqrtf((float)a->gqa.d_head);
    if (a->n_heads * a->gqa.d_head > MB_DIM_MAX)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: num_attention_heads x head_dim is more than %d", r->path,
                     MB_DIM_MAX);
    a->gqa.qk_norm = MB_QK_NORM_WHOLE;
    size_t n_rotated = mb_read_size_or(r, "rotary_dim", 2, a->gqa.d_head, a->gqa.d_head);
    double share = (double)n_rotated / (double)a->gqa.d_head;
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){5000000, share}, &a->rope);
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->d_expert = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 1536);
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SIGMOID,
        .n_experts = mb_read_aliased_or(r, "num_local_experts", "num_experts", 1, MB_EXPERTS_MAX, 256),
        .n_used = mb_read_size_or(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX, 8),
        .has_bias = true,
        .n_groups = 1,
        .n_groups_used = 1,
        .norm_weights = true,
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
    read_switches(r);
}

static const char *const names[MB_N_WEIGHTS] = {
    [MB_W_ROUTER] = "model.layers.{layer}.block_sparse_moe.gate.weight",
    [MB_W_ROUTER_BIAS] = "model.layers.{layer}.block_sparse_moe.e_score_correction_bias",
    [MB_W_EXPERT_GATE] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight",
    [MB_W_EXPERT_UP] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight",
    [MB_W_EXPERT_DOWN] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight",
};

const struct mb_family mb_family_minimax_m2 = {
    .architectures = {"MiniMaxM2ForCausalLM"},
    .model_type = "minimax_m2",
    .names = names,
    .read = read_config,
};
