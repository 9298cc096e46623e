/*
 * matmul_avxvnni.c - products with many vectors by vpdpbusd: q + 128 as an unsigned byte meets both planes of
 * X, and 128 times the sum of X is taken off.
 */
#include "carry_avx2.h"
#include "simd_avxvnni.h"

#define NAMED(name) name##_avxvnni
enum { TILE_ROWS = 2, TILE_TOKENS = 3 }; /* 12 sums and 2 rows */

static struct mb_group_walk seek(const struct mb_coded_matrix *w, uint64_t row)
{
    return mb_seek_avx2(w, row);
}

static void next(struct mb_group_walk *walk, struct mb_group_view *view)
{
    mb_next_avx2(walk, view);
}

static void group_indices(const struct mb_coded_matrix *w, const struct mb_group_view *view, int8_t *q)
{
    mb_indices_avx2(w, view, q);
}

static int64_t wide_sum(const int8_t *q, const struct mb_activation *x)
{
    int64_t sum = 0;
    for (size_t k = 0; k < x->n_wide; k++)
        sum += mb_wide_sum_avx2(q + (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK, mb_wide_planes(x, k),
                                x->n_wide_planes);
    return sum;
}

/* In assembler: gcc would copy sums between registers, and to memory. */
MB_INLINE void add_products(__m256i *sum, __m256i u, __m256i x)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(*sum) : "x"(u), "x"(x));
}

/* 256 hi + lo of two rows, whose lanes are added. */
MB_INLINE void add_lanes(__m256i acc[2][TILE_ROWS], int64_t sums[TILE_ROWS])
{
    __m256i four =
        _mm256_hadd_epi32(_mm256_hadd_epi32(acc[0][0], acc[0][1]), _mm256_hadd_epi32(acc[1][0], acc[1][1]));
    __m128i planes = _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    __m128i hi = _mm_cvtepi32_epi64(planes), lo = _mm_cvtepi32_epi64(_mm_unpackhi_epi64(planes, planes));
    _mm_storeu_si128((__m128i *)sums, _mm_add_epi64(_mm_slli_epi64(hi, 8), lo));
}

MB_INLINE void tile_product_of(const int8_t *const q[TILE_ROWS], const struct mb_activation *x,
                               size_t n_tokens, size_t n_cols, int64_t sums[TILE_TOKENS][TILE_ROWS])
{
    const __m256i offset = _mm256_set1_epi8((char)0x80);
    __m256i acc[TILE_TOKENS][2][TILE_ROWS];
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++)
        acc[t][0][0] = acc[t][0][1] = acc[t][1][0] = acc[t][1][1] = _mm256_setzero_si256();
    for (size_t c = 0; c < n_cols; c += 32) {
        __m256i u0 = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(q[0] + c)), offset);
        __m256i u1 = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(q[1] + c)), offset);
#pragma GCC unroll 3
        for (size_t t = 0; t < n_tokens; t++) {
            __m256i hi = _mm256_load_si256((const __m256i *)(x[t].hi + c));
            __m256i lo = _mm256_load_si256((const __m256i *)(x[t].lo + c));
            add_products(&acc[t][0][0], u0, hi);
            add_products(&acc[t][0][1], u1, hi);
            add_products(&acc[t][1][0], u0, lo);
            add_products(&acc[t][1][1], u1, lo);
        }
    }
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++) {
        add_lanes(acc[t], sums[t]);
        sums[t][0] -= 128 * x[t].sum;
        sums[t][1] -= 128 * x[t].sum;
    }
}

/* A constant number of tokens keeps all sums in registers. */
static void tile_product(const int8_t *const q[TILE_ROWS], const struct mb_activation *x, size_t n_tokens,
                         size_t n_cols, int64_t sums[TILE_TOKENS][TILE_ROWS])
{
    if (n_tokens == 1)
        tile_product_of(q, x, 1, n_cols, sums);
    else if (n_tokens == 2)
        tile_product_of(q, x, 2, n_cols, sums);
    else
        tile_product_of(q, x, 3, n_cols, sums);
}

/* vpmaddubsw takes as few operations for fast activations, where a factor follows. */
#define MATMUL_FAST mb_matmul_avx2
#define MATMUL_FAST_SCRATCH_NBYTES mb_matmul_scratch_nbytes_avx2

#include "matmul_kernels.h"
