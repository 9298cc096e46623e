/*
 * dense_avx512.c - products of plain f32, f16 and bf16 matrices, sixteen lanes at a time.
 *
 * Every output is the sum that codec.h defines (element i to lane i % 16 by fma, then the fixed tree): the
 * tiles of rows and tokens here only decide which outputs are computed side by side.
 */
#include "simd_avx512.h"
#include <immintrin.h>

enum { TILE_ROWS = 4, TILE_TOKENS = 6 };

/* The sums of four accumulators by the tree (l, l+8), (l, l+4), (l, l+2), (l, l+1). */
static inline __m128 reduce_4(const __m512 acc[TILE_ROWS])
{
    __m512 y01 =
        _mm512_add_ps(_mm512_shuffle_f32x4(acc[0], acc[1], 0x44), _mm512_shuffle_f32x4(acc[0], acc[1], 0xee));
    __m512 y23 =
        _mm512_add_ps(_mm512_shuffle_f32x4(acc[2], acc[3], 0x44), _mm512_shuffle_f32x4(acc[2], acc[3], 0xee));
    __m512 z = _mm512_add_ps(_mm512_shuffle_f32x4(y01, y23, 0x88), _mm512_shuffle_f32x4(y01, y23, 0xdd));
    z = _mm512_add_ps(z, _mm512_permute_ps(z, 0x4e));
    z = _mm512_add_ps(z, _mm512_permute_ps(z, 0xb1));
    __m512i every_fourth = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(every_fourth, z));
}

struct tile {
    const uint8_t *w[TILE_ROWS]; /* where a tile has fewer rows, the last is repeated */
    const float *x;
    size_t x_stride, n_cols;
};

/* Columns [col, col + 16) of a tile; 'lanes' says which of them exist. */
static inline __attribute__((always_inline)) void step(enum mb_dtype dtype, const struct tile *tile,
                                                       size_t col, __mmask16 lanes, size_t n_tokens,
                                                       __m512 acc[TILE_TOKENS][TILE_ROWS])
{
    __m512 w[TILE_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < TILE_ROWS; r++)
        w[r] = mb_load_values_16(dtype, tile->w[r] + col * mb_dtype_nbytes(dtype), lanes);
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++) {
        __m512 x = _mm512_maskz_loadu_ps(lanes, tile->x + t * tile->x_stride + col);
#pragma GCC unroll 4
        for (size_t r = 0; r < TILE_ROWS; r++)
            acc[t][r] = _mm512_mask3_fmadd_ps(w[r], x, acc[t][r], lanes);
    }
}

static inline __attribute__((always_inline)) void product(enum mb_dtype dtype, const struct tile *tile,
                                                          size_t n_tokens, __m128 sums[TILE_TOKENS])
{
    __m512 acc[TILE_TOKENS][TILE_ROWS];
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
        for (size_t r = 0; r < TILE_ROWS; r++)
            acc[t][r] = _mm512_setzero_ps();
    size_t col = 0;
    for (; col + 16 <= tile->n_cols; col += 16)
        step(dtype, tile, col, 0xffff, n_tokens, acc);
    if (col < tile->n_cols)
        step(dtype, tile, col, (__mmask16)_bzhi_u32(0xffff, (unsigned)(tile->n_cols - col)), n_tokens, acc);
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++)
        sums[t] = reduce_4(acc[t]);
}

/* A constant number of tokens keeps the accumulators in registers. */
static inline __attribute__((always_inline)) void product_any(enum mb_dtype dtype, const struct tile *tile,
                                                              size_t n_tokens, __m128 sums[TILE_TOKENS])
{
    switch (n_tokens) {
    case 1:
        product(dtype, tile, 1, sums);
        break;
    case 2:
        product(dtype, tile, 2, sums);
        break;
    case 3:
        product(dtype, tile, 3, sums);
        break;
    case 4:
        product(dtype, tile, 4, sums);
        break;
    case 5:
        product(dtype, tile, 5, sums);
        break;
    default:
        product(dtype, tile, TILE_TOKENS, sums);
    }
}

static __attribute__((noinline)) void product_f32(const struct tile *tile, size_t n, __m128 *sums)
{
    product_any(MB_F32, tile, n, sums);
}

static __attribute__((noinline)) void product_f16(const struct tile *tile, size_t n, __m128 *sums)
{
    product_any(MB_F16, tile, n, sums);
}

static __attribute__((noinline)) void product_bf16(const struct tile *tile, size_t n, __m128 *sums)
{
    product_any(MB_BF16, tile, n, sums);
}

void mb_dense_avx512(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                     const float *x, size_t x_stride, size_t n_tokens, float *y, size_t y_stride)
{
    void (*tile_product)(const struct tile *, size_t, __m128 *) = dtype == MB_F32   ? product_f32
                                                                  : dtype == MB_F16 ? product_f16
                                                                                    : product_bf16;
    size_t row_nbytes = w_stride * mb_dtype_nbytes(dtype);
    for (size_t r = 0; r < n_rows; r += TILE_ROWS) {
        size_t rows = n_rows - r < TILE_ROWS ? n_rows - r : TILE_ROWS;
        struct tile tile = {.x_stride = x_stride, .n_cols = n_cols};
        for (size_t i = 0; i < TILE_ROWS; i++)
            tile.w[i] = (const uint8_t *)w + (r + (i < rows ? i : rows - 1)) * row_nbytes;
        for (size_t t = 0; t < n_tokens; t += TILE_TOKENS) {
            __m128 sums[TILE_TOKENS];
            size_t tokens = n_tokens - t < TILE_TOKENS ? n_tokens - t : TILE_TOKENS;
            tile.x = x + t * x_stride;
            tile_product(&tile, tokens, sums);
            for (size_t i = 0; i < tokens; i++)
                _mm_mask_storeu_ps(y + (t + i) * y_stride + r, (__mmask8)((1u << rows) - 1), sums[i]);
        }
    }
}
