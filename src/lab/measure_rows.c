/*
 * measure_rows.c - see measure_rows.h.
 *
 * KL = sum p (a - b) - (A - B), with logits a and b and the logarithms A and B of the sums of their
 * exponentials: differences of floats, which doubles hold exactly, so that what the sum loses is far below
 * any floor.
 */
#include "measure_rows.h"
#include "base/inline.h"
#include <math.h>
#include <string.h>

/* Two at a time, which all processors have; sums run in four lanes that are added in order. */
enum { LANES = 2 };
typedef double doubles __attribute__((vector_size(LANES * sizeof(double))));
typedef int64_t ints __attribute__((vector_size(LANES * sizeof(int64_t))));

/* ln 2 in two parts: n times the first is exact. 1.5 * 2^52 rounds to an integer, which is then in the low
 * bits. */
#define LN2_HIGH 0x1.62e42fefa0000p-1
#define LN2_LOW 0x1.cf79abc9e3b3ap-40
#define LOG2_E 0x1.71547652b82fep0
#define ROUNDER 0x1.8p52
#define X_MIN (-700.0)

/*
 * exp by x = n ln 2 + r, |r| <= ln 2 / 2, and the series of e^r up to r^13.  x is at most 0, or a little
 * more; below X_MIN it is X_MIN.
 */
MB_INLINE doubles exp_of(doubles x)
{
    const doubles min = {X_MIN, X_MIN};
    ints is_less = x < min;
    x = (doubles)(((ints)min & is_less) | ((ints)x & ~is_less));
    doubles shifted = x * LOG2_E + ROUNDER, n = shifted - ROUNDER;
    doubles r = (x - n * LN2_HIGH) - n * LN2_LOW;
    doubles y = r * (1 / 6227020800.0) + 1 / 479001600.0;
    y = y * r + 1 / 39916800.0;
    y = y * r + 1 / 3628800.0;
    y = y * r + 1 / 362880.0;
    y = y * r + 1 / 40320.0;
    y = y * r + 1 / 5040.0;
    y = y * r + 1 / 720.0;
    y = y * r + 1 / 120.0;
    y = y * r + 1 / 24.0;
    y = y * r + 1 / 6.0;
    y = y * r + 0.5;
    y = y * r + 1.0;
    y = y * r + 1.0;
    return (doubles)((ints)y + ((ints)shifted << 52));
}

double mb_lab_exp(double x)
{
    if (x < X_MIN)
        return 0;
    if (!(x <= 700)) /* NaN too */
        return x > 700 ? INFINITY : x;
    return exp_of((doubles){x, x})[0];
}

/* ln (2^e m) = e ln 2 + 2 artanh s, s = (m - 1) / (m + 1), m between the roots of 1/2 and 2. */
double mb_lab_ln(double x)
{
    if (!(x > 0) || isinf(x))
        return x == 0 ? -INFINITY : x > 0 ? x : NAN;
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2;
        e--;
    }
    double s = (m - 1) / (m + 1), s2 = s * s, y = 0;
    for (int k = 23; k >= 3; k -= 2)
        y = (y + 1.0 / k) * s2;
    return e * LN2_HIGH + (2 * s * y + (e * LN2_LOW + 2 * s));
}

enum { FLOATS = 4 };
typedef float floats __attribute__((vector_size(FLOATS * sizeof(float))));
typedef int32_t masks __attribute__((vector_size(FLOATS * sizeof(int32_t))));

/* Index of the largest value, the lowest among equals; n when a value is not finite. */
static size_t index_of_max(const float *x, size_t n)
{
    floats most = {x[0], x[0], x[0], x[0]}, zeros = {0};
    size_t i = 0;
    for (; i + FLOATS <= n; i += FLOATS) {
        floats v;
        memcpy(&v, x + i, sizeof v);
        masks is_more = v > most;
        most = (floats)(((masks)v & is_more) | ((masks)most & ~is_more));
        zeros += v * 0; /* NaN, once a value is infinite or NaN */
    }
    for (; i < n; i++) {
        most[0] = x[i] > most[0] ? x[i] : most[0];
        zeros[0] += x[i] * 0;
    }
    if (!(zeros[0] + zeros[1] + zeros[2] + zeros[3] == 0))
        return n;
    for (size_t k = 1; k < FLOATS; k++)
        most[0] = most[k] > most[0] ? most[k] : most[0];
    for (i = 0; x[i] != most[0];)
        i++;
    return i;
}

MB_INLINE doubles load(const float *x, size_t n)
{
    doubles v = {0};
    for (size_t i = 0; i < LANES && i < n; i++)
        v[i] = (double)x[i];
    return v;
}

struct sums {
    doubles clean[2], changed[2], difference[2];
};

/* Elements [0, n) of both rows, n <= LANES: where there are fewer, the others add 0. */
MB_INLINE void add_step(const float *clean, const float *changed, size_t n, double clean_max,
                        double changed_max, double *p, double *q, struct sums *sums, size_t half)
{
    doubles a = load(clean, n), b = load(changed, n);
    doubles ea = exp_of(a - clean_max), eb = exp_of(b - changed_max);
    if (n < LANES)
        ea[1] = eb[1] = 0;
    memcpy(p, &ea, sizeof ea);
    memcpy(q, &eb, sizeof eb);
    sums->clean[half] += ea;
    sums->changed[half] += eb;
    sums->difference[half] += ea * (a - b);
}

static double total(const doubles half[2])
{
    doubles s = half[0] + half[1];
    return s[0] + s[1];
}

/* Half the sum of |p / p_sum - q / q_sum|. */
static double half_distance(const double *p, double p_sum, const double *q, double q_sum, size_t n)
{
    doubles sum[2] = {{0}, {0}};
    double p_scale = 1 / p_sum, q_scale = 1 / q_sum;
    const ints no_sign = {INT64_MAX, INT64_MAX};
    for (size_t i = 0; i < n; i += 2 * LANES)
        for (size_t half = 0; half < 2 && i + half * LANES < n; half++) {
            doubles a, b;
            memcpy(&a, p + i + half * LANES, sizeof a);
            memcpy(&b, q + i + half * LANES, sizeof b);
            sum[half] += (doubles)((ints)(a * p_scale - b * q_scale) & no_sign);
        }
    return total(sum) / 2;
}

struct mb_row_figures mb_row_compare(const float *clean, const float *changed, size_t n, int32_t token,
                                     double *scratch)
{
    size_t n_padded = (n + LANES - 1) / LANES * LANES;
    size_t clean_top = index_of_max(clean, n), changed_top = index_of_max(changed, n);
    if (clean_top == n || changed_top == n)
        return (struct mb_row_figures){NAN, NAN, changed_top == n ? NAN : 0, clean_top == n ? NAN : 0,
                                       NAN, NAN};
    double *p = scratch, *q = scratch + n_padded;
    double clean_max = (double)clean[clean_top], changed_max = (double)changed[changed_top];
    struct sums sums = {.clean = {{0}}, .changed = {{0}}, .difference = {{0}}};
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        add_step(clean + i, changed + i, LANES, clean_max, changed_max, p + i, q + i, &sums, 0);
        add_step(clean + i + LANES, changed + i + LANES, LANES, clean_max, changed_max, p + i + LANES,
                 q + i + LANES, &sums, 1);
    }
    for (size_t half = 0; i < n; half++, i += LANES)
        add_step(clean + i, changed + i, n - i, clean_max, changed_max, p + i, q + i, &sums, half);
    double p_sum = total(sums.clean), q_sum = total(sums.changed);
    double p_ln = mb_lab_ln(p_sum), q_ln = mb_lab_ln(q_sum);
    struct mb_row_figures f;
    f.kl = total(sums.difference) / p_sum - ((clean_max - changed_max) + (p_ln - q_ln));
    f.kl = f.kl < 0 ? 0 : f.kl; /* rounding: it never is */
    f.tv = half_distance(p, p_sum, q, q_sum, n_padded);
    f.nll_clean = p_ln - ((double)clean[token] - clean_max);
    f.nll = q_ln - ((double)changed[token] - changed_max);
    f.dp = mb_lab_exp(-f.nll) - mb_lab_exp(-f.nll_clean);
    f.same_top = clean_top == changed_top ? 1 : 0;
    return f;
}
