/*
 * kernels_avx512.c - the kernels of AVX-512 (with VBMI, VBMI2, VNNI).
 */
#include "simd_avx512.h"

const struct mb_kernels mb_kernels_avx512 = {
    .isa = "avx512",
    .activation = mb_activation_avx512,
    .activation_fast = mb_activation_fast_avx512,
    .matvec = mb_matvec_avx512,
    .matmul = mb_matmul_avx512,
    .matvec_transposed = mb_matvec_transposed_avx512,
    .matmul_scratch_nbytes = mb_matmul_scratch_nbytes_avx512,
    .transposed_scratch_nbytes = mb_transposed_scratch_nbytes_avx512,
    .decode_rows = mb_decode_rows_avx512,
    .encode_rows = mb_encode_rows_avx512,
    .count_full_codes = mb_count_full_codes_avx512,
};
