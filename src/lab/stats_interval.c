/*
 * stats_interval.c - intervals of shares (Wilson) and of means (percentile bootstrap).
 */
#include "base/error.h"
#include "base/options.h"
#include "base/splitmix.h"
#include <math.h>
#include <moebius/lab.h>
#include <stdlib.h>

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

/* ---------------------------------------------------------------- percentile bootstrap */

enum { N_RESAMPLES_DEFAULT = 10000 };

/* Each of 0 to n - 1 equally likely but for n / 2^64. */
static size_t pick(uint64_t *state, size_t n)
{
    return (size_t)(((unsigned __int128)mb_splitmix_next(state) * n) >> 64);
}

static double mean_of_resample(const double *values, size_t n, uint64_t *state)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[pick(state, n)];
    return sum / (double)n;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted values, linear between neighbours. */
static double percentile(const double *sorted, size_t n, double share)
{
    double position = share * (double)(n - 1);
    size_t i = (size_t)position;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (position - (double)i) * (sorted[i + 1] - sorted[i]);
}

static enum mb_status check_values(const double *values, size_t n, struct mb_error *err)
{
    if (n == 0)
        return mb_fail(err, MB_USAGE, "no values to take the mean of");
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return mb_fail(err, MB_USAGE, "value %zu is not finite", i);
    return MB_OK;
}

enum mb_status mb_bootstrap_mean95(const double *values, size_t n, const struct mb_bootstrap_options *options,
                                   struct mb_estimate *estimate, struct mb_error *err)
{
    struct mb_bootstrap_options chosen;
    MB_TRY(MB_OPTIONS_TAKE(chosen, options, err));
    MB_TRY(check_values(values, n, err));
    size_t n_resamples = chosen.n_resamples != 0 ? chosen.n_resamples : N_RESAMPLES_DEFAULT;
    double *means = calloc(n_resamples, sizeof *means);
    if (means == NULL)
        return mb_fail_memory(err, "the bootstrap");
    uint64_t state = chosen.seed;
    for (size_t i = 0; i < n_resamples; i++)
        means[i] = mean_of_resample(values, n, &state);
    qsort(means, n_resamples, sizeof *means, compare_doubles);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    *estimate = (struct mb_estimate){sum / (double)n, percentile(means, n_resamples, 0.025),
                                     percentile(means, n_resamples, 0.975)};
    free(means);
    return MB_OK;
}

enum mb_status mb_bootstrap_difference95(const double *a, const double *b, size_t n,
                                         const struct mb_bootstrap_options *options,
                                         struct mb_estimate *estimate, struct mb_error *err)
{
    double *differences = calloc(n > 0 ? n : 1, sizeof *differences);
    if (differences == NULL)
        return mb_fail_memory(err, "the differences");
    for (size_t i = 0; i < n; i++)
        differences[i] = a[i] - b[i];
    enum mb_status status = mb_bootstrap_mean95(differences, n, options, estimate, err);
    free(differences);
    return status;
}
