/*
 * panel_avx2.h - rows of a matrix as products with many vectors take them: decoded, sixteen side by side.
 *
 * Each lane of 32 bits belongs to one row, so that a vector's elements are loaded once for eight rows (to all
 * lanes), and sums are never added to each other.  A step is 64 bytes, the same columns of all rows:
 *
 *       lane             0          1          ...  7          8          ...  15
 *       bytes u          row 0,     row 1,          row 7,     row 8,          row 15,     4 columns
 *       words q          row 0,     row 1,          row 7,     row 8,          row 15,     2 columns
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
    MB_PANEL_STEP_NBYTES = 64,
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
    uint8_t *codes;         /* steps: words, or n_parts times bytes, part_nbytes each */
    size_t part_nbytes;     /* MB_PANEL_ROWS rows of bytes, to a multiple of 128 columns */
    size_t n_parts, offset; /* of bytes */
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
    int8_t *q;     /* the rows of a panel */
};

/* Begins at 'row'; 'memory' has mb_panel_source_nbytes. */
size_t mb_panel_source_nbytes(size_t n_cols);
struct mb_panel_source mb_panel_source_at(const struct mb_coded_matrix *w, uint64_t row, int8_t *memory);

/* The next n_rows (1 to MB_PANEL_ROWS); rows after them are 0. The caller has set codes: two parts of bytes.
 */
void mb_panel_fill_bytes(struct mb_panel_source *source, size_t n_rows, struct mb_panel *panel);
void mb_panel_fill_words(struct mb_panel_source *source, size_t n_rows, struct mb_panel *panel);

#endif
