/*
 * tables.c - the kernel tables of ARM64.
 */
#include "kernels.h"

const struct mb_dispatch_table mb_codec_tables[] = {
    {"scalar", &mb_kernels_scalar, 0},
    {0},
};
