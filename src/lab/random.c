/*
 * random.c - see random.h.  Bits are SplitMix64's, whose i-th state is
 * known without those before it; normal numbers are quantiles by algorithm AS 241 (Wichura, Appl. Statist.
 * 37, 1988), within 1e-15 of the true ones.
 */
#include "random.h"
#include "base/splitmix.h"
#include <math.h>
#include <string.h>
#include <xxhash.h>

uint64_t mb_random_key(uint64_t seed, const char *name)
{
    return XXH3_64bits_withSeed(name, strlen(name), seed);
}

/* 53 bits, a half added: never 0 or 1. */
static double even_at(uint64_t key, uint64_t i)
{
    uint64_t z = mb_splitmix_spread(key + (i + 1) * MB_SPLITMIX_STEP);
    return ((double)(int64_t)(z >> 12) + 0.5) * 0x1p-52;
}

/* a[0] + a[1] x + ... + a[7] x^7 */
static inline double polynomial(const double a[8], double x)
{
    double y = a[7];
    for (int i = 6; i >= 0; i--)
        y = y * x + a[i];
    return y;
}

static const double center_over[8] = {
    3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
    4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3};
static const double center_under[8] = {1.0,
                                       4.2313330701600911252e+1,
                                       6.8718700749205790830e+2,
                                       5.3941960214247511077e+3,
                                       2.1213794301586595867e+4,
                                       3.9307895800092710610e+4,
                                       2.8729085735721942674e+4,
                                       5.2264952788528545610e+3};
static const double near_over[8] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                                    5.76949722146069140550e0,  3.64784832476320460504e0,
                                    1.27045825245236838258e0,  2.41780725177450611770e-1,
                                    2.27238449892691845833e-2, 7.74545014278341407640e-4};
static const double near_under[8] = {1.0,
                                     2.05319162663775882187e0,
                                     1.67638483018380384940e0,
                                     6.89767334985100004550e-1,
                                     1.48103976427480074590e-1,
                                     1.51986665636164571966e-2,
                                     5.47593808499534494600e-4,
                                     1.05075007164441684324e-9};
static const double far_over[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                                   1.78482653991729133580e0,  2.96560571828504891230e-1,
                                   2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                   2.71155556874348757815e-5, 2.01033439929228813265e-7};
static const double far_under[8] = {1.0,
                                    5.99832206555887937690e-1,
                                    1.36929880922735805310e-1,
                                    1.48753612908506148525e-2,
                                    7.86869131145613259100e-4,
                                    1.84631831751005468180e-5,
                                    1.42151175831644588870e-7,
                                    2.04426310338993978564e-15};

/* ln x of a normal number: ln 2 times the exponent, and 2 artanh((m - 1) / (m + 1)) as a series. */
static double natural_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1022;
    bits = (bits & 0xfffffffffffffU) | (uint64_t)1022 << 52; /* m in 0.5 to 1 */
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m < 0.70710678118654752) {
        m *= 2;
        exponent--;
    }
    double s = (m - 1) / (m + 1), square = s * s, sum = 0;
    for (int k = 21; k >= 1; k -= 2)
        sum = sum * square + 1.0 / k;
    return exponent * 0.69314718055994530942 + 2 * s * sum;
}

/* Outside the middle 85 %: p is the distance from the nearer end. */
static double tail_quantile(double p)
{
    double r = sqrt(-natural_log(p));
    if (r <= 5)
        return polynomial(near_over, r - 1.6) / polynomial(near_under, r - 1.6);
    return polynomial(far_over, r - 5) / polynomial(far_under, r - 5);
}

/* First the middle of all, in a loop without branches; then the tails. */
void mb_random_normal(uint64_t key, uint64_t first, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++) {
        double q = even_at(key, first + i) - 0.5, r = 0.180625 - q * q;
        out[i] = q * polynomial(center_over, r) / polynomial(center_under, r);
    }
    for (size_t i = 0; i < n; i++) {
        double p = even_at(key, first + i), q = p - 0.5;
        if (fabs(q) > 0.425)
            out[i] = q < 0 ? -tail_quantile(p) : tail_quantile(1 - p);
    }
}

void mb_random_even(uint64_t key, uint64_t first, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = 2 * even_at(key, first + i) - 1;
}
