/*
 * test_exponents.c - matrices with an exponent for each column: what is coded, the bound of each column, and
 * exponents that a reader refuses.
 */
#include "base/bytes.h"
#include "cmocka_all.h"
#include "codec/kernels.h"
#include "matrices.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_ROWS_MAX = 40, N_COLS_MAX = 1500 };
static const char *const isas[] = {"scalar", "avx2", "avxvnni", "avx512", "zen4", "neon", "dotprod", "i8mm"};

/* Not all 0, as far as 'reach'. */
static void draw_exponents(uint64_t *seed, size_t n_cols, int reach, int8_t *exponents)
{
    for (size_t c = 0; c < n_cols; c++)
        exponents[c] = (int8_t)((int)(test_random(seed) % (2 * (unsigned)reach + 1)) - reach);
    if (exponents[0] == 0)
        exponents[0] = 1;
}

static double mean_abs(enum mb_dtype dtype, const void *weights, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += fabs(test_weight(dtype, weights, i));
    return sum / (double)n;
}

/* Each weight is within its column's bound, and all instruction sets decode the same. */
static void check_decoded(const struct test_coded *coded, const struct mb_coding *coding,
                          const int8_t *exponents, const void *weights, size_t n_rows, uint64_t *seed)
{
    static float first[N_ROWS_MAX * N_COLS_MAX], decoded[N_ROWS_MAX * N_COLS_MAX];
    const size_t n_cols = coding->n_cols, n = n_rows * n_cols;
    for (size_t k = 0; k < sizeof isas / sizeof isas[0]; k++) {
        const struct mb_kernels *kernels = mb_kernels_by_isa(isas[k]);
        if (kernels == NULL)
            continue;
        kernels->decode_rows(coded->matrix, 0, n_rows, k == 0 ? first : decoded);
        if (k > 0)
            assert_memory_equal(decoded, first, n * sizeof *first);
        size_t row = test_random(seed) % n_rows, n_some = 1 + test_random(seed) % (n_rows - row);
        kernels->decode_rows(coded->matrix, row, n_some, decoded);
        assert_memory_equal(decoded, first + row * n_cols, n_some * n_cols * sizeof *first);
    }
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(test_weight(coding->dtype, weights, i) - (double)first[i]) <=
                    ldexp(coding->eps, -exponents[i % n_cols]));
}

/* y = V' (x 2^-e) is W' x, whichever has the powers of two. */
static void check_product(const struct test_coded *coded, const int8_t *exponents, uint64_t *seed)
{
    static float x[N_COLS_MAX], scaled[N_COLS_MAX], w[N_COLS_MAX];
    _Alignas(64) static int8_t hi[4096], lo[4096], wide[65536];
    const struct mb_coded_matrix *m = coded->matrix;
    struct mb_activation a;
    float y;
    for (size_t c = 0; c < m->n_cols; c++)
        x[c] = ldexpf((float)test_normal(seed), exponents[c]); /* what makes exponents worth it */
    mb_unscale_columns(exponents, x, m->n_cols, scaled);
    mb_kernels()->activation(scaled, m->n_cols, hi, lo, wide, &a);
    mb_kernels()->matvec(m, m->n_rows - 1, 1, &a, &y);
    mb_kernels()->decode_rows(m, m->n_rows - 1, 1, w);
    double sum = 0, sum_abs = 0;
    for (size_t c = 0; c < m->n_cols; c++) {
        sum += (double)w[c] * (double)x[c];
        sum_abs += fabs((double)w[c]) * ldexp((double)a.scale * 0.51, exponents[c]) +
                   fabs((double)w[c] * (double)x[c]) * 1e-6;
    }
    assert_true(fabs(sum - (double)y) <= sum_abs + 1e-37);
}

static void columns_keep_bounds_of_their_own(void **state)
{
    (void)state;
    static int8_t exponents[N_COLS_MAX];
    uint64_t seed = 1;
    for (int k = 0; k < 400; k++) {
        enum mb_dtype dtype = (enum mb_dtype)(k % 3);
        size_t n_rows = 1 + test_random(&seed) % N_ROWS_MAX, n_cols = 1 + test_random(&seed) % N_COLS_MAX;
        enum test_weights kind = (enum test_weights)(test_random(&seed) % TEST_SUBNORMAL);
        void *weights = test_weights_make(kind, dtype, n_rows, n_cols, (uint64_t)k);
        draw_exponents(&seed, n_cols, k % 5 == 0 ? MB_COL_EXPONENT_MAX : 3, exponents);
        mb_limit_exponents(dtype, weights, n_rows, n_cols, exponents);
        double eps = mean_abs(dtype, weights, n_rows * n_cols) * (0.02 + test_uniform(&seed));
        const struct mb_coding coding = {dtype, MB_FORM_PATCHED, n_cols, eps, mb_step_of_eps(eps), NULL};
        bool any = false;
        for (size_t c = 0; c < n_cols; c++)
            any = any || exponents[c] != 0;
        if (any) {
            struct test_coded coded;
            test_code_columns(&coded, &coding, exponents, weights, n_rows);
            assert_int_equal(mb_load_u16(coded.bytes + 4), 3);
            assert_memory_equal(coded.matrix->col_exponents, exponents, n_cols);
            check_decoded(&coded, &coding, exponents, weights, n_rows, &seed);
            check_product(&coded, exponents, &seed);
            test_coded_free(&coded);
        }
        free(weights);
    }
}

/* Symbols are those of V, as if it had been coded as a matrix of its own. */
static void symbols_are_counted_in_what_is_coded(void **state)
{
    (void)state;
    enum { N_ROWS = 12, N_COLS = 130 };
    static int8_t exponents[N_COLS];
    static float decoded[N_ROWS * N_COLS];
    uint64_t seed = 3;
    float *weights = test_weights_make(TEST_HUGE_OUTLIERS, MB_F32, N_ROWS, N_COLS, 4);
    draw_exponents(&seed, N_COLS, 4, exponents);
    const struct mb_coding coding = {MB_F32, MB_FORM_PATCHED, N_COLS, 0.006, mb_step_of_eps(0.006), NULL};
    struct mb_coded_statistics statistics[2] = {0};
    for (int i = 0; i < 2; i++) {
        struct test_coded coded;
        if (i == 1)
            assert_true(mb_scale_columns(MB_F32, weights, N_ROWS, N_COLS, exponents));
        test_code_columns(&coded, &coding, i == 0 ? exponents : NULL, weights, N_ROWS);
        mb_kernels()->decode_rows(coded.matrix, 0, N_ROWS, decoded);
        mb_coded_statistics_add(&statistics[i], coded.matrix, 0, N_ROWS, decoded);
        test_coded_free(&coded);
    }
    assert_memory_equal(&statistics[0], &statistics[1], sizeof statistics[0]);
    free(weights);
}

static void only_exact_columns_are_scaled(void **state)
{
    (void)state;
    static const struct {
        enum mb_dtype dtype;
        float w;
        int e, limited;
    } cases[] = {
        {MB_F32, 0x1p127F, 1, 0},
        {MB_F32, 0x1p125F, 9, 2},
        {MB_F32, 0x1.000002p-126F, -1, 0},
        {MB_F32, 0x1p-126F, -15, -15},
        {MB_F32, 0x1.8p-140F, -15, -8},
        {MB_F32, 0, -15, -15},
        {MB_F16, 65504, 1, 0},
        {MB_F16, 1, 15, 15},
        {MB_F16, 1, -15, -15},
        {MB_F16, 0x1.ffcp-14F, -1, 0},
        {MB_F16, 0x1.ffcp-10F, -9, -4},
        {MB_BF16, 0x1.fep127F, 3, 0},
        {MB_BF16, 0x1.02p-120F, -15, -6},
        {MB_F32, INFINITY, 4, 4},
        {MB_BF16, NAN, -4, -4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[12] = {0}, copy[12];
        size_t elem = mb_dtype_nbytes(cases[i].dtype);
        int8_t e[2] = {0, (int8_t)cases[i].e};
        if (cases[i].dtype == MB_F32)
            memcpy(bytes + 1 + elem, &cases[i].w, 4);
        else
            mb_store_u16(bytes + 1 + elem, cases[i].dtype == MB_F16 ? mb_f16_of_float(cases[i].w)
                                                                    : mb_bf16_of_float(cases[i].w));
        memcpy(copy, bytes, sizeof copy);
        bool fits = mb_scale_columns(cases[i].dtype, copy + 1, 1, 2, e);
        mb_limit_exponents(cases[i].dtype, bytes + 1, 1, 2, e);
        if (fits != (cases[i].e == cases[i].limited) || e[0] != 0 || e[1] != cases[i].limited)
            fail_msg("case %zu: %d, exponent %d", i, fits, e[1]);
        assert_true(mb_scale_columns(cases[i].dtype, bytes + 1, 1, 2, e));
    }
}

/* ---------------------------------------------------------------- damage */

static enum mb_status open_changed(const struct test_coded *coded, size_t at, uint32_t value, size_t nbytes,
                                   struct mb_error *err)
{
    uint8_t *copy = malloc(coded->nbytes + 1); /* of the very size, for the address sanitizer */
    struct mb_blob blob;
    memcpy(copy, coded->bytes, coded->nbytes);
    memcpy(copy + at, &value, nbytes);
    test_repair_checksums(copy, coded->nbytes);
    enum mb_status status = mb_blob_open(copy, coded->nbytes, &blob, err);
    mb_blob_close(&blob);
    free(copy);
    return status;
}

static void damaged_exponents_are_refused(void **state)
{
    (void)state;
    enum { N_COLS = 7 };
    const int8_t exponents[N_COLS] = {0, 0, 3, 0, 0, 0, 0};
    float *weights = test_weights_make(TEST_GAUSS, MB_F32, 5, N_COLS, 1);
    const struct mb_coding coding = {MB_F32, MB_FORM_PATCHED, N_COLS, 0.01, mb_step_of_eps(0.01), NULL};
    struct test_coded coded;
    test_code_columns(&coded, &coding, exponents, weights, 5);
    const size_t at = coded.nbytes - N_COLS;
    const struct {
        size_t at;
        uint32_t value;
        size_t nbytes;
        enum mb_status status;
        const char *message;
    } cases[] = {
        {at, 15, 1, MB_OK, ""},
        {at, (uint8_t)-15, 1, MB_OK, ""},
        {at, 16, 1, MB_BAD_DATA, "out of range"},
        {at + 6, (uint8_t)-16, 1, MB_BAD_DATA, "out of range"},
        {at + 6, 0x80, 1, MB_BAD_DATA, "out of range"},
        {at + 2, 0, 1, MB_BAD_DATA, "all exponents of columns are 0"},
        {4, 2, 2, MB_BAD_DATA, "or exponents"},
        {4, 1, 2, MB_BAD_DATA, "or exponents"},
        {4, 4, 2, MB_UNSUPPORTED, "format version 4"},
        {68, 0, 4, MB_BAD_DATA, "after the last matrix"},
        {68, 6, 4, MB_BAD_DATA, "or exponents"},
        {68, 8, 4, MB_BAD_DATA, "or exponents"},
        {68, UINT32_MAX, 4, MB_BAD_DATA, "or exponents"},
        {80, 10, 1, MB_BAD_DATA, "reaches past"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mb_error err = {.msg = ""};
        enum mb_status status = open_changed(&coded, cases[i].at, cases[i].value, cases[i].nbytes, &err);
        if (status != cases[i].status || strstr(err.msg, cases[i].message) == NULL)
            fail_msg("case %zu: status %d, '%s'", i, (int)status, err.msg);
    }
    coded.bytes[at + 2] ^= 1;
    mb_blob_close(&coded.blob);
    assert_int_equal(mb_blob_open(coded.bytes, coded.nbytes, &coded.blob, NULL), MB_BAD_DATA); /* checksum */
    test_coded_free(&coded);
    free(weights);
}

/* A raw value that its exponent would make infinite, and steps so small or large that decoding is not exact.
 */
static void what_would_not_decode_exactly_is_refused(void **state)
{
    (void)state;
    const int8_t up[2] = {0, -1}, down[2] = {0, 1};
    const float large[2] = {0, 0x1p126F};
    const double steps[] = {0x1p-101, 0x1p-99, 0x1p99, 0x1.01p100};
    struct mb_coding coding = {MB_F32, MB_FORM_PATCHED, 2, 0.01, mb_step_of_eps(0.01), NULL};
    struct test_coded coded;
    struct mb_error err;
    test_code_columns(&coded, &coding, down, large, 1);
    assert_int_equal(open_changed(&coded, coded.nbytes - 2, (uint16_t)(0xff << 8), 2, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "not finite"));
    test_coded_free(&coded);
    test_code_columns(&coded, &coding, up, large, 1);
    test_coded_free(&coded);
    for (size_t i = 0; i < 4; i++) {
        const float weights[2] = {0, (float)steps[i]};
        coding.eps = steps[i];
        coding.step = mb_step_of_eps(steps[i] / 2);
        bool is_legal = mb_step_takes_exponents((float)steps[i]);
        assert_int_equal(is_legal, i == 1 || i == 2);
        if (is_legal) {
            test_code_columns(&coded, &coding, down, weights, 1);
            float step = i == 1 ? 0x1p-101F : 0x1.1p100F;
            uint32_t bits = mb_bits_of_float(step);
            assert_int_equal(open_changed(&coded, 64, bits, 4, &err), MB_BAD_DATA);
            test_coded_free(&coded);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_keep_bounds_of_their_own),
        cmocka_unit_test(symbols_are_counted_in_what_is_coded),
        cmocka_unit_test(only_exact_columns_are_scaled),
        cmocka_unit_test(damaged_exponents_are_refused),
        cmocka_unit_test(what_would_not_decode_exactly_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
