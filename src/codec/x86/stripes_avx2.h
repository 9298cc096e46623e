/*
 * stripes_avx2.h - the carry form of short rows: eight rows side by side.
 *
 * What a row costs beside its weights (its place, its lists, adding the lanes of its sums) would be more than
 * half of the time where rows have 128 to 768 columns.  So eight rows make a stripe, in which each lane of 32
 * bits holds four columns of one row:
 *
 *       lane              0           1           2        ...  7
 *       32 codes          row 0,      row 1,      row 2,        row 7,
 *                         cols 0-3    cols 0-3    cols 0-3      cols 0-3
 *       activation        cols 0-3    cols 0-3    cols 0-3      cols 0-3      one load, to all lanes
 *       sums of 32 bits   row 0       row 1       row 2         row 7
 *
 * Lanes are never added to each other, and eight rows are finished at once.  Results are the same bits.
 *
 * Bodies are blocks of 128 weights, eight rows by 16 columns, packed as those of carry_avx2.h: code 32 k + 4
 * r + i is row r, column 4 k + i.  All rows of a stripe have one width, and u = q + 2^(a-1) mod 2^a. What a
 * weight is off by is listed, as in that form, but by entries of 16 bits: the column (bits 0 to 9), whether
 * 2^a is taken off (bit 10) or added, and the row (bits 11 to 13).  The width is that with the fewest bits,
 * an entry counted twice, in the fast form eight times: with one bit more than files have, nearly all stripes
 * have none.  a = 8: bytes q.
 *
 * Record: body, entries, outliers (positions are 'row n_cols + column').  The view is a struct
 * mb_coded_matrix with groups of eight rows: kinds[stripe] is a and MB_KIND_OUTLIERS, escape_counts are
 * numbers of entries. Matrices with raw groups keep the form of single rows.
 *
 * Include only from files compiled with the AVX2 flags.
 */
#ifndef MB_CODEC_STRIPES_AVX2_H
#define MB_CODEC_STRIPES_AVX2_H

#include "simd_avx2.h"

enum {
    MB_STRIPE_ROWS = 8,
    MB_STRIPE_BLOCK_COLS = 16,
    MB_STRIPE_COLS_MAX = 1023, /* longer rows are worth a record of their own */
    MB_STRIPE_COLUMN = 1023,   /* the parts of an entry */
    MB_STRIPE_MINUS = 1024,
    MB_STRIPE_ROW_SHIFT = 11,
};

/* Whether the carry form of w is stripes; w is of the patched form. */
bool mb_makes_stripes(const struct mb_coded_matrix *w);

/* Whether w is stripes: the carry form has groups of eight rows, or of one. */
MB_INLINE bool mb_is_striped(const struct mb_coded_matrix *w)
{
    return w->form == MB_FORM_CARRY && w->group_rows == MB_STRIPE_ROWS;
}

MB_INLINE size_t mb_stripe_n_blocks(size_t n_cols)
{
    return (n_cols + MB_STRIPE_BLOCK_COLS - 1) / MB_STRIPE_BLOCK_COLS;
}

/* Takes the next stripe (the caller knows that there is one): 'tail' are its entries, n_escapes how many. */
MB_INLINE void mb_stripe_next(struct mb_group_walk *walk, struct mb_group_view *view)
{
    const struct mb_coded_matrix *w = walk->w;
    uint64_t stripe = walk->group++;
    uint8_t kind = w->kinds[stripe];
    unsigned flag = kind >> 7;
    view->row = stripe * MB_STRIPE_ROWS;
    view->n_rows = w->n_rows - view->row < MB_STRIPE_ROWS ? (size_t)(w->n_rows - view->row) : MB_STRIPE_ROWS;
    view->n = view->n_rows * w->n_cols;
    view->is_raw = false;
    view->a = kind & 0x7fu;
    view->b = 0;
    view->n_escapes = mb_load_u16(w->escape_counts + 2 * stripe);
    view->n_outliers = flag * mb_load_u16(walk->outlier_count);
    walk->outlier_count += 2 * flag;
    view->body = walk->record;
    view->tail = view->body + 16 * (size_t)view->a * mb_stripe_n_blocks(w->n_cols);
    view->outlier_positions = view->tail + 2 * (size_t)view->n_escapes;
    view->outlier_values = view->outlier_positions + 2 * (size_t)view->n_outliers;
    view->end = view->outlier_values + view->n_outliers * mb_dtype_nbytes(w->dtype);
    walk->record = view->end;
}

/* A walk that begins at the stripe of 'row'. */
MB_INLINE struct mb_group_walk mb_stripe_seek(const struct mb_coded_matrix *w, uint64_t row)
{
    uint64_t stripe = row / MB_STRIPE_ROWS, tile = stripe / w->tile_groups;
    struct mb_group_walk walk = {
        .w = w,
        .group = tile * w->tile_groups,
        .record = w->data + w->tiles[tile].data_pos,
        .outlier_count = w->outlier_counts + 2 * (size_t)w->tiles[tile].first_outlier,
    };
    struct mb_group_view skipped;
    while (walk.group < stripe)
        mb_stripe_next(&walk, &skipped);
    return walk;
}

/* All indices of a stripe to q, rows without gaps; 'q' has MB_DECODED_SLACK bytes after them. */
void mb_stripe_indices_avx2(const struct mb_group_view *view, size_t n_cols, int8_t *q);

/* y = W x of n_tokens vectors, as the table's matmul; it needs no scratch memory. */
void mb_stripes_matmul_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                            const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride);

/* As struct mb_resident_form says, for matrices that mb_makes_stripes. */
uint64_t mb_stripes_nbytes_max(const struct mb_coded_matrix *w);
uint64_t mb_stripes_make(const struct mb_coded_matrix *w, unsigned n_more_bits, void *memory);
struct mb_coded_matrix mb_stripes_view(const struct mb_coded_matrix *w, const void *memory, uint64_t nbytes);

#endif
