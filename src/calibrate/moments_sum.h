/*
 * moments_sum.h - the second moments of one input while they are summed up.
 */
#ifndef MB_CALIBRATE_MOMENTS_SUM_H
#define MB_CALIBRATE_MOMENTS_SUM_H

#include "base/pool.h"
#include "gram.h"
#include <stdbool.h>
#include <stdint.h>

struct mb_moments_sum {
    size_t n_values, n_panels;
    float *pending; /* [n_panels][MB_GRAM_BLOCK][MB_GRAM_PANEL] vectors that are not in the sums yet */
    size_t n_pending;
    float *tiles; /* tile (q, p), p <= q, at q (q + 1) / 2 + p: rows of panel q, columns of panel p */
    uint64_t n_tokens;
    double sum_gg;
};

/* Bytes that sums over vectors of n_values take. */
uint64_t mb_moments_sum_nbytes(size_t n_values);

/* Begins empty: memory is taken by the first vector. */
void mb_moments_sum_open(struct mb_moments_sum *sum, size_t n_values);
void mb_moments_sum_close(struct mb_moments_sum *sum);

/*
 * Adds n vectors, 'stride' floats apart, each times its weight (NULL: 1).  false: *is_finite says whether
 * memory is out or a value is NaN or infinite.
 */
bool mb_moments_sum_add(struct mb_moments_sum *sum, const float *x, size_t stride, size_t n,
                        const float *weights, const struct mb_gram_ops *ops, struct mb_pool *pool,
                        bool *is_finite);

/* Takes in what is pending. */
void mb_moments_sum_finish(struct mb_moments_sum *sum, const struct mb_gram_ops *ops, struct mb_pool *pool);

/* Values 0 to i of row i. */
void mb_moments_sum_row(const struct mb_moments_sum *sum, size_t i, float *row);

#endif
