/*
 * test_encode.c - the bound holds for every weight of every kind of matrix and shape; sizes; refusals.
 */
#include "base/bytes.h"
#include "cmocka_all.h"
#include "codec/encode.h"
#include "matrices.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double mean_abs(enum mb_dtype dtype, const void *weights, size_t n)
{
    struct mb_weight_stats stats = MB_WEIGHT_STATS_INIT;
    assert_int_equal(mb_weight_stats_add(&stats, dtype, weights, n, NULL), MB_OK);
    return stats.sum_abs / (double)n;
}

/* Codes a matrix and compares every decoded weight with its original. */
static void check_bound(enum test_weights kind, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                        double share)
{
    void *weights = test_weights_make(kind, dtype, n_rows, n_cols, n_rows * 1000 + n_cols);
    double eps = share * mean_abs(dtype, weights, n_rows * n_cols);
    struct test_coded coded;
    test_code(&coded, dtype, weights, n_rows, n_cols, eps);
    float *decoded = malloc(n_rows * n_cols * sizeof *decoded);
    assert_non_null(decoded);
    mb_kernels()->decode_rows(coded.matrix, 0, n_rows, decoded);
    for (size_t i = 0; i < n_rows * n_cols; i++)
        if (!(fabs(test_weight(dtype, weights, i) - (double)decoded[i]) <= eps))
            fail_msg("kind %d, type %d, %zu x %zu: weight %zu: %g became %g, eps %g", kind, dtype, n_rows,
                     n_cols, i, test_weight(dtype, weights, i), (double)decoded[i], eps);
    free(decoded);
    test_coded_free(&coded);
    free(weights);
}

static void the_bound_holds_for_all_kinds(void **state)
{
    (void)state;
    static const double shares[] = {0.02, 0.05, 0.3, 1, 2};
    for (int kind = 0; kind < TEST_N_WEIGHTS; kind++)
        for (enum mb_dtype dtype = MB_F32; dtype <= MB_BF16; dtype++)
            for (size_t i = 0; i < 5; i++) {
                check_bound((enum test_weights)kind, dtype, 9, 300, shares[i]);
                check_bound((enum test_weights)kind, dtype, 3, 1408, shares[i]);
            }
}

static void the_bound_holds_for_all_shapes(void **state)
{
    (void)state;
    for (size_t n_cols = 1; n_cols <= 300; n_cols++) {
        check_bound(TEST_HEAVY_TAILS, MB_BF16, 1 + n_cols % 11, n_cols, 0.3);
        check_bound(TEST_GAUSS, MB_F32, 1, n_cols, 0.05);
    }
    check_bound(TEST_GAUSS, MB_F32, 5000, 1, 0.3); /* groups of 1024 rows, the last one short */
    check_bound(TEST_HEAVY_TAILS, MB_F16, 1, 65535, 0.1);
    check_bound(TEST_HEAVY_TAILS, MB_F16, 2, 1023, 0.1);
    check_bound(TEST_HEAVY_TAILS, MB_F16, 2, 1024, 0.1);
    check_bound(TEST_HEAVY_TAILS, MB_F16, 2, 1025, 0.1);
}

static void tight_bounds_end_in_raw_groups(void **state)
{
    (void)state;
    float *weights = test_weights_make(TEST_GAUSS, MB_F32, 4, 1024, 1);
    struct test_coded coded;
    test_code(&coded, MB_F32, weights, 4, 1024, 1e-9);
    for (size_t group = 0; group < 4; group++)
        assert_int_equal(coded.matrix->kinds[group], MB_KIND_RAW);
    float row[1024];
    mb_kernels()->decode_rows(coded.matrix, 2, 1, row);
    assert_memory_equal(row, weights + 2048, sizeof row); /* exact */
    test_coded_free(&coded);
    test_code(&coded, MB_F32, weights, 4, 1024, 1e-50); /* the step underflows */
    assert_true(coded.matrix->step == 0);
    assert_int_equal(coded.matrix->kinds[0], MB_KIND_RAW);
    test_coded_free(&coded);
    free(weights);
}

static void zeros_take_no_bits(void **state)
{
    (void)state;
    float *weights = calloc(64 * 1024, sizeof *weights);
    struct test_coded coded;
    test_code(&coded, MB_F32, weights, 64, 1024, 0);
    assert_int_equal(coded.matrix->data_nbytes, 0);
    assert_int_equal(coded.matrix->kinds[63], 0);
    test_coded_free(&coded);
    free(weights);
}

/* What is written by hand with chosen widths reads back: every legal pair, with all codes in use. */
static void every_pair_of_widths_decodes(void **state)
{
    (void)state;
    enum { N = 1024 + 57 };
    int8_t q[N];
    uint8_t record[4 * N + 64];
    float weights[N], decoded[N];
    for (unsigned a = 0; a <= 8; a++)
        for (unsigned b = 0; b <= (a == 0 ? 0u : 8u); b++) {
            int inner = mb_inner_max(a), outer = inner + mb_tail_half(b);
            if (outer > MB_Q_MAX)
                continue;
            struct mb_widths widths = {.a = a, .b = b};
            uint64_t random = a * 10 + b;
            for (size_t i = 0; i < N; i++) {
                q[i] = (int8_t)((int)(test_random(&random) % (uint64_t)(2 * outer + 1)) - outer);
                if (i % 100 == 99)
                    q[i] = MB_Q_OUTLIER;
                weights[i] = q[i] == MB_Q_OUTLIER ? 1000.0F + (float)i : 0.5F * (float)q[i];
                widths.n_outliers += q[i] == MB_Q_OUTLIER;
                widths.n_escapes += q[i] != MB_Q_OUTLIER && abs(q[i]) > inner;
            }
            struct mb_group group;
            size_t nbytes = mb_write_group(&widths, MB_F32, q, N, (const uint8_t *)weights, record, &group);
            uint8_t directory[5];
            mb_directory_write(MB_FORM_PATCHED, &group, 1, directory);
            const struct mb_blob_matrix info = {.dtype = MB_F32,
                                                .form = MB_FORM_PATCHED,
                                                .n_rows = 1,
                                                .n_cols = N,
                                                .eps = 0.25,
                                                .step = 0.5F,
                                                .data_nbytes = nbytes};
            struct mb_tile tile;
            assert_int_equal(mb_coded_view_nbytes(&info), sizeof tile);
            struct mb_coded_matrix w = mb_coded_view(&info, record, directory, &tile);
            mb_kernels_scalar.decode_rows(&w, 0, 1, decoded);
            assert_memory_equal(decoded, weights, sizeof weights);
        }
}

static void nan_is_refused_with_its_index(void **state)
{
    (void)state;
    float *weights = test_weights_make(TEST_GAUSS, MB_F32, 20, 100, 3);
    uint8_t *out = malloc(mb_encode_bound(MB_F32, 20, 100));
    struct mb_group groups[2];
    struct mb_coding coding = {MB_F32, MB_FORM_PATCHED, 100, 0.005, mb_step_of_eps(0.005), NULL};
    size_t nbytes, bad = 0;
    static const size_t places[] = {0, 1099, 1100, 1999}; /* 11 rows are a group */
    for (size_t i = 0; i < 4; i++) {
        float kept = weights[places[i]];
        weights[places[i]] = i % 2 == 0 ? NAN : INFINITY;
        assert_int_equal(mb_encode_rows(&coding, weights, 20, out, mb_encode_bound(MB_F32, 20, 100), &nbytes,
                                        groups, &bad),
                         MB_BAD_DATA);
        assert_int_equal(bad, places[i]);
        weights[places[i]] = kept;
    }
    assert_int_equal(mb_encode_rows(&coding, weights, 20, out, 100, &nbytes, groups, &bad), MB_NO_SPACE);
    free(out);
    free(weights);
}

static double gaussian_bits(enum mb_dtype dtype, double eps_over_sigma)
{
    void *weights = test_weights_make(TEST_GAUSS, dtype, 1408, 2048, 7);
    struct test_coded coded;
    test_code(&coded, dtype, weights, 1408, 2048, 0.02 * eps_over_sigma);
    double bits = 8.0 * (double)coded.nbytes / (1408 * 2048);
    test_coded_free(&coded);
    free(weights);
    return bits;
}

/* Sizes that the design promises, all included. */
static void gaussian_weights_take_few_bits(void **state)
{
    (void)state;
    assert_true(gaussian_bits(MB_F32, 0.25) <= 3.28);
    assert_true(gaussian_bits(MB_F32, 0.122) <= 4.31);
    assert_true(gaussian_bits(MB_BF16, 0.25) <= 3.28);
    assert_true(gaussian_bits(MB_BF16, 0.122) <= 4.31);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_holds_for_all_kinds),  cmocka_unit_test(the_bound_holds_for_all_shapes),
        cmocka_unit_test(tight_bounds_end_in_raw_groups), cmocka_unit_test(zeros_take_no_bits),
        cmocka_unit_test(every_pair_of_widths_decodes),   cmocka_unit_test(nan_is_refused_with_its_index),
        cmocka_unit_test(gaussian_weights_take_few_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
