/*
 * deepseek_v2.c - DeepSeek-V2 and V2-Lite: latent attention, a softmax router that may choose groups first,
 * shared experts, and a few dense layers before all others.  Settings that are missing are what
 * `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"
#include <string.h>

enum { DENSE, EXPERTS }; /* config->mlps */

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 102400);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 4096);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 32);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 2048);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-6);
    config->bos_id = 1;
    config->eos_default = 2;
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

/* Groups count for one method of choosing alone, whatever n_group says. */
static void read_groups(struct mb_config_reader *r, struct mb_router_config *router)
{
    const char *method = json_string_value(mb_read(r, "topk_method"));
    mb_read(r, "n_group");
    bool has_groups = method != NULL && strcmp(method, "group_limited_greedy") == 0;
    if (!has_groups)
        mb_read_only_text(r, "topk_method", "greedy");
    router->n_groups = has_groups ? mb_read_size_or(r, "n_group", 1, MB_EXPERTS_MAX, 1) : 1;
    router->n_groups_used = has_groups ? mb_read_size_or(r, "topk_group", 1, MB_EXPERTS_MAX, 1) : 1;
    router->group_score = MB_GROUP_BEST;
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    mlp->kind = &mb_mlp_experts;
    mlp->router = (struct mb_router_config){
        .score = MB_SCORE_SOFTMAX,
        .n_experts = mb_read_aliased_or(r, "n_routed_experts", "num_experts", 1, MB_EXPERTS_MAX, 64),
        .n_used = mb_read_size(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX),
        .scale = (float)mb_read_number_or(r, "routed_scaling_factor", 0, 1e6, 1),
    };
    read_groups(r, &mlp->router);
    mb_read_shared_experts(r, mb_read_size_or(r, "moe_intermediate_size", 1, MB_DIM_MAX, 1407), 2, mlp);
    mb_read_only_text(r, "scoring_func", "softmax");
    /* transformers does not normalise even then, the code that DeepSeek published does. */
    if (mb_read_bool_or(r, "norm_topk_prob", false))
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: norm_topk_prob is true; only false is supported", r->path);
    mb_check_router(r, &mlp->router);
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    static const struct mb_mla_defaults defaults = {
        .n_heads = 32, .q_rank = 1536, .kv_rank = 512, .d_nope = 128, .d_rope = 64, .d_v = 128};
    read_sizes(r, config);
    config->n_attentions = 1;
    mb_read_mla(r, config, &defaults, &config->attentions[0]);
    config->attentions[0].rope.is_interleaved = true;
    config->n_mlps = 2;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 11008);
    read_experts(r, &config->mlps[EXPERTS]);
    mb_read_first_dense(r, config, 0, DENSE, EXPERTS);
}

const struct mb_family mb_family_deepseek_v2 = {
    .architectures = {"DeepseekV2ForCausalLM"},
    .model_type = "deepseek_v2",
    .read = read_config,
};
