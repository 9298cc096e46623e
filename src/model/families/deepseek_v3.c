/*
 * deepseek_v3.c - DeepSeek-V3 and what has its architecture (Moonlight): latent attention, a sigmoid router
 * with a correction bias and groups, shared experts, and a few dense layers before all others.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"
#include <math.h>

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size(r, "vocab_size", 1, 1 << 24);
    config->d_model = mb_read_size(r, "hidden_size", 1, MB_DIM_MAX);
    config->n_layers = mb_read_size(r, "num_hidden_layers", 1, MB_LAYERS_MAX);
    config->n_ctx = mb_read_size(r, "max_position_embeddings", 1, MB_CTX_MAX);
    config->norm_eps = (float)mb_read_number(r, "rms_norm_eps", 0, 1);
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

static void read_attention(struct mb_config_reader *r, const struct mb_config *config,
                           struct mb_attention_config *a)
{
    a->kind = &mb_attention_mla;
    a->n_heads = mb_read_size(r, "num_attention_heads", 1, MB_HEADS_MAX);
    a->mla.q_rank = mb_read_size_or(r, "q_lora_rank", 1, MB_DIM_MAX, 0);
    a->mla.kv_rank = mb_read_size(r, "kv_lora_rank", 1, MB_DIM_MAX);
    a->mla.d_nope = mb_read_size(r, "qk_nope_head_dim", 1, MB_DIM_MAX);
    size_t d_rope = mb_read_size(r, "qk_rope_head_dim", 2, MB_ROPE_DIMS_MAX);
    a->mla.d_v = mb_read_size(r, "v_head_dim", 1, MB_DIM_MAX);
    a->mla.has_bias = mb_read_bool_or(r, "attention_bias", false);
    a->rope.is_interleaved = mb_read_bool_or(r, "rope_interleave", true);
    if (d_rope % 2 != 0)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: qk_rope_head_dim is odd", r->path);
    if (a->n_heads * a->mla.d_v > MB_DIM_MAX)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: num_attention_heads x v_head_dim is more than %d", r->path,
                     MB_DIM_MAX);
    if (r->status != MB_OK)
        return;
    double mscale = mb_read_rope(r, d_rope, config->n_ctx, (struct mb_rope_defaults){10000, 0}, &a->rope);
    a->softmax_scale = 1.0F / sqrtf((float)(a->mla.d_nope + d_rope));
    a->softmax_scale = (float)((double)a->softmax_scale * mscale * mscale);
}

static void check_router(struct mb_config_reader *r, const struct mb_router_config *router)
{
    if (router->n_used > router->n_experts || router->n_groups_used > router->n_groups ||
        router->n_experts % router->n_groups != 0)
        MB_READ_FAIL(r, MB_BAD_DATA,
                     "%s: num_experts_per_tok, n_routed_experts, topk_group and n_group do not fit together",
                     r->path);
    else if (router->n_groups > 1 && router->n_experts / router->n_groups < 2)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: n_group leaves less than two experts in a group", r->path);
    else if (router->n_used > router->n_groups_used * (router->n_experts / router->n_groups))
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: num_experts_per_tok is more than topk_group groups hold", r->path);
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SIGMOID,
        .n_experts = mb_read_size(r, "n_routed_experts", 1, MB_EXPERTS_MAX),
        .n_used = mb_read_size(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX),
        .has_bias = true,
        .n_groups = mb_read_size_or(r, "n_group", 1, MB_EXPERTS_MAX, 1),
        .n_groups_used = mb_read_size_or(r, "topk_group", 1, MB_EXPERTS_MAX, 1),
        .group_score = MB_GROUP_BEST_TWO,
        .norm_weights = mb_read_bool_or(r, "norm_topk_prob", true),
        .norm_min = 1e-20F,
        .scale = (float)mb_read_number_or(r, "routed_scaling_factor", 0, 1e6, 1),
    };
    size_t n_shared = mb_read_size_or(r, "n_shared_experts", 1, 64, 0);
    mlp->d_expert = mb_read_size(r, "moe_intermediate_size", 1, MB_DIM_MAX);
    mlp->d_shared = n_shared * mlp->d_expert;
    mb_read_only_text(r, "scoring_func", "sigmoid");
    mb_read_only_text(r, "topk_method", "noaux_tc");
    if (mb_read_size_or(r, "moe_layer_freq", 1, MB_LAYERS_MAX, 1) != 1)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: moe_layer_freq other than 1 is not supported", r->path);
    if (mlp->d_shared > MB_DIM_MAX)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: n_shared_experts x moe_intermediate_size is more than %d", r->path,
                     MB_DIM_MAX);
    if (r->status == MB_OK)
        check_router(r, &mlp->router);
}

/* A model of dense layers alone: its config.json may still describe experts. */
static void skip_experts(struct mb_config_reader *r)
{
    static const char *const keys[] = {"n_group", "n_shared_experts", "scoring_func", "moe_layer_freq",
                                       "routed_scaling_factor"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        mb_read(r, keys[i]);
}

static void read_mlps(struct mb_config_reader *r, struct mb_config *config)
{
    size_t n_dense = mb_read_size_or(r, "first_k_dense_replace", 0, MB_LAYERS_MAX, 0);
    enum { DENSE, EXPERTS };
    config->n_mlps = n_dense < config->n_layers ? 2 : 1;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size(r, "intermediate_size", 1, MB_DIM_MAX);
    if (config->n_mlps > EXPERTS)
        read_experts(r, &config->mlps[EXPERTS]);
    else
        skip_experts(r);
    for (size_t i = 0; i < config->n_layers; i++)
        config->mlp_of[i] = i < n_dense ? DENSE : EXPERTS;
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    config->n_attentions = 1;
    read_attention(r, config, &config->attentions[0]);
    read_mlps(r, config);
}

const struct mb_family mb_family_deepseek_v3 = {
    .architectures = {"DeepseekV3ForCausalLM"},
    .model_type = "deepseek_v3",
    .read = read_config,
};
