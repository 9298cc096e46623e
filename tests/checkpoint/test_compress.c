/*
 * test_compress.c - a checkpoint there and back: the bound is proved for every type, shape and split, and the
 * bytes of a coded folder depend on weights and options alone.
 */
#include "base/bytes.h"
#include "cmocka_all.h"
#include "folder.h"
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define REFERENCE MB_REPO "/models/reference"

static void compress(const char *in, const char *out, const struct mb_compress_options *options,
                     struct mb_compress_report *report)
{
    struct mb_error err;
    if (mb_compress(in, out, options, report, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

/* Default bounds, also for models without experts. */
static void compress_default(const char *in, const char *out)
{
    struct mb_compress_options options = {.size = sizeof options, .dense = true};
    struct mb_compress_report report;
    compress(in, out, &options, &report);
}

static struct mb_bound bound_of(const char *text)
{
    struct mb_bound bound;
    assert_int_equal(mb_bound_parse(text, &bound, NULL), MB_OK);
    return bound;
}

static struct mb_verify_report verify(const char *coded, const char *original)
{
    struct mb_verify_report report;
    struct mb_error err;
    if (mb_verify(coded, original, VERIFY_OPTIONS(.n_threads = 2), &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return report;
}

static void assert_proved(const char *coded, const char *original)
{
    struct mb_verify_report report = verify(coded, original);
    if (report.n_broken != 0 || !(report.worst_ratio <= 1))
        fail_msg("%llu broken, worst %g in %s", (unsigned long long)report.n_broken, report.worst_ratio,
                 report.worst_tensor);
    assert_true(report.n_weights > 0);
}

static void decompress(const char *coded, const char *out, enum mb_dtype dtype,
                       struct mb_decompress_report *report)
{
    struct mb_error err;
    if (mb_decompress(coded, out, DECOMPRESS_OPTIONS(.dtype = dtype, .n_threads = 2), report, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

/* ---------------------------------------------------------------- there and back */

static uint64_t count_weights(const char *folder)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    uint64_t n = 0;
    assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++)
        n += mb_checkpoint_tensor(ckpt, i)->n_elems;
    mb_checkpoint_close(ckpt);
    return n;
}

static void the_reference_goes_there_and_back(void **state)
{
    (void)state;
    struct mb_compress_options options = {.size = sizeof options};
    struct mb_compress_report report, predicted;
    struct mb_decompress_report back;
    compress(REFERENCE, test_path("coded"), &options, &report);
    assert_proved(test_path("coded"), REFERENCE);
    assert_int_equal(report.n_weights, report.expert_n_weights + report.dense_n_weights);
    assert_int_equal(report.n_weights + report.n_weights_exact, count_weights(REFERENCE));
    assert_true(report.n_shards > 1 && report.n_shards_resumed == 0);
    options.dry_run = true;
    compress(REFERENCE, test_path("none"), &options, &predicted);
    assert_false(test_exists(test_path("none")));
    assert_false(test_exists(test_path("none.partial")));
    assert_true(fabs((double)predicted.out_nbytes / (double)report.out_nbytes - 1) < 0.01);
    decompress(test_path("coded"), test_path("back"), MB_F32, &back);
    assert_int_equal(back.n_weights, report.n_weights);
    assert_int_equal(back.n_weights_changed, 0);
    assert_true(back.err_enlarged_ratio == 0);
    assert_proved(test_path("coded"), test_path("back")); /* w' itself is within the bound of w' */
    decompress(test_path("coded"), test_path("bf16"), MB_BF16, &back);
    assert_true(back.err_enlarged_ratio > 0 && back.n_weights_changed > 0);
}

/* Sum of the sizes of a folder's safetensors files, from outside. */
static uint64_t weights_nbytes(const char *folder)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    assert_int_equal(mb_checkpoint_open(folder, &ckpt, &err), MB_OK);
    uint64_t nbytes = mb_checkpoint_file_nbytes(ckpt);
    mb_checkpoint_close(ckpt);
    return nbytes;
}

static void every_type_goes_there_and_back(void **state)
{
    (void)state;
    for (int dtype = MB_F32; dtype <= MB_BF16; dtype++) {
        struct test_model model = test_model_small();
        struct mb_decompress_report back;
        model.dtype = (enum mb_dtype)dtype;
        test_write_model(test_path("plain"), &model);
        compress_default(test_path("plain"), test_path("coded"));
        assert_proved(test_path("coded"), test_path("plain"));
        assert_true(weights_nbytes(test_path("coded")) > 0);
        for (int to = MB_F32; to <= MB_BF16; to++) {
            decompress(test_path("coded"), test_path("back"), (enum mb_dtype)to, &back);
            struct mb_checkpoint *ckpt;
            struct mb_error err;
            assert_int_equal(mb_checkpoint_open(test_path("back"), &ckpt, &err), MB_OK);
            assert_false(mb_checkpoint_is_coded(ckpt));
            assert_int_equal(mb_checkpoint_find(ckpt, "model.layers.1.mlp.experts.0.up_proj.weight")->type,
                             to);
            assert_int_equal(mb_checkpoint_find(ckpt, "model.norm.weight")->type, dtype);
            assert_int_equal(mb_checkpoint_file_nbytes(ckpt), back.out_nbytes);
            mb_checkpoint_close(ckpt);
            test_remove(test_path("back"));
        }
        test_remove(test_path("plain"));
        test_remove(test_path("coded"));
    }
}

static void sizes_in_the_report_are_those_of_the_files(void **state)
{
    (void)state;
    struct mb_compress_options options = {.size = sizeof options};
    struct mb_compress_report report;
    struct test_model model = test_model_small();
    test_write_model(test_path("plain"), &model);
    compress(test_path("plain"), test_path("coded"), &options, &report);
    assert_int_equal(report.out_nbytes, weights_nbytes(test_path("coded")));
    assert_true(report.out_nbytes >= report.coded_nbytes + report.padding_nbytes + report.exact_nbytes);
    assert_int_equal(report.coded_nbytes, report.expert_coded_nbytes + report.dense_coded_nbytes);
    assert_true(report.n_outliers > 0 && report.n_groups > 0);
}

/* ---------------------------------------------------------------- shapes and bounds */

/* One linear matrix of this shape and nothing else. */
static void a_header_has_room_for_many_experts(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    model.n_experts = 300;
    model.n_hidden = model.n_inner = 8;
    test_write_model(test_path("plain"), &model);
    compress_default(test_path("plain"), test_path("coded"));
    assert_proved(test_path("coded"), test_path("plain"));
    test_remove(test_path("plain"));
    test_remove(test_path("coded"));
}

static void write_matrix(const char *folder, size_t n_rows, size_t n_cols, float scale)
{
    char header[200];
    size_t n = n_rows * n_cols;
    float *weights = malloc(n * sizeof *weights);
    assert_non_null(weights);
    for (size_t i = 0; i < n; i++)
        weights[i] = scale * (float)((int)(i * 7919 % 1001) - 500);
    snprintf(header, sizeof header,
             "{\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[%zu,%zu],\"data_offsets\":[0,%zu]}}", n_rows,
             n_cols, 4 * n);
    test_make_folder(folder);
    test_write_text(folder, "config.json", "{}");
    test_write_safetensors(folder, "model.safetensors", header, weights, 4 * n);
    free(weights);
}

static void any_shape_goes_there_and_back(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{1, 1},    {1, 5000}, {5000, 1}, {3, 63},    {65, 65},
                                       {7, 1023}, {7, 1024}, {7, 1025}, {2, 65535}, {1200, 257}};
    static const float scales[] = {1e-3F, 0, 1e-42F, 1e30F};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (size_t k = 0; k < sizeof scales / sizeof scales[0]; k++) {
            struct mb_decompress_report back;
            write_matrix(test_path("plain"), shapes[i][0], shapes[i][1], scales[k]);
            compress_default(test_path("plain"), test_path("coded"));
            assert_proved(test_path("coded"), test_path("plain"));
            decompress(test_path("coded"), test_path("back"), MB_F32, &back);
            assert_proved(test_path("coded"), test_path("back"));
            test_remove(test_path("plain"));
            test_remove(test_path("coded"));
            test_remove(test_path("back"));
        }
}

/* Twelve chunks of rows, which one thread takes in three waves, and more threads in fewer. */
static void waves_do_not_show(void **state)
{
    (void)state;
    struct mb_compress_options options = {.size = sizeof options, .dense = true};
    struct mb_compress_report report;
    write_matrix(test_path("plain"), 1500, 1030, 1e-3F);
    for (options.n_threads = 1; options.n_threads <= 3; options.n_threads++) {
        char name[24];
        snprintf(name, sizeof name, "coded%d", options.n_threads);
        compress(test_path("plain"), test_path(name), &options, &report);
        assert_proved(test_path(name), test_path("plain"));
        assert_true(test_same_folders(test_path("coded1"), test_path(name)));
    }
}

/* A file of zeros that takes no room, but for a row here and there. */
static void write_sparse_matrix(const char *folder, size_t n_rows, size_t n_cols)
{
    static uint16_t row[4096];
    char header[200], path[1100];
    size_t row_nbytes = 2 * n_cols;
    int n = snprintf(header, sizeof header,
                     "{\"lm_head.weight\":{\"dtype\":\"BF16\",\"shape\":[%zu,%zu],\"data_offsets\":[0,%zu]}}",
                     n_rows, n_cols, n_rows * row_nbytes);
    test_make_folder(folder);
    test_write_text(folder, "config.json", "{}");
    test_write_safetensors(folder, "model.safetensors", header, NULL, 0);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0 && n_cols <= 4096);
    assert_int_equal(ftruncate(fd, 8 + n + (off_t)(n_rows * row_nbytes)), 0);
    for (size_t i = 0; i < n_cols; i++)
        row[i] = mb_bf16_of_float((float)((int)(i % 13) - 6));
    for (size_t r = 7; r < n_rows; r += n_rows / 5)
        assert_int_equal(pwrite(fd, row, row_nbytes, 8 + n + (off_t)(r * row_nbytes)), row_nbytes);
    close(fd);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(MB_EMULATED)
static const bool has_company = true;
#else
static const bool has_company = false;
#endif

/* 512 MiB of weights in 48 MiB of memory: a matrix is never there as a whole. */
static void memory_does_not_grow_with_a_matrix(void **state)
{
    (void)state;
    if (has_company)
        skip(); /* the sanitizer's or the emulator's own memory would count */
    const rlim_t limit_nbytes = 48 << 20;
    write_sparse_matrix(test_path("plain"), 65536, 4096);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct mb_compress_options options = {.size = sizeof options, .dense = true, .n_threads = 1};
        struct mb_compress_report report;
        struct mb_error err;
        struct rlimit limit = {limit_nbytes, limit_nbytes};
        void *volatile too_much = NULL;
        if (setrlimit(RLIMIT_DATA, &limit) != 0 || (too_much = malloc(limit_nbytes)) != NULL)
            _exit(99);
        _exit((int)mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), MB_OK);
    assert_proved(test_path("coded"), test_path("plain"));
}

static void too_wide_matrices_are_kept_exact(void **state)
{
    (void)state;
    struct mb_compress_options options = {.size = sizeof options, .dense = true};
    struct mb_compress_report report;
    write_matrix(test_path("plain"), 2, 65536, 1e-3F);
    compress(test_path("plain"), test_path("coded"), &options, &report);
    assert_int_equal(report.n_weights, 0);
    assert_int_equal(report.n_weights_exact, 2 * 65536);
    assert_int_equal(verify(test_path("coded"), test_path("plain")).n_broken, 0);
}

static void every_spelling_of_a_bound_holds(void **state)
{
    (void)state;
    static const char *const bounds[] = {"2%", "200%", "0.001%", "abs:0.001", "abs:100", "range:0.01", "0"};
    struct test_model model = test_model_small();
    test_write_model(test_path("plain"), &model);
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        struct mb_compress_report report;
        struct mb_compress_options options = {.size = sizeof options,
                                              .has_bound = true,
                                              .has_dense_bound = true,
                                              .bound = bound_of(bounds[i]),
                                              .dense_bound = bound_of("abs:0.002")};
        compress(test_path("plain"), test_path("coded"), &options, &report);
        assert_proved(test_path("coded"), test_path("plain"));
        assert_int_equal(report.expert_n_weights == 0, strcmp(bounds[i], "0") == 0);
        test_remove(test_path("coded"));
    }
}

struct seen {
    const char *name;
    double eps;
    size_t n;
};

static void see(void *ctx, const struct mb_verify_tensor *tensor)
{
    struct seen *seen = ctx;
    if (strcmp(tensor->name, seen->name) == 0) {
        seen->eps = tensor->eps;
        seen->n++;
    }
}

static double eps_of(const char *coded, const char *name)
{
    struct seen seen = {.name = name};
    struct mb_verify_report report;
    struct mb_error err;
    assert_int_equal(
        mb_verify(coded, NULL, VERIFY_OPTIONS(.n_threads = 1, .each = see, .each_ctx = &seen), &report, &err),
        MB_OK);
    assert_int_equal(seen.n, 1);
    return seen.eps;
}

static void the_last_pattern_that_matches_wins(void **state)
{
    (void)state;
    const struct mb_tensor_bound patterns[] = {{"experts\\.", bound_of("abs:0.003")},
                                               {"experts\\.1\\.", bound_of("abs:0.004")},
                                               {"^model\\.embed", bound_of("abs:0.005")},
                                               {"a=b|kv_a", bound_of("0")}};
    struct mb_compress_report report;
    struct mb_compress_options options = {.size = sizeof options,
                                          .tensor_bounds = patterns,
                                          .n_tensor_bounds = 4,
                                          .has_dense_bound = true,
                                          .dense_bound = bound_of("abs:0.001")};
    struct test_model model = test_model_small();
    test_write_model(test_path("plain"), &model);
    compress(test_path("plain"), test_path("coded"), &options, &report);
    assert_proved(test_path("coded"), test_path("plain"));
    assert_true(eps_of(test_path("coded"), "model.layers.1.mlp.experts.0.down_proj.weight") == 0.003);
    assert_true(eps_of(test_path("coded"), "model.layers.1.mlp.experts.1.down_proj.weight") == 0.004);
    assert_true(eps_of(test_path("coded"), "model.embed_tokens.weight") == 0.005);
    assert_true(eps_of(test_path("coded"), "lm_head.weight") == 0.001);
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    assert_int_equal(mb_checkpoint_open(test_path("coded"), &ckpt, &err), MB_OK);
    assert_non_null(mb_checkpoint_find(ckpt, "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"));
    mb_checkpoint_close(ckpt);
}

static void without_options_each_class_has_its_measured_bound(void **state)
{
    (void)state;
    static const char *const names[] = {"model.layers.1.mlp.experts.0.down_proj.weight",
                                        "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
                                        "lm_head.weight", "model.embed_tokens.weight"};
    const struct mb_tensor_bound same[] = {
        {"experts\\.", bound_of("30%")}, {"kv_a_proj", bound_of("10%")}, {"lm_head|embed", bound_of("5%")}};
    const struct mb_compress_options options = {
        .size = sizeof options, .tensor_bounds = same, .n_tensor_bounds = 3};
    struct mb_compress_report report;
    struct test_model model = test_model_small();
    size_t nbytes;
    test_write_model(test_path("plain"), &model);
    compress(test_path("plain"), test_path("other"), &options, &report);
    compress_default(test_path("plain"), test_path("coded"));
    for (size_t i = 0; i < 4; i++)
        assert_true(eps_of(test_path("coded"), names[i]) == eps_of(test_path("other"), names[i]));
    uint8_t *config = test_read(test_path("coded/config.json"), &nbytes);
    static const char *const members[] = {"\"bound\": \"30%\"", "\"dense_bound\": \"10%\"",
                                          "\"head_bound\": \"5%\"", "\"embedding_bound\": \"5%\""};
    for (size_t i = 0; i < 4; i++)
        assert_non_null(memmem(config, nbytes, members[i], strlen(members[i])));
    free(config);
    test_remove(test_path("other"));
}

static void patterns_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {"(", "[a", "*", "(a+)+$(?=b"};
    struct test_model model = test_model_small();
    test_write_model(test_path("plain"), &model);
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        const struct mb_tensor_bound bound = {patterns[i], bound_of("10%")};
        struct mb_compress_options options = {
            .size = sizeof options, .tensor_bounds = &bound, .n_tensor_bounds = 1};
        struct mb_compress_report report;
        struct mb_error err;
        assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err),
                         MB_USAGE);
        assert_non_null(strstr(err.msg, patterns[i]));
        assert_false(test_exists(test_path("coded.partial")));
    }
}

/* ---------------------------------------------------------------- the same bytes */

static void the_split_of_the_input_does_not_matter(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    model.n_layers = 3;
    test_write_model(test_path("plain"), &model);
    compress_default(test_path("plain"), test_path("coded"));
    for (uint64_t deal = 0; deal < 4; deal++) {
        model.n_shards = 2 + (size_t)deal; /* dealt tensor by tensor: experts are torn apart */
        model.deal = deal;
        test_write_model(test_path("dealt"), &model);
        compress_default(test_path("dealt"), test_path("again"));
        assert_true(test_same_folders(test_path("coded"), test_path("again")));
        assert_proved(test_path("again"), test_path("plain"));
        test_remove(test_path("dealt"));
        test_remove(test_path("again"));
    }
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    model.n_hidden = 700; /* several tiles a matrix */
    model.n_inner = 300;
    test_write_model(test_path("plain"), &model);
    for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
        struct mb_compress_options options = {.size = sizeof options, .n_threads = n_threads};
        struct mb_compress_report report;
        const char *out = test_path(n_threads == 1 ? "coded" : "again");
        compress(test_path("plain"), out, &options, &report);
        if (n_threads > 1) {
            assert_true(test_same_folders(test_path("coded"), test_path("again")));
            test_remove(test_path("again"));
        }
    }
}

static void tokenizer_files_are_copied_and_nothing_else(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    test_write_model(test_path("plain"), &model);
    test_write_text(test_path("plain"), "private-notes.txt", "not a model's");
    compress_default(test_path("plain"), test_path("coded"));
    size_t nbytes;
    uint8_t *bytes = test_read(test_path("coded/tokenizer.json"), &nbytes);
    assert_string_equal((char *)bytes, "{\"made\": \"for tests\"}");
    free(bytes);
    assert_false(test_exists(test_path("coded/private-notes.txt")));
    assert_false(test_exists(test_path("coded.partial")));
}

/* ---------------------------------------------------------------- bad input */

/* Folders inside are not copied: what a chat with tools would go by is missed then. */
static void templates_in_a_folder_are_noted(void **state)
{
    (void)state;
    struct mb_compress_report report;
    struct mb_error err;
    struct test_model model = test_model_small();
    test_write_model(test_path("plain"), &model);
    test_make_folder(test_path("plain/additional_chat_templates"));
    test_remove(test_path("coded"));
    assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), NULL, &report, &err), MB_OK);
    assert_non_null(strstr(report.notes, "additional_chat_templates is not copied"));
    test_remove(test_path("plain/additional_chat_templates"));
    test_remove(test_path("coded"));
    assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), NULL, &report, &err), MB_OK);
    assert_string_equal(report.notes, "");
    test_remove(test_path("coded"));
}

static void a_nan_is_named_by_its_place(void **state)
{
    (void)state;
    static const char *const names[] = {"model.layers.1.mlp.experts.1.down_proj.weight", "lm_head.weight"};
    for (size_t i = 0; i < 2; i++) {
        struct test_model model = test_model_small();
        struct mb_compress_options options = {.size = sizeof options};
        struct mb_compress_report report;
        struct mb_error err;
        model.odd_name = names[i];
        model.odd_index = i == 0 ? 7 * 40 + 3 : 7 * 48 + 3;
        model.odd_value = NAN;
        test_write_model(test_path("plain"), &model);
        assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err),
                         MB_BAD_DATA);
        assert_non_null(strstr(err.msg, "plain/model.safetensors"));
        assert_non_null(strstr(err.msg, names[i]));
        assert_non_null(strstr(err.msg, "[7, 3]"));
        assert_null(strchr(err.msg, '\n'));
        assert_false(test_exists(test_path("coded")));
        assert_false(test_exists(test_path("coded.partial")));
        options.dry_run = true;
        mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err); /* may see it or not */
        assert_false(test_exists(test_path("coded.partial")));
        test_remove(test_path("plain"));
    }
}

static void a_coded_folder_is_not_compressed_again(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    struct mb_compress_options options = {.size = sizeof options};
    struct mb_compress_report report;
    struct mb_decompress_report back;
    struct mb_verify_report verified;
    struct mb_error err;
    test_write_model(test_path("plain"), &model);
    compress_default(test_path("plain"), test_path("coded"));
    assert_int_not_equal(mb_compress(test_path("coded"), test_path("twice"), &options, &report, &err), MB_OK);
    assert_false(test_exists(test_path("twice.partial")));
    assert_int_not_equal(mb_decompress(test_path("plain"), test_path("twice"),
                                       DECOMPRESS_OPTIONS(.dtype = MB_F32, .n_threads = 1), &back, &err),
                         MB_OK);
    assert_false(test_exists(test_path("twice.partial")));
    assert_int_not_equal(mb_verify(test_path("plain"), NULL, VERIFY_OPTIONS(.n_threads = 1), &verified, &err),
                         MB_OK);
}

/* One weight of the original moved by more than the bound, then one exact tensor changed: both are found. */
static void verify_finds_a_broken_bound(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    test_write_model(test_path("plain"), &model);
    compress_default(test_path("plain"), test_path("coded"));
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    size_t nbytes;
    static const char UP[] = "model.layers.1.mlp.experts.1.up_proj.weight", NORM[] = "model.norm.weight";
    assert_int_equal(mb_checkpoint_open(test_path("plain"), &ckpt, &err), MB_OK);
    uint64_t up = mb_checkpoint_find(ckpt, UP)->file_pos, norm = mb_checkpoint_find(ckpt, NORM)->file_pos;
    mb_checkpoint_close(ckpt);
    uint8_t *bytes = test_read(test_path("plain/model.safetensors"), &nbytes);
    mb_store_u16(bytes + up + 2 * 99, mb_bf16_of_float(5));
    test_write(test_path("plain/model.safetensors"), bytes, nbytes);
    struct mb_verify_report report = verify(test_path("coded"), test_path("plain"));
    assert_int_equal(report.n_broken, 1);
    assert_true(report.worst_ratio > 100);
    assert_string_equal(report.worst_tensor, UP);
    bytes[norm] ^= 1;
    test_write(test_path("plain/model.safetensors"), bytes, nbytes);
    assert_int_equal(verify(test_path("coded"), test_path("plain")).n_broken, 2);
    free(bytes);
}

static void verify_needs_the_same_tensors(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    struct mb_verify_report report;
    struct mb_error err;
    test_write_model(test_path("plain"), &model);
    model.n_layers = 3;
    test_write_model(test_path("larger"), &model);
    model.n_layers = 2;
    model.n_inner = 41;
    test_write_model(test_path("wider"), &model);
    compress_default(test_path("plain"), test_path("coded"));
    assert_int_equal(
        mb_verify(test_path("coded"), test_path("larger"), VERIFY_OPTIONS(.n_threads = 1), &report, &err),
        MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "not in "));
    assert_int_equal(
        mb_verify(test_path("coded"), test_path("wider"), VERIFY_OPTIONS(.n_threads = 1), &report, &err),
        MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "tensor "));
    model.n_inner = 40;
    model.n_layers = 1;
    test_write_model(test_path("smaller"), &model);
    assert_int_equal(
        mb_verify(test_path("coded"), test_path("smaller"), VERIFY_OPTIONS(.n_threads = 1), &report, &err),
        MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "not in "));
    assert_int_equal(
        mb_verify(test_path("coded"), test_path("coded"), VERIFY_OPTIONS(.n_threads = 1), &report, &err),
        MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "is coded itself"));
}

/* ---------------------------------------------------------------- what strangers' folders hold */

static void write_one(const char *folder, const char *name, const char *type, size_t n_rows, size_t n_cols,
                      size_t elem_nbytes)
{
    static const uint8_t zeros[1024];
    char header[700];
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu,%zu],\"data_offsets\":[0,%zu]}}", name, type, n_rows,
             n_cols, n_rows * n_cols * elem_nbytes);
    test_make_folder(folder);
    test_write_text(folder, "config.json", "{}");
    test_write_safetensors(folder, "model.safetensors", header, zeros, n_rows * n_cols * elem_nbytes);
}

static void assert_not_compressed(const struct mb_tensor_bound *bound, enum mb_status expected,
                                  const char *words)
{
    struct mb_compress_options options = {
        .size = sizeof options, .tensor_bounds = bound, .n_tensor_bounds = bound != NULL, .dense = true};
    struct mb_compress_report report;
    struct mb_error err = {0};
    enum mb_status status = mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err);
    if (status != expected || strstr(err.msg, words) == NULL)
        fail_msg("status %d, not %d with '%s': %s", (int)status, (int)expected, words, err.msg);
    assert_false(test_exists(test_path("coded")) || test_exists(test_path("coded.partial")));
    test_remove(test_path("plain"));
}

static void what_cannot_be_coded_is_told(void **state)
{
    (void)state;
    write_one(test_path("plain"), "model.layers.3.mlp.experts.0.up_proj.weight", "F8_E5M2", 4, 8, 1);
    assert_not_compressed(NULL, MB_UNSUPPORTED, "F8_E5M2 weights are not supported; convert them to bf16");
    write_one(test_path("plain"), "model.layers.3.mlp.experts.0.up_proj.weight", "F8_E4M3", 4, 8, 1);
    assert_not_compressed(NULL, MB_BAD_DATA, "up_proj.weight_scale_inv is missing");
    test_make_folder(test_path("plain"));
    test_write_text(test_path("plain"), "config.json", "{}");
    test_write_safetensors(
        test_path("plain"), "model.safetensors",
        "{\"model.layers.0.mlp.experts.gate_up_proj\":{\"dtype\":\"BF16\",\"shape\":[2,1,2],"
        "\"data_offsets\":[0,8]}}",
        "\0\0\0\0\0\0\0\0", 8);
    assert_not_compressed(
        NULL, MB_BAD_DATA,
        "tensor model.layers.0.mlp.experts.gate_up_proj: model.layers.0.mlp.experts.down_proj, "
        "which belongs to it, is missing");
    write_one(test_path("plain"), "x.moebius", "U8", 4, 8, 1);
    assert_not_compressed(NULL, MB_UNSUPPORTED, "tensor x.moebius: names like this are for coded folders");
    char name[80];
    snprintf(name, sizeof name, "%060d.weight", 0);
    const struct mb_tensor_bound slow = {"^(0+)+$", bound_of("10%")};
    write_one(test_path("plain"), name, "F32", 4, 8, 4);
    assert_not_compressed(&slow, MB_USAGE, "takes too long on tensor");
}

static void a_model_without_experts_needs_the_word(void **state)
{
    (void)state;
    struct mb_compress_options options = {.size = sizeof options};
    struct mb_compress_report report;
    struct mb_error err = {0};
    write_one(test_path("plain"), "model.layers.3.self_attn.o_proj.weight", "F32", 4, 8, 4);
    for (int dry_run = 0; dry_run < 2; dry_run++) {
        options.dry_run = dry_run;
        assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err),
                         MB_BAD_DATA);
        assert_non_null(strstr(err.msg, "no experts were found"));
        assert_non_null(strstr(err.msg, "--dense"));
    }
    options.dense = true;
    compress(test_path("plain"), test_path("coded"), &options, &report);
    test_remove(test_path("plain"));
    test_remove(test_path("coded"));
}

/* A blob's name is a byte longer than a matrix's, and is held to the same limit by whoever reads it. */
static void the_longest_names_leave_room(void **state)
{
    (void)state;
    static const char end[] = ".o_proj.weight";
    char name[513];
    const struct mb_tensor_bound bound = {"o_proj", bound_of("10%")};
    memset(name, 'x', sizeof name);
    memcpy(name + sizeof name - sizeof end, end, sizeof end);
    write_one(test_path("plain"), name, "F32", 4, 8, 4);
    assert_not_compressed(&bound, MB_UNSUPPORTED, "xxx...: 512 bytes leave no room for .moebius");
    write_one(test_path("plain"), name + 1, "F32", 4, 8, 4);
    compress_default(test_path("plain"), test_path("coded"));
    assert_proved(test_path("coded"), test_path("plain"));
}

static void no_tensors_go_there_and_back(void **state)
{
    (void)state;
    struct mb_decompress_report report;
    test_make_folder(test_path("plain"));
    test_write_text(test_path("plain"), "config.json", "{}");
    test_write_safetensors(test_path("plain"), "model.safetensors", "{}", NULL, 0);
    compress_default(test_path("plain"), test_path("coded"));
    assert_int_equal(verify(test_path("coded"), test_path("plain")).n_broken, 0);
    decompress(test_path("coded"), test_path("back"), MB_F32, &report);
    assert_true(test_exists(test_path("back/model.safetensors")));
    struct mb_verify_report none;
    struct mb_error err;
    write_one(test_path("other"), "lm_head.weight", "F32", 4, 8, 4);
    assert_int_equal(
        mb_verify(test_path("coded"), test_path("other"), VERIFY_OPTIONS(.n_threads = 1), &none, &err),
        MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "lm_head.weight: is not in "));
}

/* However many layers the names speak of, a reader's 10,000 shards are enough. */
static void layers_beyond_999_share_a_shard(void **state)
{
    (void)state;
    enum { N_LAYERS = 1010 };
    static uint8_t data[4 * N_LAYERS];
    static char header[100 * N_LAYERS];
    struct mb_compress_options options = {.size = sizeof options, .dense = true};
    struct mb_compress_report report;
    size_t at = 0;
    for (int i = 0; i < N_LAYERS; i++)
        at += (size_t)snprintf(
            header + at, sizeof header - at,
            "%s\"layers.%d.norm\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
            i == 0 ? "{" : ",", i == 0 ? 999999 : i + 990, 4 * i, 4 * i + 4);
    snprintf(header + at, sizeof header - at, "}");
    test_make_folder(test_path("plain"));
    test_write_text(test_path("plain"), "config.json", "{}");
    test_write_safetensors(test_path("plain"), "model.safetensors", header, data, sizeof data);
    compress(test_path("plain"), test_path("coded"), &options, &report);
    assert_int_equal(report.n_shards, 10); /* 991 to 999, and the rest */
    assert_int_equal(verify(test_path("coded"), test_path("plain")).n_broken, 0);
}

/* ".*" means what can be coded: not vectors, not integers. */
static void a_bound_for_all_leaves_the_rest_exact(void **state)
{
    (void)state;
    const struct mb_tensor_bound all = {".*", bound_of("20%")};
    struct mb_compress_options options = {
        .size = sizeof options, .tensor_bounds = &all, .n_tensor_bounds = 1};
    struct mb_compress_report report;
    struct test_model model = test_model_small();
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    test_write_model(test_path("plain"), &model);
    compress(test_path("plain"), test_path("coded"), &options, &report);
    assert_proved(test_path("coded"), test_path("plain"));
    assert_int_equal(mb_checkpoint_open(test_path("coded"), &ckpt, &err), MB_OK);
    assert_non_null(mb_checkpoint_find(ckpt, "model.norm.weight"));
    assert_null(mb_checkpoint_find(ckpt, "model.embed_tokens.weight"));
    assert_non_null(mb_checkpoint_find(ckpt, "model.embed_tokens.moebius"));
    mb_checkpoint_close(ckpt);
}

static void weights_too_large_for_f16_are_told(void **state)
{
    (void)state;
    struct mb_decompress_report report;
    struct mb_error err;
    write_matrix(test_path("plain"), 3000, 40, 1e6F);
    compress_default(test_path("plain"), test_path("coded"));
    assert_int_equal(mb_decompress(test_path("coded"), test_path("out"),
                                   DECOMPRESS_OPTIONS(.dtype = MB_F16, .n_threads = 2), &report, &err),
                     MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "tensor lm_head.weight: rows from 0: a weight is too large for F16"));
    assert_false(test_exists(test_path("out")) || test_exists(test_path("out.partial")));
    decompress(test_path("coded"), test_path("out"), MB_BF16, &report);
}

/* Everywhere in a file: 'to' has as many bytes as 'from'. */
static void rename_in(const char *path, const char *from, const char *to)
{
    size_t nbytes, n = strlen(from), n_found = 0;
    uint8_t *bytes = test_read(path, &nbytes);
    assert_int_equal(strlen(to), n);
    for (uint8_t *p = bytes; (p = memmem(p, nbytes - (size_t)(p - bytes), from, n)) != NULL; n_found++)
        memcpy(p, to, n);
    assert_true(n_found > 0);
    test_write(path, bytes, nbytes);
    free(bytes);
}

/* An exact tensor with the name of a matrix inside a blob. */
static void a_name_for_two_tensors_is_told(void **state)
{
    (void)state;
    static const char header[] =
        "{\"lm_norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[2,64],\"data_offsets\":[8,520]}}";
    uint8_t data[520];
    struct mb_decompress_report back;
    struct mb_verify_report report;
    struct mb_error err;
    for (size_t i = 0; i < sizeof data / 4; i++)
        mb_store_u32(data + 4 * i, mb_bits_of_float((float)i / 7));
    test_make_folder(test_path("plain"));
    test_write_text(test_path("plain"), "config.json", "{}");
    test_write_safetensors(test_path("plain"), "model.safetensors", header, data, sizeof data);
    compress_default(test_path("plain"), test_path("coded"));
    rename_in(test_path("coded/model.safetensors"), "lm_norm.weight", "lm_head.weight");
    rename_in(test_path("coded/config.json"), "_xxh3", "_none"); /* the checksum of the header */
    assert_int_equal(mb_verify(test_path("coded"), NULL, VERIFY_OPTIONS(.n_threads = 1), &report, &err),
                     MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "lm_head.weight: is there twice"));
    assert_int_equal(mb_decompress(test_path("coded"), test_path("out"),
                                   DECOMPRESS_OPTIONS(.dtype = MB_F32, .n_threads = 1), &back, &err),
                     MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "lm_head.weight: is there twice"));
    assert_false(test_exists(test_path("out")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_folder_begin, test_folder_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_reference_goes_there_and_back),
        TEST(every_type_goes_there_and_back),
        TEST(sizes_in_the_report_are_those_of_the_files),
        TEST(a_header_has_room_for_many_experts),
        TEST(any_shape_goes_there_and_back),
        TEST(waves_do_not_show),
        TEST(memory_does_not_grow_with_a_matrix),
        TEST(too_wide_matrices_are_kept_exact),
        TEST(every_spelling_of_a_bound_holds),
        TEST(the_last_pattern_that_matches_wins),
        TEST(without_options_each_class_has_its_measured_bound),
        TEST(patterns_that_are_none_are_refused),
        TEST(a_model_without_experts_needs_the_word),
        TEST(the_split_of_the_input_does_not_matter),
        TEST(threads_do_not_matter),
        TEST(tokenizer_files_are_copied_and_nothing_else),
        TEST(templates_in_a_folder_are_noted),
        TEST(a_nan_is_named_by_its_place),
        TEST(what_cannot_be_coded_is_told),
        TEST(the_longest_names_leave_room),
        TEST(no_tensors_go_there_and_back),
        TEST(layers_beyond_999_share_a_shard),
        TEST(a_bound_for_all_leaves_the_rest_exact),
        TEST(weights_too_large_for_f16_are_told),
        TEST(a_name_for_two_tensors_is_told),
        TEST(a_coded_folder_is_not_compressed_again),
        TEST(verify_finds_a_broken_bound),
        TEST(verify_needs_the_same_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
