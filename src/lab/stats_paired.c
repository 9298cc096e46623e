/*
 * stats_paired.c - two runs on the same questions: McNemar's test, its power, and a verdict in words.
 */
#include "base/error.h"
#include "stats_distributions.h"
#include <math.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>

static const double alpha_default = 0.05, power_default = 0.8;

struct mb_mcnemar mb_mcnemar(uint64_t n_better, uint64_t n_worse)
{
    uint64_t n = n_better + n_worse, fewer = n_better < n_worse ? n_better : n_worse;
    double both_tails = 2 * mb_coin_at_most(fewer, n);
    double p_mid = both_tails - mb_coin_exactly(fewer, n);
    return (struct mb_mcnemar){.p_exact = both_tails < 1 ? both_tails : 1, .p_mid = p_mid < 1 ? p_mid : 1};
}

enum mb_verdict mb_verdict_of(double difference, double p, double alpha)
{
    if (!(p < alpha) || difference == 0)
        return MB_NO_DIFFERENCE_SEEN;
    return difference > 0 ? MB_BETTER : MB_WORSE;
}

const char *mb_verdict_text(enum mb_verdict verdict, uint64_t n, char text[64])
{
    if (verdict == MB_NO_DIFFERENCE_SEEN)
        snprintf(text, 64, "no difference seen (n = %llu)", (unsigned long long)n);
    else
        snprintf(text, 64, "%s", verdict == MB_BETTER ? "better" : "worse");
    return text;
}

enum mb_status mb_compare_paired(const bool *base, const bool *run, size_t n,
                                 const struct mb_bootstrap_options *options, struct mb_paired *paired,
                                 struct mb_error *err)
{
    *paired = (struct mb_paired){.n = n};
    double *differences = calloc(n > 0 ? n : 1, sizeof *differences);
    if (differences == NULL)
        return mb_fail_memory(err, "the differences");
    for (size_t i = 0; i < n; i++) {
        differences[i] = (double)run[i] - (double)base[i];
        paired->n_better += run[i] && !base[i];
        paired->n_worse += base[i] && !run[i];
    }
    enum mb_status status = mb_bootstrap_mean95(differences, n, options, &paired->difference, err);
    free(differences);
    MB_TRY(status);
    double discordance = (double)(paired->n_better + paired->n_worse) / (double)n;
    paired->mcnemar = mb_mcnemar(paired->n_better, paired->n_worse);
    paired->verdict = mb_verdict_of(paired->difference.value, paired->mcnemar.p_exact, alpha_default);
    paired->detectable = mb_detectable_difference(n, discordance, alpha_default, power_default);
    return MB_OK;
}

/* ---------------------------------------------------------------- power */

/*
 * Connor (1987): n questions show a difference d of discordance c when
 *     d sqrt(n) >= z(1 - alpha / 2) sqrt(c) + z(power) sqrt(c - d^2).
 * The left side grows with d and the right side falls.
 */
static double shortfall(double n, double difference, double discordance, double z_alpha, double z_power)
{
    double rest = discordance - difference * difference;
    return z_alpha * sqrt(discordance) + z_power * sqrt(rest > 0 ? rest : 0) - difference * sqrt(n);
}

double mb_detectable_difference(uint64_t n, double discordance, double alpha, double power)
{
    double z_alpha = mb_normal_quantile(1 - alpha / 2), z_power = mb_normal_quantile(power);
    double low = 0, high = discordance;
    if (!(discordance > 0) || shortfall((double)n, high, discordance, z_alpha, z_power) > 0)
        return INFINITY;
    for (int i = 0; i < 100; i++) {
        double difference = 0.5 * (low + high);
        if (shortfall((double)n, difference, discordance, z_alpha, z_power) > 0)
            low = difference;
        else
            high = difference;
    }
    return high;
}

uint64_t mb_questions_needed(double difference, double discordance, double alpha, double power)
{
    difference = fabs(difference);
    if (!(difference > 0 && difference <= discordance))
        return 0;
    double z_alpha = mb_normal_quantile(1 - alpha / 2), z_power = mb_normal_quantile(power);
    double root = shortfall(0, difference, discordance, z_alpha, z_power) / difference, n = ceil(root * root);
    return n < 1e18 ? (uint64_t)n : 0;
}
