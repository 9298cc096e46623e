/*
 * transposed_avx512.c - y = x^T W: rows are decoded four at a time and their bytes interleaved, so that
 * vpdpbusd adds four rows to the sums of sixteen columns.
 *
 * Sums are in the order in which interleaving leaves the columns of each 64; they are sorted once, at the
 * end.
 */
#include "simd_avx512.h"
#include <string.h>

enum { ROWS = 4 };

struct columns {
    int32_t *hi, *lo; /* [n_cols rounded up to 64] sums of u * hi, u * lo, columns of each 64 interleaved */
    double *outliers; /* [n_cols rounded up to 64] of outliers and raw rows, in order of rows */
    int64_t *wide;    /* [n_cols rounded up to 64] sums of q E */
    int64_t offsets;  /* sum of offset * X over the rows */
    const struct mb_activation *x;
    size_t n_cols;
};

/* Up to four rows that wait for their product. */
struct rows {
    const uint8_t *bytes[ROWS];
    int8_t hi[ROWS], lo[ROWS];
    size_t n;
};

static int32_t four_bytes(const int8_t bytes[ROWS])
{
    return (int32_t)mb_load_u32(bytes);
}

/* 64 columns of four rows: dwords of four rows; column 16 l + 4 k + i is dword 4 l + i of out[k]. */
MB_INLINE void interleave(const uint8_t *const bytes[ROWS], size_t c, __m512i out[4])
{
    __m512i r0 = _mm512_loadu_si512(bytes[0] + c), r1 = _mm512_loadu_si512(bytes[1] + c);
    __m512i r2 = _mm512_loadu_si512(bytes[2] + c), r3 = _mm512_loadu_si512(bytes[3] + c);
    __m512i low01 = _mm512_unpacklo_epi8(r0, r1), low23 = _mm512_unpacklo_epi8(r2, r3);
    __m512i high01 = _mm512_unpackhi_epi8(r0, r1), high23 = _mm512_unpackhi_epi8(r2, r3);
    out[0] = _mm512_unpacklo_epi16(low01, low23);
    out[1] = _mm512_unpackhi_epi16(low01, low23);
    out[2] = _mm512_unpacklo_epi16(high01, high23);
    out[3] = _mm512_unpackhi_epi16(high01, high23);
}

static void multiply_rows(struct columns *columns, struct rows *rows)
{
    if (rows->n == 0)
        return;
    for (size_t i = rows->n; i < ROWS; i++) { /* X of missing rows is 0 */
        rows->bytes[i] = rows->bytes[0];
        rows->hi[i] = rows->lo[i] = 0;
    }
    __m512i hi = _mm512_set1_epi32(four_bytes(rows->hi)), lo = _mm512_set1_epi32(four_bytes(rows->lo));
    for (size_t c = 0; c < columns->n_cols; c += 64) {
        __m512i u[4];
        interleave(rows->bytes, c, u);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++) {
            int32_t *sum_hi = columns->hi + c + 16 * k, *sum_lo = columns->lo + c + 16 * k;
            _mm512_storeu_si512(sum_hi, mb_dot_512(_mm512_loadu_si512(sum_hi), u[k], hi));
            _mm512_storeu_si512(sum_lo, mb_dot_512(_mm512_loadu_si512(sum_lo), u[k], lo));
        }
    }
    rows->n = 0;
}

static void add_wide(struct columns *columns, const uint8_t *bytes, int64_t offset, int64_t value)
{
    for (size_t c = 0; c < columns->n_cols && value != 0; c++)
        columns->wide[c] += (bytes[c] - offset) * value;
}

static void add_row(struct columns *columns, struct rows *rows, const uint8_t *bytes, int64_t offset,
                    size_t x_at)
{
    rows->bytes[rows->n] = bytes;
    rows->hi[rows->n] = columns->x->hi[x_at];
    rows->lo[rows->n] = columns->x->lo[x_at];
    columns->offsets += offset * mb_narrow_value(columns->x, x_at);
    if (columns->x->n_wide > 0)
        add_wide(columns, bytes, offset, mb_wide_value(columns->x, x_at));
    if (++rows->n == ROWS)
        multiply_rows(columns, rows);
}

static void add_raw_row(struct columns *columns, enum mb_dtype dtype, const uint8_t *values, double value)
{
    __m512d factor = _mm512_set1_pd(value);
    for (size_t c = 0; c < columns->n_cols; c += 8) {
        __mmask16 lanes = mb_lanes_16(columns->n_cols - c) & 0xff;
        __m512 w = mb_load_values_16(dtype, values + c * mb_dtype_nbytes(dtype), lanes);
        __m512d sum =
            _mm512_loadu_pd(columns->outliers + c); /* the product is exact: fma rounds as two steps do */
        sum = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(w)), factor, sum);
        _mm512_storeu_pd(columns->outliers + c, sum);
    }
}

/* The outliers and raw rows among rows [first, first + n_rows) of a group; their first X is x_at. */
static void add_uncoded(struct columns *columns, enum mb_dtype dtype, const struct mb_group_view *view,
                        size_t first, size_t n_rows, size_t x_at)
{
    size_t row_nbytes = columns->n_cols * mb_dtype_nbytes(dtype);
    if (view->is_raw)
        for (size_t r = 0; r < n_rows; r++)
            add_raw_row(columns, dtype, view->body + (first + r) * row_nbytes,
                        mb_activation_value(columns->x, x_at + r));
    for (size_t i = 0; i < view->n_outliers; i++) {
        size_t at = mb_load_u16(view->outlier_positions + 2 * i), r = at / columns->n_cols;
        if (r >= first && r < first + n_rows)
            columns->outliers[at % columns->n_cols] += (double)mb_load_value(dtype, view->outlier_values, i) *
                                                       mb_activation_value(columns->x, x_at + r - first);
    }
}

/* y = S step scale + O scale, with the columns back in order. */
static void finish(const struct columns *columns, float step, float *y)
{
    __m512d factor = _mm512_set1_pd((double)step), scale = _mm512_set1_pd((double)columns->x->scale);
    for (size_t c = 0; c < columns->n_cols; c += 8) {
        /* columns c to c + 7 are two quads of the 64, in neighbouring registers' lane (c / 16) % 4 */
        size_t quad = c / 64 * 64 + c % 16 / 4 * 16 + c % 64 / 16 * 4;
        __m256i hi = _mm256_loadu2_m128i((const __m128i *)(columns->hi + quad + 16),
                                         (const __m128i *)(columns->hi + quad));
        __m256i lo = _mm256_loadu2_m128i((const __m128i *)(columns->lo + quad + 16),
                                         (const __m128i *)(columns->lo + quad));
        __m512i s =
            _mm512_add_epi64(_mm512_slli_epi64(_mm512_cvtepi32_epi64(hi), 8), _mm512_cvtepi32_epi64(lo));
        __m512d v = _mm512_cvtepi64_pd(_mm512_sub_epi64(s, _mm512_set1_epi64(columns->offsets)));
        __m512d wide = _mm512_cvtepi64_pd(_mm512_loadu_si512(columns->wide + c));
        v = _mm512_add_pd(v, _mm512_mul_pd(wide, _mm512_set1_pd(MB_WIDE_UNIT))); /* mb_sum_of_parts */
        v = _mm512_add_pd(_mm512_mul_pd(_mm512_mul_pd(v, factor), scale),
                          _mm512_mul_pd(_mm512_loadu_pd(columns->outliers + c), scale));
        _mm256_mask_storeu_ps(y + c, (__mmask8)mb_lanes_16(columns->n_cols - c), _mm512_cvtpd_ps(v));
    }
}

static size_t n_sums_of(size_t n_cols)
{
    return (n_cols + 63) / 64 * 64;
}

/* Four sums a column, and a group for each row that may wait. */
size_t mb_transposed_scratch_nbytes_avx512(size_t n_cols)
{
    return n_sums_of(n_cols) * (sizeof(double) + sizeof(int64_t) + 2 * sizeof(int32_t)) +
           ROWS * mb_group_room(n_cols);
}

void mb_matvec_transposed_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                                 const struct mb_activation *x, float *y, void *scratch)
{
    size_t n_sums = n_sums_of(w->n_cols), room = mb_group_room(w->n_cols);
    struct columns columns = {.x = x, .n_cols = w->n_cols, .outliers = scratch};
    columns.wide = (int64_t *)(columns.outliers + n_sums);
    columns.hi = (int32_t *)(columns.wide + n_sums);
    columns.lo = columns.hi + n_sums;
    uint8_t *groups = (uint8_t *)(columns.lo + n_sums);
    memset(scratch, 0, n_sums * (sizeof(double) + sizeof(int64_t) + 2 * sizeof(int32_t)));
    struct rows rows = {.n = 0};
    size_t n_decoded = 0; /* groups */
    struct mb_group_walk walk = n_rows > 0 ? mb_group_seek(w, row) : (struct mb_group_walk){.w = w};
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        uint64_t group_end = view.row + view.n_rows < end ? view.row + view.n_rows : end;
        size_t first = (size_t)(at - view.row), n = (size_t)(group_end - at);
        add_uncoded(&columns, w->dtype, &view, first, n, (size_t)(at - row));
        uint8_t *bytes = groups + n_decoded % ROWS * room; /* rows of the last three may wait */
        if (!view.is_raw) {
            mb_group_bytes_avx512(&view, bytes);
            n_decoded++;
        }
        for (size_t r = 0; r < n && !view.is_raw; r++)
            add_row(&columns, &rows, bytes + (first + r) * w->n_cols, mb_offset_512(view.a, view.b),
                    (size_t)(at - row) + r);
        at = group_end;
    }
    multiply_rows(&columns, &rows);
    finish(&columns, w->step, y);
}
