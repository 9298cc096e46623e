/*
 * test_float_ops.c - the engine's float functions: every instruction set gives the scalar bits, and exp is
 * exp.
 */
#include "../codec/guarded.h"
#include "base/bytes.h"
#include "base/cpu.h"
#include "cmocka_all.h"
#include "model/float_ops_tables.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 300, GUARD = 16 };

/*
 * The tables themselves, not what mb_float_ops_by_isa hands out: that compares a few vectors first and would
 * hide a wrong table.  NULL after the last that this CPU can run.
 */
static const struct mb_float_ops *fast_table(size_t i)
{
    const struct mb_dispatch_table *table = &mb_float_ops_tables[1 + i];
    return table->isa != NULL && (table->needs & ~mb_cpu_features()) == 0 ? table->table : NULL;
}

static uint32_t state_of_random = 1;

static uint32_t random_bits(void)
{
    state_of_random = state_of_random * 1664525U + 1013904223U;
    return state_of_random >> 8;
}

static float random_float(float size)
{
    return ((float)random_bits() / (float)(1 << 23) - 1) * size;
}

/* Ordinary numbers, with some that are not. */
static void fill(float *x, size_t n, bool is_hard)
{
    static const float hard[] = {0,     -0.0F,  NAN,     INFINITY, -INFINITY, FLT_MIN, 1e-42F,
                                 88.5F, -87.5F, FLT_MAX, -1e30F,   65520.0F,  6e-8F,   2049.5F};
    for (size_t i = 0; i < n; i++)
        x[i] = is_hard && random_bits() % 8 == 0 ? hard[random_bits() % (sizeof hard / sizeof *hard)]
                                                 : random_float(10);
}

static void same_bits(const float *a, const float *b, size_t n, const char *what, size_t size)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i])))
            fail_msg("%s of %zu: element %zu is %a, scalar %a", what, size, i, (double)a[i], (double)b[i]);
}

/* Runs one function of both tables on copies of y, and compares n results and what is behind them. */
#define COMPARE(call, what)                                \
    do {                                                   \
        float ours[N_MAX + GUARD], scalars[N_MAX + GUARD]; \
        const struct mb_float_ops *v = ops;                \
        float *out = ours;                                 \
        memcpy(out, y, sizeof ours);                       \
        call;                                              \
        v = scalar;                                        \
        out = scalars;                                     \
        memcpy(out, y, sizeof ours);                       \
        call;                                              \
        same_bits(ours, scalars, N_MAX + GUARD, what, n);  \
    } while (0)

static void compare_functions(const struct mb_float_ops *ops, const struct mb_float_ops *scalar, size_t n,
                              bool is_hard)
{
    float x[N_MAX + GUARD], y[N_MAX + GUARD];
    fill(x, N_MAX + GUARD, is_hard);
    fill(y, N_MAX + GUARD, is_hard);
    COMPARE(v->rms_norm(x, y, n, 1e-5F, out), "rms_norm");
    COMPARE(v->layer_norm(x, y, x + GUARD, n, 1e-5F, out), "layer_norm");
    COMPARE(v->layer_norm(out, y, x, n, 1e-5F, out), "layer_norm in place");
    COMPARE(v->add(x, n, out), "add");
    COMPARE(v->axpy(0.7F, x, n, out), "axpy");
    COMPARE(v->scale(0.7F, n, out), "scale");
    COMPARE(v->silu_mul(out, x, n), "silu_mul");
    COMPARE(v->sigmoid(x, n, out), "sigmoid");
    COMPARE(out[0] = v->max(x, n), "max");
    COMPARE(out[N_MAX] = v->exp_sum(out, n, 0.3F, 1.5F), "exp_sum");
    COMPARE(v->to_f16(x, n, (uint16_t *)out), "to_f16");
    for (enum mb_dtype dtype = MB_F32; dtype <= MB_BF16; dtype++)
        COMPARE(v->widen(dtype, x, n, out), "widen");
}

static void every_isa_gives_the_scalar_bits(void **state)
{
    (void)state;
    const struct mb_float_ops *scalar = mb_float_ops_by_isa("scalar");
    const struct mb_float_ops *ops;
    for (size_t i = 0; (ops = fast_table(i)) != NULL; i++)
        for (size_t n = 1; n <= N_MAX; n++)
            for (int is_hard = 0; is_hard <= 1; is_hard++)
                compare_functions(ops, scalar, n, is_hard);
    if (fast_table(0) == NULL)
        skip();
}

static void weighted_rows_are_scalar_bits(void **state)
{
    enum { ROWS = 9, COLS = 150, TOKENS = 6, STRIDE = COLS + 3 };
    (void)state;
    static float w[ROWS * STRIDE], p[TOKENS * ROWS], y[TOKENS * STRIDE], ours[TOKENS * STRIDE],
        scalars[TOKENS * STRIDE];
    const struct mb_float_ops *scalar = mb_float_ops_by_isa("scalar");
    fill(w, ROWS * STRIDE, false);
    fill(p, TOKENS * ROWS, false);
    fill(y, TOKENS * STRIDE, false);
    const struct mb_float_ops *ops;
    for (size_t i = 0; (ops = fast_table(i)) != NULL; i++) {
        for (size_t n_cols = 1; n_cols <= COLS; n_cols++)
            for (size_t n_tokens = 1; n_tokens <= TOKENS; n_tokens++)
                for (enum mb_dtype dtype = MB_F32; dtype <= MB_BF16; dtype++) {
                    memcpy(ours, y, sizeof y);
                    memcpy(scalars, y, sizeof y);
                    ops->weighted_rows(dtype, w, STRIDE, ROWS, n_cols, p, ROWS, n_tokens, ours, STRIDE);
                    scalar->weighted_rows(dtype, w, STRIDE, ROWS, n_cols, p, ROWS, n_tokens, scalars, STRIDE);
                    same_bits(ours, scalars, TOKENS * STRIDE, "weighted_rows", n_cols);
                }
    }
}

static void sigmoid_that_is_none(const float *x, size_t n, float *out)
{
    mb_float_ops_scalar.sigmoid(x, n, out);
    out[n - 1] = nextafterf(out[n - 1], 2);
}

/* Rows and vectors that end at an unmapped page. */
static void check_dense(const struct mb_float_ops *ops, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                        size_t n_tokens)
{
    size_t w_stride = n_cols + n_rows % 3, x_stride = n_cols + n_tokens % 2, y_stride = n_rows + 1;
    size_t w_n = w_stride * (n_rows - 1) + n_cols, x_n = x_stride * (n_tokens - 1) + n_cols;
    size_t y_nbytes = (y_stride * (n_tokens - 1) + n_rows) * sizeof(float);
    struct guarded w = guarded_alloc(w_n * mb_dtype_nbytes(dtype), true),
                   x = guarded_alloc(x_n * sizeof(float), true), y = guarded_alloc(y_nbytes, true);
    float *expected = calloc(1, y_nbytes);
    assert_non_null(expected);
    for (size_t i = 0; i < w_n; i++) {
        float value = random_float(1);
        if (dtype == MB_F32)
            memcpy(w.data + 4 * i, &value, 4);
        else
            mb_store_u16(w.data + 2 * i, dtype == MB_BF16 ? mb_bf16_of_float(value) : mb_f16_of_float(value));
    }
    for (size_t i = 0; i < x_n; i++)
        ((float *)x.data)[i] = i % 7 == 0 ? -0.0F : random_float(10);
    mb_float_ops_scalar.dense(dtype, w.data, w_stride, n_rows, n_cols, (float *)x.data, x_stride, n_tokens,
                              expected, y_stride);
    ops->dense(dtype, w.data, w_stride, n_rows, n_cols, (float *)x.data, x_stride, n_tokens, (float *)y.data,
               y_stride);
    assert_memory_equal(y.data, expected, y_nbytes); /* what lies between rows of y is still 0 */
    free(expected);
    guarded_free(&w);
    guarded_free(&x);
    guarded_free(&y);
}

static void dense_products_are_scalar_bits(void **state)
{
    (void)state;
    const struct mb_float_ops *ops;
    for (size_t i = 0; (ops = fast_table(i)) != NULL; i++)
        for (size_t n_cols = 1; n_cols <= 300; n_cols += n_cols < 70 ? 1 : 23)
            for (size_t n_rows = 1; n_rows <= 9; n_rows += 1 + n_cols % 2)
                for (size_t n_tokens = 1; n_tokens <= 14; n_tokens += 1 + n_rows % 3)
                    check_dense(ops, (enum mb_dtype)((n_cols + n_rows) % 3), n_rows, n_cols, n_tokens);
}

/* The order that float_ops.h states, written out. */
static void scalar_products_are_sixteen_lanes_and_a_tree(void **state)
{
    enum { N_COLS = 77 };
    (void)state;
    float w[N_COLS], x[N_COLS], lane[16] = {0}, y;
    for (size_t i = 0; i < N_COLS; i++) {
        w[i] = random_float(1);
        x[i] = random_float(10);
        lane[i % 16] = fmaf(w[i], x[i], lane[i % 16]);
    }
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++)
            lane[l] += lane[l + half];
    mb_float_ops_scalar.dense(MB_F32, w, N_COLS, 1, N_COLS, x, N_COLS, 1, &y, 1);
    assert_memory_equal(&y, &lane[0], sizeof y);
}

static void every_table_passes_its_check_and_a_wrong_one_does_not(void **state)
{
    (void)state;
    const struct mb_float_ops *ops;
    for (size_t i = 0; (ops = fast_table(i)) != NULL; i++)
        assert_true(mb_float_ops_agree(ops));
    struct mb_float_ops wrong = mb_float_ops_scalar;
    assert_true(mb_float_ops_agree(&wrong));
    wrong.sigmoid = sigmoid_that_is_none;
    assert_false(mb_float_ops_agree(&wrong));
}

static void exp_is_exp(void **state)
{
    (void)state;
    const struct mb_float_ops *ops = mb_float_ops();
    double worst = 0;
    for (float x = -86; x < 87.9F; x += 0.00123F) {
        float e = x;
        ops->exp_sum(&e, 1, 1, 0);
        double truth = exp((double)x);
        worst = fmax(worst, fabs((double)e - truth) / truth);
    }
    printf("largest relative error of exp: %.2g\n", worst);
    assert_true(worst < 2.0 * (double)FLT_EPSILON);
    float zero = 0;
    ops->exp_sum(&zero, 1, 1, 0);
    assert_true(zero == 1.0F); /* a softmax over one position is exactly 1 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_isa_gives_the_scalar_bits),
        cmocka_unit_test(weighted_rows_are_scalar_bits),
        cmocka_unit_test(dense_products_are_scalar_bits),
        cmocka_unit_test(scalar_products_are_sixteen_lanes_and_a_tree),
        cmocka_unit_test(every_table_passes_its_check_and_a_wrong_one_does_not),
        cmocka_unit_test(exp_is_exp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
