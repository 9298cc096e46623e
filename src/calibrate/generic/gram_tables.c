/*
 * gram_tables.c - a processor without kernels of its own.
 */
#include "gram_tables.h"

const struct mb_dispatch_table mb_gram_tables[] = {
    {"scalar", &mb_gram_scalar, 0},
    {0},
};
