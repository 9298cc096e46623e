/*
 * rope.h - rotary position embeddings: frequencies of all kinds, and the rotation.
 *
 * Formulas: arXiv:2104.09864 (rotary), arXiv:2309.00071 (YaRN), as `transformers` computes them.
 */
#ifndef MB_MODEL_ROPE_H
#define MB_MODEL_ROPE_H

#include <stdbool.h>
#include <stddef.h>

/* inv_freq[i] = theta^(-2 i / d_rope), i < d_rope / 2. */
void mb_rope_default(double theta, size_t d_rope, float *inv_freq);

/* All frequencies are divided by 'factor'. */
void mb_rope_linear(double theta, double factor, size_t d_rope, float *inv_freq);

/* Low frequencies are divided by 'factor', high ones are not, those between in part. */
struct mb_llama3 {
    double theta, factor, n_ctx_original, low_freq_factor, high_freq_factor;
};

void mb_rope_llama3(const struct mb_llama3 *llama3, size_t d_rope, float *inv_freq);

struct mb_yarn {
    double theta, factor, n_ctx_original, beta_fast, beta_slow;
    bool truncate; /* the ramp begins and ends at whole dimensions */
};

void mb_rope_yarn(const struct mb_yarn *yarn, size_t d_rope, float *inv_freq);

/* Each frequency has a divisor of its own: factors[d_rope / 2]. */
void mb_rope_longrope(double theta, const float *factors, size_t d_rope, float *inv_freq);

/* What cos and sin are multiplied with in a context that is 'factor' times the original one. */
float mb_rope_longrope_factor(double factor, double n_ctx_original);

/* 0.1 mscale ln(factor) + 1; 1 where factor <= 1. */
double mb_rope_yarn_mscale(double factor, double mscale);

/* What cos and sin are multiplied with. attention_factor < 0, mscale 0: not given. */
float mb_rope_yarn_factor(const struct mb_yarn *yarn, double mscale, double mscale_all_dim,
                          double attention_factor);

/* cos and sin of pos * inv_freq[i], times factor, for d_rope / 2 frequencies. */
void mb_rope_angles(const float *inv_freq, float factor, size_t pos, size_t d_rope, float *cos_out,
                    float *sin_out);

/*
 * Rotates x[d_rope] in place.  Interleaved: the pairs are (2i, 2i + 1), else (i, i + d_rope / 2); the result
 * is in halves either way, since only products of two rotated vectors are ever used.
 * 'scratch': d_rope floats.
 */
void mb_rope_rotate(float *x, size_t d_rope, bool is_interleaved, const float *cos_in, const float *sin_in,
                    float *scratch);

#endif
