/*
 * feedback_tables.c - the tables of x86-64.
 */
#include "base/cpu.h"
#include "feedback_kernels.h"

const struct mb_dispatch_table mb_feedback_tables[] = {
    {"scalar", &mb_feedback_kernels_scalar, 0},
    {"avx2", &mb_feedback_kernels_avx2, MB_CPU_AVX2},
    {"avx512", &mb_feedback_kernels_avx512, MB_CPU_AVX512},
    {0},
};
