/*
 * rope.c - see rope.h.  Powers, logarithms, sines and cosines are glibc's long double ones: they have one
 * version for all CPUs, so that results do not depend on the machine.  They are not in a hot path: angles are
 * computed once a token, for all layers and heads.
 */
#include "rope.h"
#include <math.h>

static const long double PI = 3.14159265358979323846264338327950288L;

void mb_rope_default(double theta, size_t d_rope, float *inv_freq)
{
    for (size_t i = 0; i < d_rope / 2; i++)
        inv_freq[i] = 1.0F / (float)powl((long double)theta, (long double)(2 * i) / (long double)d_rope);
}

void mb_rope_linear(double theta, double factor, size_t d_rope, float *inv_freq)
{
    mb_rope_default(theta, d_rope, inv_freq);
    for (size_t i = 0; i < d_rope / 2; i++)
        inv_freq[i] /= (float)factor;
}

void mb_rope_llama3(const struct mb_llama3 *llama3, size_t d_rope, float *inv_freq)
{
    mb_rope_default(llama3->theta, d_rope, inv_freq);
    for (size_t i = 0; i < d_rope / 2; i++) {
        double n_turns = (double)((long double)llama3->n_ctx_original * (long double)inv_freq[i] / (2 * PI));
        double kept =
            (n_turns - llama3->low_freq_factor) / (llama3->high_freq_factor - llama3->low_freq_factor);
        kept = kept < 0 ? 0 : kept > 1 ? 1 : kept; /* share of the original frequency */
        inv_freq[i] = (float)((1 - kept) * (double)inv_freq[i] / llama3->factor + kept * (double)inv_freq[i]);
    }
}

/* The dimension at which 'n_turns' full turns fit into the original context. */
static double correction_dim(const struct mb_yarn *yarn, double n_turns, size_t d_rope)
{
    return (double)((long double)d_rope *
                    logl((long double)yarn->n_ctx_original / ((long double)n_turns * 2 * PI)) /
                    (2 * logl((long double)yarn->theta)));
}

void mb_rope_yarn(const struct mb_yarn *yarn, size_t d_rope, float *inv_freq)
{
    double low = correction_dim(yarn, yarn->beta_fast, d_rope);
    double high = correction_dim(yarn, yarn->beta_slow, d_rope);
    if (yarn->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < (double)(d_rope - 1) ? high : (double)(d_rope - 1);
    if (low == high)
        high += 0.001; /* a ramp needs a width */
    mb_rope_default(yarn->theta, d_rope, inv_freq);
    for (size_t i = 0; i < d_rope / 2; i++) {
        float ramp = (float)(((double)i - low) / (high - low));
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float kept = 1 - ramp; /* share of the original frequency */
        inv_freq[i] = inv_freq[i] / (float)yarn->factor * (1 - kept) + inv_freq[i] * kept;
    }
}

void mb_rope_longrope(double theta, const float *factors, size_t d_rope, float *inv_freq)
{
    for (size_t i = 0; i < d_rope / 2; i++) {
        long double power = powl((long double)theta, (long double)(2 * i) / (long double)d_rope);
        inv_freq[i] = 1.0F / (factors[i] * (float)power);
    }
}

float mb_rope_longrope_factor(double factor, double n_ctx_original)
{
    if (factor <= 1)
        return 1;
    return (float)sqrtl(1 + logl((long double)factor) / logl((long double)n_ctx_original));
}

double mb_rope_yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : (double)(0.1L * (long double)mscale * logl((long double)factor) + 1);
}

float mb_rope_yarn_factor(const struct mb_yarn *yarn, double mscale, double mscale_all_dim,
                          double attention_factor)
{
    if (attention_factor >= 0)
        return (float)attention_factor;
    if (mscale != 0 && mscale_all_dim != 0)
        return (float)(mb_rope_yarn_mscale(yarn->factor, mscale) /
                       mb_rope_yarn_mscale(yarn->factor, mscale_all_dim));
    return (float)mb_rope_yarn_mscale(yarn->factor, 1);
}

void mb_rope_angles(const float *inv_freq, float factor, size_t pos, size_t d_rope, float *cos_out,
                    float *sin_out)
{
    for (size_t i = 0; i < d_rope / 2; i++) {
        float angle = (float)pos * inv_freq[i];
        cos_out[i] = (float)cosl((long double)angle) * factor;
        sin_out[i] = (float)sinl((long double)angle) * factor;
    }
}

void mb_rope_rotate(float *x, size_t d_rope, bool is_interleaved, const float *cos_in, const float *sin_in,
                    float *scratch)
{
    size_t half = d_rope / 2;
    for (size_t i = 0; i < half; i++) {
        float a = x[is_interleaved ? 2 * i : i], b = x[is_interleaved ? 2 * i + 1 : i + half];
        scratch[i] = a * cos_in[i] - b * sin_in[i];
        scratch[i + half] = b * cos_in[i] + a * sin_in[i];
    }
    for (size_t i = 0; i < d_rope; i++)
        x[i] = scratch[i];
}
