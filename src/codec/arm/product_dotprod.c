/*
 * product_dotprod.c - products by sdot: a lane adds four products of bytes in one instruction.
 */
#include "simd_neon.h"

#define NAMED(name) name##_dotprod
enum { TILE_ROWS = 4, TILE_TOKENS = 2 }; /* 16 sums, 4 rows and 2 planes */

MB_INLINE int32x4_t add_products(int32x4_t sums, int8x16_t q, int8x16_t x)
{
    return vdotq_s32(sums, q, x);
}

#include "tile_by_rows.h"

#include "product_kernels.h"
