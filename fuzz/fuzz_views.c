/*
 * fuzz_views.c - a plain folder whose tensors are computed: fused experts, prefixes, parts that are left
 * alone, 8-bit matrices with scales.  The input is config.json, a zero byte, two bytes of the data section's
 * size, the header, a zero byte, and the data section's first bytes.
 */
#include "base/bytes.h"
#include "checkpoint/checkpoint.h"
#include "fuzz.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>

static struct fuzz_file config, model;

/*
 * All of a tensor, or MB_BAD_DATA: scales may be anything.  Its pieces are what the whole has there, and it
 * ends where it says.  Memory is of exact sizes: the sanitizer sees what is beyond.
 */
static void read_tensor(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    struct mb_error err = {0};
    size_t n = (size_t)tensor->nbytes;
    uint8_t *whole = malloc(n + 1), *pieces = malloc(n + 1);
    REQUIRE(whole != NULL && pieces != NULL);
    REQUIRE(mb_checkpoint_read(ckpt, tensor, n, whole, 1, &err) == MB_USAGE);
    enum mb_status status = mb_checkpoint_read(ckpt, tensor, 0, whole, n, &err);
    REQUIRE(status == MB_OK || (status == MB_BAD_DATA && !mb_tensor_is_mapped(ckpt, tensor)));
    REQUIRE(status == MB_OK || strstr(err.msg, fuzz_folder()) == err.msg);
    for (size_t pos = 0, step = 1; status == MB_OK && pos < n; pos += step, step = 2 * step + 1) {
        size_t piece = step < n - pos ? step : n - pos;
        REQUIRE(mb_checkpoint_read(ckpt, tensor, pos, pieces + pos, piece, &err) == MB_OK);
    }
    REQUIRE(status != MB_OK || n == 0 || memcmp(whole, pieces, n) == 0);
    free(pieces);
    free(whole);
}

static void look_around(const struct mb_checkpoint *ckpt)
{
    uint64_t nbytes = 0, stored_nbytes = 0;
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
        nbytes += mb_tensor_stored_nbytes(ckpt, tensor);
        read_tensor(ckpt, tensor);
    }
    for (size_t i = 0; i < ckpt->n_stored; i++)
        stored_nbytes += ckpt->stored[i]->nbytes;
    REQUIRE(ckpt->views == NULL || nbytes == stored_nbytes);
}

/* config.json or, as often as the input's length is odd, the header. */
struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size}, text = fuzz_until(&input, 0);
    fuzz_u16(&input);
    struct fuzz_input header = fuzz_until(&input, 0);
    return header.n > 0 && size % 2 == 1 ? header : text;
}

static void make_files(struct fuzz_input text, struct fuzz_input header, struct fuzz_input data,
                       uint64_t data_nbytes)
{
    size_t n_data = data.n < data_nbytes ? data.n : data_nbytes, n = 8 + header.n + n_data;
    uint8_t *bytes = malloc(n);
    REQUIRE(bytes != NULL);
    mb_store_u64(bytes, header.n);
    memcpy(bytes + 8, header.p, header.n);
    memcpy(bytes + 8 + header.n, data.p, n_data);
    fuzz_file_set(&config, text.p, text.n, 0);
    fuzz_file_set(&model, bytes, n, 8 + header.n + data_nbytes);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct mb_checkpoint *ckpt;
    struct mb_error err = {0};
    struct fuzz_input text = fuzz_until(&input, 0);
    uint64_t data_nbytes = fuzz_u16(&input);
    struct fuzz_input header = fuzz_until(&input, 0);
    bool is_new = config.path[0] == 0;
    make_files(text, header, input, data_nbytes);
    if (is_new) {
        fuzz_folder_add("config.json", &config);
        fuzz_folder_add("model.safetensors", &model);
    }
    enum mb_status status = mb_checkpoint_open(fuzz_folder(), &ckpt, &err);
    if (status == MB_OK) {
        look_around(ckpt);
        mb_checkpoint_close(ckpt);
    } else {
        REQUIRE(status == MB_BAD_DATA || status == MB_UNSUPPORTED || status == MB_IO);
        REQUIRE(err.msg[0] != 0);
    }
    return 0;
}
