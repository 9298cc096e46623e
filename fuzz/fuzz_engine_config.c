/*
 * fuzz_engine_config.c - config.json as the engine reads it, once the checkpoint has accepted it, and behind
 * a zero byte generation_config.json.
 */
#include "fuzz.h"
#include "json.h"
#include "model/config.h"
#include <math.h>
#include <string.h>

/* Sizes that the engine multiplies are within limits, and numbers are numbers. */
static void check_config(const struct mb_config *c)
{
    REQUIRE(c->n_vocab > 0 && c->d_model > 0 && c->d_model <= 65535 && c->n_layers > 0 && c->n_ctx > 0);
    REQUIRE(c->n_heads * c->d_v <= 65535 && c->d_rope % 2 == 0 && c->d_rope <= MB_ROPE_DIMS_MAX);
    REQUIRE(c->n_experts <= MB_EXPERTS_MAX && c->n_used <= c->n_experts && c->n_eos_ids <= MB_EOS_IDS_MAX);
    REQUIRE(c->n_experts == 0 || c->n_experts % c->n_groups == 0);
    REQUIRE(isfinite(c->softmax_scale) && isfinite(c->rope_factor) && isfinite(c->routed_scale));
    for (size_t i = 0; i < c->d_rope / 2; i++)
        REQUIRE(isfinite(c->inv_freq[i]));
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
