/*
 * test_rounder.c - whole folders coded with feedback: bounds are proved by verify, bytes depend neither on
 * threads nor on instruction sets, and what has no moments is rounded plainly and named.
 */
#include "../checkpoint/folder.h"
#include "../codec/matrices.h"
#include "base/bytes.h"
#include "cmocka_all.h"
#include "moments.h"
#include <math.h>
#include <moebius/feedback.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Moments of every expert and linear matrix, by name: gate_proj and up_proj share theirs. */
struct source {
    struct mb_moments_source source;
    const char *unreached; /* in a name: no token reached it */
    const char *broken;    /* in a name: its moments are not positive definite */
    bool is_even;          /* columns of 'down' have no exponents */
    atomic_int n_read;
};

static uint64_t input_of(const char *tensor)
{
    const char *up = strstr(tensor, "up_proj");
    uint64_t hash = 1469598103934665603u;
    for (const char *at = tensor; *at != '\0' && at != up; at++)
        hash = (hash ^ (uint64_t)(unsigned char)*at) * 1099511628211u;
    for (const char *at = "gate_proj.weight"; up != NULL && *at != '\0'; at++)
        hash = (hash ^ (uint64_t)(unsigned char)*at) * 1099511628211u;
    return hash;
}

static enum mb_status get(void *context, const char *tensor, size_t n_cols, struct mb_moments_info *info,
                          float *moments, struct mb_error *err)
{
    (void)err;
    struct source *source = context;
    struct mb_tensor_role role = mb_role_of(tensor);
    bool is_unreached = source->unreached != NULL && strstr(tensor, source->unreached) != NULL;
    *info = (struct mb_moments_info){.is_known = role.role <= MB_ROLE_LINEAR,
                                     .n_tokens = is_unreached ? 0 : 3 * n_cols,
                                     .sum_gates2 = is_unreached ? 0 : (double)n_cols,
                                     .input = input_of(tensor)};
    if (moments == NULL)
        return MB_OK;
    atomic_fetch_add(&source->n_read, 1);
    float *made = test_moments_make(n_cols, 2 * n_cols, info->input);
    memcpy(moments, made, n_cols * n_cols * sizeof *made);
    free(made);
    if (source->broken != NULL && strstr(tensor, source->broken) != NULL)
        moments[1] = moments[n_cols] = 1e6F;
    return MB_OK;
}

static struct source make_source(void)
{
    return (struct source){.source = {.hash = 0x1234, .get = get}};
}

struct found {
    size_t n, n_unreached;
    double clipped, error, limit; /* sums */
};

static void add_matrix(void *ctx, const struct mb_feedback_matrix *matrix)
{
    struct found *found = ctx;
    found->n++;
    found->n_unreached += matrix->n_tokens == 0;
    found->clipped += (double)matrix->n_clipped;
    found->error += matrix->row_error_rms;
    found->limit += matrix->row_error_limit;
    assert_true(matrix->row_error_rms <= matrix->row_error_max);
    if (matrix->n_tokens > 0 && matrix->n_rows_clipped + matrix->n_rows_exact == 0)
        assert_true(matrix->row_error_max <= matrix->row_error_limit);
}

static enum mb_status try_compress(const char *in, const char *out, double rho, struct source *source,
                                   int n_threads, struct found *found, struct mb_feedback_report *report,
                                   struct mb_error *err)
{
    struct mb_feedback *feedback;
    struct mb_compress_report sizes;
    source->source.context = source;
    const struct mb_feedback_options options = {.size = sizeof options,
                                                .rho = rho,
                                                .each = add_matrix,
                                                .each_ctx = found,
                                                .no_column_factors = source->is_even};
    assert_int_equal(mb_feedback_create(&source->source, &options, &feedback, err), MB_OK);
    const struct mb_compress_options how = {.size = sizeof how,
                                            .n_threads = n_threads,
                                            .rounder = mb_feedback_rounder(feedback),
                                            .has_dense_bound = true,
                                            .dense_bound = {MB_BOUND_MEAN_ABS, 0.2}};
    enum mb_status status = mb_compress(in, out, &how, &sizes, err);
    *report = mb_feedback_report(feedback);
    mb_feedback_free(feedback);
    return status;
}

static struct mb_feedback_report compress(const char *in, const char *out, double rho, struct source *source,
                                          int n_threads, struct found *found)
{
    struct mb_feedback_report report;
    struct mb_error err = {0};
    *found = (struct found){0};
    if (try_compress(in, out, rho, source, n_threads, found, &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return report;
}

struct checked {
    double rho;
    size_t n_fine, n_derived, n_by_column;
};

static void check_tensor(void *ctx, const struct mb_verify_tensor *tensor)
{
    struct checked *checked = ctx;
    assert_true(tensor->n_broken == 0);
    checked->n_by_column += tensor->eps_min < tensor->eps;
    assert_true(tensor->eps_min == tensor->eps || mb_may_have_exponents(tensor->name));
    if (tensor->step == mb_step_of_rho(tensor->eps, checked->rho))
        checked->n_fine++;
    else if (tensor->step == mb_step_of_eps(tensor->eps))
        checked->n_derived++;
    else
        fail_msg("%s: a step of its own", tensor->name);
}

static struct checked prove(const char *coded, const char *original, double rho)
{
    struct checked checked = {.rho = rho};
    struct mb_verify_report report;
    struct mb_error err;
    const struct mb_verify_options options = {
        .size = sizeof options, .n_threads = 2, .each = check_tensor, .each_ctx = &checked};
    if (mb_verify(coded, original, &options, &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_true(report.n_broken == 0 && report.worst_ratio <= 1 && report.n_weights > 0);
    return checked;
}

static char plain[300], coded[300];

static void write_plain(void)
{
    struct test_model model = test_model_small();
    model.n_hidden = 96;
    model.n_inner = 80;
    snprintf(plain, sizeof plain, "%s", test_path("plain"));
    snprintf(coded, sizeof coded, "%s", test_path("coded"));
    test_remove(plain);
    test_remove(coded);
    test_write_model(plain, &model);
}

static void coded_folders_keep_their_bounds_and_say_how(void **state)
{
    (void)state;
    static const double rhos[] = {0.5, 0.75, 1, 1.7, 4};
    write_plain();
    for (size_t i = 0; i < 10; i++) {
        struct source source = make_source();
        struct found found;
        source.is_even = i >= 5;
        double rho = rhos[i % 5];
        struct mb_feedback_report report = compress(plain, coded, rho, &source, 2, &found);
        struct checked checked = prove(coded, plain, rho);
        assert_true(report.n_matrices > 6 && report.n_matrices == found.n && report.n_unreached == 0);
        assert_true(checked.n_fine >= found.n);
        assert_true(source.is_even ? checked.n_by_column == 0 : checked.n_by_column > 3);
        if (source.is_even) /* gate_proj and up_proj share a factor */
            assert_true((size_t)atomic_load(&source.n_read) < found.n);
        assert_true(report.n_clipped > 0 && report.n_clipped < report.n_weights);
        size_t nbytes;
        char name[400];
        snprintf(name, sizeof name, "%s/config.json", coded);
        char *config = (char *)test_read(name, &nbytes);
        config = realloc(config, nbytes + 1);
        config[nbytes] = '\0';
        assert_non_null(strstr(config, source.is_even ? "\"format_version\": 2" : "\"format_version\": 3"));
        if (rho == 1) /* by default the step is that of plain rounding */
            assert_non_null(strstr(config, "\"bound\": \"60%\""));
        assert_non_null(strstr(config, "\"moments_xxh3\": \"0000000000001234\""));
        free(config);
        test_remove(coded);
    }
}

static uint64_t compress_again(const char *out, struct source *source, bool is_dry,
                               struct mb_compress_report *sizes)
{
    struct mb_feedback *feedback;
    struct mb_error err = {0};
    source->source.context = source;
    const struct mb_feedback_options options = {.size = sizeof options, .no_column_factors = source->is_even};
    assert_int_equal(mb_feedback_create(&source->source, &options, &feedback, &err), MB_OK);
    const struct mb_compress_options how = {
        .size = sizeof how, .force = true, .dry_run = is_dry, .rounder = mb_feedback_rounder(feedback)};
    enum mb_status status = mb_compress(plain, out, &how, sizes, &err);
    mb_feedback_free(feedback);
    if (status != MB_OK)
        fail_msg("%s", err.msg);
    return sizes->n_blobs_reused;
}

static void what_was_coded_is_taken_where_columns_have_the_same_exponents(void **state)
{
    (void)state;
    char other[300];
    struct mb_compress_report sizes;
    struct source source = make_source(), even = make_source();
    even.is_even = true;
    write_plain();
    snprintf(other, sizeof other, "%s", test_path("other"));
    assert_int_equal(compress_again(coded, &source, false, &sizes), 0);
    assert_true(compress_again(coded, &source, false, &sizes) > 3);
    assert_int_equal(compress_again(other, &source, false, &sizes), 0);
    assert_true(test_same_folders(coded, other));
    assert_int_equal(compress_again(coded, &even, false, &sizes), 0);
    prove(coded, plain, 1);
    test_remove(other);
}

static void sizes_are_predicted_with_exponents(void **state)
{
    (void)state;
    struct mb_compress_report predicted, sizes;
    struct source source = make_source();
    write_plain();
    compress_again(coded, &source, true, &predicted);
    compress_again(coded, &source, false, &sizes);
    double ratio = (double)predicted.coded_nbytes / (double)sizes.coded_nbytes;
    assert_true(ratio > 0.98 && ratio < 1.02); /* small matrices: a percent of one that is large */
}

static void bytes_do_not_depend_on_threads(void **state)
{
    (void)state;
    char other[300];
    write_plain();
    snprintf(other, sizeof other, "%s", test_path("other"));
    for (int n_threads = 2; n_threads <= 7; n_threads += 5) {
        struct source source = make_source();
        struct found a, b;
        compress(plain, coded, 1, &source, 1, &a);
        compress(plain, other, 1, &source, n_threads, &b);
        assert_true(test_same_folders(coded, other));
        assert_memory_equal(&a, &b, sizeof a);
        test_remove(coded);
        test_remove(other);
    }
}

/* A child for each: a process chooses its tables once, so this is the first test. */
static void bytes_do_not_depend_on_instruction_sets(void **state)
{
    (void)state;
    static const char *const without[] = {"", "-avx512", "-avx2", "-neon"};
    write_plain();
    for (size_t i = 0; i < 4; i++) {
        char out[320];
        snprintf(out, sizeof out, "%s-%zu", coded, i);
        test_remove(out);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            setenv("MOEBIUS_CPU", without[i], 1);
            struct source source = make_source();
            struct found found = {0};
            struct mb_feedback_report report;
            _exit(try_compress(plain, out, 1, &source, 2, &found, &report, NULL) == MB_OK ? 0 : 1);
        }
        int status;
        assert_true(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        if (i > 0) {
            char first[320];
            snprintf(first, sizeof first, "%s-0", coded);
            assert_true(test_same_folders(first, out));
        }
    }
}

static void experts_that_no_token_reached_are_rounded_plainly_and_named(void **state)
{
    (void)state;
    struct source source = make_source();
    struct found found;
    source.unreached = "experts.1.";
    write_plain();
    struct mb_feedback_report report = compress(plain, coded, 1, &source, 2, &found);
    assert_true(report.n_unreached > 0 && report.n_unreached == found.n_unreached);
    assert_true(report.n_unreached + report.n_matrices == found.n);
    prove(coded, plain, 1);
}

static void matrices_with_too_many_columns_are_rounded_plainly_and_named(void **state)
{
    (void)state;
    struct source source = make_source();
    struct mb_feedback *feedback;
    struct mb_compress_report sizes;
    struct mb_error err;
    source.source.context = &source;
    write_plain();
    const struct mb_feedback_options options = {.size = sizeof options, .n_cols_max = 80};
    assert_int_equal(mb_feedback_create(&source.source, &options, &feedback, &err), MB_OK);
    const struct mb_compress_options how = {.size = sizeof how, .rounder = mb_feedback_rounder(feedback)};
    assert_int_equal(mb_compress(plain, coded, &how, &sizes, &err), MB_OK);
    struct mb_feedback_report report = mb_feedback_report(feedback);
    mb_feedback_free(feedback);
    assert_true(report.n_wide > 0 && report.n_matrices > 0 && report.n_unreached == 0);
    assert_non_null(strstr(report.wide_tensor, ".weight"));
    prove(coded, plain, 1);
}

static void moments_of_nothing_are_refused_by_name(void **state)
{
    (void)state;
    struct source source = make_source();
    struct found found = {0};
    struct mb_feedback_report report;
    struct mb_error err = {0};
    source.broken = "experts.0.down_proj";
    write_plain();
    assert_int_equal(try_compress(plain, coded, 1, &source, 2, &found, &report, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "experts.0.down_proj.weight: the moments are not positive definite"));
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    struct source source = make_source();
    static const struct mb_feedback_options wrong[] = {
        {.size = sizeof wrong[0], .rho = 0.4},      {.size = sizeof wrong[0], .rho = 4.1},
        {.size = sizeof wrong[0], .rho = NAN},      {.size = sizeof wrong[0], .damping = -1},
        {.size = sizeof wrong[0], .damping = 1.01},
    };
    for (size_t i = 0; i < 5; i++) {
        struct mb_feedback *feedback;
        struct mb_error err = {0};
        assert_int_equal(mb_feedback_create(&source.source, &wrong[i], &feedback, &err), MB_USAGE);
        assert_null(feedback);
    }
}

/* ---------------------------------------------------------------- errors of outputs */

/* A meter as plain as can be. */
struct plain_meter {
    size_t n;
    double sum_gates2;
    float *moments;
};

static enum mb_status meter_begin(void *context, const char *tensor, size_t n_cols, void **matrix,
                                  struct mb_error *err)
{
    struct mb_moments_info info;
    struct plain_meter *meter = calloc(1, sizeof *meter);
    assert_non_null(meter);
    meter->n = n_cols;
    meter->moments = calloc(n_cols * n_cols, sizeof *meter->moments);
    assert_int_equal(get(context, tensor, n_cols, &info, meter->moments, err), MB_OK);
    meter->sum_gates2 = info.sum_gates2;
    *matrix = meter;
    return MB_OK;
}

static enum mb_status meter_rows(void *context, const void *matrix, const double *rows, size_t n_rows,
                                 double *squares, struct mb_error *err)
{
    (void)context;
    (void)err;
    const struct plain_meter *meter = matrix;
    for (size_t r = 0; r < n_rows; r++)
        squares[r] = test_row_error2(meter->moments, rows + r * meter->n, meter->n) / meter->sum_gates2;
    return MB_OK;
}

static void meter_end(void *context, void *matrix)
{
    (void)context;
    struct plain_meter *meter = matrix;
    free(meter->moments);
    free(meter);
}

struct outputs {
    size_t n, n_with_outliers;
};

static void check_outputs(void *ctx, const struct mb_verify_tensor *tensor)
{
    struct outputs *outputs = ctx;
    if (!tensor->has_output_error)
        return;
    assert_true(tensor->is_measured);
    assert_true(tensor->output_rms <= tensor->output_error.rms);
    assert_true(tensor->output_max <= tensor->output_error.max);
    assert_true(tensor->output_relative > 0 && tensor->output_relative < 1);
    assert_true(tensor->output_error.n_rows_clipped <= tensor->n_rows);
    outputs->n++;
    outputs->n_with_outliers += tensor->n_outliers > 0;
}

/* Weights that are stored as they were take back errors that others made up for: that counts as well. */
static void stored_errors_of_outputs_are_never_exceeded(void **state)
{
    (void)state;
    static const double rhos[] = {0.5, 1, 2.5};
    struct test_model model = test_model_small();
    model.n_hidden = 96;
    model.n_inner = 80;
    model.odd_name = "model.layers.1.mlp.experts.0.gate_proj.weight";
    model.odd_index = 100;
    model.n_odd = 30;
    model.odd_value = 0.9F;
    for (size_t i = 0; i < 3; i++) {
        struct source source = make_source();
        struct found found;
        struct outputs outputs = {0};
        struct mb_verify_report report;
        struct mb_error err;
        write_plain();
        test_remove(plain);
        test_write_model(plain, &model);
        compress(plain, coded, rhos[i], &source, 2, &found);
        const struct mb_output_meter meter = {
            .context = &source, .begin = meter_begin, .rows = meter_rows, .end = meter_end};
        assert_int_equal(mb_verify(coded, plain,
                                   VERIFY_OPTIONS(.n_threads = 2, .meter = &meter, .each = check_outputs,
                                                  .each_ctx = &outputs),
                                   &report, &err),
                         MB_OK);
        assert_true(report.n_output_errors == found.n && report.n_output_errors_broken == 0);
        assert_true(outputs.n == found.n && outputs.n_with_outliers > 0);
        assert_true(report.n_measured >= found.n);
    }
}

/* ---------------------------------------------------------------- what verify finds */

/*
 * The indices of the first blob of a shard, rewritten: one weight moves by half of what codes reach.
 * *by_column: its column has a bound of its own.
 */
static bool change_one_code(uint8_t *shard, uint64_t *seed, bool *by_column)
{
    uint64_t header = mb_load_u64(shard);
    uint8_t *bytes = shard + 8 + header; /* blobs come first */
    uint64_t nbytes = mb_load_u64(bytes + 16);
    struct mb_blob blob;
    struct mb_error err;
    if (mb_blob_open(bytes, nbytes, &blob, &err) != MB_OK)
        fail_msg("%s", err.msg);
    const struct mb_coded_matrix *w = &blob.matrix[test_random(seed) % blob.n_matrices];
    uint8_t *record = bytes + (w->data - bytes);
    unsigned a = (w->kinds[0] & 127u) / 9;
    size_t code = test_random(seed) % (w->group_rows * w->n_cols);
    bool can_change = (w->kinds[0] & 127) != 81 && a >= 2 && a != 4;
    if (can_change) { /* a bit of one body code: the top one moves a weight by half of what codes reach */
        size_t bit = code * a + a - 1;
        record[bit / 8] ^= (uint8_t)(1u << bit % 8);
    } else if (a == 4) {
        record[code / 2] ^= 0x80;
    }
    *by_column = w->col_exponents != NULL && w->col_exponents[code % w->n_cols] != 0;
    mb_blob_close(&blob);
    test_repair_checksums(bytes, nbytes);
    return can_change || a == 4;
}

static bool is_caught(const char *folder)
{
    struct mb_verify_report report;
    struct mb_error err;
    enum mb_status status = mb_verify(folder, plain, VERIFY_OPTIONS(.n_threads = 1), &report, &err);
    return status == MB_BAD_DATA || (status == MB_OK && report.n_broken > 0);
}

static void a_thousand_single_changed_codes_are_all_caught(void **state)
{
    (void)state;
    struct source source = make_source();
    struct found found;
    struct test_model model = test_model_small();
    char name[400];
    size_t nbytes, n_changed = 0, n_by_column = 0;
    uint64_t seed = 5;
    write_plain();
    model.n_hidden = 40;
    model.n_inner = 36;
    test_remove(plain);
    test_write_model(plain, &model);
    compress(plain, coded, 1, &source, 1, &found);
    assert_false(is_caught(coded));
    snprintf(name, sizeof name, "%s/model-00002-of-00003.safetensors", coded);
    uint8_t *shard = test_read(name, &nbytes), *copy = malloc(nbytes);
    assert_true(shard != NULL && copy != NULL);
    for (int i = 0; i < 1000; i++) {
        bool by_column;
        memcpy(copy, shard, nbytes);
        if (!change_one_code(copy, &seed, &by_column))
            continue;
        test_write(name, copy, nbytes);
        assert_true(is_caught(coded));
        n_changed++;
        n_by_column += by_column;
    }
    assert_int_equal(n_changed, 1000);
    assert_true(n_by_column > 100);
    free(copy);
    free(shard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_do_not_depend_on_instruction_sets),
        cmocka_unit_test(coded_folders_keep_their_bounds_and_say_how),
        cmocka_unit_test(what_was_coded_is_taken_where_columns_have_the_same_exponents),
        cmocka_unit_test(sizes_are_predicted_with_exponents),
        cmocka_unit_test(bytes_do_not_depend_on_threads),
        cmocka_unit_test(experts_that_no_token_reached_are_rounded_plainly_and_named),
        cmocka_unit_test(matrices_with_too_many_columns_are_rounded_plainly_and_named),
        cmocka_unit_test(moments_of_nothing_are_refused_by_name),
        cmocka_unit_test(wrong_options_are_refused),
        cmocka_unit_test(stored_errors_of_outputs_are_never_exceeded),
        cmocka_unit_test(a_thousand_single_changed_codes_are_all_caught),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
