/*
 * decode.h - the scalar decoder of a row group: the specification of what codes mean.
 */
#ifndef MB_CODEC_DECODE_H
#define MB_CODEC_DECODE_H

#include <assert.h>

#include "kernels.h"

/* Code i of a bit stream of 'width' bits (0 to 8); reads the bytes that hold it and no others. */
static inline unsigned mb_stream_code(const uint8_t *stream, size_t i, unsigned width)
{
    size_t bit = i * width;
    unsigned shift = bit % 8;
    if (width == 0)
        return 0;
    unsigned bits = stream[bit / 8];
    if (shift + width > 8)
        bits |= (unsigned)stream[bit / 8 + 1] << 8;
    return bits >> shift & ((1u << width) - 1);
}

/* Body code i of a group of n codes. */
static inline unsigned mb_body_code(const uint8_t *body, size_t n, size_t i, unsigned a)
{
    if (a != 4)
        return mb_stream_code(body, i, a);
    size_t begin = i / 128 * 128, r = n - begin < 128 ? n - begin : 128, h = (r + 1) / 2, k = i - begin;
    return k < h ? body[begin / 2 + k] & 15u : body[begin / 2 + k - h] >> 4;
}

/* The index that tail code t of widths (a, b) means. */
static inline int mb_tail_index(unsigned t, unsigned a, unsigned b)
{
    int inner = mb_inner_max(a), half = mb_tail_half(b);
    return (int)t < half ? -(inner + 1 + (int)t) : inner + 1 + ((int)t - half);
}

/* q[0 .. view->n): the indices of a group that is not raw; 0 where there is an outlier. */
static inline void mb_group_indices(const struct mb_group_view *view, int8_t *q)
{
    assert(view->n > 0);
    int inner = mb_inner_max(view->a);
    size_t escape = 0;
    for (size_t i = 0; i < view->n; i++) {
        int code = (int)mb_body_code(view->body, view->n, i, view->a);
        if (view->a > 0 && code == 2 * inner + 1)
            q[i] = (int8_t)mb_tail_index(mb_stream_code(view->tail, escape++, view->b), view->a, view->b);
        else
            q[i] = (int8_t)(code - inner);
    }
}

#endif
