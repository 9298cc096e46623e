/*
 * qwen3_moe.c - Qwen3-MoE: grouped-query attention with a norm for each head's query and key, a softmax
 * router, no shared expert.  Settings that are missing are what `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"
#include <math.h>

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

static void check_heads(struct mb_config_reader *r, const struct mb_attention_config *a)
{
    if (a->n_heads % a->gqa.n_kv_heads != 0)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: num_attention_heads is not a multiple of num_key_value_heads",
                     r->path);
    if (a->gqa.d_head % 2 != 0 || a->gqa.d_head > MB_ROPE_DIMS_MAX)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: head_dim is odd or more than %d", r->path, MB_ROPE_DIMS_MAX);
    if (a->n_heads * a->gqa.d_head > MB_DIM_MAX)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: num_attention_heads x head_dim is more than %d", r->path,
                     MB_DIM_MAX);
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    a->kind = &mb_attention_gqa;
    a->n_heads = mb_read_size_or(r, "num_attention_heads", 1, MB_HEADS_MAX, 32);
    a->gqa.n_kv_heads = mb_read_size_or(r, "num_key_value_heads", 1, MB_HEADS_MAX, 4);
    size_t d_head = config->d_model / a->n_heads;
    a->gqa.d_head = mb_read_size_or(r, "head_dim", 2, MB_ROPE_DIMS_MAX, d_head < 2 ? 2 : d_head);
    a->gqa.has_qkv_bias = a->gqa.has_o_bias = mb_read_bool_or(r, "attention_bias", false);
    a->gqa.has_head_norms = true;
    a->gqa.norm_eps = config->norm_eps;
    a->softmax_scale = 1.0F / sqrtf((float)a->gqa.d_head);
    bool has_window = mb_read_bool_or(r, "use_sliding_window", false);
    if (has_window && mb_read_size_or(r, "sliding_window", 1, MB_CTX_MAX, 4096) < config->n_ctx)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: use_sliding_window is true; sliding windows are not supported",
                     r->path);
    mb_read(r, "sliding_window"); /* means nothing without use_sliding_window */
    check_heads(r, a);
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, &a->rope);
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

/* The layers of `mlp_only_layers` are dense, whatever the rest says. */
static void read_dense_layers(struct mb_config_reader *r, struct mb_config *config)
{
    const json_t *layers = mb_read(r, "mlp_only_layers"), *layer;
    size_t i;
    if (layers != NULL && !json_is_array(layers))
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: mlp_only_layers is not a list", r->path);
    json_array_foreach(layers, i, layer)
    {
        json_int_t at = json_integer_value(layer);
        if (!json_is_integer(layer))
            MB_READ_FAIL(r, MB_BAD_DATA, "%s: mlp_only_layers is not a list of layers", r->path);
        else if (at >= 0 && at < (json_int_t)config->n_layers)
            config->mlp_of[at] = DENSE;
    }
}

static void read_mlps(struct mb_config_reader *r, struct mb_config *config)
{
    size_t n_experts = mb_read_size_or(r, "num_local_experts", 0, MB_EXPERTS_MAX, 128);
    n_experts = mb_read_size_or(r, "num_experts", 0, MB_EXPERTS_MAX, n_experts);
    size_t step = mb_read_size_or(r, "decoder_sparse_step", 1, MB_LAYERS_MAX, 1);
    config->n_mlps = n_experts > 0 ? 2 : 1;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 6144);
    if (n_experts > 0)
        read_experts(r, n_experts, &config->mlps[EXPERTS]);
    for (size_t i = 0; i < config->n_layers; i++)
        config->mlp_of[i] = n_experts > 0 && (i + 1) % step == 0 ? EXPERTS : DENSE;
    read_dense_layers(r, config);
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
