/*
 * float_ops_tables.c - the tables of ARM64.
 */
#include "float_ops_tables.h"
#include "base/cpu.h"

const struct mb_dispatch_table mb_float_ops_tables[] = {
    {"scalar", &mb_float_ops_scalar, 0},
    {"neon", &mb_float_ops_neon, MB_CPU_NEON},
    {0},
};
