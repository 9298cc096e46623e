/*
 * matmul_kernels.h - products with many vectors, written once for instruction sets that multiply bytes: a
 * block of rows is decoded to indices q, which meet both planes of all tokens while they are in L2.
 *
 * A file that includes this has defined, for its instruction set:
 *   NAMED(name)                 the name with the suffix of the instruction set
 *   seek, next, group_indices   a walk to a row, its next group, and all indices of one that is not raw
 *   wide_sum                    the sum of a row's q E
 *   TILE_ROWS, TILE_TOKENS, tile_product
 *                               the sums of q (256 hi + lo) of TILE_ROWS rows and n_tokens <= TILE_TOKENS
 * tokens and has a product of one vector, NAMED(mb_matvec).  It may define MATMUL_FAST and
 * MATMUL_FAST_SCRATCH_NBYTES, what multiplies fast activations; else they are multiplied as others are.
 */
#include "base/inline.h"
#include "kernels.h"
#include <string.h>

enum { BLOCK_ROWS_MAX = 64 };

/* Rows that are decoded at once: about 128 KiB, which stay in L2 while all tokens pass. */
static size_t block_rows_of(size_t n_cols)
{
    size_t rows = 131072 / n_cols / 16 * 16;
    return rows < 16 ? 16 : rows > BLOCK_ROWS_MAX ? BLOCK_ROWS_MAX : rows;
}

/* So few tokens use the product of one. */
enum { TOKENS_ONE_BY_ONE = 2 };

struct row {
    struct mb_group_view group;
    size_t row_in_group;
};

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
    next(&source->walk, &source->next.group);
    source->next.row_in_group = 0;
    if (!source->next.group.is_raw && source->walk.w->group_rows > 1)
        group_indices(source->walk.w, &source->next.group, source->q);
}

/* Bytes after a row's columns are unspecified: X is 0 there. */
static void fill_block(struct source *source, struct block *block, size_t n_rows)
{
    size_t n_cols = block->w->n_cols;
    block->n_rows = n_rows;
    for (size_t r = 0; r < n_rows; r++) {
        struct row *row = &source->next;
        int8_t *q = block->q + r * block->row_nbytes;
        if (row->row_in_group == row->group.n_rows)
            next_group(source);
        block->rows[r] = *row;
        if (!row->group.is_raw && block->w->group_rows > 1)
            memcpy(q, source->q + row->row_in_group * n_cols, n_cols);
        else if (!row->group.is_raw)
            group_indices(block->w, &row->group, q);
        row->row_in_group++;
    }
}

/* The result of row r of a block, whose sum of q (256 hi + lo) is 'narrow'. */
static float finish_row(const struct block *block, size_t r, int64_t narrow, const struct mb_activation *x)
{
    const struct mb_coded_matrix *w = block->w;
    const struct row *row = &block->rows[r];
    const struct mb_group_view *group = &row->group;
    if (group->is_raw)
        return mb_raw_row_product(
            w->dtype, group->body + row->row_in_group * w->n_cols * mb_dtype_nbytes(w->dtype), w->n_cols, x);
    unsigned first = 0;
    double scale = (double)x->scale, s = (double)narrow, o = 0;
    if (x->n_wide > 0)
        s = mb_sum_of_parts(narrow, wide_sum(block->q + r * block->row_nbytes, x));
    if (group->n_outliers > 0)
        o = mb_row_outliers(w->dtype, group, w->n_cols, row->row_in_group, &first, x);
    return (float)(s * (double)w->step * scale + o * scale);
}

/* TILE_ROWS rows from r on (the last one is repeated where there are fewer) times n_tokens tokens. */
static void multiply_tile(const struct block *block, size_t r, const struct mb_activation *x, size_t n_tokens,
                          float *y, size_t y_stride)
{
    const int8_t *q[TILE_ROWS];
    int64_t sums[TILE_TOKENS][TILE_ROWS];
    for (size_t i = 0; i < TILE_ROWS; i++)
        q[i] = block->q + (r + i < block->n_rows ? r + i : block->n_rows - 1) * block->row_nbytes;
    tile_product(q, x, n_tokens, block->w->n_cols, sums);
    for (size_t t = 0; t < n_tokens; t++)
        for (size_t i = 0; i < TILE_ROWS && r + i < block->n_rows; i++)
            y[t * y_stride + r + i] = finish_row(block, r + i, sums[t][i], &x[t]);
}

/* One more than a tile has are two halves. */
static size_t tile_tokens(size_t n_left)
{
    if (n_left == TILE_TOKENS + 1)
        return (TILE_TOKENS + 1) / 2;
    return n_left < TILE_TOKENS ? n_left : TILE_TOKENS;
}

/* A group and a block of rows. */
size_t NAMED(mb_matmul_scratch_nbytes)(size_t n_cols)
{
    size_t nbytes =
        mb_group_room(n_cols) + block_rows_of(n_cols) * mb_matmul_row_nbytes(n_cols) + MB_DECODED_SLACK;
#ifdef MATMUL_FAST
    size_t fast_nbytes = MATMUL_FAST_SCRATCH_NBYTES(n_cols);
    nbytes = fast_nbytes > nbytes ? fast_nbytes : nbytes;
#endif
    return nbytes;
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
#ifdef MATMUL_FAST
    if (mb_all_fast(x, n_tokens)) {
        MATMUL_FAST(w, row, n_rows, x, n_tokens, y, y_stride, scratch);
        return;
    }
#endif
    size_t block_rows = block_rows_of(w->n_cols);
    struct source source = {.walk = seek(w, row), .q = scratch};
    struct block block = {.w = w,
                          .row_nbytes = mb_matmul_row_nbytes(w->n_cols),
                          .q = (int8_t *)scratch + mb_group_room(w->n_cols)};
    next_group(&source);
    source.next.row_in_group = (size_t)(row - source.next.group.row);
    for (uint64_t done = 0; done < n_rows; done += block.n_rows) {
        fill_block(&source, &block, n_rows - done < block_rows ? (size_t)(n_rows - done) : block_rows);
        for (size_t t = 0, tokens; t < n_tokens; t += tokens) {
            tokens = tile_tokens(n_tokens - t);
            for (size_t r = 0; r < block.n_rows; r += TILE_ROWS)
                multiply_tile(&block, r, x + t, tokens, y + t * y_stride + done, y_stride);
        }
    }
}
