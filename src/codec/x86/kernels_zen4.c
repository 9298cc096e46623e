/*
 * kernels_zen4.c - the kernels of AVX-512 on Zen 4, whose vectors of 512 bits take two turns: the carry form,
 * which has no escapes to expand, is faster where memory keeps up.  Products of one token or a few are its
 * own, those of many AVX-512's, and what is left AVX2's.
 */
#include "kernels_zen4.h"
#include "carry_rows.h"
#include "simd_avx512.h"
#include <math.h>

static void activation(const float *x, size_t n, int8_t *hi, int8_t *lo, void *wide,
                       struct mb_activation *out)
{
    mb_activation_avx512(x, n, hi, lo, wide, out);
    mb_carry_add_columns_avx2(n, wide, out);
}

static void activation_fast(const float *x, size_t n, int8_t *bytes, int8_t *hi, int8_t *lo, void *wide,
                            struct mb_activation *out)
{
    mb_activation_fast_avx512(x, n, bytes, hi, lo, wide, out);
    mb_carry_add_columns_avx2(n, wide, out);
}

static void matvec(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                   const struct mb_activation *x, float *y)
{
    (w->form == MB_FORM_CARRY ? mb_carry_matvec_zen4 : mb_matvec_avx512)(w, row, n_rows, x, y);
}

static void matmul(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                   const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride, void *scratch)
{
    if (w->form != MB_FORM_CARRY || !mb_carry_few_zen4(w, row, n_rows, x, n_tokens, y, y_stride))
        mb_matmul_avx512(w, row, n_rows, x, n_tokens, y, y_stride, scratch);
}

static void matvec_transposed(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                              const struct mb_activation *x, float *y, void *scratch)
{
    (w->form == MB_FORM_CARRY ? mb_kernels_avx2.matvec_transposed
                              : mb_matvec_transposed_avx512)(w, row, n_rows, x, y, scratch);
}

static size_t transposed_scratch_nbytes(size_t n_cols)
{
    size_t a = mb_kernels_avx2.transposed_scratch_nbytes(n_cols);
    size_t b = mb_transposed_scratch_nbytes_avx512(n_cols);
    return a > b ? a : b;
}

static void decode_rows(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out)
{
    (w->form == MB_FORM_CARRY ? mb_kernels_avx2.decode_rows : mb_decode_rows_avx512)(w, row, n_rows, out);
}

const struct mb_kernels mb_kernels_zen4 = {
    .isa = "zen4",
    .activation = activation,
    .activation_fast = activation_fast,
    .matvec = matvec,
    .matmul = matmul,
    .matvec_transposed = matvec_transposed,
    .matmul_scratch_nbytes = mb_matmul_scratch_nbytes_avx512,
    .transposed_scratch_nbytes = transposed_scratch_nbytes,
    .decode_rows = decode_rows,
    .encode_rows = mb_encode_rows_avx512,
    .resident = &mb_carry_form_avx2,
    .compact_nbytes_per_s = INFINITY,
    .fast_nbytes_per_s = 18e9,
    .count_full_codes = mb_count_full_codes_avx512,
};
