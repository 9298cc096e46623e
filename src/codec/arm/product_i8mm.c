/*
 * product_i8mm.c - products by sdot for one token, and by smmla for many: two rows of eight columns times
 * both planes of a token, 32 products of bytes in one instruction.
 */
#include "simd_neon.h"

#define NAMED(name) name##_i8mm
enum { TILE_ROWS = 4, TILE_TOKENS = 4, ROW_PAIRS = TILE_ROWS / 2 };

MB_INLINE int32x4_t add_products(int32x4_t sums, int8x16_t q, int8x16_t x)
{
    return vdotq_s32(sums, q, x);
}

/* Lanes: the first row's hi and lo, the second's. */
struct tile_sums {
    int32x4_t v[TILE_TOKENS][ROW_PAIRS];
};

MB_INLINE void tile_clear(struct tile_sums *tile)
{
    for (size_t t = 0; t < TILE_TOKENS; t++)
        for (size_t i = 0; i < ROW_PAIRS; i++)
            tile->v[t][i] = vdupq_n_s32(0);
}

/* The first, and the last, eight bytes of a and of b. */
MB_INLINE int8x16_t first_eights(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

MB_INLINE int8x16_t last_eights(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

MB_INLINE void tile_columns(struct tile_sums *tile, const int8_t *const q[TILE_ROWS],
                            const int8_t *const hi[TILE_TOKENS], const int8_t *const lo[TILE_TOKENS],
                            size_t c)
{
    int8x16_t first[ROW_PAIRS], last[ROW_PAIRS];
#pragma GCC unroll 2
    for (size_t i = 0; i < ROW_PAIRS; i++) {
        int8x16_t a = vld1q_s8(q[2 * i] + c), b = vld1q_s8(q[2 * i + 1] + c);
        first[i] = first_eights(a, b);
        last[i] = last_eights(a, b);
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < TILE_TOKENS; t++) {
        int8x16_t high = vld1q_s8(hi[t] + c), low = vld1q_s8(lo[t] + c);
        int8x16_t first_x = first_eights(high, low), last_x = last_eights(high, low);
#pragma GCC unroll 2
        for (size_t i = 0; i < ROW_PAIRS; i++)
            tile->v[t][i] = vmmlaq_s32(vmmlaq_s32(tile->v[t][i], first[i], first_x), last[i], last_x);
    }
}

/* The sum of q (256 hi + lo) of a row and a token. */
MB_INLINE int64_t tile_sum(const struct tile_sums *tile, size_t t, size_t i)
{
    int32_t lanes[4];
    vst1q_s32(lanes, tile->v[t][i / 2]);
    return (int64_t)256 * lanes[i % 2 * 2] + lanes[i % 2 * 2 + 1];
}

#include "product_kernels.h"
