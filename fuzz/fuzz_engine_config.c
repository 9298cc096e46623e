/*
 * fuzz_engine_config.c - config.json as the engine reads it, once the checkpoint has accepted it, and after a
 * zero byte generation_config.json.
 */
#include "fuzz.h"
#include "json.h"
#include "model/config.h"
#include "model/layer_weights.h"
#include "model/mlp.h"
#include <math.h>
#include <string.h>

/* Sizes that the engine multiplies are within limits, and numbers are numbers. */
static void check_attention(const struct mb_attention_config *a)
{
    REQUIRE(a->kind != NULL && a->n_heads > 0 && a->n_heads <= MB_HEADS_MAX && isfinite(a->softmax_scale));
    REQUIRE(a->rope.n_dims % 2 == 0 && a->rope.n_dims <= MB_ROPE_DIMS_MAX && isfinite(a->rope.factor));
    for (size_t i = 0; i < a->rope.n_dims / 2; i++)
        REQUIRE(isfinite(a->rope.inv_freq[i]));
}

static void check_router(const struct mb_router_config *r)
{
    REQUIRE(r->n_experts > 0 && r->n_experts <= MB_EXPERTS_MAX && r->n_used > 0 && r->n_used <= r->n_experts);
    REQUIRE(r->n_groups > 0 && r->n_experts % r->n_groups == 0 && r->n_groups_used <= r->n_groups);
    REQUIRE(isfinite(r->scale));
}

static void check_mlp(const struct mb_mlp_config *mlp)
{
    REQUIRE(mlp->kind != NULL && mlp->d_ff <= MB_DIM_MAX && mlp->d_expert <= MB_DIM_MAX);
    REQUIRE(mlp->d_shared <= MB_DIM_MAX);
    if (mlp->kind->has_experts)
        check_router(&mlp->router);
}

/* No matrix of a layer has more columns than products take. */
static void check_layer(const struct mb_config *c, size_t layer)
{
    struct mb_weight_list list;
    REQUIRE(c->attention_of[layer] < c->n_attentions && c->mlp_of[layer] < c->n_mlps);
    mb_list_layer(c, layer, &list);
    for (size_t i = 0; i < list.n; i++)
        REQUIRE(list.at[i].n_rows > 0 && list.at[i].n_cols <= MB_DIM_MAX);
}

static void check_config(const struct mb_config *c)
{
    REQUIRE(c->n_vocab > 0 && c->d_model > 0 && c->d_model <= MB_DIM_MAX && c->n_ctx > 0);
    REQUIRE(c->n_layers > 0 && c->n_layers <= MB_LAYERS_MAX && c->n_eos_ids <= MB_EOS_IDS_MAX);
    REQUIRE(c->n_attentions <= MB_SHAPES_MAX && c->n_mlps <= MB_SHAPES_MAX);
    for (size_t i = 0; i < c->n_attentions; i++)
        check_attention(&c->attentions[i]);
    for (size_t i = 0; i < c->n_mlps; i++)
        check_mlp(&c->mlps[i]);
    for (size_t i = 0; i < c->n_layers; i++)
        check_layer(c, i);
}

/* config.json or, as often as the input's length is odd, generation_config.json. */
struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size}, config = fuzz_until(&input, 0);
    return input.n > 0 && size % 2 == 1 ? input : config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file generation;
    struct fuzz_input input = {data, size}, config = fuzz_until(&input, 0);
    struct mb_checkpoint *ckpt;
    struct mb_config parsed;
    struct mb_error err = {0};
    if (generation.path[0] == 0)
        fuzz_folder_add("generation_config.json", &generation);
    fuzz_file_set(&generation, input.n == 0 ? "{}" : (const char *)input.p, input.n == 0 ? 2 : input.n, 0);
    if (mb_checkpoint_open(fuzz_folder_with_config(config.p, config.n), &ckpt, &err) != MB_OK)
        return 0;
    enum mb_status status = mb_config_read(ckpt, &parsed, &err);
    if (status == MB_OK)
        check_config(&parsed);
    else
        REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) &&
                strstr(err.msg, "config.json: ") != NULL);
    mb_checkpoint_close(ckpt);
    return 0;
}
