/*
 * measure_figures.c - means, errors, intervals and percentiles of what tokens say.
 */
#include "measure_figures.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/splitmix.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_RESAMPLES = 2000 };

/* The means that a comparison has. */
enum figure { KL, TV, SAME_TOP, NLL, NLL_CLEAN, LN_RATIO, DP, N_FIGURES };

static double figure_of(const struct mb_row_figures *row, enum figure figure)
{
    switch (figure) {
    case KL:
        return row->kl;
    case TV:
        return row->tv;
    case SAME_TOP:
        return row->same_top;
    case NLL:
        return row->nll;
    case NLL_CLEAN:
        return row->nll_clean;
    case LN_RATIO:
        return row->nll - row->nll_clean;
    default:
        return row->dp;
    }
}

static struct mb_token_mean *mean_of(struct mb_comparison *c, enum figure figure)
{
    struct mb_token_mean *const means[N_FIGURES] = {&c->kl,        &c->tv,       &c->same_top, &c->nll,
                                                    &c->nll_clean, &c->ln_ratio, &c->dp};
    return means[figure];
}

static const double *sum_of(const struct mb_window_sums *s, enum figure figure)
{
    const double *const sums[N_FIGURES] = {&s->kl,        &s->tv,       &s->same_top, &s->nll,
                                           &s->nll_clean, &s->ln_ratio, &s->dp};
    return sums[figure];
}

/* The mean, and the error that independent tokens would give it. */
static void mean_of_tokens(const struct mb_row_figures *rows, size_t n, enum figure figure,
                           struct mb_token_mean *mean)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += figure_of(&rows[i], figure);
    mean->value = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = figure_of(&rows[i], figure) - mean->value;
        squares += d * d;
    }
    mean->stderr_tokens = n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : 0;
}

/* ---------------------------------------------------------------- windows */

static void sum_windows(const struct mb_windows *windows, const struct mb_row_figures *rows,
                        struct mb_window_sums *sums)
{
    for (size_t w = 0; w < windows->n; w++) {
        double total[N_FIGURES] = {0};
        size_t n_scored = windows->at[w].n_tokens - 1 - windows->at[w].from;
        for (size_t i = 0; i < n_scored; i++, rows++)
            for (enum figure f = KL; f < N_FIGURES; f++)
                total[f] += figure_of(rows, f);
        sums[w] = (struct mb_window_sums){.n_scored = n_scored,
                                          .kl = total[KL],
                                          .tv = total[TV],
                                          .same_top = total[SAME_TOP],
                                          .nll = total[NLL],
                                          .nll_clean = total[NLL_CLEAN],
                                          .ln_ratio = total[LN_RATIO],
                                          .dp = total[DP]};
    }
}

/* Of a ratio of sums: windows may have different numbers of tokens. */
static double error_by_window(const struct mb_window_sums *sums, size_t n, uint64_t n_scored, double mean,
                              enum figure figure)
{
    double squares = 0, count = (double)n;
    if (n < 2)
        return NAN;
    for (size_t w = 0; w < n; w++) {
        double d = *sum_of(&sums[w], figure) - mean * (double)sums[w].n_scored;
        squares += d * d;
    }
    return sqrt(squares * count / (count - 1)) / (double)n_scored;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* sorted[n], n > 0. */
static double percentile(const double *sorted, size_t n, double percent)
{
    double at = (double)(n - 1) * percent / 100;
    size_t i = (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

/* Windows are drawn again with replacement, for all figures together. means: [N_FIGURES][N_RESAMPLES]. */
static void resample(const struct mb_window_sums *sums, size_t n, double *means)
{
    uint64_t state = 0;
    for (size_t r = 0; r < N_RESAMPLES; r++) {
        double total[N_FIGURES] = {0}, n_scored = 0;
        for (size_t i = 0; i < n; i++) {
            const struct mb_window_sums *s = &sums[(mb_splitmix_next(&state) >> 32) * n >> 32];
            n_scored += (double)s->n_scored;
            for (enum figure f = KL; f < N_FIGURES; f++)
                total[f] += *sum_of(s, f);
        }
        for (enum figure f = KL; f < N_FIGURES; f++)
            means[(size_t)f * N_RESAMPLES + r] = total[f] / n_scored;
    }
}

static enum mb_status add_intervals(const struct mb_window_sums *sums, size_t n, struct mb_comparison *c,
                                    struct mb_error *err)
{
    double *means = n > 1 ? malloc(N_FIGURES * N_RESAMPLES * sizeof *means) : NULL;
    if (n > 1 && means == NULL)
        return mb_fail_memory(err, "the resampled means");
    if (n > 1)
        resample(sums, n, means);
    for (enum figure f = KL; f < N_FIGURES; f++) {
        struct mb_token_mean *mean = mean_of(c, f);
        mean->low = mean->high = NAN;
        if (n < 2)
            continue;
        double *sorted = means + (size_t)f * N_RESAMPLES;
        qsort(sorted, N_RESAMPLES, sizeof *sorted, compare_doubles);
        mean->low = percentile(sorted, N_RESAMPLES, 2.5);
        mean->high = percentile(sorted, N_RESAMPLES, 97.5);
    }
    free(means);
    return MB_OK;
}

/* ---------------------------------------------------------------- the rest */

static void rank(const struct mb_row_figures *rows, size_t n, enum figure figure, double *scratch,
                 double *percentiles)
{
    static const double percents[] = MB_PERCENTS;
    for (size_t i = 0; i < n; i++)
        scratch[i] = figure_of(&rows[i], figure);
    qsort(scratch, n, sizeof *scratch, compare_doubles);
    for (size_t i = 0; i < MB_N_PERCENTS; i++)
        percentiles[i] = percentile(scratch, n, percents[i]);
}

static void add_rms(const struct mb_row_figures *rows, size_t n, struct mb_comparison *c)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += rows[i].dp * rows[i].dp;
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = rows[i].dp * rows[i].dp - mean;
        squares += d * d;
    }
    double error = n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : 0;
    c->dp_rms = sqrt(mean);
    c->dp_rms_stderr = c->dp_rms > 0 ? error / (2 * c->dp_rms) : 0; /* d sqrt(x) = dx / (2 sqrt(x)) */
}

/* By the delta method, as llama-perplexity does: d exp(x) = exp(x) dx. */
static void add_perplexities(struct mb_comparison *c)
{
    c->ppl = mb_lab_exp(c->nll.value);
    c->ppl_stderr = c->ppl * c->nll.stderr_tokens;
    c->ppl_clean = mb_lab_exp(c->nll_clean.value);
    c->ppl_clean_stderr = c->ppl_clean * c->nll_clean.stderr_tokens;
}

static void fill_nan(struct mb_comparison *c)
{
    const struct mb_token_mean none = {NAN, NAN, NAN, NAN, NAN};
    for (enum figure f = KL; f < N_FIGURES; f++)
        *mean_of(c, f) = none;
    c->ppl = c->ppl_stderr = c->ppl_clean = c->ppl_clean_stderr = c->dp_rms = c->dp_rms_stderr = NAN;
    for (size_t i = 0; i < MB_N_PERCENTS; i++)
        c->kl_percentiles[i] = c->dp_percentiles[i] = NAN;
}

enum mb_status mb_figures_make(const struct mb_windows *windows, const struct mb_row_figures *rows,
                               struct mb_window_sums *sums, struct mb_comparison *c, struct mb_error *err)
{
    size_t n = windows->n_scored;
    c->n_windows = windows->n;
    c->n_tokens = windows->n_tokens;
    c->n_scored = n;
    c->n_not_finite = 0;
    for (size_t i = 0; i < n; i++)
        c->n_not_finite += isnan(rows[i].nll) ? 1 : 0;
    sum_windows(windows, rows, sums);
    if (c->n_not_finite > 0) {
        fill_nan(c);
        return MB_OK;
    }
    double *scratch = mb_alloc(n, sizeof *scratch);
    if (scratch == NULL)
        return mb_fail_memory(err, "the figures of all tokens");
    for (enum figure f = KL; f < N_FIGURES; f++) {
        struct mb_token_mean *mean = mean_of(c, f);
        mean_of_tokens(rows, n, f, mean);
        mean->stderr_windows = error_by_window(sums, windows->n, n, mean->value, f);
    }
    rank(rows, n, KL, scratch, c->kl_percentiles);
    rank(rows, n, DP, scratch, c->dp_percentiles);
    free(scratch);
    add_rms(rows, n, c);
    add_perplexities(c);
    return add_intervals(sums, windows->n, c, err);
}
