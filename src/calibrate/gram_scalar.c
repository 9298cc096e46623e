/*
 * gram_scalar.c - the scalar table: the specification.
 */
#include "gram_tables.h"

static void add(const float *a, const float *b, size_t n, float *sums)
{
    for (size_t i = 0; i < MB_GRAM_PANEL; i++) {
        float sum[MB_GRAM_PANEL] = {0};
        for (size_t t = 0; t < n; t++)
            for (size_t j = 0; j < MB_GRAM_PANEL; j++)
                sum[j] = sum[j] + a[t * MB_GRAM_PANEL + i] * b[t * MB_GRAM_PANEL + j];
        for (size_t j = 0; j < MB_GRAM_PANEL; j++)
            sums[i * MB_GRAM_PANEL + j] = sums[i * MB_GRAM_PANEL + j] + sum[j];
    }
}

const struct mb_gram_ops mb_gram_scalar = {"scalar", add};
