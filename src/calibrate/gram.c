/*
 * gram.c - which table this process uses.
 */
#include "gram.h"
#include "base/bytes.h"
#include "gram_tables.h"
#include <string.h>

/* Some numbers whose products and sums round differently in another order, or with fma. */
static void fill(float *x, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = ((float)(seed >> 8) * 0x1p-23F - 1.0F) * (seed % 7 == 0 ? 1000.0F : 1.0F);
    }
}

static bool agrees(const void *table)
{
    enum { N = 5 };
    static float a[N * MB_GRAM_PANEL], b[N * MB_GRAM_PANEL];
    static float expected[MB_GRAM_PANEL * MB_GRAM_PANEL], got[MB_GRAM_PANEL * MB_GRAM_PANEL];
    const struct mb_gram_ops *ops = table;
    fill(a, N * MB_GRAM_PANEL, 1);
    fill(b, N * MB_GRAM_PANEL, 2);
    fill(expected, MB_GRAM_PANEL * MB_GRAM_PANEL, 3);
    memcpy(got, expected, sizeof got);
    mb_gram_scalar.add(a, b, N, expected);
    ops->add(a, b, N, got);
    for (size_t i = 0; i < sizeof got / sizeof *got; i++)
        if (mb_bits_of_float(got[i]) != mb_bits_of_float(expected[i]))
            return false;
    return true;
}

static struct mb_dispatch dispatch = MB_DISPATCH(mb_gram_tables, agrees);

const struct mb_gram_ops *mb_gram_ops(void)
{
    return mb_dispatch_best(&dispatch);
}

const struct mb_gram_ops *mb_gram_ops_by_isa(const char *isa)
{
    return mb_dispatch_by_isa(&dispatch, isa);
}
