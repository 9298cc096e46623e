/*
 * product_kernels.h - the products of one instruction set: groups are decoded to indices, of which each 16
 * meet both planes of X.
 *
 * A file that includes this has defined, for its instruction set:
 *   NAMED(name)     the name with the suffix of the instruction set
 *   add_products    to four lanes: those of 16 indices and 16 bytes of X
 *   TILE_ROWS, TILE_TOKENS, struct tile_sums, tile_clear, tile_columns, tile_sum
 *                   the sums of some rows and tokens: cleared, with the products of 16 columns added, one of
 * them
 *
 * A plane's sum over any row fits a lane of 32 bits (kernels.h).
 */
#include "simd_neon.h"
#include <string.h>

/* ---------------------------------------------------------------- one row, one vector */

/* Sums of q hi and of q lo. Bytes after the columns are unspecified: X is 0 there. */
MB_INLINE void row_sums(const int8_t *q, size_t n, const struct mb_activation *x, int32_t *hi, int32_t *lo)
{
    int32x4_t sums[2][2]; /* of each plane, two that do not wait for each other */
    sums[0][0] = sums[0][1] = sums[1][0] = sums[1][1] = vdupq_n_s32(0);
    for (size_t c = 0; c < n; c += 32) {
        int8x16_t first = vld1q_s8(q + c), second = vld1q_s8(q + c + 16);
        sums[0][0] = add_products(sums[0][0], first, vld1q_s8(x->hi + c));
        sums[1][0] = add_products(sums[1][0], first, vld1q_s8(x->lo + c));
        sums[0][1] = add_products(sums[0][1], second, vld1q_s8(x->hi + c + 16));
        sums[1][1] = add_products(sums[1][1], second, vld1q_s8(x->lo + c + 16));
    }
    *hi = vaddvq_s32(vaddq_s32(sums[0][0], sums[0][1]));
    *lo = vaddvq_s32(vaddq_s32(sums[1][0], sums[1][1]));
}

/* The sum of a row's q E, over the wide blocks. */
static int64_t wide_sum(const int8_t *q, const struct mb_activation *x)
{
    int64_t sum = 0;
    for (size_t k = 0; k < x->n_wide; k++) {
        const int8_t *block = q + (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK, *plane = mb_wide_planes(x, k);
        for (size_t p = 0; p < x->n_wide_planes; p++, plane += MB_ACTIVATION_BLOCK) {
            int32x4_t sums = vdupq_n_s32(0);
            for (size_t c = 0; c < MB_ACTIVATION_BLOCK; c += 16)
                sums = add_products(sums, vld1q_s8(block + c), vld1q_s8(plane + c));
            sum += (int64_t)vaddvq_s32(sums) * ((int64_t)1 << 8 * p);
        }
    }
    return sum;
}

/* The result of a row whose sum of q (256 hi + lo) is 'narrow'. */
static float finish(const struct mb_coded_matrix *w, const struct mb_group_view *group, size_t row_in_group,
                    unsigned *next_outlier, const int8_t *q, int64_t narrow, const struct mb_activation *x)
{
    double scale = (double)x->scale;
    double o = group->n_outliers == 0
                   ? 0
                   : mb_row_outliers(w->dtype, group, w->n_cols, row_in_group, next_outlier, x);
    return (float)(mb_sum_of_parts(narrow, wide_sum(q, x)) * (double)w->step * scale + o * scale);
}

static float raw_product(const struct mb_coded_matrix *w, const struct mb_group_view *group,
                         size_t row_in_group, const struct mb_activation *x)
{
    size_t row_nbytes = w->n_cols * mb_dtype_nbytes(w->dtype);
    return mb_raw_row_product(w->dtype, group->body + row_in_group * row_nbytes, w->n_cols, x);
}

/* Rows [first, first + n_rows) of a group. */
static void multiply_group(const struct mb_coded_matrix *w, const struct mb_group_view *group, size_t first,
                           size_t n_rows, const struct mb_activation *x, float *y)
{
    int8_t q[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    unsigned next_outlier = 0;
    if (!group->is_raw)
        mb_group_indices_neon(group, q);
    for (size_t r = first; r < first + n_rows; r++) {
        int32_t hi, lo;
        if (group->is_raw) {
            *y++ = raw_product(w, group, r, x);
            continue;
        }
        row_sums(q + r * w->n_cols, w->n_cols, x, &hi, &lo);
        *y++ = finish(w, group, r, &next_outlier, q + r * w->n_cols, (int64_t)256 * hi + lo, x);
    }
}

void NAMED(mb_matvec)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                      const struct mb_activation *x, float *y)
{
    if (n_rows == 0)
        return;
    struct mb_group_walk walk = mb_group_seek(w, row);
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view group;
        mb_prefetch_directory(&walk, MB_GROUPS_AHEAD);
        mb_group_next(&walk, &group);
        uint64_t group_end = group.row + group.n_rows < end ? group.row + group.n_rows : end;
        __builtin_prefetch(group.end + MB_AHEAD_NBYTES);
        multiply_group(w, &group, (size_t)(at - group.row), (size_t)(group_end - at), x, y);
        y += group_end - at;
        at = group_end;
    }
}

/* ---------------------------------------------------------------- many vectors */

MB_INLINE struct mb_group_walk seek(const struct mb_coded_matrix *w, uint64_t row)
{
    return mb_group_seek(w, row);
}

MB_INLINE void next(struct mb_group_walk *walk, struct mb_group_view *view)
{
    mb_group_next(walk, view);
}

MB_INLINE void group_indices(const struct mb_coded_matrix *w, const struct mb_group_view *view, int8_t *q)
{
    (void)w;
    mb_group_indices_neon(view, q);
}

/* The last token is repeated where there are fewer. */
static void tile_product(const int8_t *const q[TILE_ROWS], const struct mb_activation *x, size_t n_tokens,
                         size_t n_cols, int64_t sums[TILE_TOKENS][TILE_ROWS])
{
    const int8_t *hi[TILE_TOKENS], *lo[TILE_TOKENS];
    for (size_t t = 0; t < TILE_TOKENS; t++) {
        hi[t] = x[t < n_tokens ? t : n_tokens - 1].hi;
        lo[t] = x[t < n_tokens ? t : n_tokens - 1].lo;
    }
    struct tile_sums tile;
    tile_clear(&tile);
    for (size_t c = 0; c < n_cols; c += 16)
        tile_columns(&tile, q, hi, lo, c);
    for (size_t t = 0; t < TILE_TOKENS; t++)
        for (size_t i = 0; i < TILE_ROWS; i++)
            sums[t][i] = tile_sum(&tile, t, i);
}

#include "matmul_kernels.h"
