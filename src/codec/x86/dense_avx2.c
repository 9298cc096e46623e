/*
 * dense_avx2.c - products of plain f32, f16 and bf16 matrices; the sixteen lanes are two registers of eight.
 *
 * Every output is the sum that codec.h defines; see dense_avx512.c, whose shape this file has.
 */
#include "simd_avx2.h"
#include <immintrin.h>
#include <string.h>

enum { TILE_ROWS = 2, TILE_TOKENS = 3 }; /* 12 accumulators and 4 registers of weights */

struct tile {
    const uint8_t *w[TILE_ROWS]; /* where a tile has fewer rows, the last is repeated */
    const float *x;
    size_t x_stride, n_cols;
};

struct lanes {
    __m256 low, high; /* lanes 0 to 7, 8 to 15 */
};

static inline __attribute__((always_inline)) struct lanes load_16(enum mb_dtype dtype, const uint8_t *w)
{
    return (struct lanes){mb_load_values_8(dtype, w),
                          mb_load_values_8(dtype, w + 8 * mb_dtype_nbytes(dtype))};
}

/* Columns [col, col + 16) of a tile. */
static inline __attribute__((always_inline)) void step(enum mb_dtype dtype, const struct tile *tile,
                                                       size_t col, size_t n_tokens,
                                                       struct lanes acc[TILE_TOKENS][TILE_ROWS])
{
    struct lanes w[TILE_ROWS];
#pragma GCC unroll 2
    for (size_t r = 0; r < TILE_ROWS; r++)
        w[r] = load_16(dtype, tile->w[r] + col * mb_dtype_nbytes(dtype));
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++) {
        const float *x = tile->x + t * tile->x_stride + col;
#pragma GCC unroll 2
        for (size_t r = 0; r < TILE_ROWS; r++) {
            acc[t][r].low = _mm256_fmadd_ps(w[r].low, _mm256_loadu_ps(x), acc[t][r].low);
            acc[t][r].high = _mm256_fmadd_ps(w[r].high, _mm256_loadu_ps(x + 8), acc[t][r].high);
        }
    }
}

/* The last n_cols % 16 columns: lanes that have none keep what they hold (adding 0 would turn -0 into 0). */
static inline __attribute__((always_inline)) void last_step(enum mb_dtype dtype, const struct tile *tile,
                                                            size_t n_tokens,
                                                            struct lanes acc[TILE_TOKENS][TILE_ROWS])
{
    size_t n = tile->n_cols % 16, col = tile->n_cols - n;
    __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), count = _mm256_set1_epi32((int)n);
    __m256 low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, place));
    __m256 high =
        _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_sub_epi32(count, _mm256_set1_epi32(8)), place));
#pragma GCC unroll 2
    for (size_t r = 0; r < TILE_ROWS; r++) {
        uint8_t elems[64] = {0};
        memcpy(elems, tile->w[r] + col * mb_dtype_nbytes(dtype), n * mb_dtype_nbytes(dtype));
        struct lanes w = load_16(dtype, elems);
#pragma GCC unroll 3
        for (size_t t = 0; t < n_tokens; t++) {
            float x[16] = {0};
            memcpy(x, tile->x + t * tile->x_stride + col, n * sizeof x[0]);
            struct lanes *a = &acc[t][r];
            a->low = _mm256_blendv_ps(a->low, _mm256_fmadd_ps(w.low, _mm256_loadu_ps(x), a->low), low);
            a->high =
                _mm256_blendv_ps(a->high, _mm256_fmadd_ps(w.high, _mm256_loadu_ps(x + 8), a->high), high);
        }
    }
}

/* The sum by the tree (l, l+8), (l, l+4), (l, l+2), (l, l+1). */
static inline float reduce(struct lanes acc)
{
    __m256 y = _mm256_add_ps(acc.low, acc.high);
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_shuffle_ps(z, z, 1)));
}

static inline __attribute__((always_inline)) void product(enum mb_dtype dtype, const struct tile *tile,
                                                          size_t n_tokens, float sums[TILE_TOKENS][TILE_ROWS])
{
    struct lanes acc[TILE_TOKENS][TILE_ROWS];
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 2
        for (size_t r = 0; r < TILE_ROWS; r++)
            acc[t][r] = (struct lanes){_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t col = 0; col + 16 <= tile->n_cols; col += 16)
        step(dtype, tile, col, n_tokens, acc);
    if (tile->n_cols % 16 != 0)
        last_step(dtype, tile, n_tokens, acc);
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 2
        for (size_t r = 0; r < TILE_ROWS; r++)
            sums[t][r] = reduce(acc[t][r]);
}

/* A constant number of tokens keeps the accumulators in registers. */
static inline __attribute__((always_inline)) void
product_any(enum mb_dtype dtype, const struct tile *tile, size_t n_tokens, float sums[TILE_TOKENS][TILE_ROWS])
{
    if (n_tokens == 1)
        product(dtype, tile, 1, sums);
    else if (n_tokens == 2)
        product(dtype, tile, 2, sums);
    else
        product(dtype, tile, TILE_TOKENS, sums);
}

static __attribute__((noinline)) void product_f32(const struct tile *tile, size_t n, float (*sums)[TILE_ROWS])
{
    product_any(MB_F32, tile, n, sums);
}

static __attribute__((noinline)) void product_f16(const struct tile *tile, size_t n, float (*sums)[TILE_ROWS])
{
    product_any(MB_F16, tile, n, sums);
}

static __attribute__((noinline)) void product_bf16(const struct tile *tile, size_t n,
                                                   float (*sums)[TILE_ROWS])
{
    product_any(MB_BF16, tile, n, sums);
}

void mb_dense_avx2(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                   const float *x, size_t x_stride, size_t n_tokens, float *y, size_t y_stride)
{
    void (*tile_product)(const struct tile *, size_t, float(*)[TILE_ROWS]) = dtype == MB_F32   ? product_f32
                                                                             : dtype == MB_F16 ? product_f16
                                                                                               : product_bf16;
    size_t row_nbytes = w_stride * mb_dtype_nbytes(dtype);
    for (size_t r = 0; r < n_rows; r += TILE_ROWS) {
        size_t rows = n_rows - r < TILE_ROWS ? n_rows - r : TILE_ROWS;
        struct tile tile = {.x_stride = x_stride, .n_cols = n_cols};
        for (size_t i = 0; i < TILE_ROWS; i++)
            tile.w[i] = (const uint8_t *)w + (r + (i < rows ? i : rows - 1)) * row_nbytes;
        for (size_t t = 0; t < n_tokens; t += TILE_TOKENS) {
            float sums[TILE_TOKENS][TILE_ROWS];
            size_t tokens = n_tokens - t < TILE_TOKENS ? n_tokens - t : TILE_TOKENS;
            tile.x = x + t * x_stride;
            tile_product(&tile, tokens, sums);
            for (size_t i = 0; i < tokens; i++)
                memcpy(y + (t + i) * y_stride + r, sums[i], rows * sizeof(float));
        }
    }
}
