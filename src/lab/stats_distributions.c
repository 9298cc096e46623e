/*
 * stats_distributions.c - quantiles and tails of the normal, Student's and the fair coin's distribution.
 */
#include "stats_distributions.h"
#include <float.h>
#include <math.h>

/* Halving an interval of doubles this often leaves nothing of it. */
enum { N_HALVINGS = 200 };

double mb_normal_quantile(double p)
{
    double low = -40, high = 40;
    for (int i = 0; i < N_HALVINGS; i++) {
        double x = 0.5 * (low + high);
        if (0.5 * erfc(-x * M_SQRT1_2) < p)
            low = x;
        else
            high = x;
    }
    return 0.5 * (low + high);
}

/* log Gamma without the global sign of lgamma(), which threads would share; x > 0. */
static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign);
}

/*
 * The continued fraction of the incomplete beta function, evaluated from its front by Lentz's method; it
 * converges fast where x < (a + 1) / (a + b + 2).
 */
static double beta_fraction(double a, double b, double x)
{
    enum { N_TERMS_MAX = 10000 };
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double value = d;
    for (int m = 1; m <= N_TERMS_MAX; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double step = 1;
        for (int i = 0; i < 2; i++) {
            double term = i == 0 ? even : odd;
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            step = c * d;
            value *= step;
        }
        if (fabs(step - 1) < DBL_EPSILON)
            break;
    }
    return value;
}

/* The regularised incomplete beta function, 0 <= x <= 1; y = 1 - x, which the caller may know better. */
static double beta_regularised(double a, double b, double x, double y)
{
    if (x <= 0 || y <= 0)
        return x <= 0 ? 0 : 1;
    double front = exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * log(x) + b * log(y));
    if (x < (a + 1) / (a + b + 2))
        return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, y) / b;
}

double mb_student_two_sided(double t, double df)
{
    double square = t * t;
    if (isinf(square))
        return 0;
    return beta_regularised(df / 2, 0.5, df / (df + square), square / (df + square));
}

double mb_student_quantile(double p, double df)
{
    double low = 0, high = 1;
    while (mb_student_two_sided(high, df) > p && high < 1e100)
        high *= 2;
    for (int i = 0; i < N_HALVINGS; i++) {
        double t = 0.5 * (low + high);
        if (mb_student_two_sided(t, df) > p)
            low = t;
        else
            high = t;
    }
    return 0.5 * (low + high);
}

double mb_coin_exactly(uint64_t k, uint64_t n)
{
    double heads = (double)k, throws = (double)n;
    return exp(log_gamma(throws + 1) - log_gamma(heads + 1) - log_gamma(throws - heads + 1) - throws * M_LN2);
}

/* From the largest term down, each from the one before, until they no longer count. */
double mb_coin_at_most(uint64_t k, uint64_t n)
{
    if (k >= n)
        return 1;
    if (k > n / 2)
        return 1 - mb_coin_at_most(n - k - 1, n);
    double term = mb_coin_exactly(k, n), sum = term;
    for (uint64_t i = k; i > 0 && term > sum * (DBL_EPSILON / 16); i--) {
        term *= (double)i / (double)(n - i + 1);
        sum += term;
    }
    return sum < 1 ? sum : 1;
}
