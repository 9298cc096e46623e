/*
 * float_ops.h - float arithmetic of the engine in one fixed order, on every instruction set.
 *
 * Sums run in 16 lanes (element i goes to lane i % 16, in order, by fma where there is a product); lanes are
 * added as the tree (l, l+8), (l, l+4), (l, l+2), (l, l+1).  exp is ours, so that no library decides a bit.
 * One source (float_ops_kernels.h) is compiled for each instruction set. All give the same bits.
 */
#ifndef MB_MODEL_FLOAT_OPS_H
#define MB_MODEL_FLOAT_OPS_H

#include <moebius/codec.h>
#include <stddef.h>

struct mb_float_ops {
    const char *isa;

    /* out = x / sqrt(mean(x^2) + eps) * w. out may be x. */
    void (*rms_norm)(const float *x, const float *w, size_t n, float eps, float *out);

    /* out = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * w + b. out may be x. */
    void (*layer_norm)(const float *x, const float *w, const float *b, size_t n, float eps, float *out);

    /* y += x; y = fma(a, x, y); y *= a. */
    void (*add)(const float *x, size_t n, float *y);
    void (*axpy)(float a, const float *x, size_t n, float *y);
    void (*scale)(float a, size_t n, float *y);

    /* gate = silu(gate) * up, silu(g) = g / (1 + exp(-g)). */
    void (*silu_mul)(float *gate, const float *up, size_t n);

    /* out = 1 / (1 + exp(-x)). */
    void (*sigmoid)(const float *x, size_t n, float *out);

    /* The largest of n >= 1 values; NaN when any is NaN. */
    float (*max)(const float *x, size_t n);

    /* s = exp(fma(s, scale, -shift)); returns their sum. */
    float (*exp_sum)(float *s, size_t n, float scale, float shift);

    /*
     * out[t * out_stride + c] = fma(p[t * p_stride + r], w[r * w_stride + c], out[...]) for r = 0, 1, ... in
     * order: sums of rows of w (n_rows x n_cols elements of dtype), weighted for each of n_tokens.
     */
    void (*weighted_rows)(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                          const float *p, size_t p_stride, size_t n_tokens, float *out, size_t out_stride);

    /*
     * y[t * y_stride + r] = sum over c of w[r * w_stride + c] x[t * x_stride + c]: products of n_rows rows of
     * n_cols elements of dtype with n_tokens vectors, each a sum as above.
     */
    void (*dense)(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                  const float *x, size_t x_stride, size_t n_tokens, float *y, size_t y_stride);

    /* Values of dtype as float, and floats as f16 (to nearest, ties to even). */
    void (*widen)(enum mb_dtype dtype, const void *values, size_t n, float *out);
    void (*to_f16)(const float *x, size_t n, uint16_t *out);
};

/* The best table for this CPU, less what MOEBIUS_CPU takes away, that has proved itself against scalar. */
const struct mb_float_ops *mb_float_ops(void);

/* A table by its isa ("scalar", "avx2", "avx512", "neon"); NULL when it is not usable. */
const struct mb_float_ops *mb_float_ops_by_isa(const char *isa);

#endif
