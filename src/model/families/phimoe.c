/*
 * phimoe.c - Phi-3.5-MoE: grouped-query attention, perhaps with a sliding window, layer norms with biases,
 * and in every layer experts of which a sparsemixer chooses two.  Settings that are missing are what
 * `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"
#include <string.h>

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 32064);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 4096);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 32);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 4096 * 32);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-5);
    config->has_layer_norms = true;
    config->bos_id = 1;
    config->eos_default = 2;
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    config->has_head_bias = mb_read_bool_or(r, "lm_head_bias", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

/*
 * Scaled embeddings have multipliers of their own.  Beyond the original context the code that Microsoft
 * published rotates with long_factor, and transformers 5.24 with short_factor still: the context ends there.
 */
static void read_scaled_rope(struct mb_config_reader *r, struct mb_config *config, struct mb_rope *rope)
{
    struct mb_config_reader nested = mb_rope_reader(r);
    if (strcmp(mb_rope_type(&nested), "default") == 0)
        return;
    rope->factor = (float)mb_read_number(&nested, "short_mscale", 0, 1e3);
    rope->long_factor = (float)mb_read_number(&nested, "long_mscale", 0, 1e3);
    r->status = nested.status;
    static const char key[] = "original_max_position_embeddings";
    size_t n = mb_read_size_or(&nested, key, 1, MB_CTX_MAX, config->n_ctx);
    n = mb_read_size_or(r, key, 1, MB_CTX_MAX, n);
    config->n_ctx = n < config->n_ctx ? n : config->n_ctx;
    config->note = "the context ends at original_max_position_embeddings: see docs/limits.md";
}

static void read_attention(struct mb_config_reader *r, struct mb_config *config,
                           struct mb_attention_config *a)
{
    mb_read_gqa(r, config, 32, 8, a);
    a->gqa.has_qkv_bias = a->gqa.has_o_bias = mb_read_bool_or(r, "attention_bias", false);
    a->gqa.window = mb_read_size_or(r, "sliding_window", 1, MB_CTX_MAX, 0);
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){1000000, 0}, &a->rope);
    if (r->status == MB_OK)
        read_scaled_rope(r, config, &a->rope);
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->d_expert = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 6400);
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SPARSEMIXER,
        .n_experts = mb_read_size_or(r, "num_local_experts", 2, MB_EXPERTS_MAX, 16),
        .n_used = 2,
        .n_groups = 1,
        .n_groups_used = 1,
        .scale = 1,
        .jitter = (float)mb_read_number_or(r, "router_jitter_noise", 0, 1e6, 0.01),
    };
    if (mb_read_size_or(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX, 2) != 2) /* whatever it says */
        MB_READ_FAIL(r, MB_UNSUPPORTED,
                     "%s: num_experts_per_tok is not 2, which is all that this router does", r->path);
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    config->n_attentions = config->n_mlps = 1;
    read_attention(r, config, &config->attentions[0]);
    read_experts(r, &config->mlps[0]);
}

static const char *const names[MB_N_WEIGHTS] = {
    [MB_W_ROUTER] = "model.layers.{layer}.block_sparse_moe.gate.weight",
    [MB_W_EXPERT_GATE] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight",
    [MB_W_EXPERT_UP] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight",
    [MB_W_EXPERT_DOWN] = "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight",
};

const struct mb_family mb_family_phimoe = {
    .architectures = {"PhimoeForCausalLM", "PhiMoEForCausalLM"},
    .model_type = "phimoe",
    .names = names,
    .read = read_config,
};
