/*
 * column_factors.c - see column_factors.h.  Logarithms are integers that products alone make: a library's
 * differ in their last bits, and exponents would with them.
 */
#include "column_factors.h"
#include <math.h>

enum { FRACTION = 24 }; /* bits of a logarithm below the point */

/* Measured, as is MB_COLUMN_FACTOR_BITS: docs/quality.md. */
static const int64_t POWER_NUMERATOR = 5, POWER_DENOMINATOR = 16;

/*
 * Added to each energy, as a part of their mean: what a text hardly showed may still come.  The second is
 * over the number of tokens.
 */
static const double FLOOR = 0.001, FLOOR_OF_FEW = 1;

/* The logarithm to base 2 of x > 0, rounded down to a multiple of 2^-FRACTION, as an integer. */
static int64_t log2_of(double x)
{
    int exponent;
    double m = 2 * frexp(x, &exponent);
    int64_t log = exponent - 1;
    for (int i = 0; i < FRACTION; i++) {
        m *= m;
        bool is_set = m >= 2;
        m = is_set ? m / 2 : m;
        log = 2 * log + is_set;
    }
    return log;
}

/* To the nearest integer. */
static int exponent_at(int64_t log, int64_t offset)
{
    const int64_t one = (int64_t)1 << FRACTION, sum = log + offset + one / 2;
    int64_t e = sum >= 0 ? sum / one : -((one - 1 - sum) / one);
    return (int)(e < -MB_COLUMN_FACTOR_BITS  ? -MB_COLUMN_FACTOR_BITS
                 : e > MB_COLUMN_FACTOR_BITS ? MB_COLUMN_FACTOR_BITS
                                             : e);
}

static int64_t sum_at(const int64_t *logs, size_t n, int64_t offset)
{
    int64_t sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += exponent_at(logs[j], offset);
    return sum;
}

/* The smallest offset for which the sum is not negative: it grows with the offset. */
static int64_t find_offset(const int64_t *logs, size_t n)
{
    int64_t low = -((int64_t)1 << 40), high = (int64_t)1 << 40;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (sum_at(logs, n, middle) < 0)
            low = middle;
        else
            high = middle;
    }
    return high;
}

bool mb_column_exponents(const double *energies, size_t n, uint64_t n_tokens, int64_t *logs,
                         int8_t *exponents)
{
    double total = 0;
    bool any = false;
    for (size_t j = 0; j < n; j++) {
        total += energies[j];
        exponents[j] = 0;
    }
    if (!(total > 0) || !isfinite(total) || n_tokens == 0)
        return false;
    double added = FLOOR + FLOOR_OF_FEW / (double)n_tokens;
    for (size_t j = 0; j < n; j++)
        logs[j] = log2_of(energies[j] / total * (double)n + added) * POWER_NUMERATOR / POWER_DENOMINATOR;
    /* Just below it some columns have not taken their step yet: the first of them take it. */
    int64_t offset = find_offset(logs, n), sum = sum_at(logs, n, offset - 1);
    for (size_t j = 0; j < n; j++) {
        int below = exponent_at(logs[j], offset - 1), above = exponent_at(logs[j], offset);
        bool is_taken = above > below && sum < 0;
        sum += is_taken;
        exponents[j] = (int8_t)(is_taken ? above : below);
        any |= exponents[j] != 0;
    }
    return any;
}
