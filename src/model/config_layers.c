/*
 * config_layers.c - what several families spell alike: sizes of grouped-query attention, and which layers
 * have experts.
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
    if (n_kv_heads == 0 || json_is_null(json_object_get(r->object, "num_key_value_heads")))
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
                     "%s: layer_types has \"sliding_attention\", use_sliding_window is not true", r->path);
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
