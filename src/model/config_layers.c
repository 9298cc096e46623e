/*
 * config_layers.c - what several families spell alike: sizes of attention, checks of routers, and which
 * layers have windows or experts.
 */
#include "attention.h"
#include "config_reader.h"
#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- grouped-query attention */

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

void mb_read_gqa(struct mb_config_reader *r, const struct mb_config *config, size_t n_heads,
                 size_t n_kv_heads, struct mb_attention_config *a)
{
    a->kind = &mb_attention_gqa;
    a->n_heads = mb_read_size_or(r, "num_attention_heads", 1, MB_HEADS_MAX, n_heads);
    if (n_kv_heads == 0 || mb_is_null(r, "num_key_value_heads"))
        n_kv_heads = a->n_heads;
    a->gqa.n_kv_heads = mb_read_size_or(r, "num_key_value_heads", 1, MB_HEADS_MAX, n_kv_heads);
    size_t d_head = config->d_model / a->n_heads;
    a->gqa.d_head = mb_read_size_or(r, "head_dim", 2, MB_ROPE_DIMS_MAX, d_head < 2 ? 2 : d_head);
    a->gqa.norm_eps = config->norm_eps;
    a->softmax_scale = 1.0F / sqrtf((float)a->gqa.d_head);
    check_heads(r, a);
}

/* ---------------------------------------------------------------- dense layers */

/* The layers of `mlp_only_layers` are dense, whatever the rest says. */
static void read_dense_layers(struct mb_config_reader *r, struct mb_config *config, uint8_t dense)
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
            config->mlp_of[at] = dense;
    }
}

void mb_read_sparse_layers(struct mb_config_reader *r, struct mb_config *config, uint8_t dense,
                           uint8_t experts)
{
    size_t step = mb_read_size_or(r, "decoder_sparse_step", 1, MB_LAYERS_MAX, 1);
    for (size_t i = 0; i < config->n_layers; i++)
        config->mlp_of[i] = (i + 1) % step == 0 ? experts : dense;
    read_dense_layers(r, config, dense);
}

/* ---------------------------------------------------------------- layers that differ */

static void read_layer_type(struct mb_config_reader *r, const json_t *type, uint8_t full, uint8_t windowed,
                            uint8_t *attention)
{
    const char *name = json_string_value(type);
    if (name != NULL && strcmp(name, "full_attention") == 0)
        *attention = full;
    else if (name == NULL || strcmp(name, "sliding_attention") != 0)
        MB_READ_FAIL(r, MB_UNSUPPORTED,
                     "%s: layer_types: only \"full_attention\" and \"sliding_attention\" are supported",
                     r->path);
    else if (windowed == full)
        MB_READ_FAIL(r, MB_BAD_DATA,
                     "%s: layer_types has \"sliding_attention\", but there is no sliding window", r->path);
    else
        *attention = windowed;
}

void mb_read_layer_types(struct mb_config_reader *r, struct mb_config *config, uint8_t full, uint8_t windowed)
{
    const json_t *types = mb_read(r, "layer_types"), *type;
    size_t i;
    r->knows_layer_types = true;
    if (types != NULL && json_array_size(types) != config->n_layers) {
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: layer_types is not a list of num_hidden_layers kinds", r->path);
        return;
    }
    json_array_foreach(types, i, type)
    {
        read_layer_type(r, type, full, windowed, &config->attention_of[i]);
    }
}

/* ---------------------------------------------------------------- latent attention */

static void read_mla_sizes(struct mb_config_reader *r, const struct mb_mla_defaults *d,
                           struct mb_attention_config *a)
{
    a->n_heads = mb_read_size_or(r, "num_attention_heads", 1, MB_HEADS_MAX, d->n_heads);
    size_t q_rank = mb_is_null(r, "q_lora_rank") ? 0 : d->q_rank;
    a->mla.q_rank = mb_read_size_or(r, "q_lora_rank", 1, MB_DIM_MAX, q_rank);
    a->mla.kv_rank = mb_read_size_or(r, "kv_lora_rank", 1, MB_DIM_MAX, d->kv_rank);
    a->mla.d_nope = mb_read_size_or(r, "qk_nope_head_dim", 1, MB_DIM_MAX, d->d_nope);
    a->mla.d_v = mb_read_size_or(r, "v_head_dim", 1, MB_DIM_MAX, d->d_v);
    a->mla.has_bias = mb_read_bool_or(r, "attention_bias", false);
    if (mb_read_size_or(r, "num_key_value_heads", 1, MB_HEADS_MAX, a->n_heads) != a->n_heads)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: num_key_value_heads is not num_attention_heads", r->path);
    if (a->n_heads * a->mla.d_v > MB_DIM_MAX)
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: num_attention_heads x v_head_dim is more than %d", r->path,
                     MB_DIM_MAX);
}

void mb_read_mla(struct mb_config_reader *r, const struct mb_config *config,
                 const struct mb_mla_defaults *defaults, struct mb_attention_config *a)
{
    a->kind = &mb_attention_mla;
    read_mla_sizes(r, defaults, a);
    size_t d_rope = mb_read_size_or(r, "qk_rope_head_dim", 2, MB_ROPE_DIMS_MAX, defaults->d_rope);
    if (d_rope % 2 != 0)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: qk_rope_head_dim is odd", r->path);
    if (r->status != MB_OK)
        return;
    double mscale = mb_read_rope(r, d_rope, config->n_ctx, (struct mb_rope_defaults){10000, 0}, &a->rope);
    a->softmax_scale = 1.0F / sqrtf((float)(a->mla.d_nope + d_rope));
    a->softmax_scale = (float)((double)a->softmax_scale * mscale * mscale);
}

/* ---------------------------------------------------------------- experts */

void mb_check_router(struct mb_config_reader *r, const struct mb_router_config *router)
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

void mb_read_sigmoid_router(struct mb_config_reader *r, const struct mb_router_config *defaults,
                            struct mb_router_config *router)
{
    const struct mb_router_config *d = defaults;
    *router = (struct mb_router_config){
        .score = MB_SCORE_SIGMOID,
        .n_experts =
            mb_read_aliased_or(r, "n_routed_experts", "num_local_experts", 1, MB_EXPERTS_MAX, d->n_experts),
        .n_used = mb_read_size_or(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX, d->n_used),
        .has_bias = true,
        .n_groups = mb_read_size_or(r, "n_group", 1, MB_EXPERTS_MAX, d->n_groups),
        .n_groups_used = mb_read_size_or(r, "topk_group", 1, MB_EXPERTS_MAX, d->n_groups_used),
        .group_score = MB_GROUP_BEST_TWO,
        .norm_weights = mb_read_bool_or(r, "norm_topk_prob", d->norm_weights),
        .norm_min = 1e-20F,
        .scale = (float)mb_read_number_or(r, "routed_scaling_factor", 0, 1e6, (double)d->scale),
    };
    if (router->n_experts == 0 || router->n_used == 0)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: %s is missing", r->path,
                     router->n_experts == 0 ? "n_routed_experts" : "num_experts_per_tok");
    if (r->status == MB_OK)
        mb_check_router(r, router);
}

void mb_read_shared_experts(struct mb_config_reader *r, size_t d_expert, size_t otherwise,
                            struct mb_mlp_config *mlp)
{
    size_t n_shared =
        mb_read_size_or(r, "n_shared_experts", 0, 64, mb_is_null(r, "n_shared_experts") ? 0 : otherwise);
    mlp->d_expert = d_expert;
    mlp->d_shared = n_shared * d_expert;
    if (mlp->d_shared > MB_DIM_MAX)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: n_shared_experts x moe_intermediate_size is more than %d", r->path,
                     MB_DIM_MAX);
}

void mb_read_first_dense(struct mb_config_reader *r, struct mb_config *config, size_t otherwise,
                         uint8_t dense, uint8_t experts)
{
    size_t n_dense = mb_read_size_or(r, "first_k_dense_replace", 0, MB_LAYERS_MAX, otherwise);
    for (size_t i = 0; i < config->n_layers; i++)
        config->mlp_of[i] = i < n_dense ? dense : experts;
}
