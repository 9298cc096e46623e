/*
 * float_ops_tables.c - the table of architectures without one of their own.
 */
#include "float_ops_tables.h"

const struct mb_dispatch_table mb_float_ops_tables[] = {
    {"scalar", &mb_float_ops_scalar, 0},
    {0},
};
