/*
 * tables.c - the kernel tables of x86-64.
 */
#include "base/cpu.h"
#include "kernels.h"

const struct mb_dispatch_table mb_codec_tables[] = {
    {"scalar", &mb_kernels_scalar, 0},
    {"avx2", &mb_kernels_avx2, MB_CPU_AVX2},
    {"avxvnni", &mb_kernels_avxvnni, MB_CPU_AVXVNNI},
    {"avx512", &mb_kernels_avx512, MB_CPU_AVX512},
    {"zen4", &mb_kernels_zen4, MB_CPU_ZEN4},
    {0},
};
