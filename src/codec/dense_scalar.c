/*
 * dense_scalar.c - products of plain matrices, in the one order that all instruction sets keep (codec.h).
 */
#include "dense.h"
#include "kernels.h"
#include <math.h>

static float dense_dot(enum mb_dtype dtype, const uint8_t *w, const float *x, size_t n)
{
    float lane[16] = {0};
    for (size_t i = 0; i < n; i++)
        lane[i % 16] = fmaf(mb_load_value(dtype, w, i), x[i], lane[i % 16]);
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

void mb_dense_scalar(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                     const float *x, size_t x_stride, size_t n_tokens, float *y, size_t y_stride)
{
    const uint8_t *rows = w;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t t = 0; t < n_tokens; t++)
            y[t * y_stride + r] =
                dense_dot(dtype, rows + r * w_stride * mb_dtype_nbytes(dtype), x + t * x_stride, n_cols);
}
