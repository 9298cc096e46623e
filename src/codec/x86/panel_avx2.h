/*
 * panel_avx2.h - rows of a matrix as products with many vectors take them: decoded, sixteen side by side.
 *
 * Each lane of 32 bits belongs to one row, so that a vector's elements are loaded once for eight rows (to all
 * lanes), and sums are never added to each other.  A step is 32 bytes, the same columns of eight rows; the
 * steps of rows 8 to 15 are after all of those of rows 0 to 7:
 *
 *       lane             0          1          ...  7
 *       bytes u          row 0,     row 1,          row 7,     4 columns
 *       words q          row 0,     row 1,          row 7,     2 columns
 *
 * Bytes are u = q + offset, 0 <= u <= 2 offset, where offset is 8, 16, 32 or 64: with the smaller ones, more
 * products of 8-bit elements fit a lane of 16 bits together.  What few indices are beyond is listed.  Where
 * many are beyond 64, a second part has the rest: q = u - 64 + u' - 64.
 *
 * Include only from files compiled with the AVX2 flags.
 */
#ifndef MB_CODEC_PANEL_AVX2_H
#define MB_CODEC_PANEL_AVX2_H

#include "carry_avx2.h"

enum {
    MB_PANEL_ROWS = 16,
    MB_PANEL_HALF = 8,
    MB_PANEL_STEP_NBYTES = 32,
    MB_PANEL_LIST_MAX = 96, /* listed indices, and outliers */
    MB_PANEL_OFFSET_MIN = 8,
    MB_PANEL_OFFSET_MAX = 64,
};

/* A row of a group. */
struct mb_panel_row {
    struct mb_group_view group;
    size_t row_in_group;
};

/* By how much an index exceeds what its byte says. */
struct mb_panel_excess {
    uint16_t row, column;
    int q;
};

struct mb_panel_outlier {
    uint16_t row, column;
    double value;
};

struct mb_panel {
    uint8_t *codes;         /* n_parts times [2][steps] */
    size_t row_nbytes;      /* columns, to a multiple of 128 */
    size_t n_parts, offset; /* of bytes */
    unsigned most;          /* no |q| is above it */
    size_t n_rows, n_excess, n_outliers;
    uint32_t raw_rows, outlier_rows; /* a bit a row: is raw, has outliers */
    bool has_all_outliers;           /* of rows that are not raw */
    struct mb_panel_row rows[MB_PANEL_ROWS];
    struct mb_panel_excess excess[MB_PANEL_LIST_MAX];
    struct mb_panel_outlier outliers[MB_PANEL_LIST_MAX];
};

/* Decodes rows one after another, whatever their groups. */
struct mb_panel_source {
    struct mb_group_walk walk;
    struct mb_panel_row next;
    int8_t *group; /* decoded, where groups have several rows */
    int8_t *q;     /* the rows of a panel, where groups have several rows; else of half a panel */
};

/* Begins at 'row'; 'memory' has mb_panel_source_nbytes. */
size_t mb_panel_source_nbytes(size_t n_cols);
struct mb_panel_source mb_panel_source_at(const struct mb_coded_matrix *w, uint64_t row, int8_t *memory);

/* The next n_rows (1 to MB_PANEL_ROWS); rows after them are 0. The caller has set codes: two parts of bytes.
 */
void mb_panel_fill_bytes(struct mb_panel_source *source, size_t n_rows, struct mb_panel *panel);
void mb_panel_fill_words(struct mb_panel_source *source, size_t n_rows, struct mb_panel *panel);

/* As mb_matmul_avx2, for a few tokens whose activations are exact: without panels (matmul_few_avx2.c). */
void mb_matmul_few_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                        const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                        void *scratch);
size_t mb_matmul_few_scratch_nbytes_avx2(size_t n_cols);

#endif
