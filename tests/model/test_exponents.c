/*
 * test_exponents.c - models whose down has an exponent for each column: the same bits as those of a model
 * whose up, which is exact, has the powers of two in its rows, so that the hidden vector has them.
 */
#include "../exponents.h"
#include "checkpoint/folder.h"
#include "child.h"
#include "cmocka_all.h"
#include <math.h>
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
enum { N_PROMPT = 11, N_TOKENS = 14, N_VOCAB_MAX = 512 };

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static const struct {
    const char *name, *up, *down;
} models[] = {
    {"dense-layers", "up_proj.weight", "down_proj.weight"},
    {"shared", "up_proj.weight", "down_proj.weight"},
    {"groups", "up_proj.weight", "down_proj.weight"},
    {"qwen3-moe", "up_proj.weight", "down_proj.weight"},
    {"mixtral", "w3.weight", "w2.weight"},
};
enum { N_MODELS = sizeof models / sizeof *models };

/* Bounds do not depend on the weights, and up is exact. */
static void compress(const char *in, const char *out)
{
    const struct mb_bound bound = {MB_BOUND_ABS, 0.01};
    const struct mb_tensor_bound up = {"(up_proj|w3)\\.weight", {MB_BOUND_EXACT, 0}};
    const struct mb_compress_options options = {.size = sizeof options,
                                                .has_bound = true,
                                                .has_dense_bound = true,
                                                .bound = bound,
                                                .dense_bound = bound,
                                                .tensor_bounds = &up,
                                                .n_tensor_bounds = 1,
                                                .n_threads = 1,
                                                .dense = true};
    struct mb_compress_report report;
    struct mb_error err;
    test_remove(out);
    must(mb_compress(in, out, &options, &report, &err), &err);
}

/* "exponents" and "rows": the two forms of one model. */
static void make_forms(size_t i)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", CHECKPOINTS, models[i].name);
    compress(path, test_path("exponents"));
    test_copy_folder(path, test_path("plain"));
    size_t n = test_unscale_tensors(test_path("plain"), models[i].up, true);
    assert_true(n > 0);
    size_t n_coded = test_add_exponents(test_path("exponents")); /* layers beyond the last are not coded */
    assert_true(n_coded > n / 2 && n_coded <= n);
    compress(test_path("plain"), test_path("rows"));
}

/* A process that has chosen its kernels cannot have children that choose others. */
static uint64_t make_forms_in_child(const void *ctx)
{
    make_forms(*(const size_t *)ctx);
    return 1;
}

struct work {
    const char *folder;
    enum mb_memory_form memory_form;
    enum mb_activation_form activations;
};

static uint64_t hash_of_logits(const void *ctx)
{
    const struct work *work = ctx;
    static float logits[N_TOKENS * N_VOCAB_MAX];
    const struct mb_model_options options = {.size = sizeof options,
                                             .n_threads = 2,
                                             .memory_form = work->memory_form,
                                             .activations = work->activations};
    struct mb_model *model;
    struct mb_session *session;
    struct mb_error err;
    must(mb_model_open(work->folder, &options, &model, &err), &err);
    size_t n_vocab = mb_model_info(model)->n_vocab;
    assert_true(n_vocab <= N_VOCAB_MAX);
    must(mb_session_open(model, NULL, &session, &err), &err);
    for (size_t i = 0, n; i < N_TOKENS; i += n) { /* many tokens together, then one at a time */
        int32_t tokens[N_TOKENS];
        n = i == 0 ? N_PROMPT : 1;
        for (size_t k = 0; k < n; k++)
            tokens[k] = (int32_t)(((i + k) * 31 + 7) % n_vocab);
        struct mb_batch_item item = {.session = session,
                                     .tokens = tokens,
                                     .n_tokens = n,
                                     .is_generated = i > 0,
                                     .logits = logits + i * n_vocab,
                                     .all_logits = true};
        must(mb_decode(model, &item, 1, &err), &err);
    }
    mb_session_close(session);
    mb_model_close(model);
    for (size_t i = 0; i < N_TOKENS * n_vocab; i++)
        assert_true(isfinite(logits[i]));
    return XXH3_64bits(logits, N_TOKENS * n_vocab * sizeof *logits);
}

static void exponents_give_the_bits_of_scaled_rows(void **state)
{
    (void)state;
    static const char *const cpus[] = {"", "-avx512", "-avx512,-avxvnni", "-avx512,-avx2"};
    static const enum mb_memory_form forms[] = {MB_MEMORY_FORM_STORED, MB_MEMORY_FORM_COMPACT,
                                                MB_MEMORY_FORM_FAST};
    for (size_t i = 0; i < N_MODELS; i++) {
        assert_int_equal(test_hash_in_child("", make_forms_in_child, &i), 1);
        for (int activations = 0; activations < 3; activations++) {
            struct work work = {test_path("rows"), MB_MEMORY_FORM_STORED,
                                (enum mb_activation_form)activations};
            uint64_t expected = test_hash_in_child("", hash_of_logits, &work);
            work.folder = test_path("exponents");
            for (size_t k = 0; k < 4; k++)
                for (size_t f = 0; f < (k == 1 || k == 2 ? 3 : 1); f++) { /* AVX2 has forms of its own */
                    work.memory_form = forms[f];
                    if (test_hash_in_child(cpus[k], hash_of_logits, &work) != expected)
                        fail_msg("%s, activations %d, MOEBIUS_CPU=%s, form %zu: other bits", models[i].name,
                                 activations, cpus[k], f);
                }
        }
    }
}

/* ---------------------------------------------------------------- inputs that are watched */

/* The values of all inputs of down, as they come, times the power of two that the other form has in them. */
struct watched {
    bool has_exponents;
    XXH3_state_t *hash;
    size_t n;
};

static void watch(void *ctx, const struct mb_matrix_input *input)
{
    struct watched *watched = ctx;
    for (size_t t = 0; t < input->n && mb_may_have_exponents(input->name); t++)
        for (size_t c = 0; c < input->n_values; c++) {
            float x = input->x[t * input->stride + c];
            x = watched->has_exponents ? ldexpf(x, -test_exponent(c)) : x;
            XXH3_64bits_update(watched->hash, &x, sizeof x);
            watched->n++;
        }
}

static uint64_t hash_of_inputs(const char *folder, bool has_exponents)
{
    const int32_t tokens[] = {5, 9, 2, 6, 5, 3, 5};
    struct watched watched = {has_exponents, XXH3_createState(), 0};
    struct mb_model *model;
    struct mb_session *session;
    struct mb_error err;
    XXH3_64bits_reset(watched.hash);
    must(mb_model_open(folder, NULL, &model, &err), &err);
    mb_model_watch_inputs(model, watch, &watched);
    must(mb_session_open(model, NULL, &session, &err), &err);
    struct mb_batch_item item = {.session = session, .tokens = tokens, .n_tokens = 7};
    must(mb_decode(model, &item, 1, &err), &err);
    mb_session_close(session);
    mb_model_close(model);
    assert_true(watched.n > 0);
    uint64_t hash = XXH3_64bits_digest(watched.hash);
    XXH3_freeState(watched.hash);
    return hash;
}

/* Who gathers moments sees the hidden vector itself. */
static void watchers_see_inputs_without_exponents(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        make_forms(i);
        uint64_t expected = hash_of_inputs(test_path("rows"), false);
        assert_int_equal(hash_of_inputs(test_path("exponents"), true), expected);
    }
}

/* ---------------------------------------------------------------- as checkpoints */

static struct mb_verify_report verify(const char *original)
{
    struct mb_verify_report report;
    struct mb_error err;
    must(mb_verify(test_path("exponents"), original, VERIFY_OPTIONS(.n_threads = 2), &report, &err), &err);
    return report;
}

/* Column 1 of all down, which has the exponent 3: bounds of 0.00125. */
static void shift_column(const char *folder, const char *suffix, float by)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    must(mb_checkpoint_open(folder, &ckpt, &err), &err);
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        const char *at = strstr(tensor->name, suffix);
        if (at == NULL || strcmp(at, suffix) != 0 || tensor->type != MB_TENSOR_F32)
            continue;
        FILE *file = fopen(mb_tensor_path(ckpt, tensor), "r+b");
        float w;
        assert_non_null(file);
        assert_int_equal(fseek(file, (long)tensor->file_pos + 4, SEEK_SET), 0);
        assert_int_equal(fread(&w, 4, 1, file), 1);
        w += by;
        assert_int_equal(fseek(file, (long)tensor->file_pos + 4, SEEK_SET), 0);
        assert_int_equal(fwrite(&w, 4, 1, file), 1);
        assert_int_equal(fclose(file), 0);
        break;
    }
    mb_checkpoint_close(ckpt);
}

static void see_tensor(void *ctx, const struct mb_verify_tensor *tensor)
{
    size_t *n = ctx;
    if (!mb_may_have_exponents(tensor->name))
        return;
    assert_true(tensor->eps == 0.04 && tensor->eps_min == 0.00125); /* exponents -2 to 3 */
    assert_true(tensor->step == 4 * mb_step_of_eps(0.01));
    assert_true(tensor->err_ratio_max > 0.5 && tensor->err_ratio_max <= 1 && tensor->err_abs_max <= 0.04);
    ++*n;
}

/* W = V 2^-e is the original now. */
static void verify_proves_the_bound_of_each_column(void **state)
{
    (void)state;
    const char *path = CHECKPOINTS "shared"; /* F32 */
    struct mb_verify_report report;
    struct mb_error err;
    size_t n = 0, n_down;
    compress(path, test_path("exponents"));
    assert_true(verify(path).n_broken == 0);
    n_down = test_add_exponents(test_path("exponents"));
    assert_true(verify(path).n_broken > 0);
    test_copy_folder(path, test_path("plain"));
    assert_int_equal(test_unscale_tensors(test_path("plain"), "down_proj.weight", false), n_down);
    must(mb_verify(test_path("exponents"), test_path("plain"),
                   VERIFY_OPTIONS(.n_threads = 2, .each = see_tensor, .each_ctx = &n), &report, &err),
         &err);
    assert_int_equal(n, n_down);
    assert_true(report.n_broken == 0 && report.worst_ratio <= 1);
    shift_column(test_path("plain"), "down_proj.weight",
                 0.003F); /* less than any column's bound but its own */
    report = verify(test_path("plain"));
    assert_int_equal(report.n_broken, 1);
    assert_true(report.worst_ratio > 1.3 && report.worst_ratio < 3.5);
}

static void decompress_writes_what_exponents_mean(void **state)
{
    (void)state;
    struct mb_decompress_report report;
    struct mb_verify_report verified;
    struct mb_error err;
    for (size_t i = 1; i < N_MODELS; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", CHECKPOINTS, models[i].name);
        test_remove(test_path("back"));
        test_remove(test_path("plain"));
        compress(path, test_path("exponents"));
        must(mb_decompress(test_path("exponents"), test_path("back"), NULL, &report, &err), &err);
        size_t n = test_add_exponents(test_path("exponents"));
        must(mb_decompress(test_path("exponents"), test_path("plain"), NULL, &report, &err), &err);
        must(mb_verify(test_path("exponents"), test_path("plain"), NULL, &verified, &err), &err);
        assert_true(verified.n_broken == 0 && verified.worst_ratio == 0);
        assert_int_equal(test_unscale_tensors(test_path("back"), models[i].down, false), n);
        assert_true(test_equal_folders(test_path("back"), test_path("plain")));
        test_remove(test_path("back"));
        must(mb_decompress(test_path("exponents"), test_path("back"), DECOMPRESS_OPTIONS(.dtype = MB_BF16),
                           &report, &err),
             &err);
        assert_true(report.err_enlarged_ratio > 0 && report.err_enlarged_ratio < 1);
    }
}

/* A model that calls gate what its family calls down. */
static void other_matrices_with_exponents_are_refused_by_name(void **state)
{
    (void)state;
    struct mb_model *model;
    struct mb_error err;
    struct mb_verify_report report;
    compress(CHECKPOINTS "qwen3-moe", test_path("exponents"));
    assert_true(test_add_exponents_named(test_path("exponents"), "gate_proj.weight") > 0);
    assert_int_equal(mb_model_open(test_path("exponents"), NULL, &model, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "experts.0.gate_proj.weight have exponents"));
    assert_int_equal(mb_verify(test_path("exponents"), NULL, NULL, &report, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "experts.0.gate_proj.weight have exponents"));
}

static void exponents_are_laid_over_down_alone(void **state)
{
    (void)state;
    struct mb_model *model;
    struct mb_error err;
    make_forms(1);
    must(mb_model_open(test_path("exponents"), NULL, &model, &err), &err);
    size_t n;
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
    for (size_t i = 0; i < n; i++) {
        struct mb_matrix w = mb_model_weights(model, i);
        if (!w.is_coded)
            continue;
        const int8_t *exponents = w.coded.col_exponents;
        assert_int_equal(exponents != NULL, mb_may_have_exponents(matrices[i].name));
        w.coded.col_exponents = exponents != NULL ? exponents : (const int8_t *)w.coded.kinds;
        assert_int_equal(mb_model_overlay(model, matrices[i].name, &w, &err),
                         exponents != NULL ? MB_OK : MB_USAGE);
    }
    mb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponents_give_the_bits_of_scaled_rows),
        cmocka_unit_test(watchers_see_inputs_without_exponents),
        cmocka_unit_test(verify_proves_the_bound_of_each_column),
        cmocka_unit_test(other_matrices_with_exponents_are_refused_by_name),
        cmocka_unit_test(exponents_are_laid_over_down_alone),
        cmocka_unit_test(decompress_writes_what_exponents_mean),
    };
    return cmocka_run_group_tests_name("model_exponents", tests, test_folder_begin, test_folder_end);
}
