/*
 * dots1.c - dots.llm1: grouped-query attention with a norm for each head's query and key and perhaps sliding
 * windows in the last layers, a sigmoid router with a correction bias and groups, shared experts, and a few
 * dense layers before all others.  Settings that are missing are what `transformers` takes for them.
 */
#include "attention.h"
#include "family.h"
#include "mlp.h"
#include <string.h>

enum { DENSE, EXPERTS }; /* config->mlps */
enum { FULL, WINDOWED }; /* config->attentions */

static void read_sizes(struct mb_config_reader *r, struct mb_config *config)
{
    config->n_vocab = mb_read_size_or(r, "vocab_size", 1, 1 << 24, 152064);
    config->d_model = mb_read_size_or(r, "hidden_size", 1, MB_DIM_MAX, 4608);
    config->n_layers = mb_read_size_or(r, "num_hidden_layers", 1, MB_LAYERS_MAX, 62);
    config->n_ctx = mb_read_size_or(r, "max_position_embeddings", 1, MB_CTX_MAX, 2048);
    config->norm_eps = (float)mb_read_number_or(r, "rms_norm_eps", 0, 1, 1e-6);
    config->is_tied = mb_read_bool_or(r, "tie_word_embeddings", false);
    mb_read_only_text(r, "hidden_act", "silu");
}

/* Without layer_types, the layers from max_window_layers on have a window. */
static void read_windowed_layers(struct mb_config_reader *r, struct mb_config *config)
{
    bool is_null = mb_is_null(r, "sliding_window");
    size_t window = mb_read_size_or(r, "sliding_window", 1, MB_CTX_MAX, is_null ? 0 : 4096);
    size_t n_full = window == 0 ? 0 : mb_read_size_or(r, "max_window_layers", 0, MB_LAYERS_MAX, 62);
    mb_read(r, "use_sliding_window"); /* transformers does not read it */
    config->n_attentions = 2;
    config->attentions[WINDOWED] = config->attentions[FULL];
    config->attentions[WINDOWED].gqa.window = window;
    for (size_t i = 0; i < config->n_layers; i++)
        config->attention_of[i] = window > 0 && i >= n_full ? WINDOWED : FULL;
    mb_read_layer_types(r, config, FULL, window > 0 ? WINDOWED : FULL);
}

static void read_attention(struct mb_config_reader *r, struct mb_config *config)
{
    struct mb_attention_config *a = &config->attentions[FULL];
    mb_read_gqa(r, config, 32, 32, a);
    a->gqa.has_qkv_bias = a->gqa.has_o_bias = mb_read_bool_or(r, "attention_bias", false);
    a->gqa.qk_norm = MB_QK_NORM_HEADS;
    if (r->status == MB_OK)
        mb_read_rope(r, a->gqa.d_head, config->n_ctx, (struct mb_rope_defaults){10000, 0}, &a->rope);
    read_windowed_layers(r, config);
}

/* transformers does not read scoring_func; the published model names the method there. */
static void read_scoring(struct mb_config_reader *r)
{
    const char *scoring = json_string_value(mb_read(r, "scoring_func"));
    if (scoring == NULL || strcmp(scoring, "noaux_tc") != 0)
        mb_read_only_text(r, "scoring_func", "sigmoid");
    mb_read_only_text(r, "topk_method", "noaux_tc");
}

static void read_experts(struct mb_config_reader *r, struct mb_mlp_config *mlp)
{
    static const struct mb_router_config defaults = {.n_groups = 1, .n_groups_used = 1, .scale = 1};
    mlp->kind = &mb_mlp_experts;
    mb_read_sigmoid_router(r, &defaults, &mlp->router);
    mb_read_shared_experts(r, mb_read_size_or(r, "moe_intermediate_size", 1, MB_DIM_MAX, 1408), 0, mlp);
    read_scoring(r);
}

static void read_config(struct mb_config_reader *r, struct mb_config *config)
{
    read_sizes(r, config);
    read_attention(r, config);
    config->n_mlps = 2;
    config->mlps[DENSE].kind = &mb_mlp_dense;
    config->mlps[DENSE].d_ff = mb_read_size_or(r, "intermediate_size", 1, MB_DIM_MAX, 10944);
    read_experts(r, &config->mlps[EXPERTS]);
    mb_read_first_dense(r, config, 0, DENSE, EXPERTS);
}

const struct mb_family mb_family_dots1 = {
    .architectures = {"Dots1ForCausalLM"},
    .model_type = "dots1",
    .read = read_config,
};
