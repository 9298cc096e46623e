/*
 * kernels_avxvnni.c - the kernels of AVX2 with AVX-VNNI (vpdpbusd on 256 bits): products are its own.
 */
#include "carry_avx2.h"
#include "simd_avxvnni.h"

const struct mb_kernels mb_kernels_avxvnni = {
    .isa = "avxvnni",
    .activation = mb_activation_avx2,
    .activation_fast = mb_activation_fast_avx2,
    .matvec = mb_matvec_avxvnni,
    .matmul = mb_forms_matmul_avxvnni,
    .matvec_transposed = mb_matvec_transposed_avx2,
    .matmul_scratch_nbytes = mb_matmul_scratch_nbytes_avxvnni,
    .transposed_scratch_nbytes = mb_transposed_scratch_nbytes_avx2,
    .decode_rows = mb_decode_rows_avx2,
    .encode_rows = mb_encode_rows_avx2,
    .resident = &mb_carry_form_avx2,
};
