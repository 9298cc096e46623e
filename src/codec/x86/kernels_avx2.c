/*
 * kernels_avx2.c - the kernels of AVX2 (with FMA, F16C, BMI).
 */
#include "carry_avx2.h"

const struct mb_kernels mb_kernels_avx2 = {
    .isa = "avx2",
    .activation = mb_activation_avx2,
    .activation_fast = mb_activation_fast_avx2,
    .matvec = mb_matvec_avx2,
    .matmul = mb_forms_matmul_avx2,
    .matvec_transposed = mb_matvec_transposed_avx2,
    .matmul_scratch_nbytes = mb_matmul_scratch_nbytes_avx2,
    .transposed_scratch_nbytes = mb_transposed_scratch_nbytes_avx2,
    .decode_rows = mb_decode_rows_avx2,
    .encode_rows = mb_encode_rows_avx2,
    .resident = &mb_carry_form_avx2,
};
