/*
 * matvec_avx512.c - the fused product y = W x: codes to bytes to vpdpbusd, nothing written in between.
 *
 * Rows are taken in batches.  As a row is taken, its tail is decoded to bytes in L1.  Then bodies are decoded
 * and multiplied, four rows of one width at a time, which share the loads of activations and hide each
 * other's latencies; at last the sums of all rows are added over their lanes and finished.  For each 64
 * weights a compare, an expand and two products keep the two vector ports that can do them busy for 4 cycles
 * (on Zen 4), unpacking a width other than 4 for another; the rest of the code is short of branches that
 * cannot be foreseen, since one of them costs as much as 300 weights.
 */
#include "codec/simd_avx512.h"
#include <string.h>

enum { ROWS_PENDING = 16, LANES = 4 };

/*
 * How far ahead of a batch memory is asked for, line by line in order, into L2: into L1, or from four rows at
 * once, half of the speed is lost.
 */
enum { AHEAD_NBYTES = 32768 };

/* Decoded tails of a batch: at least two groups of the widest row. */
enum { TAILS_NBYTES = 2 * (MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK) };

/* A group whose rows are multiplied straight from its codes. */
struct lane {
    const uint8_t *body, *tail; /* 'tail' are decoded bytes */
    __m512i *sums;              /* [rows of a group][2] of u * hi, u * lo */
};

/* The outliers of a pending row. */
struct exact {
    const uint8_t *positions, *values;
    size_t n, row;
};

/* Rows that wait for their sums, and then for the end of their products. */
struct pending {
    __m512i sums[2 * ROWS_PENDING]; /* of u * hi and u * lo, row by row */
    int64_t offset[ROWS_PENDING];
    double outliers[ROWS_PENDING];
    size_t n;
    struct exact exact[ROWS_PENDING + 1]; /* of groups of one row, and room for one that has none */
    size_t n_exact;
    struct lane lanes[MB_WIDTH_MAX + 1][ROWS_PENDING]; /* that have no sums yet, by their a */
    size_t n_lanes[MB_WIDTH_MAX + 1];
    uint8_t *tails, *next_tail; /* [TAILS_NBYTES]; where the next group's begins */
    size_t n_rounds;            /* of the last tail */
    const uint8_t *ahead;       /* memory that is asked for next */
    const struct mb_coded_matrix *w;
    const struct mb_activation *x;
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

/* The results of eight rows (or fewer, 'lanes') from the first-th pending one on. */
static void finish_8(const struct pending *pending, size_t first, __mmask8 lanes)
{
    __m512i sums = add_lanes_16(pending->sums + 2 * first); /* hi, lo, hi, lo, ... */
    __m512i hi = _mm512_srai_epi64(_mm512_slli_epi64(sums, 32), 32), lo = _mm512_srai_epi64(sums, 32);
    __m512i shift =
        _mm512_mullo_epi64(_mm512_loadu_si512(pending->offset + first), _mm512_set1_epi64(pending->x->sum));
    __m512i s = _mm512_sub_epi64(_mm512_add_epi64(_mm512_slli_epi64(hi, 8), lo), shift);
    __m512d scale = _mm512_set1_pd((double)pending->x->scale);
    __m512d y =
        _mm512_mul_pd(_mm512_mul_pd(_mm512_cvtepi64_pd(s), _mm512_set1_pd((double)pending->w->step)), scale);
    y = _mm512_add_pd(y, _mm512_mul_pd(_mm512_loadu_pd(pending->outliers + first), scale));
    _mm256_mask_storeu_ps(pending->y + first, lanes, _mm512_cvtpd_ps(y));
}

/* The products of 128 weights of each lane. */
MB_INLINE void multiply_128(unsigned a, size_t n_lanes, struct lane *lane, const struct mb_body_512 *body,
                            const int8_t *hi, const int8_t *lo, __m512i s[LANES][2])
{
    __m512i hi0 = _mm512_load_si512(hi), hi1 = _mm512_load_si512(hi + 64);
    __m512i lo0 = _mm512_load_si512(lo), lo1 = _mm512_load_si512(lo + 64), u[2];
    __asm__("" : "+v"(hi0), "+v"(hi1), "+v"(lo0), "+v"(lo1)); /* gcc would load them again for each lane */
#pragma GCC unroll 4
    for (size_t i = 0; i < n_lanes; i++) {
        mb_decode_128(lane[i].body, a, body, &lane[i].tail, u);
        s[i][0] = mb_dot_512(s[i][0], u[0], hi0);
        s[i][1] = mb_dot_512(s[i][1], u[0], lo0);
        s[i][0] = mb_dot_512(s[i][0], u[1], hi1);
        s[i][1] = mb_dot_512(s[i][1], u[1], lo1);
        lane[i].body += 16 * a;
    }
}

/* The products of a lane's last n < 128 weights, at column c. */
MB_INLINE void multiply_last(unsigned a, const struct lane *lane, const struct mb_body_512 *body, size_t c,
                             size_t n, const struct mb_activation *x, __m512i s[2])
{
    __m512i u[2];
    size_t at = c + mb_decode_last(lane->body, a, body, n, lane->tail, u);
    s[0] = mb_dot_512(s[0], u[0], _mm512_loadu_si512(x->hi + c));
    s[1] = mb_dot_512(s[1], u[0], _mm512_loadu_si512(x->lo + c));
    s[0] = mb_dot_512(s[0], u[1], _mm512_loadu_si512(x->hi + at));
    s[1] = mb_dot_512(s[1], u[1], _mm512_loadu_si512(x->lo + at));
}

/*
 * The sums of n_rows rows of n_cols weights that follow one another, in up to four lanes: n_cols is a
 * multiple of 128 or there is one row.  Asks for as much memory as it reads, from 'ahead' on.
 */
MB_INLINE void lane_sums(unsigned a, unsigned b, size_t n_lanes, const struct lane *lanes, size_t n_rows,
                         size_t n_cols, const struct mb_activation *x, const uint8_t *ahead)
{
    struct mb_body_512 body = mb_body_of_kind(a, b);
    struct lane lane[LANES];
#pragma GCC unroll 4
    for (size_t i = 0; i < n_lanes; i++)
        lane[i] = lanes[i];
    for (size_t r = 0; r < n_rows; r++) {
        __m512i s[LANES][2];
#pragma GCC unroll 4
        for (size_t i = 0; i < n_lanes; i++)
            s[i][0] = s[i][1] = _mm512_setzero_si512();
        size_t c = 0;
        for (; c + 128 <= n_cols; c += 128, ahead += 16 * a * n_lanes) {
#pragma GCC unroll 8
            for (size_t i = 0; i < 16 * a * n_lanes; i += 64)
                _mm_prefetch((const char *)ahead + i, _MM_HINT_T1);
            multiply_128(a, n_lanes, lane, &body, x->hi + c, x->lo + c, s);
        }
#pragma GCC unroll 4
        for (size_t i = 0; i < n_lanes; i++) {
            if (c < n_cols)
                multiply_last(a, &lane[i], &body, c, n_cols - c, x, s[i]);
            lane[i].sums[2 * r] = s[i][0];
            lane[i].sums[2 * r + 1] = s[i][1];
        }
    }
}

typedef void (*lane_sums_fn)(unsigned b, const struct lane *lanes, const struct pending *pending,
                             const uint8_t *ahead);

/* Functions of each width keep constants in registers and shifts immediate. */
#define SUMS(a, n_lanes)                                                                                \
    static __attribute__((noinline)) void sums_##a##_##n_lanes(                                         \
        unsigned b, const struct lane *lanes, const struct pending *pending, const uint8_t *ahead)      \
    {                                                                                                   \
        lane_sums(a, b, n_lanes, lanes, pending->w->group_rows, pending->w->n_cols, pending->x, ahead); \
    }
#define SUMS_OF_WIDTH(a) SUMS(a, 1) SUMS(a, 2) SUMS(a, 4)

SUMS_OF_WIDTH(1)
SUMS_OF_WIDTH(2)
SUMS_OF_WIDTH(3)
SUMS_OF_WIDTH(4)
SUMS_OF_WIDTH(5)
SUMS_OF_WIDTH(6)
SUMS(7, 1)
SUMS(8, 1)

/* Of width a, of 1, 2 and 4 lanes. */
static const lane_sums_fn sums_of_width[][3] = {
    {NULL},
    {sums_1_1, sums_1_2, sums_1_4},
    {sums_2_1, sums_2_2, sums_2_4},
    {sums_3_1, sums_3_2, sums_3_4},
    {sums_4_1, sums_4_2, sums_4_4},
    {sums_5_1, sums_5_2, sums_5_4},
    {sums_6_1, sums_6_2, sums_6_4},
    {sums_7_1},
    {sums_8_1},
};

/* All lanes of width a, 1 to 6. */
static void multiply_lanes(struct pending *pending, unsigned a)
{
    const struct lane *lane = pending->lanes[a], *end = lane + pending->n_lanes[a];
    size_t ahead_nbytes = pending->w->group_rows * pending->w->n_cols * a / 8;
    while (lane < end) {
        size_t which = end - lane >= 4 ? 2 : end - lane >= 2 ? 1 : 0, n = (size_t)1 << which;
        sums_of_width[a][which](0, lane, pending, pending->ahead);
        pending->ahead += n * ahead_nbytes;
        lane += n;
    }
    pending->n_lanes[a] = 0;
}

static void flush(struct pending *pending)
{
    for (unsigned a = 1; a < 7; a++)
        if (pending->n_lanes[a] > 0)
            multiply_lanes(pending, a);
    for (size_t i = 0; i < pending->n_exact; i++)
        pending->outliers[pending->exact[i].row] =
            outliers_of(&pending->exact[i], pending->w->dtype, pending->x);
    pending->n_exact = 0;
    for (size_t first = 0; first < pending->n; first += 8)
        finish_8(pending, first, (__mmask8)mb_lanes_16(pending->n - first));
    pending->y += pending->n;
    pending->n = 0;
    pending->next_tail = pending->tails;
}

/* Decodes a group's tail ahead of its use; returns the bytes. */
MB_INLINE const uint8_t *take_tail(struct pending *pending, const struct mb_group_view *view)
{
    struct mb_tail_512 kind = mb_tail_of_kind(view->a, view->b);
    size_t n_rounds = mb_tail_rounds_512(view->n_escapes), last = pending->n_rounds;
    if (last - n_rounds == 1) /* a round too many is cheaper than a branch that is mispredicted */
        n_rounds = last;
    pending->n_rounds = n_rounds;
    uint8_t *tail = pending->next_tail;
    mb_tail_decode_512(view, &kind, n_rounds, tail);
    pending->next_tail = tail + 64 * n_rounds;
    for (size_t i = 0; i < n_rounds * view->b; i += 8)
        _mm_prefetch((const char *)pending->ahead + 8 * i, _MM_HINT_T1);
    pending->ahead += 8 * n_rounds * view->b;
    return tail;
}

/*
 * Whether a row has outliers cannot be foreseen: those of groups of one row are noted without a branch, for
 * one short loop over all rows.
 */
MB_INLINE void take_outliers(struct pending *pending, const struct mb_group_view *view)
{
    const struct mb_coded_matrix *w = pending->w;
    int64_t offset = mb_offset_512(view->a, view->b);
    if (w->group_rows == 1) {
        pending->offset[pending->n] = offset;
        pending->outliers[pending->n] = 0;
        struct exact *exact = &pending->exact[pending->n_exact];
        exact->positions = view->outlier_positions;
        exact->values = view->outlier_values;
        exact->n = view->n_outliers;
        exact->row = pending->n;
        pending->n_exact += view->n_outliers > 0;
        return;
    }
    struct mb_group_view group = *view;
    unsigned next_outlier = 0;
    for (size_t r = 0; r < w->group_rows; r++) {
        pending->offset[pending->n + r] = offset;
        pending->outliers[pending->n + r] =
            mb_row_outliers(w->dtype, &group, w->n_cols, r, &next_outlier, pending->x);
    }
}

/* A whole group straight from its codes. */
MB_INLINE void take_group(struct pending *pending, const struct mb_group_view *view)
{
    const struct mb_coded_matrix *w = pending->w;
    size_t tail_nbytes = 64 * (mb_tail_rounds_512(view->n_escapes) + 1);
    if (pending->n + w->group_rows > ROWS_PENDING ||
        tail_nbytes > (size_t)(pending->tails + TAILS_NBYTES - pending->next_tail))
        flush(pending);
    if (pending->n == 0)
        pending->ahead = view->body + AHEAD_NBYTES;
    /* Written in place: a copy of a struct that was just written waits for the stores. */
    struct lane *lane = &pending->lanes[view->a][pending->n_lanes[view->a]];
    lane->body = view->body;
    lane->tail = take_tail(pending, view);
    lane->sums = pending->sums + 2 * pending->n;
    take_outliers(pending, view);
    pending->n += w->group_rows;
    if (view->a == 0) /* all q are 0 */
        memset(lane->sums, 0, 2 * w->group_rows * sizeof *lane->sums);
    else if (view->a >= 7) /* b is part of the constants */
        sums_of_width[view->a][0](view->b, lane, pending, pending->ahead);
    else
        pending->n_lanes[view->a]++;
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
static void take_part(struct pending *pending, const struct mb_group_view *view, size_t first, size_t n_rows)
{
    const struct mb_coded_matrix *w = pending->w;
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

static void take_raw_rows(struct pending *pending, const struct mb_group_view *view, size_t first,
                          size_t n_rows)
{
    const struct mb_coded_matrix *w = pending->w;
    flush(pending);
    size_t row_nbytes = w->n_cols * mb_dtype_nbytes(w->dtype);
    for (size_t r = first; r < first + n_rows; r++)
        *pending->y++ =
            mb_raw_row_product_avx512(w->dtype, view->body + r * row_nbytes, w->n_cols, pending->x);
}

void mb_matvec_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                      const struct mb_activation *x, float *y)
{
    if (n_rows == 0)
        return;
    uint64_t end = row + n_rows;
    bool in_place = w->group_rows == 1 || w->n_cols % 128 == 0;
    _Alignas(64) uint8_t tails[TAILS_NBYTES + 64]; /* whole vectors are read */
    struct pending pending;
    pending.n = pending.n_exact = pending.n_rounds = 0;
    memset(pending.n_lanes, 0, sizeof pending.n_lanes);
    pending.tails = pending.next_tail = tails;
    pending.ahead = w->data;
    pending.w = w;
    pending.x = x;
    pending.y = y;
    struct mb_group_walk walk = mb_group_seek(w, row);
    while (row < end) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        uint64_t group_end = view.row + view.n_rows;
        size_t first = (size_t)(row - view.row), n = (size_t)((group_end < end ? group_end : end) - row);
        row += n;
        if (in_place && n == w->group_rows && !view.is_raw) {
            take_group(&pending, &view);
            continue;
        }
        struct mb_group_view group = view; /* a copy, so that 'view' itself stays in registers */
        if (group.is_raw)
            take_raw_rows(&pending, &group, first, n);
        else
            take_part(&pending, &group, first, n);
    }
    flush(&pending);
}
