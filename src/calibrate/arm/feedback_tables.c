/*
 * feedback_tables.c - one table: the compiler's own vectors are all that is used.
 */
#include "feedback_kernels.h"

const struct mb_dispatch_table mb_feedback_tables[] = {
    {"scalar", &mb_feedback_kernels_scalar, 0},
    {0},
};
