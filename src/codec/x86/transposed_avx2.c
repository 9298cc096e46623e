/*
 * transposed_avx2.c - y = x^T W: two rows' indices are interleaved, so that vpmaddwd adds both to the sums of
 * columns.  (vpdpbusd of AVX-512 adds four rows: transposed_avx512.c.)
 *
 * Sums of 32 bits hold 512 rows; then they are added to sums of 64 bits, where the columns are in their
 * order.
 */
#include "carry_avx2.h"
#include "encode.h"
#include <string.h>

enum { ROWS_BEFORE_WIDEN = 512 };
_Static_assert((int64_t)ROWS_BEFORE_WIDEN *MB_Q_MAX *MB_ACTIVATION_MAX < INT32_MAX, "a sum would overflow");

struct columns {
    int64_t *whole;   /* [n_cols] */
    int64_t *wide;    /* [n_cols] sums of q E */
    double *outliers; /* [n_cols] of outliers and raw rows, in order of rows */
    int32_t *narrow;  /* [n_cols rounded up to 16] columns of each 16 in the order 0-3, 8-11, 4-7, 12-15 */
    size_t n_narrow;  /* rows in them */
    const struct mb_activation *x;
    const struct mb_coded_matrix *w;
    size_t n_cols;
};

/* A decoded row that waits for a second one. */
struct waiting {
    const int8_t *q; /* NULL: none */
    int32_t value;
};

static void widen(struct columns *columns)
{
    static const uint8_t order[16] = {0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15};
    for (size_t c = 0; c < columns->n_cols; c++)
        columns->whole[c] += columns->narrow[c / 16 * 16 + order[c % 16]];
    memset(columns->narrow, 0, (columns->n_cols + 15) / 16 * 16 * sizeof(int32_t));
    columns->n_narrow = 0;
}

static __m256i indices_16(const int8_t *q)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)q));
}

static void multiply_pair(struct columns *columns, const struct waiting *first, const struct waiting *second)
{
    __m256i values =
        _mm256_set1_epi32((int)((uint32_t)(first->value & 0xffff) | (uint32_t)second->value << 16));
    for (size_t c = 0; c < columns->n_cols; c += 16) {
        __m256i q0 = indices_16(first->q + c), q1 = indices_16(second->q + c);
        __m256i *sums = (__m256i *)(columns->narrow + c);
        __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(q0, q1), values);
        __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(q0, q1), values);
        _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), low));
        _mm256_storeu_si256(sums + 1, _mm256_add_epi32(_mm256_loadu_si256(sums + 1), high));
    }
    columns->n_narrow += 2;
    if (columns->n_narrow == ROWS_BEFORE_WIDEN)
        widen(columns);
}

static void add_row(struct columns *columns, struct waiting *waiting, struct waiting row)
{
    if (waiting->q == NULL) {
        *waiting = row;
        return;
    }
    multiply_pair(columns, waiting, &row);
    waiting->q = NULL;
}

/* Multiplies a row that waits in vain for a second one. */
static void end_pair(struct columns *columns, struct waiting *waiting)
{
    if (waiting->q != NULL)
        add_row(columns, waiting, (struct waiting){waiting->q, 0});
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

static void add_wide(struct columns *columns, const int8_t *q, int64_t value)
{
    for (size_t c = 0; c < columns->n_cols && value != 0; c++)
        columns->wide[c] += q[c] * value;
}

static void add_group(struct columns *columns, struct waiting *waiting, const struct mb_group_view *view,
                      size_t first, size_t n_rows, size_t x_at, int8_t *q)
{
    if (view->is_raw)
        return;
    mb_indices_avx2(columns->w, view, q);
    q += first * columns->n_cols;
    for (size_t r = 0; r < n_rows; r++, q += columns->n_cols, x_at++) {
        if (columns->x->n_wide > 0)
            add_wide(columns, q, mb_wide_value(columns->x, x_at));
        add_row(columns, waiting, (struct waiting){q, mb_narrow_value(columns->x, x_at)});
    }
}

static size_t n_narrow_of(size_t n_cols)
{
    return (n_cols + 15) / 16 * 16;
}

/* Four sums a column, and two groups. */
size_t mb_transposed_scratch_nbytes_avx2(size_t n_cols)
{
    return n_cols * (2 * sizeof(int64_t) + sizeof(double)) + n_narrow_of(n_cols) * sizeof(int32_t) +
           2 * mb_group_room(n_cols);
}

void mb_matvec_transposed_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                               const struct mb_activation *x, float *y, void *scratch)
{
    size_t n_cols = w->n_cols, n_narrow = n_narrow_of(n_cols);
    struct columns columns = {.x = x, .w = w, .n_cols = n_cols, .whole = scratch};
    columns.wide = columns.whole + n_cols;
    columns.outliers = (double *)(columns.wide + n_cols);
    columns.narrow = (int32_t *)(columns.outliers + n_cols);
    int8_t *groups = (int8_t *)(columns.narrow + n_narrow);
    memset(scratch, 0, n_cols * (2 * sizeof(int64_t) + sizeof(double)) + n_narrow * sizeof(int32_t));
    struct waiting waiting = {0};
    size_t n_decoded = 0; /* groups */
    struct mb_group_walk walk = n_rows > 0 ? mb_seek_avx2(w, row) : (struct mb_group_walk){.w = w};
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view view;
        mb_next_avx2(&walk, &view);
        uint64_t group_end = view.row + view.n_rows < end ? view.row + view.n_rows : end;
        size_t first = (size_t)(at - view.row), n = (size_t)(group_end - at), x_at = (size_t)(at - row);
        add_uncoded(&columns, w->dtype, &view, first, n, x_at);
        add_group(&columns, &waiting, &view, first, n, x_at,
                  groups + n_decoded % 2 * mb_group_room(n_cols)); /* a row of the last one may wait */
        n_decoded += !view.is_raw;
        at = group_end;
    }
    end_pair(&columns, &waiting);
    widen(&columns);
    double step = (double)w->step, scale = (double)x->scale;
    for (size_t c = 0; c < n_cols; c++)
        y[c] = (float)(mb_sum_of_parts(columns.whole[c], columns.wide[c]) * step * scale +
                       columns.outliers[c] * scale);
}
