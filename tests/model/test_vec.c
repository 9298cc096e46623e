/*
 * test_vec.c - the engine's float functions: every instruction set gives the scalar bits, and exp is exp.
 */
#include "cmocka_all.h"
#include "model/vec.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 300, GUARD = 16 };

static const char *const isas[] = {"avx2", "avx512"};

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
        const struct mb_vec *v = vec;                      \
        float *out = ours;                                 \
        memcpy(out, y, sizeof ours);                       \
        call;                                              \
        v = scalar;                                        \
        out = scalars;                                     \
        memcpy(out, y, sizeof ours);                       \
        call;                                              \
        same_bits(ours, scalars, N_MAX + GUARD, what, n);  \
    } while (0)

static void compare_functions(const struct mb_vec *vec, const struct mb_vec *scalar, size_t n, bool is_hard)
{
    float x[N_MAX + GUARD], y[N_MAX + GUARD];
    fill(x, N_MAX + GUARD, is_hard);
    fill(y, N_MAX + GUARD, is_hard);
    COMPARE(v->rms_norm(x, y, n, 1e-5F, out), "rms_norm");
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
    const struct mb_vec *scalar = mb_vec_by_isa("scalar");
    size_t n_tables = 0;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const struct mb_vec *vec = mb_vec_by_isa(isas[i]);
        if (vec == NULL) {
            printf("%s: not on this CPU\n", isas[i]);
            continue;
        }
        n_tables++;
        for (size_t n = 1; n <= N_MAX; n++)
            for (int is_hard = 0; is_hard <= 1; is_hard++)
                compare_functions(vec, scalar, n, is_hard);
    }
    if (n_tables == 0)
        skip();
}

static void weighted_rows_are_scalar_bits(void **state)
{
    enum { ROWS = 9, COLS = 150, TOKENS = 6, STRIDE = COLS + 3 };
    (void)state;
    static float w[ROWS * STRIDE], p[TOKENS * ROWS], y[TOKENS * STRIDE], ours[TOKENS * STRIDE],
        scalars[TOKENS * STRIDE];
    const struct mb_vec *scalar = mb_vec_by_isa("scalar");
    fill(w, ROWS * STRIDE, false);
    fill(p, TOKENS * ROWS, false);
    fill(y, TOKENS * STRIDE, false);
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const struct mb_vec *vec = mb_vec_by_isa(isas[i]);
        for (size_t n_cols = 1; vec != NULL && n_cols <= COLS; n_cols++)
            for (size_t n_tokens = 1; n_tokens <= TOKENS; n_tokens++)
                for (enum mb_dtype dtype = MB_F32; dtype <= MB_BF16; dtype++) {
                    memcpy(ours, y, sizeof y);
                    memcpy(scalars, y, sizeof y);
                    vec->weighted_rows(dtype, w, STRIDE, ROWS, n_cols, p, ROWS, n_tokens, ours, STRIDE);
                    scalar->weighted_rows(dtype, w, STRIDE, ROWS, n_cols, p, ROWS, n_tokens, scalars, STRIDE);
                    same_bits(ours, scalars, TOKENS * STRIDE, "weighted_rows", n_cols);
                }
    }
}

static void exp_is_exp(void **state)
{
    (void)state;
    const struct mb_vec *vec = mb_vec();
    double worst = 0;
    for (float x = -86; x < 87.9F; x += 0.00123F) {
        float e = x;
        vec->exp_sum(&e, 1, 1, 0);
        double truth = exp((double)x);
        worst = fmax(worst, fabs((double)e - truth) / truth);
    }
    printf("largest relative error of exp: %.2g\n", worst);
    assert_true(worst < 2.0 * (double)FLT_EPSILON);
    float zero = 0;
    vec->exp_sum(&zero, 1, 1, 0);
    assert_true(zero == 1.0F); /* a softmax over one position is exactly 1 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_isa_gives_the_scalar_bits),
        cmocka_unit_test(weighted_rows_are_scalar_bits),
        cmocka_unit_test(exp_is_exp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
