/*
 * fuzz_folder.c - a coded folder loaded as the engine loads it: blobs, exact tensors and their checksums.
 *
 * The input is the header's text, a zero byte and the data section; checksums are made right for blobs, and
 * for exact tensors where a metadata value of 16 times '0' stands for them.
 */
#include "checkpoint/checkpoint.h"
#include "fuzz.h"
#include "json.h"
#include <inttypes.h>
#include <moebius/weights.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { FILE_NBYTES_MAX = 1 << 16 };
static struct fuzz_file config, model;

/* "xxh3:NAME":"0000000000000000" in the header's text gets the checksum of the bytes. */
static void repair_exact(char *header, size_t n, const char *name, const uint8_t *bytes, uint64_t nbytes)
{
    char wanted[700], digits[17];
    int length = snprintf(wanted, sizeof wanted, "\"xxh3:%s\":\"0000000000000000\"", name);
    char *found = memmem(header, n, wanted, (size_t)length);
    if (found == NULL)
        return;
    snprintf(digits, sizeof digits, "%016" PRIx64, (uint64_t)XXH3_64bits(bytes, nbytes));
    memcpy(found + length - 17, digits, 16);
}

/* Makes checksums right where the header can be read. */
static void repair(char *header, size_t n, uint8_t *data, size_t data_nbytes)
{
    struct mb_st_header parsed;
    fuzz_file_set_safetensors(&model, header, n, data_nbytes);
    if (mb_st_read_header(model.fd, "model", &parsed, NULL) != MB_OK)
        return;
    for (size_t i = 0; i < parsed.n_tensors; i++) {
        const struct mb_tensor *tensor = &parsed.tensors[i];
        uint8_t *bytes = data + (tensor->file_pos - parsed.data_pos);
        fuzz_repair_blob(bytes, tensor->nbytes);
        repair_exact(header, n, tensor->name, bytes, tensor->nbytes);
    }
    mb_st_free_header(&parsed);
}

static void ask_matrix(const struct mb_index *index, struct mb_store *store, const char *name,
                       uint64_t n_rows, uint64_t n_cols)
{
    const struct mb_matrix *matrix;
    struct mb_error err = {0};
    if (mb_store_matrix(store, name, n_rows, n_cols, &matrix, &err) == MB_OK)
        REQUIRE(mb_index_find(index, name) != NULL && matrix->n_rows == n_rows && matrix->n_cols == n_cols);
    else
        REQUIRE(err.msg[0] != 0);
}

/* What is in a blob is there under its full name. */
static void ask_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                     const struct mb_index *index, struct mb_store *store)
{
    const void *bytes;
    struct mb_blob blob;
    struct mb_error err;
    REQUIRE(mb_checkpoint_map(ckpt, tensor, &bytes, &err) == MB_OK);
    REQUIRE(mb_blob_open(bytes, tensor->nbytes, &blob, &err) == MB_OK);
    for (size_t i = 0; i < blob.n_matrices; i++) {
        char *name = mb_blob_full_name(tensor, &blob.info[i]);
        const struct mb_matrix *matrix;
        REQUIRE(name != NULL);
        REQUIRE(mb_store_matrix(store, name, blob.info[i].n_rows, blob.info[i].n_cols, &matrix, &err) ==
                MB_OK);
        REQUIRE(matrix->is_coded && matrix->coded.n_rows == matrix->n_rows &&
                matrix->coded.n_cols == matrix->n_cols);
        ask_matrix(index, store, name, blob.info[i].n_cols, blob.info[i].n_rows);
        free(name);
    }
    mb_blob_close(&blob);
}

/* Everything that can be asked of loaded weights, with names from the file. */
static void ask(const struct mb_checkpoint *ckpt, const struct mb_index *index, struct mb_store *store)
{
    static float vector[1 << 12];
    struct mb_error err;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        ask_matrix(index, store, tensor->name, tensor->shape[0], tensor->shape[1]);
        if (tensor->n_elems <= sizeof vector / sizeof *vector)
            mb_store_vector(store, tensor->name, tensor->n_elems, vector, &err);
        if (mb_tensor_is_blob(ckpt, tensor))
            ask_blob(ckpt, tensor, index, store);
    }
    REQUIRE(mb_index_find(index, "no such tensor") == NULL);
    mb_store_memory(store);
}

static enum mb_status load_indexed(const struct mb_checkpoint *ckpt, const struct mb_index *index,
                                   struct mb_error *err)
{
    const struct mb_store_options options = {.size = sizeof options, .n_threads = 1};
    struct mb_store *store;
    enum mb_status status = mb_store_open(index, &options, &store, err);
    if (status == MB_OK) {
        ask(ckpt, index, store);
        mb_store_close(store);
    }
    return status;
}

static void load_weights(void)
{
    struct mb_checkpoint *ckpt;
    struct mb_index *index = NULL;
    struct mb_error err = {0};
    if (mb_checkpoint_open(fuzz_folder(), &ckpt, &err) != MB_OK)
        return;
    enum mb_status status = mb_index_open(ckpt, &index, &err);
    if (status == MB_OK)
        status = load_indexed(ckpt, index, &err);
    if (status != MB_OK)
        REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) &&
                strstr(err.msg, "model.safetensors: ") != NULL);
    mb_index_close(index);
    mb_checkpoint_close(ckpt);
}

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    return fuzz_until(&input, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] =
        "{\"quantization_config\":{\"quant_method\":\"moebius\",\"format_version\":1}}";
    static uint8_t bytes[FILE_NBYTES_MAX];
    if (config.path[0] == 0) {
        fuzz_file_set(&config, text, sizeof text - 1, 0);
        fuzz_folder_add("config.json", &config);
        fuzz_folder_add("model.safetensors", &model);
    }
    if (size > FILE_NBYTES_MAX)
        return 0;
    struct fuzz_input input = {data, size};
    struct fuzz_input header = fuzz_until(&input, 0);
    memcpy(bytes, data, size);
    char *header_text = (char *)bytes;
    uint8_t *section = bytes + (size - input.n);
    repair(header_text, header.n, section, input.n);
    uint64_t pos = 8 + header.n;
    fuzz_file_set_safetensors(&model, header_text, header.n, input.n);
    REQUIRE(input.n == 0 || pwrite(model.fd, section, input.n, (off_t)pos) == (ssize_t)input.n);
    load_weights();
    return 0;
}
