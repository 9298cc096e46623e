/*
 * ernie4_5_moe.c - ERNIE-4.5-MoE: grouped-query attention, a softmax router with a correction bias, shared
 * experts, and experts in some of the layers.  Settings that are missing are what `transformers` takes for
 * them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"

enum { DENSE, EXPERTS }; /* config->mlps */

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 103424);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 2560);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 28);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 131072);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-5);
    config->bos_id = 1;
    config->eos_default = 2;
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", true);
    mb_read_only_text(r, "hidden_act", "silu");
    if (mb_read_bool_or(r, "use_bias", false))
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: use_bias is true; only false is supported", r->path);
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    mb_read_gqa(r, config, 20, 4, a);
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){500000, 0}, &a->rope);
    a->rope.is_interleaved = true;
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SOFTMAX,
        .n_experts = mb_read_aliased_or(r, "moe_num_experts", "num_experts", 1, MB_EXPERTS_MAX, 64),
        .n_used = mb_read_aliased_or(r, "moe_k", "num_experts_per_tok", 1, MB_EXPERTS_MAX, 6),
        .has_bias = true,
        .n_groups = 1,
        .n_groups_used = 1,
        .norm_weights = true,
        .scale = 1,
    };
    if (mlp->router.n_used > mlp->router.n_experts)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: moe_k is more than moe_num_experts", r->path);
    if (mb_read_number_or(r, "moe_norm_min", 0, 1, 1e-12) > 1e-9) /* below that no sum is as small */
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: moe_norm_min is more than 1e-9", r->path);
    mlp->d_expert = mb_read_size_or(r, "moe_intermediate_size", 1, MB_DIM_MAX, 1536);
    mlp->d_shared = mlp->d_expert * mb_read_size_or(r, "moe_num_shared_experts", 0, 64, 2);
    if (mlp->d_shared > MB_DIM_MAX)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: moe_num_shared_experts x moe_intermediate_size is more than %d",
                     r->path, MB_DIM_MAX);
}

/* -1 is the last layer. */
static size_t read_last_layer(struct mb_config_reader *r, const struct mb_config *config)
{
    const json_t *end = mb_read(r, "moe_layer_end_index");
    bool is_last = end == NULL || (json_is_integer(end) && json_integer_value(end) == -1);
    return is_last ? config->n_layers - 1 : mb_read_size_or(r, "moe_layer_end_index", 0, MB_LAYERS_MAX, 0);
}

static void read_layers(struct mb_config_reader *r, struct mb_config *config)
{
    size_t first = mb_read_size_or(r, "moe_layer_start_index", 0, MB_LAYERS_MAX, 1);
    size_t last = read_last_layer(r, config);
    size_t step = mb_read_size_or(r, "moe_layer_interval", 1, MB_LAYERS_MAX, 1);
    for (size_t i = 0; i < config->n_layers; i++)
        config->mlp_of[i] = (i + 1) % step == 0 && i >= first && i <= last ? EXPERTS : DENSE;
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    config->n_attentions = 1;
    read_attention(r, config, &config->attentions[0]);
    config->n_mlps = 2;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 12288);
    read_experts(r, &config->mlps[EXPERTS]);
    read_layers(r, config);
}

static const char *const names[MB_N_WEIGHTS] = {
    [MB_W_ROUTER_BIAS] = "model.layers.{layer}.mlp.moe_statics.e_score_correction_bias",
};

const struct mb_family mb_family_ernie4_5_moe = {
    .architectures = {"Ernie4_5_MoeForCausalLM"},
    .model_type = "ernie4_5_moe",
    .names = names,
    .read = read_config,
};
