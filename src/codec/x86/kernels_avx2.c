/*
 * kernels_avx2.c - the kernels of AVX2 (with FMA, F16C, BMI).
 */
#include "carry_avx2.h"

/* Stripes are decoded again for each four tokens: more of them are worth panels (panel_avx2.h). */
enum { STRIPES_TOKENS = 16 };

static void matmul_of_any_form(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                               const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                               void *scratch)
{
    if (mb_is_striped(w) && n_tokens <= STRIPES_TOKENS)
        mb_stripes_matmul_avx2(w, row, n_rows, x, n_tokens, y, y_stride);
    else if (w->form == MB_FORM_CARRY && !mb_is_striped(w) &&
             mb_carry_takes_few_avx2(w, row, n_rows, x, n_tokens))
        mb_carry_matmul_avx2(w, row, n_rows, x, n_tokens, y, y_stride);
    else
        mb_matmul_avx2(w, row, n_rows, x, n_tokens, y, y_stride, scratch);
}

const struct mb_kernels mb_kernels_avx2 = {
    .isa = "avx2",
    .activation = mb_activation_avx2,
    .activation_fast = mb_activation_fast_avx2,
    .matvec = mb_matvec_avx2,
    .matmul = matmul_of_any_form,
    .matvec_transposed = mb_matvec_transposed_avx2,
    .matmul_scratch_nbytes = mb_matmul_scratch_nbytes_avx2,
    .transposed_scratch_nbytes = mb_transposed_scratch_nbytes_avx2,
    .decode_rows = mb_decode_rows_avx2,
    .encode_rows = mb_encode_rows_avx2,
    .count_full_codes = mb_count_full_codes_avx2,
    .resident = &mb_carry_form_avx2,
    .compact_nbytes_per_s = 7e9,
    .fast_nbytes_per_s = 9e9,
};
