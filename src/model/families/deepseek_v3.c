/*
 * deepseek_v3.c - DeepSeek-V3 and what has its architecture (Moonlight): latent attention, a sigmoid router
 * with a correction bias and groups, shared experts, and a few dense layers before all others.  Settings
 * that are missing are what `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 129280);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 7168);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 61);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 4096);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-6);
    config->bos_id = 0;
    config->eos_default = 1;
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    static const struct mb_router_config defaults = {.n_experts = 256,
                                                     .n_used = 8,
                                                     .n_groups = 8,
                                                     .n_groups_used = 4,
                                                     .norm_weights = true,
                                                     .scale = 2.5F};
    mlp->kind = &mb_mlp_experts;
    mb_read_sigmoid_router(r, &defaults, &mlp->router);
    mb_read_shared_experts(r, mb_read_size_or(r, "moe_intermediate_size", 1, MB_DIM_MAX, 2048), 1, mlp);
    mb_read_only_text(r, "scoring_func", "sigmoid");
    mb_read_only_text(r, "topk_method", "noaux_tc");
    if (mb_read_size_or(r, "moe_layer_freq", 1, MB_LAYERS_MAX, 1) != 1)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: moe_layer_freq other than 1 is not supported", r->path);
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
    enum { DENSE, EXPERTS };
    mb_read_first_dense(r, config, 3, DENSE, EXPERTS);
    config->n_mlps = config->mlp_of[config->n_layers - 1] == EXPERTS ? 2 : 1;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 18432);
    if (config->n_mlps > EXPERTS)
        read_experts(r, &config->mlps[EXPERTS]);
    else
        skip_experts(r);
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    static const struct mb_mla_defaults defaults = {
        .n_heads = 128, .q_rank = 1536, .kv_rank = 512, .d_nope = 128, .d_rope = 64, .d_v = 128};
    read_sizes(r, config);
    config->n_attentions = 1;
    mb_read_mla(r, config, &defaults, &config->attentions[0]);
    config->attentions[0].rope.is_interleaved = mb_read_bool_or(r, "rope_interleave", true);
    size_t d_rope = config->attentions[0].rope.n_dims;
    if (mb_read_size_or(r, "head_dim", 1, MB_DIM_MAX, d_rope) != d_rope) /* rotates so many, and fails */
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: head_dim is not qk_rope_head_dim", r->path);
    read_mlps(r, config);
}

const struct mb_family mb_family_deepseek_v3 = {
    .architectures = {"DeepseekV3ForCausalLM"},
    .model_type = "deepseek_v3",
    .read = read_config,
};
