/*
 * product_neon.c - products on any ARM64 processor: two products of bytes fit a lane of 16 bits, which are
 * added in pairs to 32.
 */
#include "simd_neon.h"

#define NAMED(name) name##_neon
enum { TILE_ROWS = 2, TILE_TOKENS = 2 };

/* |q| is at most 127, |x| at most 128: 2 * 127 * 128 < 32768. */
MB_INLINE int32x4_t add_products(int32x4_t sums, int8x16_t q, int8x16_t x)
{
    int16x8_t pairs = vmull_s8(vget_low_s8(q), vget_low_s8(x));
    return vpadalq_s16(sums, vmlal_high_s8(pairs, q, x));
}

#include "tile_by_rows.h"

#include "product_kernels.h"
