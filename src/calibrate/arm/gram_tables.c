/*
 * gram_tables.c - the tables of ARM64.
 */
#include "gram_tables.h"
#include "base/cpu.h"

const struct mb_dispatch_table mb_gram_tables[] = {
    {"scalar", &mb_gram_scalar, 0},
    {"neon", &mb_gram_neon, MB_CPU_NEON},
    {0},
};
