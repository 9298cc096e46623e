/*
 * fuzz_index.c - model.safetensors.index.json over two sound shards and one that the input brings along:
 * the index, a zero byte, two bytes of the third shard's data size, its header.
 */
#include "checkpoint/checkpoint.h"
#include "fuzz.h"
#include "json.h"
#include <string.h>

static struct fuzz_file config, index_file, first, second, third;

static void make_folder(void)
{
    static const char a[] = "{\"a.x\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
                            "\"a.y\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[12,12]}}",
                      b[] = "{\"b.x\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}";
    fuzz_file_set(&config, "{}", 2, 0);
    fuzz_file_set_safetensors(&first, a, sizeof a - 1, 12);
    fuzz_file_set_safetensors(&second, b, sizeof b - 1, 16);
    fuzz_folder_add("config.json", &config);
    fuzz_folder_add("model.safetensors.index.json", &index_file);
    fuzz_folder_add("a.safetensors", &first);
    fuzz_folder_add("b.safetensors", &second);
    fuzz_folder_add("c.safetensors", &third);
}

/* Every tensor is found by its name, and its bytes are there to be read. */
static void look_around(const struct mb_checkpoint *ckpt)
{
    struct mb_error err;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        const void *bytes;
        uint8_t last;
        REQUIRE(mb_checkpoint_find(ckpt, tensor->name) == tensor);
        bool is_mapped = mb_tensor_is_mapped(ckpt, tensor);
        REQUIRE(mb_checkpoint_map(ckpt, tensor, &bytes, &err) == (is_mapped ? MB_OK : MB_USAGE));
        if (tensor->nbytes == 0)
            continue;
        REQUIRE(mb_checkpoint_read(ckpt, tensor, tensor->nbytes - 1, &last, 1, &err) == MB_OK);
        volatile uint8_t byte = is_mapped ? ((const uint8_t *)bytes)[tensor->nbytes - 1] : last;
        REQUIRE(byte == last);
        REQUIRE(mb_checkpoint_read(ckpt, tensor, tensor->nbytes, &last, 1, &err) == MB_USAGE);
    }
    REQUIRE(mb_checkpoint_find(ckpt, "no such tensor") == NULL);
}

/* The index or, as often as its length is odd, the third shard's header. */
struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size}, text = fuzz_until(&input, 0);
    fuzz_u16(&input);
    return input.n > 0 && size % 2 == 1 ? input : text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct mb_checkpoint *ckpt;
    struct mb_error err = {0};
    if (config.path[0] == 0)
        make_folder();
    struct fuzz_input text = fuzz_until(&input, 0);
    uint64_t data_nbytes = fuzz_u16(&input);
    fuzz_file_set(&index_file, text.p, text.n, 0);
    fuzz_file_set_safetensors(&third, input.p, input.n, data_nbytes);
    enum mb_status status = mb_checkpoint_open(fuzz_folder(), &ckpt, &err);
    if (status == MB_OK) {
        look_around(ckpt);
        mb_checkpoint_close(ckpt);
    } else {
        REQUIRE(status == MB_BAD_DATA || status == MB_UNSUPPORTED || status == MB_IO);
        REQUIRE(strstr(err.msg, fuzz_folder()) == err.msg);
    }
    return 0;
}
