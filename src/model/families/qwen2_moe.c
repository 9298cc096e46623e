/*
 * qwen2_moe.c - Qwen2-MoE (Qwen1.5-MoE): grouped-query attention with biases and, in some layers, a sliding
 * window, a softmax router, a shared expert with a score of its own.  Settings that are missing are what
 * `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"
#include <string.h>

enum { DENSE, EXPERTS }; /* config->mlps */
enum { FULL, WINDOWED }; /* config->attentions */

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

/* Without layer_types, every other one of the first max_window_layers layers has a window. */
static void read_windowed_layers(struct mb_config_reader *r, struct mb_config *config)
{
    bool has_windows = mb_read_bool_or(r, "use_sliding_window", false);
    /* transformers writes 0 where there are none. */
    size_t window = mb_read_size_or(r, "sliding_window", has_windows ? 1 : 0, MB_CTX_MAX, 4096);
    size_t n_windowed = mb_read_size_or(r, "max_window_layers", 0, MB_LAYERS_MAX, 28);
    if (has_windows && mb_is_null(r, "sliding_window"))
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: use_sliding_window is true, but sliding_window is null", r->path);
    config->n_attentions = 2;
    config->attentions[WINDOWED] = config->attentions[FULL];
    config->attentions[WINDOWED].gqa.window = window;
    for (size_t i = 0; i < config->n_layers; i++)
        config->attention_of[i] = has_windows && i < n_windowed && i % 2 == 0 ? WINDOWED : FULL;
    mb_read_layer_types(r, config, FULL, has_windows ? WINDOWED : FULL);
}

static void read_attention(struct mb_config_reader *r, struct mb_config *config)
{
    struct mb_attention_config *a = &config->attentions[FULL];
    mb_read_gqa(r, config, 16, 16, a);
    a->gqa.has_qkv_bias = mb_read_bool_or(r, "qkv_bias", true);
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){10000, 0}, &a->rope);
    read_windowed_layers(r, config);
}

static void read_experts(struct mb_config_reader *r, size_t n_experts, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->d_expert = mb_read_size_or(r, "moe_intermediate_size", 1, MB_DIM_MAX, 1408);
    mlp->d_shared = mb_read_size_or(r, "shared_expert_intermediate_size", 1, MB_DIM_MAX, 5632);
    mlp->has_shared_score = true;
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SOFTMAX,
        .n_experts = n_experts,
        .n_used = mb_read_size_or(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX, 4),
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
    size_t n_experts = mb_read_size_or(r, "num_experts", 0, MB_EXPERTS_MAX, 60);
    config->n_mlps = n_experts > 0 ? 2 : 1;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 5632);
    if (n_experts > 0)
        read_experts(r, n_experts, &config->mlps[EXPERTS]);
    else
        mb_read(r, "shared_expert_intermediate_size"); /* a model of dense layers alone */
    mb_read_sparse_layers(r, config, DENSE, n_experts > 0 ? EXPERTS : DENSE);
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    read_attention(r, config);
    read_mlps(r, config);
}

static const char *const names[MB_N_WEIGHTS] = {
    [MB_W_SHARED_GATE] = "model.layers.{layer}.mlp.shared_expert.gate_proj.weight",
    [MB_W_SHARED_UP] = "model.layers.{layer}.mlp.shared_expert.up_proj.weight",
    [MB_W_SHARED_DOWN] = "model.layers.{layer}.mlp.shared_expert.down_proj.weight",
};

const struct mb_family mb_family_qwen2_moe = {
    .architectures = {"Qwen2MoeForCausalLM"},
    .model_type = "qwen2_moe",
    .names = names,
    .read = read_config,
};
