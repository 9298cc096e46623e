/*
 * dense.h - the scalar dense product, for tables that have no faster one.
 */
#ifndef MB_CODEC_DENSE_H
#define MB_CODEC_DENSE_H

#include <moebius/codec.h>

void mb_dense_scalar(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                     const float *x, size_t x_stride, size_t n_tokens, float *y, size_t y_stride);

#endif
