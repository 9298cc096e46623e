/*
 * test_product.c - products of the scalar kernels against their definition, computed here from decoded
 * weights.
 */
#include "cmocka_all.h"
#include "codec/kernels.h"
#include "matrices.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct vectors {
    float *x;
    int8_t *planes;
    struct mb_activation *activations;
    size_t n, n_tokens;
};

static struct vectors make_vectors(const struct mb_kernels *k, size_t n, size_t n_tokens)
{
    size_t plane = mb_activation_plane_nbytes(n), each = 2 * plane + mb_activation_wide_nbytes(n);
    struct vectors v = {
        .x = malloc(n * n_tokens * sizeof(float)),
        .planes = aligned_alloc(64, each * n_tokens),
        .activations = calloc(n_tokens, sizeof(struct mb_activation)),
        .n = n,
        .n_tokens = n_tokens,
    };
    uint64_t state = n + n_tokens;
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t i = 0; i < n; i++)
            v.x[t * n + i] = (float)(test_normal(&state) * (t + 1.0));
        if (t == 1 && n > 30) { /* in one block and in two, of two planes and of three */
            v.x[t * n + 17] *= 3e4F;
            v.x[t * n + n - 1] *= -1e6F;
        }
        int8_t *planes = v.planes + t * each;
        k->activation(v.x + t * n, n, planes, planes + plane, planes + 2 * plane, &v.activations[t]);
    }
    return v;
}

static void free_vectors(struct vectors *v)
{
    free(v->x);
    free(v->planes);
    free(v->activations);
}

static int64_t value(const struct mb_activation *x, size_t i)
{
    return (int64_t)mb_activation_value(x, i);
}

static void activations_are_near_and_padded(void **state)
{
    (void)state;
    struct vectors v = make_vectors(&mb_kernels_scalar, 333, 1);
    const struct mb_activation *x = &v.activations[0];
    float max = 0;
    int64_t sum = 0;
    for (size_t i = 0; i < 333; i++) {
        max = fmaxf(max, fabsf(v.x[i]));
        assert_true(fabs((double)v.x[i] - (double)value(x, i) * (double)x->scale) <=
                    0.5001 * (double)x->scale);
        sum += value(x, i);
    }
    assert_true(x->scale == max / 32639.0F);
    assert_int_equal(sum, x->sum);
    for (size_t i = 333; i < 384; i++)
        assert_true(x->hi[i] == 0 && x->lo[i] == 0);
    free_vectors(&v);
}

/* What codec.h promises: half a scale for each element, and a scale that outliers do not change. */
static void outliers_leave_the_others_their_precision(void **state)
{
    (void)state;
    enum { N = 2048, N_OUTLIERS = 15 };
    static const float factors[] = {1, 16, 256, 4096, 0x1p20F, 0x1p30F, 0x1p40F};
    static float x[N];
    static _Alignas(64) int8_t hi[N], lo[N], wide[5 * N];
    uint64_t seed = 3;
    float first_scale = 0;
    for (size_t k = 0; k < sizeof factors / sizeof *factors; k++) {
        struct mb_activation a;
        for (size_t i = 0; i < N; i++)
            x[i] = (float)test_normal(&seed);
        for (size_t i = 0; i < N_OUTLIERS; i++)
            x[i * 135 + 1] = (float)(i % 2 == 0 ? 2 : -2) * factors[k];
        mb_kernels_scalar.activation(x, N, hi, lo, wide, &a);
        int64_t sum = 0, wide_sum = 0;
        for (size_t i = 0; i < N; i++) {
            double error = fabs((double)x[i] - mb_activation_value(&a, i) * (double)a.scale);
            assert_true(error <= 0.5 * (double)a.scale + 0x1p-24 * fabs((double)x[i]));
            assert_true(abs(mb_narrow_value(&a, i)) <= MB_ACTIVATION_MAX);
            sum += mb_narrow_value(&a, i);
            wide_sum += mb_wide_value(&a, i);
        }
        assert_true(sum == a.sum && wide_sum == a.wide_sum);
        if (k == 0)
            first_scale = a.scale;
        assert_true(a.n_wide == (k == 0 ? 0 : k == 1 ? a.n_wide : N_OUTLIERS));
        if (k < 6) /* 16 times the typical element, and that is less than the largest */
            assert_true(a.scale <= 16 * first_scale);
        else /* X has no more bits */
            assert_true(a.scale == 0x1p41F * 0x1p-45F);
    }
}

/* One outlier more or less does not change the scale, and its block alone is wide. */
static void a_block_with_an_outlier_is_wide(void **state)
{
    (void)state;
    enum { N = 1408 };
    static float x[N];
    static _Alignas(64) int8_t hi[N], lo[N], wide[5 * N];
    uint64_t seed = 4;
    struct mb_activation a;
    float scale = 0;
    for (size_t i = 0; i < N; i++)
        x[i] = (float)test_normal(&seed);
    for (float outlier = 50; outlier < 1e9F; outlier *= 10) {
        x[700] = outlier;
        mb_kernels_scalar.activation(x, N, hi, lo, wide, &a);
        assert_true(scale == 0 || a.scale == scale);
        scale = a.scale;
        assert_true(a.n_wide == 1 && a.wide_at[0] == 700 / 128 && a.wide_sum == mb_wide_value(&a, 700));
    }
    assert_true((double)scale * 0.5 < 1.0 / 5000); /* rms is 1 */
    x[700] = 5;
    mb_kernels_scalar.activation(x, N, hi, lo, wide, &a);
    assert_true(a.n_wide == 0 && a.scale == 5 / 32639.0F); /* ordinary: by the largest */
}

/* What codec.h promises: a fraction of the block's largest element, and wide blocks as exact as others. */
static void fast_activations_are_near_and_their_planes_agree(void **state)
{
    (void)state;
    enum { N = 1000, PLANE = 1024 };
    static float x[N];
    static _Alignas(64) int8_t bytes[PLANE + 64], hi[PLANE], lo[PLANE], wide[16 * PLANE];
    uint64_t seed = 6;
    for (size_t round = 0; round < 40; round++) {
        struct mb_activation a;
        size_t n = round % 2 == 0 ? N : N / 10 + round;
        for (size_t i = 0; i < n; i++)
            x[i] = (float)test_normal(&seed) * (i / 128 % 3 == 0 ? 0.02F : 1.0F);
        if (round % 4 == 3)
            x[n / 2] *= 1e5F;
        mb_kernels_scalar.activation_fast(x, n, bytes, hi, lo, wide, &a);
        int64_t sum = 0;
        for (size_t i = 0; i < n; i++) {
            size_t block = i / 128, end = 128 * block + 128 < n ? 128 * block + 128 : n;
            float largest = 0;
            for (size_t k = 128 * block; k < end; k++)
                largest = fmaxf(largest, fabsf(x[k]));
            bool is_wide = false;
            for (size_t k = 0; k < a.n_wide; k++)
                is_wide = is_wide || a.wide_at[k] == block;
            double error = fabs((double)x[i] - mb_activation_value(&a, i) * (double)a.scale);
            double bound = 0.5001 * (double)a.scale + 0x1p-24 * fabs((double)x[i]);
            assert_true(error <= bound + (is_wide ? 0 : (double)largest / 254));
            assert_int_equal(mb_narrow_value(&a, i) - a.factors[block] * a.bytes[i],
                             is_wide ? mb_narrow_value(&a, i) : 0);
            assert_int_equal(mb_fast_narrow_value(&a, i), mb_narrow_value(&a, i));
            assert_true(a.factors[block] >= 1 && a.factors[block] <= 129 && abs(a.bytes[i]) <= 127);
            sum += mb_narrow_value(&a, i);
        }
        assert_true(sum == a.sum && (a.n_wide > 0 || round % 4 != 3));
    }
}

static void odd_vectors_have_their_scales(void **state)
{
    (void)state;
    _Alignas(64) int8_t hi[128], lo[128], wide[1024];
    struct mb_activation out;
    float x[3] = {0, 0, 0};
    mb_kernels_scalar.activation(x, 3, hi, lo, wide, &out);
    assert_true(out.scale == 0 && out.sum == 0);
    x[1] = NAN;
    mb_kernels_scalar.activation(x, 3, hi, lo, wide, &out);
    assert_true(isnan(out.scale));
    x[1] = -INFINITY;
    mb_kernels_scalar.activation(x, 3, hi, lo, wide, &out);
    assert_true(isnan(out.scale));
    x[1] = 3e38F;
    x[2] = -3.4e38F;
    mb_kernels_scalar.activation(x, 3, hi, lo, wide, &out);
    assert_int_equal(value(&out, 2), -32639);
    x[1] = 1e-40F;
    x[2] = -1e-42F;
    mb_kernels_scalar.activation(x, 3, hi, lo, wide, &out);
    assert_true(out.scale == 0 && out.sum == 0);
}

/* The definition: exact sums over q, outliers and raw rows apart. Integers below are exact in double. */
static double defined_product(const struct test_coded *coded, const float *w, size_t n_cols,
                              const bool *is_exact, const struct mb_activation *x)
{
    double s = 0, exact = 0;
    for (size_t c = 0; c < n_cols; c++)
        if (is_exact[c])
            exact += (double)w[c] * (double)value(x, c);
        else
            s += rint((double)w[c] / (double)coded->matrix->step) * (double)value(x, c);
    return (s * (double)coded->matrix->step + exact) * (double)x->scale;
}

static void check_products(enum test_weights kind, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                           double eps)
{
    const struct mb_kernels *k = &mb_kernels_scalar;
    void *weights = test_weights_make(kind, dtype, n_rows, n_cols, 5);
    struct test_coded coded;
    test_code(&coded, dtype, weights, n_rows, n_cols, eps);
    float *w = malloc(n_rows * n_cols * sizeof *w), *y = calloc(3 * n_rows, sizeof *y);
    bool *is_exact = calloc(n_cols, sizeof *is_exact);
    k->decode_rows(coded.matrix, 0, n_rows, w);
    struct vectors v = make_vectors(k, n_cols, 3);
    for (size_t t = 0; t < 3; t++)
        k->matvec(coded.matrix, 0, n_rows, &v.activations[t], y + t * n_rows);
    for (size_t r = 0; r < n_rows; r++) {
        double magnitude = 0;
        for (size_t c = 0; c < n_cols; c++) {
            is_exact[c] =
                coded.matrix->step * rintf(w[r * n_cols + c] / coded.matrix->step) != w[r * n_cols + c];
            magnitude += fabs((double)w[r * n_cols + c] * (double)value(&v.activations[1], c));
        }
        double expected = defined_product(&coded, w + r * n_cols, n_cols, is_exact, &v.activations[1]);
        double tolerance = 1e-6 * magnitude * (double)v.activations[1].scale;
        assert_true(fabs((double)y[n_rows + r] - expected) <= tolerance);
    }
    /* Any split gives the same bits: one row at a time, and a block of tokens. */
    float *again = calloc(3 * n_rows, sizeof *again);
    void *scratch = aligned_alloc(64, (k->matmul_scratch_nbytes(coded.matrix->n_cols) + 63) / 64 * 64);
    for (size_t r = 0; r < n_rows; r++)
        k->matvec(coded.matrix, r, 1, &v.activations[1], again + r);
    assert_memory_equal(again, y + n_rows, n_rows * sizeof *y);
    k->matmul(coded.matrix, 0, n_rows, v.activations, 3, again, n_rows, scratch);
    assert_memory_equal(again, y, 3 * n_rows * sizeof *y);
    free(scratch);
    free(again);
    free(is_exact);
    free(y);
    free(w);
    free_vectors(&v);
    test_coded_free(&coded);
    free(weights);
}

static void products_are_what_the_format_says(void **state)
{
    (void)state;
    for (int kind = 0; kind < TEST_SUBNORMAL; kind++)
        for (enum mb_dtype dtype = MB_F32; dtype <= MB_BF16; dtype++) {
            check_products((enum test_weights)kind, dtype, 7, 2048, 0.005);
            check_products((enum test_weights)kind, dtype, 29, 100, 0.005);
            check_products((enum test_weights)kind, dtype, 40, 1, 0.005);
            check_products((enum test_weights)kind, dtype, 1, 333, 0.0005);
        }
}

static void transposed_products_sum_over_rows(void **state)
{
    (void)state;
    const struct mb_kernels *k = &mb_kernels_scalar;
    enum { N_ROWS = 48, N_COLS = 96, FIRST = 5, N = 37 };
    float *weights = test_weights_make(TEST_HUGE_OUTLIERS, MB_F32, N_ROWS, N_COLS, 6), w[N_ROWS * N_COLS],
          y[N_COLS];
    struct test_coded coded;
    test_code(&coded, MB_F32, weights, N_ROWS, N_COLS, 0.004);
    k->decode_rows(coded.matrix, 0, N_ROWS, w);
    struct vectors v = make_vectors(k, N, 1);
    void *scratch = aligned_alloc(64, (k->transposed_scratch_nbytes(coded.matrix->n_cols) + 63) / 64 * 64);
    k->matvec_transposed(coded.matrix, FIRST, N, &v.activations[0], y, scratch);
    for (size_t c = 0; c < N_COLS; c++) {
        double expected = 0, magnitude = 0;
        for (size_t r = 0; r < N; r++) {
            double product = (double)w[(FIRST + r) * N_COLS + c] * (double)value(&v.activations[0], r);
            expected += product;
            magnitude += fabs(product);
        }
        double scale = (double)v.activations[0].scale;
        assert_true(fabs((double)y[c] - expected * scale) <= 1e-6 * magnitude * scale);
    }
    free(scratch);
    free_vectors(&v);
    test_coded_free(&coded);
    free(weights);
}

static void non_finite_vectors_give_nan_and_zero_gives_zero(void **state)
{
    (void)state;
    float *weights = test_weights_make(TEST_GAUSS, MB_F32, 3, 64, 6), x[64] = {0}, y[3];
    _Alignas(64) int8_t hi[128], lo[128], wide[1024];
    struct mb_activation a;
    struct test_coded coded;
    test_code(&coded, MB_F32, weights, 3, 64, 0.004);
    mb_kernels_scalar.activation(x, 64, hi, lo, wide, &a);
    mb_kernels_scalar.matvec(coded.matrix, 0, 3, &a, y);
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 0);
    x[9] = INFINITY;
    mb_kernels_scalar.activation(x, 64, hi, lo, wide, &a);
    mb_kernels_scalar.matvec(coded.matrix, 0, 3, &a, y);
    assert_true(isnan(y[0]) && isnan(y[2]));
    test_coded_free(&coded);
    free(weights);
}

static void single_rows_are_looked_up(void **state)
{
    (void)state;
    static const size_t n_cols[] = {3, 64, 100, 1024, 1500};
    for (size_t i = 0; i < 5; i++) {
        size_t n_rows = 300;
        float *weights = test_weights_make(TEST_HEAVY_TAILS, MB_F32, n_rows, n_cols[i], 6);
        float *all = malloc(n_rows * n_cols[i] * sizeof *all), *row = malloc(n_cols[i] * sizeof *row);
        struct test_coded coded;
        test_code(&coded, MB_F32, weights, n_rows, n_cols[i], 0.004);
        mb_kernels_scalar.decode_rows(coded.matrix, 0, n_rows, all);
        for (size_t r = 0; r < n_rows; r++) {
            mb_kernels_scalar.decode_rows(coded.matrix, r, 1, row);
            assert_memory_equal(row, all + r * n_cols[i], n_cols[i] * sizeof *row);
        }
        test_coded_free(&coded);
        free(row);
        free(all);
        free(weights);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_are_near_and_padded),
        cmocka_unit_test(outliers_leave_the_others_their_precision),
        cmocka_unit_test(a_block_with_an_outlier_is_wide),
        cmocka_unit_test(fast_activations_are_near_and_their_planes_agree),
        cmocka_unit_test(odd_vectors_have_their_scales),
        cmocka_unit_test(products_are_what_the_format_says),
        cmocka_unit_test(transposed_products_sum_over_rows),
        cmocka_unit_test(non_finite_vectors_give_nan_and_zero_gives_zero),
        cmocka_unit_test(single_rows_are_looked_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
