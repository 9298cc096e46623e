/*
 * test_damage.c - every byte of a small coded folder flipped, one at a time: detected, or proved harmless.
 */
#include "cmocka_all.h"
#include "folder.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { N_WEIGHTS_MAX = 64 * 6 };

/* One number for every decoded weight of the folder, by the original names and shapes. */
static enum mb_status hash_tensor(const struct mb_weights *weights, const struct mb_tensor *original,
                                  XXH3_state_t *hash, struct mb_error *err)
{
    float values[N_WEIGHTS_MAX];
    uint64_t n = original->n_elems;
    assert_true(n <= N_WEIGHTS_MAX);
    if (original->n_dims == 1) {
        enum mb_status status = mb_weights_vector(weights, original->name, n, values, err);
        XXH3_64bits_update(hash, values, n * sizeof *values);
        return status;
    }
    struct mb_matrix matrix;
    enum mb_status status =
        mb_weights_matrix(weights, original->name, original->shape[0], original->shape[1], &matrix, err);
    if (status != MB_OK)
        return status;
    if (matrix.is_coded)
        mb_kernels()->rows(&matrix.coded, 0, matrix.n_rows, values);
    XXH3_64bits_update(hash, matrix.is_coded ? values : matrix.dense,
                       n * (matrix.is_coded ? sizeof *values : mb_dtype_nbytes(matrix.dtype)));
    return MB_OK;
}

/* MB_OK and the hash, or how it was refused. */
static enum mb_status load(const char *folder, const struct mb_checkpoint *original, uint64_t *content,
                           struct mb_error *err)
{
    struct mb_checkpoint *ckpt = NULL;
    struct mb_weights *weights = NULL;
    XXH3_state_t *hash = XXH3_createState();
    assert_non_null(hash);
    XXH3_64bits_reset(hash);
    enum mb_status status = mb_checkpoint_open(folder, &ckpt, err);
    if (status == MB_OK)
        status = mb_weights_load(ckpt, 1, &weights, err);
    for (size_t i = 0; i < mb_checkpoint_n_tensors(original) && status == MB_OK; i++)
        status = hash_tensor(weights, mb_checkpoint_tensor(original, i), hash, err);
    *content = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    mb_weights_free(weights);
    mb_checkpoint_close(ckpt);
    return status;
}

struct flips {
    const char *folder;
    const struct mb_checkpoint *original;
    uint64_t sound;
    size_t n_flipped, n_harmless;
};

/* Refused by load and by verify alike, or loaded as the very same weights. */
static void try_flipped(struct flips *flips, const char *path, size_t at)
{
    struct mb_error err = {0};
    uint64_t content;
    flips->n_flipped++;
    if (load(flips->folder, flips->original, &content, &err) == MB_OK) {
        flips->n_harmless++;
        if (content != flips->sound)
            fail_msg("%s: byte %zu changed: other weights, and nobody noticed", path, at);
    } else if (strchr(err.msg, '\n') != NULL || strlen(err.msg) < 10) {
        fail_msg("%s: byte %zu: not a line: %s", path, at, err.msg);
    }
}

static void flip_each_byte(struct flips *flips, const char *path)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    size_t nbytes;
    uint8_t *bytes = test_read(path, &nbytes);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (size_t i = 0; i < nbytes; i++) {
        uint8_t flipped = bytes[i] ^ masks[i % 3];
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
        try_flipped(flips, path, i);
        assert_int_equal(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
    }
    close(fd);
    free(bytes);
}

/* One expert, one shared expert, q_proj and lm_head coded, the rest exact: all forms, few pages. */
static void write_small(void)
{
    static const struct mb_tensor_bound exact = {"layers\\.0\\.|kv_a", {MB_BOUND_EXACT, 0}};
    struct test_model model = test_model_small();
    struct mb_compress_options options = {
        .size = sizeof options, .tensor_bounds = &exact, .n_tensor_bounds = 1};
    struct mb_compress_report report;
    struct mb_error err;
    model.n_experts = 1;
    model.n_hidden = 6;
    model.n_inner = 5;
    test_write_model(test_path("plain"), &model);
    if (mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_true(report.n_weights > 0 && report.n_weights_exact > 0);
}

static bool holds_weights(const char *name)
{
    return strstr(name, ".safetensors") != NULL && strstr(name, ".json") == NULL;
}

static void every_flipped_byte_is_found_or_harmless(void **state)
{
    (void)state;
    struct mb_checkpoint *original;
    struct mb_error err;
    write_small();
    char *folder = strdup(test_path("coded")), path[1200];
    assert_int_equal(mb_checkpoint_open(test_path("plain"), &original, &err), MB_OK);
    struct flips data = {.folder = folder, .original = original}, words;
    if (load(folder, original, &data.sound, &err) != MB_OK)
        fail_msg("%s", err.msg);
    words = data;
    DIR *open_folder = opendir(folder);
    assert_non_null(open_folder);
    for (struct dirent *entry; (entry = readdir(open_folder)) != NULL;) {
        bool is_json = strstr(entry->d_name, "index") != NULL || strcmp(entry->d_name, "config.json") == 0;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (is_json || holds_weights(entry->d_name))
            flip_each_byte(is_json ? &words : &data, path);
    }
    closedir(open_folder);
    print_message("%zu of %zu flipped bytes of weight files were harmless, %zu of %zu of JSON files\n",
                  data.n_harmless, data.n_flipped, words.n_harmless, words.n_flipped);
    assert_true(data.n_flipped > 10000 && words.n_flipped > 500);
    assert_true(data.n_harmless < 100); /* letters of "format": "pt" */
    uint64_t content;
    assert_int_equal(load(folder, original, &content, &err), MB_OK);
    assert_true(content == data.sound);
    mb_checkpoint_close(original);
    free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_found_or_harmless, test_folder_begin,
                                        test_folder_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
