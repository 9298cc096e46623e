#include "exponents.h"
#include "base/bytes.h"
#include "base/error.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <dirent.h>
#include <math.h>
#include <moebius/checkpoint.h>
#include <moebius/codec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int8_t test_exponent(size_t col)
{
    return (int8_t)((int)(col * 5 % 6) - 2);
}

static struct mb_checkpoint *open_folder(const char *folder)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    if (mb_checkpoint_open(folder, &ckpt, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return ckpt;
}

void test_copy_folder(const char *from, const char *to)
{
    DIR *dir = opendir(from);
    assert_non_null(dir);
    test_remove(to);
    test_make_folder(to);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[1000];
        size_t nbytes;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", from, entry->d_name);
        uint8_t *bytes = test_read(path, &nbytes);
        snprintf(path, sizeof path, "%s/%s", to, entry->d_name);
        test_write(path, bytes, nbytes);
        free(bytes);
    }
    closedir(dir);
}

/* Reads, or writes, the bytes of a stored tensor in its file. */
static void exchange(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, uint8_t *bytes,
                     bool writes)
{
    FILE *file = fopen(mb_tensor_path(ckpt, tensor), writes ? "r+b" : "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)tensor->file_pos, SEEK_SET), 0);
    assert_int_equal(writes ? fwrite(bytes, 1, tensor->nbytes, file) : fread(bytes, 1, tensor->nbytes, file),
                     tensor->nbytes);
    assert_int_equal(fclose(file), 0);
}

/* ---------------------------------------------------------------- coded folders */

/* Exponents follow the directory of matrix i, which gets room for them. */
static void insert_exponents(uint8_t *bytes, const struct mb_blob_matrix *infos, size_t i)
{
    uint64_t blob_nbytes = mb_load_u64(bytes + 16), at = mb_load_u32(bytes + 8);
    size_t n_cols = infos[i].n_cols;
    for (size_t k = 0; k <= i; k++)
        at += infos[k].data_nbytes + infos[k].directory_nbytes + infos[k].exponents_nbytes;
    memmove(bytes + at + n_cols, bytes + at, blob_nbytes - at);
    for (size_t c = 0; c < n_cols; c++)
        bytes[at + c] = (uint8_t)test_exponent(c);
    mb_store_u16(bytes + 4, 3);
    mb_store_u64(bytes + 16, blob_nbytes + n_cols);
    mb_store_u32(bytes + 40 + 48 * i + 28, (uint32_t)n_cols);
}

static void seal(uint8_t *bytes)
{
    size_t header_nbytes = mb_load_u32(bytes + 8);
    mb_store_u64(bytes + 24, XXH3_64bits(bytes + header_nbytes, mb_load_u64(bytes + 16) - header_nbytes));
    mb_store_u64(bytes + 32, 0);
    mb_store_u64(bytes + 32, XXH3_64bits(bytes, header_nbytes));
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t n_name = strlen(name), n_suffix = strlen(suffix);
    return n_name >= n_suffix && strcmp(name + n_name - n_suffix, suffix) == 0;
}

static size_t add_to_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                          const char *suffix)
{
    uint8_t *bytes = malloc(tensor->nbytes);
    struct mb_blob_frame frame;
    size_t n_done = 0;
    assert_non_null(bytes);
    exchange(ckpt, tensor, bytes, false);
    assert_int_equal(mb_blob_read_frame(bytes, tensor->nbytes, &frame, NULL), MB_OK);
    struct mb_blob_matrix *infos = calloc(frame.n_matrices, sizeof *infos);
    assert_int_equal(mb_blob_read_header(bytes, &frame, infos, NULL), MB_OK);
    for (size_t i = 0; i < frame.n_matrices; i++) {
        char *name = mb_blob_full_name(tensor, &infos[i]);
        bool is_meant = suffix == NULL ? mb_may_have_exponents(name) : ends_with(name, suffix);
        if (is_meant && mb_load_u64(bytes + 16) + infos[i].n_cols <= tensor->nbytes && infos[i].n_cols > 1) {
            insert_exponents(bytes, infos, i);
            infos[i].exponents_nbytes = infos[i].n_cols;
            n_done++;
        }
        free(name);
    }
    seal(bytes);
    exchange(ckpt, tensor, bytes, true);
    free(infos);
    free(bytes);
    return n_done;
}

/* The folder's version and checksum of config.json, in a text of the same length. */
static void raise_version(const char *folder)
{
    char path[1000], digest[33];
    size_t nbytes;
    snprintf(path, sizeof path, "%s/config.json", folder);
    uint8_t *bytes = test_read(path, &nbytes);
    char *text = calloc(1, nbytes + 1), *version, *own;
    assert_non_null(text);
    memcpy(text, bytes, nbytes);
    version = strstr(text, "\"format_version\": ");
    own = strstr(text, "\"config_xxh3\": \"");
    assert_true(version != NULL && own != NULL);
    version[strlen("\"format_version\": ")] = '3';
    own += strlen("\"config_xxh3\": \"");
    memset(own, '0', 32);
    XXH128_hash_t hash = XXH3_128bits(text, nbytes);
    snprintf(digest, sizeof digest, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
    memcpy(own, digest, 32);
    test_write(path, text, nbytes);
    free(text);
    free(bytes);
}

size_t test_add_exponents(const char *folder)
{
    return test_add_exponents_named(folder, NULL);
}

size_t test_add_exponents_named(const char *folder, const char *suffix)
{
    struct mb_checkpoint *ckpt = open_folder(folder);
    size_t n = 0;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++)
        if (mb_tensor_is_blob(ckpt, mb_checkpoint_tensor(ckpt, i)))
            n += add_to_blob(ckpt, mb_checkpoint_tensor(ckpt, i), suffix);
    mb_checkpoint_close(ckpt);
    raise_version(folder);
    return n;
}

/* ---------------------------------------------------------------- plain folders */

static void unscale(const struct mb_tensor *tensor, uint8_t *bytes, bool by_rows)
{
    enum mb_dtype dtype = (enum mb_dtype)tensor->type;
    size_t n_cols = (size_t)tensor->shape[1];
    for (size_t i = 0; i < tensor->n_elems; i++) {
        uint8_t *at = bytes + i * mb_dtype_nbytes(dtype);
        const int8_t exponent = (int8_t)-test_exponent(by_rows ? i / n_cols : i % n_cols);
        assert_true(mb_scale_columns(dtype, at, 1, 1, &exponent));
    }
}

size_t test_unscale_tensors(const char *folder, const char *suffix, bool by_rows)
{
    struct mb_checkpoint *ckpt = open_folder(folder);
    size_t n = 0;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        if (!ends_with(tensor->name, suffix))
            continue;
        uint8_t *bytes = malloc(tensor->nbytes);
        assert_non_null(bytes);
        exchange(ckpt, tensor, bytes, false);
        unscale(tensor, bytes, by_rows);
        exchange(ckpt, tensor, bytes, true);
        free(bytes);
        n++;
    }
    mb_checkpoint_close(ckpt);
    return n;
}
