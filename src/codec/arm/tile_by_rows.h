/*
 * tile_by_rows.h - the tile of product_kernels.h where add_products is all there is: a register of four lanes
 * for each row, token and plane.
 *
 * A file that includes this has defined TILE_ROWS, TILE_TOKENS and add_products.
 */
struct tile_sums {
    int32x4_t hi[TILE_TOKENS][TILE_ROWS], lo[TILE_TOKENS][TILE_ROWS];
};

MB_INLINE void tile_clear(struct tile_sums *tile)
{
    for (size_t t = 0; t < TILE_TOKENS; t++)
        for (size_t i = 0; i < TILE_ROWS; i++)
            tile->hi[t][i] = tile->lo[t][i] = vdupq_n_s32(0);
}

MB_INLINE void tile_columns(struct tile_sums *tile, const int8_t *const q[TILE_ROWS],
                            const int8_t *const hi[TILE_TOKENS], const int8_t *const lo[TILE_TOKENS],
                            size_t c)
{
    int8x16_t rows[TILE_ROWS];
#pragma GCC unroll 4
    for (size_t i = 0; i < TILE_ROWS; i++)
        rows[i] = vld1q_s8(q[i] + c);
#pragma GCC unroll 4
    for (size_t t = 0; t < TILE_TOKENS; t++) {
        int8x16_t high = vld1q_s8(hi[t] + c), low = vld1q_s8(lo[t] + c);
#pragma GCC unroll 4
        for (size_t i = 0; i < TILE_ROWS; i++) {
            tile->hi[t][i] = add_products(tile->hi[t][i], rows[i], high);
            tile->lo[t][i] = add_products(tile->lo[t][i], rows[i], low);
        }
    }
}

/* The sum of q (256 hi + lo) of a row and a token. */
MB_INLINE int64_t tile_sum(const struct tile_sums *tile, size_t t, size_t i)
{
    return (int64_t)256 * vaddvq_s32(tile->hi[t][i]) + vaddvq_s32(tile->lo[t][i]);
}
