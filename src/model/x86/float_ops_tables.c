/*
 * float_ops_tables.c - the tables of x86-64.
 */
#include "float_ops_tables.h"
#include "base/cpu.h"

const struct mb_dispatch_table mb_float_ops_tables[] = {
    {"scalar", &mb_float_ops_scalar, 0},
    {"avx2", &mb_float_ops_avx2, MB_CPU_AVX2},
    {"avx512", &mb_float_ops_avx512, MB_CPU_AVX512},
    {0},
};
