/*
 * test_damage.c - every byte of a small coded folder flipped, one at a time: detected, or proved harmless.
 */
#include "cmocka_all.h"
#include "folder.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The decoded weights of the whole folder, tensor by tensor in name order of the original model. */
static const char *const names[] = {
    "model.layers.1.mlp.experts.0.gate_proj.weight", "model.layers.1.mlp.experts.0.up_proj.weight",
    "model.layers.1.mlp.experts.0.down_proj.weight", "lm_head.weight", "model.embed_tokens.weight"};
static const size_t shapes[][2] = {{5, 6}, {5, 6}, {6, 5}, {64, 6}, {64, 6}};
enum { N_NAMES = sizeof names / sizeof names[0], N_WEIGHTS_MAX = 64 * 6 };

struct content {
    uint8_t weights[N_NAMES][4 * N_WEIGHTS_MAX];
    uint8_t norm[4 * 6];
};

static void read_matrix(const struct mb_matrix *matrix, uint8_t *out)
{
    float rows[N_WEIGHTS_MAX];
    if (matrix->is_coded) {
        mb_kernels()->rows(&matrix->coded, 0, matrix->n_rows, rows);
        memcpy(out, rows, matrix->n_rows * matrix->n_cols * sizeof *rows);
    } else {
        memcpy(out, matrix->dense, matrix->n_rows * matrix->n_cols * mb_dtype_nbytes(matrix->dtype));
    }
}

/* MB_OK and the content, or how it was refused. */
static enum mb_status load(const char *folder, struct content *content, struct mb_error *err)
{
    struct mb_checkpoint *ckpt = NULL;
    struct mb_weights *weights = NULL;
    struct mb_matrix matrix;
    float norm[6] = {0};
    memset(content, 0, sizeof *content);
    enum mb_status status = mb_checkpoint_open(folder, &ckpt, err);
    if (status == MB_OK && !mb_checkpoint_is_coded(ckpt))
        status = MB_BAD_DATA; /* the engine would miss its matrices */
    if (status == MB_OK)
        status = mb_weights_load(ckpt, 1, &weights, err);
    for (size_t i = 0; i < N_NAMES && status == MB_OK; i++) {
        status = mb_weights_matrix(weights, names[i], shapes[i][0], shapes[i][1], &matrix, err);
        if (status == MB_OK)
            read_matrix(&matrix, content->weights[i]);
    }
    if (status == MB_OK)
        status = mb_weights_vector(weights, "model.norm.weight", 6, norm, err);
    memcpy(content->norm, norm, sizeof norm);
    mb_weights_free(weights);
    mb_checkpoint_close(ckpt);
    return status;
}

struct tally {
    size_t n_flipped, n_harmless;
};

/* Refused by load and by verify alike, or loaded as the very same weights. */
static void flip_each_byte(const char *folder, const char *path, const struct content *sound,
                           struct tally *tally)
{
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    struct mb_error err = {0};
    struct content content;
    size_t nbytes;
    uint8_t *bytes = test_read(path, &nbytes);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    for (size_t i = 0; i < nbytes; i++) {
        uint8_t flipped = bytes[i] ^ masks[i % 3];
        assert_int_equal(fseek(file, (long)i, SEEK_SET), 0);
        fputc(flipped, file);
        fflush(file);
        tally->n_flipped++;
        if (load(folder, &content, &err) == MB_OK) {
            tally->n_harmless++;
            if (memcmp(&content, sound, sizeof content) != 0)
                fail_msg("%s: byte %zu changed to %02x: other weights, and nobody noticed", path, i, flipped);
        } else if (strchr(err.msg, '\n') != NULL) {
            fail_msg("%s: byte %zu: more than a line: %s", path, i, err.msg);
        }
        assert_int_equal(fseek(file, (long)i, SEEK_SET), 0);
        fputc(bytes[i], file);
        fflush(file);
    }
    fclose(file);
    free(bytes);
}

static void every_flipped_byte_is_found_or_harmless(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    struct mb_compress_options options = {.size = sizeof options};
    struct mb_compress_report report;
    struct mb_error err;
    struct content sound;
    struct tally data = {0}, words = {0};
    char path[1200];
    model.n_experts = 1;
    model.n_hidden = 6;
    model.n_inner = 5;
    test_write_model(test_path("plain"), &model);
    assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err), MB_OK);
    char *folder = strdup(test_path("coded"));
    if (load(folder, &sound, &err) != MB_OK)
        fail_msg("%s", err.msg);
    DIR *open_folder = opendir(folder);
    assert_non_null(open_folder);
    for (struct dirent *entry; (entry = readdir(open_folder)) != NULL;) {
        bool is_weights =
            strstr(entry->d_name, ".safetensors") != NULL && strstr(entry->d_name, ".json") == NULL;
        bool is_read =
            is_weights || strstr(entry->d_name, "index") != NULL || strcmp(entry->d_name, "config.json") == 0;
        if (entry->d_name[0] == '.' || !is_read)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        flip_each_byte(folder, path, &sound, is_weights ? &data : &words);
    }
    closedir(open_folder);
    print_message("%zu of %zu flipped bytes of weight files were harmless, %zu of %zu of JSON files\n",
                  data.n_harmless, data.n_flipped, words.n_harmless, words.n_flipped);
    assert_true(data.n_flipped > 10000 && words.n_flipped > 500);
    assert_true(load(folder, &sound, &err) == MB_OK);
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
