/*
 * matvec_avx512.c - the fused product y = W x: codes to bytes to vpdpbusd, nothing written in between.
 *
 * Two loads of codes make 128 weights; each 64 take a compare, an expand and two products, so that the two
 * vector ports of a core are the limit (about 4 cycles for 64 weights).  Tails are decoded one group ahead of
 * their use, into a buffer in L1: the stores have left the store buffer when the loads come, whatever their
 * alignment.
 */
#include "codec/simd_avx512.h"
#include <string.h>

enum { ROWS_PENDING = 8 };

/* The outliers of a pending row. */
struct exact {
    const uint8_t *positions, *values;
    size_t n, row;
};

/* Rows whose sums are not yet added up over their lanes: done for eight rows at once. */
struct pending {
    __m512i sums[2 * ROWS_PENDING]; /* of u * hi and u * lo, row by row */
    int64_t offset[ROWS_PENDING];
    double outliers[ROWS_PENDING];
    size_t n;
    struct exact exact[ROWS_PENDING + 1]; /* of groups of one row, and room for one that has none */
    size_t n_exact;
    enum mb_dtype dtype;
    const struct mb_activation *x;
    double step;
    float *y; /* of the first pending row */
};

/* Lane i of the result is the sum of the lanes of v[i]. */
static inline __m512i add_lanes_16(const __m512i v[16])
{
    __m512i quad[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i *q = v + 4 * i;
        __m512i s01 = _mm512_add_epi32(_mm512_unpacklo_epi32(q[0], q[1]), _mm512_unpackhi_epi32(q[0], q[1]));
        __m512i s23 = _mm512_add_epi32(_mm512_unpacklo_epi32(q[2], q[3]), _mm512_unpackhi_epi32(q[2], q[3]));
        quad[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(s01, s23), _mm512_unpackhi_epi64(s01, s23));
    }
    __m512i r01 = _mm512_add_epi32(_mm512_shuffle_i32x4(quad[0], quad[1], 0x44),
                                   _mm512_shuffle_i32x4(quad[0], quad[1], 0xee));
    __m512i r23 = _mm512_add_epi32(_mm512_shuffle_i32x4(quad[2], quad[3], 0x44),
                                   _mm512_shuffle_i32x4(quad[2], quad[3], 0xee));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(r01, r23, 0x88), _mm512_shuffle_i32x4(r01, r23, 0xdd));
}

static double outliers_of(const struct exact *exact, enum mb_dtype dtype, const struct mb_activation *x)
{
    double sum = 0;
    for (size_t i = 0; i < exact->n; i++) {
        size_t c = mb_load_u16(exact->positions + 2 * i);
        sum += (double)mb_load_value(dtype, exact->values, i) * (double)(256 * x->hi[c] + x->lo[c]);
    }
    return sum;
}

static void flush(struct pending *pending)
{
    if (pending->n == 0)
        return;
    for (size_t i = 0; i < pending->n_exact; i++)
        pending->outliers[pending->exact[i].row] =
            outliers_of(&pending->exact[i], pending->dtype, pending->x);
    pending->n_exact = 0;
    __m512i sums = add_lanes_16(pending->sums); /* hi, lo, hi, lo, ... */
    __m512i hi = _mm512_srai_epi64(_mm512_slli_epi64(sums, 32), 32), lo = _mm512_srai_epi64(sums, 32);
    __m512i shift =
        _mm512_mullo_epi64(_mm512_loadu_si512(pending->offset), _mm512_set1_epi64(pending->x->sum));
    __m512i s = _mm512_sub_epi64(_mm512_add_epi64(_mm512_slli_epi64(hi, 8), lo), shift);
    __m512d scale = _mm512_set1_pd((double)pending->x->scale);
    __m512d y = _mm512_mul_pd(_mm512_mul_pd(_mm512_cvtepi64_pd(s), _mm512_set1_pd(pending->step)), scale);
    y = _mm512_add_pd(y, _mm512_mul_pd(_mm512_loadu_pd(pending->outliers), scale));
    _mm256_mask_storeu_ps(pending->y, (__mmask8)((1u << pending->n) - 1), _mm512_cvtpd_ps(y));
    pending->y += pending->n;
    pending->n = 0;
}

/*
 * The sums over lanes-to-be of n_rows rows of n_cols weights that follow one another: n_cols is a multiple of
 * 128 or there is one row.  'tail' are decoded bytes.
 */
MB_INLINE void group_sums(unsigned a, unsigned b, const uint8_t *p, const uint8_t *tail, size_t n_rows,
                          size_t n_cols, const struct mb_activation *x, __m512i *sums)
{
    struct mb_body_512 body = mb_body_of_kind(a, b);
    for (size_t r = 0; r < n_rows; r++, sums += 2) {
        __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0, u[2];
        size_t c = 0;
        for (; c + 128 <= n_cols; c += 128, p += 16 * a) {
            mb_prefetch_512(p, 16 * a);
            mb_decode_128(p, a, &body, &tail, u);
            s0 = mb_dot_512(s0, u[0], _mm512_loadu_si512(x->hi + c));
            s1 = mb_dot_512(s1, u[0], _mm512_loadu_si512(x->lo + c));
            s2 = mb_dot_512(s2, u[1], _mm512_loadu_si512(x->hi + c + 64));
            s3 = mb_dot_512(s3, u[1], _mm512_loadu_si512(x->lo + c + 64));
        }
        if (c < n_cols) {
            size_t at = c + mb_decode_last(p, a, &body, n_cols - c, tail, u);
            s0 = mb_dot_512(s0, u[0], _mm512_loadu_si512(x->hi + c));
            s1 = mb_dot_512(s1, u[0], _mm512_loadu_si512(x->lo + c));
            s2 = mb_dot_512(s2, u[1], _mm512_loadu_si512(x->hi + at));
            s3 = mb_dot_512(s3, u[1], _mm512_loadu_si512(x->lo + at));
        }
        sums[0] = _mm512_add_epi32(s0, s2);
        sums[1] = _mm512_add_epi32(s1, s3);
    }
}

/* One function a width keeps constants in registers and shifts immediate. */
#define SUMS_OF_WIDTH(a)                                                                                     \
    static                                                                                                   \
        __attribute__((noinline)) void sums_##a(const struct mb_group_view *view, const uint8_t *tail,       \
                                                size_t n_cols, const struct mb_activation *x, __m512i *sums) \
    {                                                                                                        \
        group_sums(a, view->b, view->body, tail, view->n_rows, n_cols, x, sums);                             \
    }

SUMS_OF_WIDTH(1)
SUMS_OF_WIDTH(2)
SUMS_OF_WIDTH(3)
SUMS_OF_WIDTH(4)
SUMS_OF_WIDTH(5)
SUMS_OF_WIDTH(6)
SUMS_OF_WIDTH(7)
SUMS_OF_WIDTH(8)

static void (*const sums_of_width[])(const struct mb_group_view *, const uint8_t *, size_t,
                                     const struct mb_activation *, __m512i *) = {
    NULL, sums_1, sums_2, sums_3, sums_4, sums_5, sums_6, sums_7, sums_8,
};

/*
 * Whether a row has outliers cannot be foreseen: those of groups of one row are noted without a branch, for
 * one short loop over eight rows.
 */
static void add_outliers(struct pending *pending, const struct mb_coded_matrix *w,
                         const struct mb_group_view *view)
{
    unsigned next_outlier = 0;
    for (size_t r = 0; r < view->n_rows; r++) {
        pending->offset[pending->n + r] = mb_offset_512(view->a, view->b);
        pending->outliers[pending->n + r] =
            view->n_rows == 1 ? 0 : mb_row_outliers(w->dtype, view, w->n_cols, r, &next_outlier, pending->x);
    }
    pending->exact[pending->n_exact] =
        (struct exact){view->outlier_positions, view->outlier_values, view->n_outliers, pending->n};
    pending->n_exact += view->n_rows == 1 && view->n_outliers > 0;
}

/* Rows of a group straight from its codes. */
static void add_group(struct pending *pending, const struct mb_coded_matrix *w,
                      const struct mb_group_view *view, const uint8_t *tail)
{
    if (pending->n + view->n_rows > ROWS_PENDING)
        flush(pending);
    add_outliers(pending, w, view);
    __m512i *sums = pending->sums + 2 * pending->n;
    if (view->a == 0) /* all q are 0 */
        memset(sums, 0, 2 * view->n_rows * sizeof *sums);
    else
        sums_of_width[view->a](view, tail, w->n_cols, pending->x, sums);
    pending->n += view->n_rows;
}

static void dot_bytes(const uint8_t *u, size_t n_cols, const struct mb_activation *x, __m512i *sums)
{
    sums[0] = sums[1] = _mm512_setzero_si512();
    for (size_t c = 0; c < n_cols; c += 64) {
        __m512i v = _mm512_loadu_si512(u + c);
        sums[0] = mb_dot_512(sums[0], v, _mm512_loadu_si512(x->hi + c));
        sums[1] = mb_dot_512(sums[1], v, _mm512_loadu_si512(x->lo + c));
    }
}

/* Rows [first, first + n_rows) of a group of several rows, by way of bytes in L1. */
static void add_group_part(struct pending *pending, const struct mb_coded_matrix *w,
                           const struct mb_group_view *view, size_t first, size_t n_rows)
{
    uint8_t bytes[2 * MB_GROUP_WEIGHTS + MB_DECODED_SLACK];
    mb_group_bytes_avx512(view, bytes);
    unsigned next_outlier = 0;
    for (size_t r = first; r < first + n_rows; r++) {
        if (pending->n == ROWS_PENDING)
            flush(pending);
        pending->offset[pending->n] = mb_offset_512(view->a, view->b);
        pending->outliers[pending->n] =
            mb_row_outliers(w->dtype, view, w->n_cols, r, &next_outlier, pending->x);
        dot_bytes(bytes + r * w->n_cols, w->n_cols, pending->x, pending->sums + 2 * pending->n);
        pending->n++;
    }
}

static void add_raw_rows(struct pending *pending, const struct mb_coded_matrix *w,
                         const struct mb_group_view *view, size_t first, size_t n_rows)
{
    flush(pending);
    size_t row_nbytes = w->n_cols * mb_dtype_nbytes(w->dtype);
    for (size_t r = first; r < first + n_rows; r++)
        *pending->y++ =
            mb_raw_row_product_avx512(w->dtype, view->body + r * row_nbytes, w->n_cols, pending->x);
}

/* A group and its tail's bytes, decoded ahead. */
struct group {
    struct mb_group_view view;
    const uint8_t *tail;
};

static void take_group(struct mb_group_walk *walk, struct group *group, uint8_t *tail)
{
    mb_group_next(walk, &group->view);
    group->tail = tail;
    mb_tail_decode_512(group->view.tail, group->view.n_escapes, group->view.a, group->view.b, tail);
}

void mb_matvec_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                      const struct mb_activation *x, float *y)
{
    if (n_rows == 0)
        return;
    uint64_t end = row + n_rows;
    bool in_place = w->group_rows == 1 || w->n_cols % 128 == 0;
    size_t half = w->group_rows * w->n_cols + MB_DECODED_SLACK;
    uint8_t tails[2 * (MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK)];
    struct pending pending = {.x = x, .dtype = w->dtype, .step = (double)w->step, .y = y};
    struct mb_group_walk walk = mb_group_seek(w, row);
    struct group group, next;
    take_group(&walk, &next, tails);
    for (size_t turn = 1; row < end; turn ^= 1) {
        group = next;
        uint64_t group_end = group.view.row + group.view.n_rows;
        if (group_end < end)
            take_group(&walk, &next, tails + turn * half);
        size_t first = (size_t)(row - group.view.row);
        size_t n = (size_t)((group_end < end ? group_end : end) - row);
        if (group.view.is_raw)
            add_raw_rows(&pending, w, &group.view, first, n);
        else if (in_place && n == group.view.n_rows)
            add_group(&pending, w, &group.view, group.tail);
        else
            add_group_part(&pending, w, &group.view, first, n);
        row += n;
    }
    flush(&pending);
}
