/*
 * test_damage.c - every byte of every file of a small coded folder flipped, one at a time: verify refuses it,
 * and what can be loaded all the same has the same weights.
 */
#include "cmocka_all.h"
#include "folder.h"
#include "weights.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { N_WEIGHTS_MAX = 64 * 6 };

/* One number for every decoded weight of the folder, by the original names and shapes. */
static enum mb_status hash_tensor(struct mb_store *store, const struct mb_tensor *original,
                                  XXH3_state_t *hash, struct mb_error *err)
{
    float values[N_WEIGHTS_MAX];
    uint64_t n = original->n_elems;
    assert_true(n <= N_WEIGHTS_MAX);
    if (original->n_dims == 1) {
        enum mb_status status = mb_store_vector(store, original->name, n, values, err);
        XXH3_64bits_update(hash, values, n * sizeof *values);
        return status;
    }
    const struct mb_matrix *matrix;
    enum mb_status status =
        mb_store_matrix(store, original->name, original->shape[0], original->shape[1], &matrix, err);
    if (status != MB_OK)
        return status;
    if (matrix->is_coded)
        mb_kernels()->decode_rows(&matrix->coded, 0, matrix->n_rows, values);
    XXH3_64bits_update(hash, matrix->is_coded ? values : matrix->dense,
                       n * (matrix->is_coded ? sizeof *values : mb_dtype_nbytes(matrix->dtype)));
    return MB_OK;
}

/* MB_OK and the hash, or how it was refused. */
static enum mb_status load(const char *folder, const struct mb_checkpoint *original, uint64_t *content,
                           struct mb_error *err)
{
    struct test_weights weights;
    XXH3_state_t *hash = XXH3_createState();
    assert_non_null(hash);
    XXH3_64bits_reset(hash);
    enum mb_status status = test_weights_open(folder, 1, &weights, err);
    bool is_open = status == MB_OK;
    for (size_t i = 0; i < mb_checkpoint_n_tensors(original) && status == MB_OK; i++)
        status = hash_tensor(weights.store, mb_checkpoint_tensor(original, i), hash, err);
    *content = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    if (is_open)
        test_weights_close(&weights);
    return status;
}

static void check_message(const struct mb_error *err, const char *path, size_t at)
{
    if (strchr(err->msg, '\n') != NULL || strlen(err->msg) < 10)
        fail_msg("%s: byte %zu: not a line: %s", path, at, err->msg);
}

static enum mb_status verify(const char *folder, struct mb_verify_report *report, struct mb_error *err)
{
    *err = (struct mb_error){0};
    return mb_verify(folder, NULL, VERIFY_OPTIONS(.n_threads = 1), report, err);
}

/* The index may name another file, which is then told of, and config.json be no coded folder's any more. */
static void check_refused(const char *folder, const char *path, size_t at)
{
    struct mb_verify_report report;
    struct mb_error err;
    enum mb_status status = verify(folder, &report, &err);
    const char *name = strrchr(path, '/') + 1;
    bool may_blame_folder = strcmp(name, "config.json") == 0 || strstr(name, "index") != NULL;
    bool is_named = strstr(err.msg, may_blame_folder ? folder : name) != NULL;
    if ((status != MB_BAD_DATA && status != MB_UNSUPPORTED) || !is_named)
        fail_msg("%s: byte %zu changed: verify says %d: %s", path, at, (int)status, err.msg);
    check_message(&err, path, at);
}

struct flips {
    const char *folder;
    const struct mb_checkpoint *original;
    uint64_t sound;
    size_t n_flipped, n_harmless;
};

/* Refused by verify; refused by load, or loaded as the very same weights. */
static void try_flipped(struct flips *flips, const char *path, size_t at)
{
    struct mb_error err = {0};
    uint64_t content;
    flips->n_flipped++;
    check_refused(flips->folder, path, at);
    if (load(flips->folder, flips->original, &content, &err) == MB_OK) {
        flips->n_harmless++;
        if (content != flips->sound)
            fail_msg("%s: byte %zu changed: other weights, and nobody noticed", path, at);
    } else {
        check_message(&err, path, at);
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
    test_write_text(test_path("plain"), "generation_config.json", "{\"eos_token_id\": 3}");
    test_write_text(test_path("plain"), "chat_template.jinja", "{{ messages[0].content }}");
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
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            flip_each_byte(holds_weights(entry->d_name) ? &data : &words, path);
    }
    closedir(open_folder);
    print_message(
        "verify refused all flipped bytes; %zu of %zu of weight files and %zu of %zu of other files "
        "changed no weight\n",
        data.n_harmless, data.n_flipped, words.n_harmless, words.n_flipped);
    assert_true(data.n_flipped > 10000 && words.n_flipped > 1000);
    assert_true(data.n_harmless < 100); /* letters of "format": "pt" */
    uint64_t content;
    struct mb_verify_report report;
    assert_int_equal(load(folder, original, &content, &err), MB_OK);
    assert_true(content == data.sound);
    assert_int_equal(verify(folder, &report, &err), MB_OK);
    mb_checkpoint_close(original);
    free(folder);
}

/* ---------------------------------------------------------------- files beside the weights */

/* Once, everywhere in config.json: 'to' has as many bytes as 'from'. */
static void change_config(const char *from, const char *to)
{
    size_t nbytes;
    char *text = (char *)test_read(test_path("coded/config.json"), &nbytes), *at = strstr(text, from);
    assert_true(at != NULL && strlen(from) == strlen(to) && strstr(at + 1, from) == NULL);
    memcpy(at, to, strlen(from));
    test_write(test_path("coded/config.json"), text, nbytes);
    free(text);
}

static void assert_refused(const char *words)
{
    struct mb_verify_report report;
    struct mb_error err;
    if (verify(test_path("coded"), &report, &err) != MB_BAD_DATA || strstr(err.msg, words) == NULL)
        fail_msg("not '%s': %s", words, err.msg);
}

static void assert_sound(size_t n_files)
{
    struct mb_verify_report report;
    struct mb_error err;
    if (verify(test_path("coded"), &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(report.n_files, n_files);
}

static void every_file_has_a_checksum(void **state)
{
    (void)state;
    enum { N_FILES = 8 }; /* config.json, index, three shards, and the three that are copied */
    write_small();
    assert_sound(N_FILES);
    test_write_text(test_path("coded"), "notes.txt", "of no program");
    test_write_text(test_path("coded"), "tokenizer.json", "{\"made\": \"elsewhere\"}");
    assert_refused("coded/tokenizer.json: checksum does not match");
    test_remove(test_path("coded/tokenizer.json"));
    assert_refused("coded/tokenizer.json");
    test_write_text(test_path("coded"), "tokenizer.json", "{\"made\": \"for tests\"}");
    assert_sound(N_FILES);
    change_config("deepseek_v3", "deepseek_v2");
    assert_refused("coded/config.json: checksum does not match");
}

/* As early programs wrote it, or somebody who has edited the folder and does not want to be told. */
static void checksums_of_files_may_lack(void **state)
{
    (void)state;
    write_small();
    change_config("config_xxh3", "config_xxxx");
    assert_refused("coded/config.json: quantization_config: needs both config_xxh3 and files_xxh3");
    change_config("files_xxh3", "files_xxxx");
    change_config("deepseek_v3", "deepseek_v2");
    assert_sound(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_found_or_harmless, test_folder_begin,
                                        test_folder_end),
        cmocka_unit_test_setup_teardown(every_file_has_a_checksum, test_folder_begin, test_folder_end),
        cmocka_unit_test_setup_teardown(checksums_of_files_may_lack, test_folder_begin, test_folder_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
