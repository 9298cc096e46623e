/*
 * tables.c - the kernel tables of ARM64: they differ in their products alone.
 */
#include "base/cpu.h"
#include "simd_neon.h"

#define TABLE(name, isa_)                                               \
    static const struct mb_kernels name = {                             \
        .isa = #isa_,                                                   \
        .activation = mb_activation_neon,                               \
        .activation_fast = mb_activation_fast_neon,                     \
        .matvec = mb_matvec_##isa_,                                     \
        .matmul = mb_matmul_##isa_,                                     \
        .matvec_transposed = mb_matvec_transposed_neon,                 \
        .matmul_scratch_nbytes = mb_matmul_scratch_nbytes_##isa_,       \
        .transposed_scratch_nbytes = mb_transposed_scratch_nbytes_neon, \
        .decode_rows = mb_decode_rows_neon,                             \
        .encode_rows = mb_encode_rows_neon,                             \
        .count_full_codes = mb_count_full_codes_neon,                   \
    }
TABLE(kernels_neon, neon);
TABLE(kernels_dotprod, dotprod);
TABLE(kernels_i8mm, i8mm);

const struct mb_dispatch_table mb_codec_tables[] = {
    {"scalar", &mb_kernels_scalar, 0},
    {"neon", &kernels_neon, MB_CPU_NEON},
    {"dotprod", &kernels_dotprod, MB_CPU_DOTPROD},
    {"i8mm", &kernels_i8mm, MB_CPU_I8MM},
    {0},
};
