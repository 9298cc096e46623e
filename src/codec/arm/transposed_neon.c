/*
 * transposed_neon.c - y = x^T W: each row's indices, times its X, are added to the sums of all columns.
 *
 * Sums of 32 bits hold 512 rows; then they are added to sums of 64 bits.
 */
#include "encode.h"
#include "simd_neon.h"
#include <string.h>

enum { ROWS_BEFORE_WIDEN = 512 };
_Static_assert((int64_t)ROWS_BEFORE_WIDEN *MB_Q_MAX *MB_ACTIVATION_MAX < INT32_MAX, "a sum would overflow");

struct columns {
    int64_t *whole;   /* [n_cols] */
    int64_t *wide;    /* [n_cols] sums of q E */
    double *outliers; /* [n_cols] of outliers and raw rows, in order of rows */
    int32_t *narrow;  /* [n_cols rounded up to 16] */
    size_t n_narrow;  /* rows in them */
    const struct mb_activation *x;
    size_t n_cols;
};

static size_t n_narrow_of(size_t n_cols)
{
    return (n_cols + 15) / 16 * 16;
}

static void widen(struct columns *columns)
{
    for (size_t c = 0; c < columns->n_cols; c++)
        columns->whole[c] += columns->narrow[c];
    memset(columns->narrow, 0, n_narrow_of(columns->n_cols) * sizeof(int32_t));
    columns->n_narrow = 0;
}

MB_INLINE void add_products_8(int32_t *sums, int8x8_t q, int16x8_t values)
{
    int16x8_t wide = vmovl_s8(q);
    vst1q_s32(sums, vmlal_s16(vld1q_s32(sums), vget_low_s16(wide), vget_low_s16(values)));
    vst1q_s32(sums + 4, vmlal_high_s16(vld1q_s32(sums + 4), wide, values));
}

static void add_row(struct columns *columns, const int8_t *q, size_t x_at)
{
    int16x8_t values = vdupq_n_s16((int16_t)mb_narrow_value(columns->x, x_at));
    for (size_t c = 0; c < columns->n_cols; c += 16) {
        int8x16_t v = vld1q_s8(q + c);
        add_products_8(columns->narrow + c, vget_low_s8(v), values);
        add_products_8(columns->narrow + c + 8, vget_high_s8(v), values);
    }
    if (++columns->n_narrow == ROWS_BEFORE_WIDEN)
        widen(columns);
    int64_t value = columns->x->n_wide > 0 ? mb_wide_value(columns->x, x_at) : 0;
    for (size_t c = 0; c < columns->n_cols && value != 0; c++)
        columns->wide[c] += q[c] * value;
}

/* The outliers and raw rows among rows [first, first + n_rows) of a group; their first X is x_at. */
static void add_uncoded(struct columns *columns, enum mb_dtype dtype, const struct mb_group_view *view,
                        size_t first, size_t n_rows, size_t x_at)
{
    size_t n_cols = columns->n_cols;
    for (size_t r = first; r < first + n_rows && view->is_raw; r++) {
        double value = mb_activation_value(columns->x, x_at + r - first);
        for (size_t c = 0; c < n_cols; c++)
            columns->outliers[c] += (double)mb_load_value(dtype, view->body, r * n_cols + c) * value;
    }
    for (size_t i = 0; i < view->n_outliers; i++) {
        size_t at = mb_load_u16(view->outlier_positions + 2 * i), r = at / n_cols;
        if (r >= first && r < first + n_rows)
            columns->outliers[at % n_cols] += (double)mb_load_value(dtype, view->outlier_values, i) *
                                              mb_activation_value(columns->x, x_at + r - first);
    }
}

static size_t sums_nbytes(size_t n_cols)
{
    return n_cols * (2 * sizeof(int64_t) + sizeof(double)) + n_narrow_of(n_cols) * sizeof(int32_t);
}

/* Four sums a column, and a group. */
size_t mb_transposed_scratch_nbytes_neon(size_t n_cols)
{
    return sums_nbytes(n_cols) + mb_group_room(n_cols);
}

void mb_matvec_transposed_neon(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                               const struct mb_activation *x, float *y, void *scratch)
{
    size_t n_cols = w->n_cols;
    struct columns columns = {.x = x, .n_cols = n_cols, .whole = scratch};
    columns.wide = columns.whole + n_cols;
    columns.outliers = (double *)(columns.wide + n_cols);
    columns.narrow = (int32_t *)(columns.outliers + n_cols);
    int8_t *q = (int8_t *)(columns.narrow + n_narrow_of(n_cols));
    memset(scratch, 0, sums_nbytes(n_cols));
    struct mb_group_walk walk = n_rows > 0 ? mb_group_seek(w, row) : (struct mb_group_walk){.w = w};
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        uint64_t group_end = view.row + view.n_rows < end ? view.row + view.n_rows : end;
        size_t first = (size_t)(at - view.row), n = (size_t)(group_end - at), x_at = (size_t)(at - row);
        add_uncoded(&columns, w->dtype, &view, first, n, x_at);
        if (!view.is_raw)
            mb_group_indices_neon(&view, q);
        for (size_t r = 0; r < n && !view.is_raw; r++)
            add_row(&columns, q + (first + r) * n_cols, x_at + r);
        at = group_end;
    }
    widen(&columns);
    double step = (double)w->step, scale = (double)x->scale;
    for (size_t c = 0; c < n_cols; c++)
        y[c] = (float)(mb_sum_of_parts(columns.whole[c], columns.wide[c]) * step * scale +
                       columns.outliers[c] * scale);
}
