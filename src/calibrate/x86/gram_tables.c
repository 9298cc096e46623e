/*
 * gram_tables.c - the tables of x86-64.
 */
#include "gram_tables.h"
#include "base/cpu.h"

const struct mb_dispatch_table mb_gram_tables[] = {
    {"scalar", &mb_gram_scalar, 0},
    {"avx2", &mb_gram_avx2, MB_CPU_AVX2},
    {"avx512", &mb_gram_avx512, MB_CPU_AVX512},
    {0},
};
