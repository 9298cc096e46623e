/*
 * product_kernels.h - the products of one instruction set: groups are decoded to indices, of which each 16
 * meet both planes of X.
 *
 * A file that includes this has defined, for its instruction set:
 *   NAMED(name)     the name with the suffix of the instruction set
 *   add_products    to four lanes: those of 16 indices and 16 bytes of X
 *   TILE_ROWS, TILE_TOKENS, struct tile_sums, tile_columns
 *                   of a product with many tokens: see tile_product
 *
 * A plane's sum over any row fits a lane of 32 bits (kernels.h).
 */
#include "simd_neon.h"
#include <string.h>

/* ---------------------------------------------------------------- one row, one vector */

struct row {
    struct mb_group_view group;
    size_t row_in_group;
};

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

enum { BLOCK_ROWS_MAX = 64 };

/* Rows that are decoded at once: about 128 KiB, which stay in L2 while all tokens pass. */
static size_t block_rows_of(size_t n_cols)
{
    size_t rows = 131072 / n_cols / 16 * 16;
    return rows < 16 ? 16 : rows > BLOCK_ROWS_MAX ? BLOCK_ROWS_MAX : rows;
}

/* So few tokens use the product of one. */
enum { TOKENS_ONE_BY_ONE = 2 };

struct block {
    const struct mb_coded_matrix *w;
    size_t n_rows, row_nbytes;
    int8_t *q; /* [BLOCK_ROWS_MAX][row_nbytes] */
    struct row rows[BLOCK_ROWS_MAX];
};

/* Decodes rows one after another, whatever their groups. */
struct source {
    struct mb_group_walk walk;
    struct row next;
    int8_t *q; /* of its group, where that has several rows */
};

static void next_group(struct source *source)
{
    mb_group_next(&source->walk, &source->next.group);
    source->next.row_in_group = 0;
    if (!source->next.group.is_raw && source->walk.w->group_rows > 1)
        mb_group_indices_neon(&source->next.group, source->q);
}

/* Bytes after a row's columns are unspecified: X is 0 there. */
static void fill_block(struct source *source, struct block *block, size_t n_rows)
{
    size_t n_cols = block->w->n_cols;
    block->n_rows = n_rows;
    for (size_t r = 0; r < n_rows; r++) {
        struct row *next = &source->next;
        int8_t *q = block->q + r * block->row_nbytes;
        if (next->row_in_group == next->group.n_rows)
            next_group(source);
        block->rows[r] = *next;
        if (!next->group.is_raw && block->w->group_rows > 1)
            memcpy(q, source->q + next->row_in_group * n_cols, n_cols);
        else if (!next->group.is_raw)
            mb_group_indices_neon(&next->group, q);
        next->row_in_group++;
    }
}

/*
 * hi and lo of TILE_ROWS rows (the last one is repeated where there are fewer) times TILE_TOKENS tokens (as
 * well): tile_columns adds 16 columns, tile_sum takes one sum out.
 */
static void tile_product(const struct block *block, size_t r, const struct mb_activation *x, size_t n_tokens,
                         int64_t sums[TILE_TOKENS][TILE_ROWS])
{
    const int8_t *q[TILE_ROWS], *hi[TILE_TOKENS], *lo[TILE_TOKENS];
    for (size_t i = 0; i < TILE_ROWS; i++)
        q[i] = block->q + (r + i < block->n_rows ? r + i : block->n_rows - 1) * block->row_nbytes;
    for (size_t t = 0; t < TILE_TOKENS; t++) {
        hi[t] = x[t < n_tokens ? t : n_tokens - 1].hi;
        lo[t] = x[t < n_tokens ? t : n_tokens - 1].lo;
    }
    struct tile_sums tile;
    tile_clear(&tile);
    for (size_t c = 0; c < block->w->n_cols; c += 16)
        tile_columns(&tile, q, hi, lo, c);
    for (size_t t = 0; t < TILE_TOKENS; t++)
        for (size_t i = 0; i < TILE_ROWS; i++)
            sums[t][i] = tile_sum(&tile, t, i);
}

/* All rows of a block times all tokens. */
static void multiply_block(const struct block *block, const struct mb_activation *x, size_t n_tokens,
                           float *y, size_t y_stride)
{
    for (size_t t = 0; t < n_tokens; t += TILE_TOKENS) {
        size_t tokens = n_tokens - t < TILE_TOKENS ? n_tokens - t : TILE_TOKENS;
        for (size_t r = 0; r < block->n_rows; r += TILE_ROWS) {
            int64_t sums[TILE_TOKENS][TILE_ROWS];
            tile_product(block, r, x + t, tokens, sums);
            for (size_t i = 0; i < tokens; i++)
                for (size_t k = 0; k < TILE_ROWS && r + k < block->n_rows; k++) {
                    const struct row *row = &block->rows[r + k];
                    const int8_t *q = block->q + (r + k) * block->row_nbytes;
                    unsigned first = 0;
                    y[(t + i) * y_stride + r + k] =
                        row->group.is_raw ? raw_product(block->w, &row->group, row->row_in_group, &x[t + i])
                                          : finish(block->w, &row->group, row->row_in_group, &first, q,
                                                   sums[i][k], &x[t + i]);
                }
        }
    }
}

/* A group and a block of rows. */
size_t NAMED(mb_matmul_scratch_nbytes)(size_t n_cols)
{
    return mb_group_room(n_cols) + block_rows_of(n_cols) * mb_matmul_row_nbytes(n_cols) + MB_DECODED_SLACK;
}

void NAMED(mb_matmul)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                      const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                      void *scratch)
{
    if (n_rows == 0)
        return;
    if (n_tokens <= TOKENS_ONE_BY_ONE) {
        for (size_t t = 0; t < n_tokens; t++)
            NAMED(mb_matvec)(w, row, n_rows, &x[t], y + t * y_stride);
        return;
    }
    size_t block_rows = block_rows_of(w->n_cols);
    struct source source = {.walk = mb_group_seek(w, row), .q = scratch};
    struct block block = {.w = w,
                          .row_nbytes = mb_matmul_row_nbytes(w->n_cols),
                          .q = (int8_t *)scratch + mb_group_room(w->n_cols)};
    next_group(&source);
    source.next.row_in_group = (size_t)(row - source.next.group.row);
    for (uint64_t done = 0; done < n_rows; done += block.n_rows) {
        fill_block(&source, &block, n_rows - done < block_rows ? (size_t)(n_rows - done) : block_rows);
        multiply_block(&block, x, n_tokens, y + done, y_stride);
    }
}
