/*
 * stats.c - intervals.
 */
#include <math.h>
#include <moebius/lab.h>

void mb_wilson95(uint64_t k, uint64_t n, double *low, double *high)
{
    const double z = 1.959963984540054; /* the normal distribution's 97.5 % quantile */
    if (n == 0) {
        *low = 0;
        *high = 1;
        return;
    }
    double count = (double)n, p = (double)k / count;
    double shrink = 1 / (1 + z * z / count);
    double middle = (p + z * z / (2 * count)) * shrink;
    double half = z * sqrt(p * (1 - p) / count + z * z / (4 * count * count)) * shrink;
    /* 0 and 1 are exact ends, which rounding would miss. */
    *low = k == 0 ? 0 : middle - half;
    *high = k == n ? 1 : middle + half;
}
