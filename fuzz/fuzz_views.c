/*
 * fuzz_views.c - fused tensors, prefixes and parts that are left alone: config.json, a zero byte, two bytes
 * of the data's size, the header of the only shard.
 */
#include "checkpoint/checkpoint.h"
#include "fuzz.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>

static struct fuzz_file config, shard;

/* The whole of a tensor is what its pieces are, and it ends where it says. */
static void read_tensor(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    enum { N_MAX = 1 << 16 };
    struct mb_error err;
    uint8_t extra;
    REQUIRE(mb_checkpoint_read(ckpt, tensor, tensor->nbytes, &extra, 1, &err) == MB_USAGE);
    if (tensor->nbytes > N_MAX)
        return;
    size_t n = (size_t)tensor->nbytes;
    uint8_t *whole = malloc(n + 1),
            *pieces = malloc(n + 1); /* exact sizes: the sanitizer sees what is beyond */
    REQUIRE(whole != NULL && pieces != NULL);
    REQUIRE(mb_checkpoint_read(ckpt, tensor, 0, whole, n, &err) == MB_OK);
    for (size_t pos = 0, step = 1; pos < n; pos += step, step = 2 * step + 1) {
        size_t piece = step < n - pos ? step : n - pos;
        REQUIRE(mb_checkpoint_read(ckpt, tensor, pos, pieces + pos, piece, &err) == MB_OK);
    }
    REQUIRE(n == 0 || memcmp(whole, pieces, n) == 0);
    free(whole);
    free(pieces);
}

static void look_around(const struct mb_checkpoint *ckpt)
{
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        const void *bytes;
        struct mb_error err;
        uint64_t n_elems = 1;
        REQUIRE(tensor->number == i && mb_checkpoint_find(ckpt, tensor->name) == tensor);
        for (size_t d = 0; d < tensor->n_dims; d++)
            n_elems *= tensor->shape[d];
        REQUIRE(n_elems == tensor->n_elems && tensor->shard < mb_checkpoint_n_shards(ckpt));
        REQUIRE((mb_checkpoint_map(ckpt, tensor, &bytes, &err) == MB_OK) ==
                mb_tensor_is_mapped(ckpt, tensor));
        read_tensor(ckpt, tensor);
    }
}

/* The header or, as often as its length is odd, config.json. */
struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size}, text = fuzz_until(&input, 0);
    fuzz_u16(&input);
    return input.n > 0 && size % 2 == 1 ? text : input;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct mb_checkpoint *ckpt;
    struct mb_error err = {0};
    if (config.path[0] == 0) {
        fuzz_file_set(&config, "{}", 2, 0);
        fuzz_file_set(&shard, "{}", 2, 0);
        fuzz_folder_add("config.json", &config);
        fuzz_folder_add("model.safetensors", &shard);
    }
    struct fuzz_input text = fuzz_until(&input, 0);
    uint64_t data_nbytes = fuzz_u16(&input);
    fuzz_file_set(&config, text.p, text.n, 0);
    fuzz_file_set_safetensors(&shard, input.p, input.n, data_nbytes);
    enum mb_status status = mb_checkpoint_open(fuzz_folder(), &ckpt, &err);
    if (status == MB_OK) {
        look_around(ckpt);
        mb_checkpoint_close(ckpt);
    } else {
        REQUIRE(status == MB_BAD_DATA || status == MB_UNSUPPORTED || status == MB_IO);
        REQUIRE(err.msg[0] != 0 && strchr(err.msg, '\n') == NULL);
    }
    return 0;
}
