/*
 * matvec_avx512.c - the fused product y = W x, of one token or a few: codes to bytes to vpdpbusd, nothing
 * written in between.
 *
 * Groups are taken in batches of up to 16 rows (batch_avx512.h), whose tails are decoded to bytes in L1. Then
 * bodies are decoded and multiplied, four groups of one width at a time.  The four share the loads of
 * activations and hide each other's latencies:
 *
 *       columns           0 to 127                    128 to 255
 *       activation        hi, lo: four registers      four registers       loaded once for all groups
 *       body of group 0   16 a bytes -> 128 u         16 a bytes -> ...    sums of u hi and u lo
 *       body of group 1   16 a bytes -> 128 u         ...                  sums
 *       body of group 2   16 a bytes -> 128 u         ...                  sums
 *       body of group 3   16 a bytes -> 128 u         ...                  sums
 *
 * At the wide blocks of an activation (kernels.h) the loop over columns stops: their codes are decoded once
 * more and multiplied by the further planes, whose sums are in memory.  Ordinary vectors have no such stop.
 *
 * Finally the sums of all rows, eight in registers so far, are added over their lanes, scaled, and completed
 * by outliers.  The code avoids branches that cannot be predicted: a mispredicted one costs as much as 300
 * weights.
 */
#include "batch_avx512.h"
#include "by_width.h"
#include <string.h>

enum { LANES = MB_BATCH_LANES };

/*
 * Rows of a batch: sixteen, or up to eight times as many short ones, whose groups have several.  The sums of
 * all tokens together are as many, so that they stay in L1.
 */
enum { ROWS_MAX = 8 * MB_BATCH };

/*
 * Rows that wait for the end of their products.  Of joined rows (struct product) sums[t][row] is one vector:
 * that of u (256 hi + lo).
 */
struct rows {
    __m512i sums[MB_FUSED_TOKENS][2 * ROWS_MAX];                 /* of u * hi and u * lo, row by row */
    __m512i wide[MB_FUSED_TOKENS][MB_WIDE_PLANES_MAX][ROWS_MAX]; /* of u * each plane of E */
    int64_t offset[ROWS_MAX + 8];                                /* 8 are stored at once */
    double outliers[MB_FUSED_TOKENS][ROWS_MAX];
};

/*
 * So short are rows whose sum of q X, at most 127 * 32639 a column, is below 2^31.  Their sums are computed
 * modulo 2^32 throughout, offsets included, which halves the work at their ends.
 */
enum { JOINED_COLS = 512 };
_Static_assert((int64_t)JOINED_COLS * 127 * MB_ACTIVATION_MAX < INT32_MAX, "a sum would overflow");

/* Where a loop over columns stops: before a block that is wide in one of the tokens, and at the last block.
 */
struct stop {
    uint32_t column;
    uint16_t wide[MB_FUSED_TOKENS]; /* of each token: 1 + which of its wide blocks; 0: none */
};

enum { STOPS_MAX = (MB_COLS_MAX + MB_ACTIVATION_BLOCK - 1) / MB_ACTIVATION_BLOCK + 1 };

struct product {
    const struct mb_coded_matrix *w;
    const struct mb_activation *x; /* [n_tokens] */
    size_t n_tokens;
    const int8_t *planes; /* of several tokens: [whole 64s of columns][n_tokens][hi, lo][64] */
    struct rows *rows;
    const struct stop *stops; /* the last one is after the whole blocks of a row */
    bool has_wide;
    bool is_joined;       /* rows of at most JOINED_COLS, and no wide blocks */
    uint8_t *tails;       /* [MB_TAILS_NBYTES + 64] decoded */
    const uint8_t *ahead; /* memory to prefetch next */
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

/* The S of rows r to r + 7: their sums and 32768 times that of q E, as mb_sum_of_parts; 'wide' by planes. */
static inline __m512d add_wide(__m512d sum, const struct mb_activation *x, const __m512i *wide, size_t r,
                               __m512i offset)
{
    __m512i total =
        _mm512_sub_epi64(_mm512_setzero_si512(), _mm512_mullo_epi64(offset, _mm512_set1_epi64(x->wide_sum)));
    for (unsigned p = 0; p < x->n_wide_planes; p++) {
        __m256i rows = r == 0 ? _mm512_castsi512_si256(wide[p]) : _mm512_extracti64x4_epi64(wide[p], 1);
        total = _mm512_add_epi64(total, _mm512_slli_epi64(_mm512_cvtepi32_epi64(rows), 8 * p));
    }
    __m512d unit = _mm512_set1_pd(MB_WIDE_UNIT);
    return _mm512_add_pd(sum, _mm512_mul_pd(_mm512_cvtepi64_pd(total), unit));
}

/* Completes the sums of 8 rows from r on. */
static inline void finish_8(const struct product *product, size_t t, __m512d sum, size_t r, size_t n,
                            float *y)
{
    __m512d step = _mm512_set1_pd((double)product->w->step);
    __m512d scale = _mm512_set1_pd((double)product->x[t].scale);
    __m512d coded = _mm512_mul_pd(_mm512_mul_pd(sum, step), scale);
    __m512d outliers = _mm512_mul_pd(_mm512_loadu_pd(product->rows->outliers[t] + r), scale);
    _mm256_mask_storeu_ps(y, (__mmask8)mb_lanes_16(n), _mm512_cvtpd_ps(_mm512_add_pd(coded, outliers)));
}

/* Sixteen joined rows from the first-th waiting one on, of which n are used. */
static inline void finish_joined(const struct product *product, size_t t, size_t first, size_t n, float *y)
{
    const struct rows *rows = product->rows;
    __m512i sums = add_lanes_16(rows->sums[t] + first);
    __m256i low = _mm512_cvtepi64_epi32(_mm512_loadu_si512(rows->offset + first));
    __m256i high = _mm512_cvtepi64_epi32(_mm512_loadu_si512(rows->offset + first + 8));
    __m512i offset = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    __m512i shift = _mm512_mullo_epi32(offset, _mm512_set1_epi32((int32_t)(uint32_t)product->x[t].sum));
    sums = _mm512_sub_epi32(sums, shift);
    finish_8(product, t, _mm512_cvtepi32_pd(_mm512_castsi512_si256(sums)), first, n, y);
    if (n > 8)
        finish_8(product, t, _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(sums, 1)), first + 8, n - 8, y + 8);
}

/* The same of rows of any length, with wide blocks or without. */
static inline void finish_16(const struct product *product, size_t t, size_t first, size_t n, float *y)
{
    const struct rows *rows = product->rows;
    const struct mb_activation *x = product->x + t;
    __m512i sum_x = _mm512_set1_epi64(x->sum), wide[MB_WIDE_PLANES_MAX];
    for (size_t p = 0; p < x->n_wide_planes; p++)
        wide[p] = add_lanes_16(rows->wide[t][p] + first);
    for (size_t r = 0; r < n; r += 8) {
        __m512i sums = add_lanes_16(rows->sums[t] + 2 * (first + r)); /* hi, lo, hi, lo, ... */
        __m512i hi = _mm512_srai_epi64(_mm512_slli_epi64(sums, 32), 32), lo = _mm512_srai_epi64(sums, 32);
        __m512i offset = _mm512_loadu_si512(rows->offset + first + r);
        __m512i shift = _mm512_mullo_epi64(offset, sum_x);
        __m512i s = _mm512_sub_epi64(_mm512_add_epi64(_mm512_slli_epi64(hi, 8), lo), shift);
        __m512d sum = _mm512_cvtepi64_pd(s);
        if (x->n_wide > 0)
            sum = add_wide(sum, x, wide, r, offset);
        finish_8(product, t, sum, first + r, n - r, y + r);
    }
}

static void finish(const struct product *product, size_t t, size_t n_rows, float *y)
{
    for (size_t first = 0; first < n_rows; first += MB_BATCH) {
        size_t n = n_rows - first < MB_BATCH ? n_rows - first : MB_BATCH;
        if (product->is_joined)
            finish_joined(product, t, first, n, y + first);
        else
            finish_16(product, t, first, n, y + first);
    }
}

/* ---------------------------------------------------------------- a batch of groups */

/* A group whose rows are multiplied straight from its codes. */
struct lane {
    const uint8_t *body, *tail; /* 'tail' points to decoded bytes */
};

/* The products of 128 weights of each lane with one token. */
MB_INLINE void multiply_128(unsigned a, size_t n_lanes, struct lane *lane, const struct mb_body_512 *body,
                            const int8_t *hi, const int8_t *lo, __m512i s[LANES][MB_FUSED_TOKENS][2])
{
    __m512i hi0 = _mm512_load_si512(hi), hi1 = _mm512_load_si512(hi + 64);
    __m512i lo0 = _mm512_load_si512(lo), lo1 = _mm512_load_si512(lo + 64), u[2];
    __asm__("" : "+v"(hi0), "+v"(hi1), "+v"(lo0), "+v"(lo1)); /* gcc would load them again for each lane */
#pragma GCC unroll 4
    for (size_t i = 0; i < n_lanes; i++) {
        mb_decode_128(lane[i].body, a, body, &lane[i].tail, u);
        s[i][0][0] = mb_dot_512(s[i][0][0], u[0], hi0);
        s[i][0][1] = mb_dot_512(s[i][0][1], u[0], lo0);
        s[i][0][0] = mb_dot_512(s[i][0][0], u[1], hi1);
        s[i][0][1] = mb_dot_512(s[i][0][1], u[1], lo1);
        lane[i].body += 16 * a;
    }
}

/*
 * The same with several tokens; 'planes' holds these columns of their activations, each of which is loaded
 * once for all lanes.
 */
MB_INLINE void multiply_128_by(unsigned a, size_t n_lanes, size_t n_tokens, struct lane *lane,
                               const struct mb_body_512 *body, const int8_t *planes,
                               __m512i s[LANES][MB_FUSED_TOKENS][2])
{
    __m512i u[LANES][2];
#pragma GCC unroll 4
    for (size_t i = 0; i < n_lanes; i++, lane++) {
        mb_decode_128(lane->body, a, body, &lane->tail, u[i]);
        lane->body += 16 * a;
    }
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; half++)
#pragma GCC unroll 4
        for (size_t t = 0; t < n_tokens; t++, planes += 128) {
            __m512i hi = _mm512_load_si512(planes), lo = _mm512_load_si512(planes + 64);
            __asm__("" : "+v"(hi), "+v"(lo)); /* gcc would load them again for each lane */
#pragma GCC unroll 4
            for (size_t i = 0; i < n_lanes; i++) {
                s[i][t][0] = mb_dot_512(s[i][t][0], u[i][half], hi);
                s[i][t][1] = mb_dot_512(s[i][t][1], u[i][half], lo);
            }
        }
}

/* Adds the products of a row's bytes u, the first of which is column 64 i of 'planes'. */
MB_INLINE void add_wide_products(const struct mb_activation *x, const int8_t *planes, __m512i u0, __m512i u1,
                                 size_t at, __m512i sums[MB_WIDE_PLANES_MAX][ROWS_MAX], size_t row)
{
    for (size_t p = 0; p < x->n_wide_planes; p++, planes += MB_ACTIVATION_BLOCK) {
        __m512i sum = mb_dot_512(sums[p][row], u0, _mm512_loadu_si512(planes));
        sums[p][row] = mb_dot_512(sum, u1, _mm512_loadu_si512(planes + at));
    }
}

/*
 * The wide parts of the next n <= 128 weights of each lane, which stays where it is; row[i]: the row of lane
 * i among those that wait.
 */
MB_INLINE void multiply_wide(unsigned a, size_t n_lanes, size_t n_tokens, const struct product *product,
                             const struct lane *lane, const struct mb_body_512 *body, const struct stop *stop,
                             size_t n, const size_t *row)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < n_lanes; i++) {
        const uint8_t *tail = lane[i].tail;
        __m512i u[2];
        size_t at = 64;
        if (n == MB_ACTIVATION_BLOCK)
            mb_decode_128(lane[i].body, a, body, &tail, u);
        else
            at = mb_decode_last(lane[i].body, a, body, n, tail, u);
#pragma GCC unroll 4
        for (size_t t = 0; t < n_tokens; t++)
            if (stop->wide[t] > 0)
                add_wide_products(product->x + t, mb_wide_planes(product->x + t, stop->wide[t] - 1u), u[0],
                                  u[1], at, product->rows->wide[t], row[i]);
    }
}

/* The products of a lane's last n < 128 weights, at column c. */
MB_INLINE void multiply_last(unsigned a, const struct lane *lane, const struct mb_body_512 *body, size_t c,
                             size_t n, const struct product *product, size_t n_tokens,
                             __m512i s[MB_FUSED_TOKENS][2])
{
    __m512i u[2];
    size_t at = c + mb_decode_last(lane->body, a, body, n, lane->tail, u);
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++) {
        const struct mb_activation *x = product->x + t;
        s[t][0] = mb_dot_512(s[t][0], u[0], _mm512_loadu_si512(x->hi + c));
        s[t][1] = mb_dot_512(s[t][1], u[0], _mm512_loadu_si512(x->lo + c));
        s[t][0] = mb_dot_512(s[t][0], u[1], _mm512_loadu_si512(x->hi + at));
        s[t][1] = mb_dot_512(s[t][1], u[1], _mm512_loadu_si512(x->lo + at));
    }
}

/*
 * The sums of the groups which[0 .. n_lanes): n_cols is a multiple of 128, or groups have one row.
 */
MB_INLINE void lane_sums(unsigned a, unsigned b, size_t n_lanes, size_t n_tokens, bool is_wide,
                         struct product *product, const struct mb_batch_512 *batch, const uint32_t *which)
{
    const struct mb_activation *x = product->x;
    size_t n_cols = product->w->n_cols, n_rows = product->w->group_rows;
    struct mb_body_512 body = mb_body_of_kind(a, b);
    struct lane lane[LANES];
    __m512i *sums[LANES]; /* the first token's */
    const bool is_joined = !is_wide && product->is_joined;
    size_t row[LANES];
    const uint8_t *ahead = product->ahead;
#pragma GCC unroll 4
    for (size_t i = 0; i < n_lanes; i++) {
        lane[i].body = batch->records + batch->body[which[i]];
        lane[i].tail = product->tails + batch->decoded_tail[which[i]];
        row[i] = n_rows * which[i];
        sums[i] = product->rows->sums[0] + (is_joined ? 1 : 2) * row[i];
    }
    const size_t n_whole = n_cols / MB_ACTIVATION_BLOCK * MB_ACTIVATION_BLOCK;
    for (size_t r = 0; r < n_rows; r++) {
        __m512i s[LANES][MB_FUSED_TOKENS][2];
#pragma GCC unroll 4
        for (size_t i = 0; i < n_lanes; i++)
#pragma GCC unroll 4
            for (size_t t = 0; t < n_tokens; t++)
                s[i][t][0] = s[i][t][1] = _mm512_setzero_si512();
        size_t c = 0;
        const struct stop *stop = product->stops;
        for (;; stop++) {
            const size_t end = is_wide ? stop->column : n_whole;
            for (; c < end; c += 128, ahead += 16 * a * n_lanes) {
                mb_prefetch_to_512(ahead, 16 * a * n_lanes, batch->ahead_is_l2);
                if (n_tokens == 1)
                    multiply_128(a, n_lanes, lane, &body, x->hi + c, x->lo + c, s);
                else
                    multiply_128_by(a, n_lanes, n_tokens, lane, &body, product->planes + 2 * n_tokens * c, s);
            }
            if (!is_wide || c == n_whole)
                break;
            multiply_wide(a, n_lanes, n_tokens, product, lane, &body, stop, 128, row);
        }
        if (is_wide && c < n_cols)
            multiply_wide(a, n_lanes, n_tokens, product, lane, &body, stop, n_cols - c, row);
#pragma GCC unroll 4
        for (size_t i = 0; i < n_lanes; i++) {
            row[i]++;
            if (c < n_cols)
                multiply_last(a, &lane[i], &body, c, n_cols - c, product, n_tokens, s[i]);
#pragma GCC unroll 4
            for (size_t t = 0; t < n_tokens; t++) {
                __m512i *to = sums[i] + t * 2 * ROWS_MAX;
                if (is_joined) {
                    to[r] = _mm512_add_epi32(_mm512_slli_epi32(s[i][t][0], 8), s[i][t][1]);
                } else {
                    to[2 * r] = s[i][t][0];
                    to[2 * r + 1] = s[i][t][1];
                }
            }
        }
    }
    product->ahead = ahead;
}

/*
 * The sums of n groups of width a, as many at a time as their sums leave registers for. For a > 6 the
 * constants depend on b, too, so each group is alone.
 */
MB_INLINE void group_sums(unsigned a, size_t n_tokens, bool is_wide, struct product *product,
                          const struct mb_batch_512 *batch, const uint32_t *which, size_t n)
{
    const size_t n_lanes = n_tokens <= 2 ? 4 : 2;
    if (a > 6) {
        for (size_t i = 0; i < n; i++)
            lane_sums(a, batch->b[which[i]], 1, n_tokens, is_wide, product, batch, which + i);
        return;
    }
    for (; n >= n_lanes; n -= n_lanes, which += n_lanes)
        lane_sums(a, 0, n_lanes, n_tokens, is_wide, product, batch, which);
    if (n_lanes == 4 && n >= 2)
        lane_sums(a, 0, 2, n_tokens, is_wide, product, batch, which);
    if (n % 2 != 0)
        lane_sums(a, 0, 1, n_tokens, is_wide, product, batch, which + n - 1);
}

typedef void (*group_sums_fn)(struct product *product, const struct mb_batch_512 *batch,
                              const uint32_t *which, size_t n);

/* group_sums_n_a: of n tokens. wide_sums_n_a: one of which has wide blocks; the others' loops do not stop. */
#define GROUP_SUMS(n_tokens, a)                                                                        \
    static void group_sums_##n_tokens##_##a(struct product *product, const struct mb_batch_512 *batch, \
                                            const uint32_t *which, size_t n)                           \
    {                                                                                                  \
        group_sums(a, n_tokens, false, product, batch, which, n);                                      \
    }                                                                                                  \
    static void wide_sums_##n_tokens##_##a(struct product *product, const struct mb_batch_512 *batch,  \
                                           const uint32_t *which, size_t n)                            \
    {                                                                                                  \
        group_sums(a, n_tokens, true, product, batch, which, n);                                       \
    }
#define GROUP_SUMS_1(a) GROUP_SUMS(1, a)
#define GROUP_SUMS_2(a) GROUP_SUMS(2, a)
#define GROUP_SUMS_3(a) GROUP_SUMS(3, a)
#define GROUP_SUMS_4(a) GROUP_SUMS(4, a)
MB_WIDTHS_1_TO_8(GROUP_SUMS_1)
MB_WIDTHS_1_TO_8(GROUP_SUMS_2)
MB_WIDTHS_1_TO_8(GROUP_SUMS_3)
MB_WIDTHS_1_TO_8(GROUP_SUMS_4)

static void group_sums_0(struct product *product, const struct mb_batch_512 *batch, const uint32_t *which,
                         size_t n)
{
    (void)batch; /* all q are 0 */
    size_t n_sums = (product->is_joined ? 1 : 2) * product->w->group_rows;
    for (size_t t = 0; t < product->n_tokens; t++)
        for (size_t i = 0; i < n; i++)
            memset(product->rows->sums[t] + n_sums * which[i], 0, n_sums * sizeof(__m512i));
}

/* Without and with wide blocks, by the number of tokens, and by width. */
static const group_sums_fn group_sums_of[2][MB_FUSED_TOKENS + 1][MB_WIDTH_MAX + 1] = {
    {
        [1] = {group_sums_0, MB_NAMES_1_TO_8(group_sums_1)},
        [2] = {group_sums_0, MB_NAMES_1_TO_8(group_sums_2)},
        [3] = {group_sums_0, MB_NAMES_1_TO_8(group_sums_3)},
        [4] = {group_sums_0, MB_NAMES_1_TO_8(group_sums_4)},
    },
    {
        [1] = {group_sums_0, MB_NAMES_1_TO_8(wide_sums_1)},
        [2] = {group_sums_0, MB_NAMES_1_TO_8(wide_sums_2)},
        [3] = {group_sums_0, MB_NAMES_1_TO_8(wide_sums_3)},
        [4] = {group_sums_0, MB_NAMES_1_TO_8(wide_sums_4)},
    },
};

static void clear_wide(const struct product *product, size_t n_rows)
{
    for (size_t t = 0; t < product->n_tokens; t++)
        for (size_t p = 0; p < product->x[t].n_wide_planes; p++)
            memset(product->rows->wide[t][p], 0, n_rows * sizeof product->rows->wide[t][p][0]);
}

/* Groups of one width together. */
static void multiply_batch(struct product *product, const struct mb_batch_512 *batch)
{
    uint32_t which[MB_BATCH];
    for (__mmask16 left = mb_lanes_16(batch->n); left != 0;) {
        size_t n = mb_next_width_512(batch, &left, which);
        group_sums_of[product->has_wide][product->n_tokens][batch->a[which[0]]](product, batch, which, n);
    }
}

/*
 * The sum of a row's n > 0 outliers, as mb_outliers.  Most rows have one or two, and a branch between the two
 * cases would be mispredicted.  So the second is always added, as 0 where there is none (which changes
 * nothing: a sum that began with 0 is never -0).
 */
static double row_outliers(enum mb_dtype dtype, const uint8_t *positions, size_t n,
                           const struct mb_activation *x)
{
    const uint8_t *values = positions + 2 * n;
    size_t second = n > 1;
    double sum = 0 + mb_outlier_product(dtype, positions, values, 0, 0, x);
    double product = mb_outlier_product(dtype, positions, values, second, 0, x);
    sum += second ? product : 0;
    for (size_t i = 2; i < n; i++)
        sum += mb_outlier_product(dtype, positions, values, i, 0, x);
    if (x->n_wide > 0)
        sum += mb_wide_outliers(dtype, positions, values, n, 0, x);
    return sum;
}

static void find_outliers(const struct product *product, const struct mb_batch_512 *batch, size_t t)
{
    const struct mb_coded_matrix *w = product->w;
    double *sums = product->rows->outliers[t];
    for (unsigned left = batch->has_outliers; left != 0; left &= left - 1) {
        size_t i = (size_t)__builtin_ctz(left);
        const uint8_t *positions = batch->records + batch->outliers[i];
        if (w->group_rows == 1) {
            sums[i] = row_outliers(w->dtype, positions, batch->n_outliers[i], product->x + t);
            continue;
        }
        struct mb_group_view view = {.outlier_positions = positions,
                                     .outlier_values = positions + 2 * (size_t)batch->n_outliers[i],
                                     .n_outliers = batch->n_outliers[i]};
        for (size_t k = 0, first; k < view.n_outliers;) {
            size_t r = mb_load_u16(positions + 2 * k) / (unsigned)w->n_cols;
            size_t n = mb_find_row_outliers(&view, r * w->n_cols, w->n_cols, k, &first);
            sums[i * w->group_rows + r] =
                mb_outliers(w->dtype, positions + 2 * k, view.outlier_values + mb_dtype_nbytes(w->dtype) * k,
                            n, r * w->n_cols, product->x + t);
            k += n;
        }
    }
}

/* Gives every row its group's offset, and 0 as the sum of its outliers. */
static void spread_offsets(const struct product *product, const struct mb_batch_512 *batch)
{
    struct rows *rows = product->rows;
    size_t group_rows = product->w->group_rows;
    for (size_t t = 0; t < product->n_tokens; t++)
        memset(rows->outliers[t], 0, batch->n * group_rows * sizeof rows->outliers[0][0]);
    if (group_rows == 1) {
        __m512i offset = _mm512_load_si512(batch->offset);
        _mm512_storeu_si512(rows->offset, _mm512_cvtepu32_epi64(_mm512_castsi512_si256(offset)));
        _mm512_storeu_si512(rows->offset + 8, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(offset, 1)));
        return;
    }
    for (size_t i = 0; i < batch->n; i++) /* a group that has fewer than 8 rows is followed by the next */
        _mm512_storeu_si512(rows->offset + i * group_rows, _mm512_set1_epi64(batch->offset[i]));
}

/* Groups of a batch: short rows by how many wait for their ends. */
static size_t batch_groups(const struct product *product)
{
    const size_t group_rows = product->w->group_rows;
    if (group_rows == 1)
        return mb_batch_groups_512(product->w);
    size_t n = ROWS_MAX / product->n_tokens / group_rows;
    return n < MB_BATCH ? n : MB_BATCH;
}

/*
 * The next whole groups' products to y, up to a raw one; returns how many groups.  A batch is decoded
 * while the one before it is multiplied, so its loads have completed by then.
 */
static size_t multiply_groups(struct product *product, struct mb_group_walk *walk, size_t n_groups, float *y,
                              size_t y_stride)
{
    struct mb_batch_512 batches[2], *batch = &batches[0], *next = &batches[1];
    size_t group_rows = product->w->group_rows, n_max = batch_groups(product), n_left = n_groups;
    size_t n = mb_take_batch_512(walk, n_left < n_max ? n_left : n_max, batch);
    while (n > 0) {
        product->ahead = mb_decode_tails_512(batch, product->tails);
        n_left -= n;
        size_t n_next = n_left > 0 ? mb_take_batch_512(walk, n_left < n_max ? n_left : n_max, next) : 0;
        clear_wide(product, batch->n * group_rows);
        multiply_batch(product, batch);
        spread_offsets(product, batch);
        for (size_t t = 0; t < product->n_tokens; t++) {
            find_outliers(product, batch, t);
            finish(product, t, n * group_rows, y + t * y_stride);
        }
        y += n * group_rows;
        n = n_next;
        struct mb_batch_512 *done = batch;
        batch = next;
        next = done;
    }
    return n_groups - n_left;
}

/* ---------------------------------------------------------------- raw groups, and parts of groups */

/* The sums of a row, which is that many rows after the first that waits. */
static void dot_bytes(const uint8_t *u, size_t n_cols, const struct mb_activation *x, __m512i *sums,
                      __m512i wide[MB_WIDE_PLANES_MAX][ROWS_MAX], size_t row)
{
    for (size_t k = 0; k < x->n_wide; k++) { /* E is 0 after the columns */
        const uint8_t *block = u + (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK;
        add_wide_products(x, mb_wide_planes(x, k), _mm512_loadu_si512(block), _mm512_loadu_si512(block + 64),
                          64, wide, row);
    }
    sums += 2 * row;
    __m512i hi = _mm512_setzero_si512(), lo = hi;
    for (size_t c = 0; c < n_cols; c += 64) {
        __m512i v = _mm512_loadu_si512(u + c);
        hi = mb_dot_512(hi, v, _mm512_loadu_si512(x->hi + c));
        lo = mb_dot_512(lo, v, _mm512_loadu_si512(x->lo + c));
    }
    sums[0] = hi;
    sums[1] = lo;
}

/* Rows [first, first + n_rows) of a group times one token, by way of bytes in L1. */
static void multiply_part(const struct product *product, const struct mb_group_view *view, size_t first,
                          size_t n_rows, size_t t, float *y)
{
    const struct mb_coded_matrix *w = product->w;
    const struct mb_activation *x = product->x + t;
    struct rows *rows = product->rows;
    uint8_t bytes[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    mb_group_bytes_avx512(view, bytes);
    unsigned next_outlier = 0;
    for (size_t done = 0; done < n_rows; done += MB_BATCH) {
        size_t n = n_rows - done < MB_BATCH ? n_rows - done : MB_BATCH;
        clear_wide(product, n);
        for (size_t i = 0; i < n; i++) {
            size_t r = first + done + i;
            rows->offset[i] = mb_offset_512(view->a, view->b);
            rows->outliers[t][i] = mb_row_outliers(w->dtype, view, w->n_cols, r, &next_outlier, x);
            dot_bytes(bytes + r * w->n_cols, w->n_cols, x, rows->sums[t], rows->wide[t], i);
        }
        finish_16(product, t, 0, n, y + done);
    }
}

static void multiply_raw(const struct product *product, const struct mb_group_view *view, size_t first,
                         size_t n_rows, size_t t, float *y)
{
    const struct mb_coded_matrix *w = product->w;
    size_t row_nbytes = w->n_cols * mb_dtype_nbytes(w->dtype);
    for (size_t r = 0; r < n_rows; r++)
        y[r] = mb_raw_row_product_avx512(w->dtype, view->body + (first + r) * row_nbytes, w->n_cols,
                                         product->x + t);
}

/* ---------------------------------------------------------------- products */

/* The wide blocks of all tokens, in order of columns, and the end of the whole blocks. */
static void find_stops(struct product *product, struct stop *stops)
{
    size_t next[MB_FUSED_TOKENS] = {0};
    uint32_t n_whole = (uint32_t)(product->w->n_cols / MB_ACTIVATION_BLOCK), at = 0;
    product->stops = stops;
    product->has_wide = false;
    do {
        at = n_whole;
        for (size_t t = 0; t < product->n_tokens; t++)
            if (next[t] < product->x[t].n_wide && product->x[t].wide_at[next[t]] < at)
                at = product->x[t].wide_at[next[t]];
        *stops = (struct stop){.column = at * MB_ACTIVATION_BLOCK};
        for (size_t t = 0; t < product->n_tokens; t++)
            if (next[t] < product->x[t].n_wide && product->x[t].wide_at[next[t]] == at) {
                stops->wide[t] = (uint16_t)++next[t];
                product->has_wide = true;
            }
        stops++;
    } while (at < n_whole);
}

static void multiply_all(struct product product, uint64_t row, uint64_t n_rows, float *y, size_t y_stride)
{
    const struct mb_coded_matrix *w = product.w;
    _Alignas(64) uint8_t tails[MB_TAILS_NBYTES + 64]; /* whole vectors are read */
    struct rows rows;
    struct stop stops[STOPS_MAX];
    find_stops(&product, stops);
    product.is_joined = w->n_cols <= JOINED_COLS && !product.has_wide;
    product.rows = &rows;
    product.tails = tails;
    bool in_place = w->group_rows == 1 || w->n_cols % 128 == 0;
    struct mb_group_walk walk = mb_group_seek(w, row);
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        uint64_t group_row = walk.group * w->group_rows;
        float *to = y + (at - row);
        size_t n_whole = at == group_row ? (size_t)((end - at) / w->group_rows) : 0;
        size_t n = in_place && n_whole > 0 && w->kinds[walk.group] != MB_KIND_RAW
                       ? multiply_groups(&product, &walk, n_whole, to, y_stride) * w->group_rows
                       : 0;
        if (n == 0) {
            struct mb_group_view view;
            mb_group_next(&walk, &view);
            size_t first = (size_t)(at - group_row);
            n = view.n_rows - first < end - at ? view.n_rows - first : (size_t)(end - at);
            for (size_t t = 0; t < product.n_tokens; t++)
                (view.is_raw ? multiply_raw : multiply_part)(&product, &view, first, n, t, to + t * y_stride);
        }
        at += n;
    }
}

void mb_matvec_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                      const struct mb_activation *x, float *y)
{
    if (n_rows > 0)
        multiply_all((struct product){.w = w, .x = x, .n_tokens = 1}, row, n_rows, y, 0);
}

void mb_matvecs_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                       const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                       void *scratch)
{
    if (n_rows == 0 || n_tokens == 0)
        return;
    if (n_tokens == 1) {
        mb_matvec_avx512(w, row, n_rows, x, y);
        return;
    }
    __m512i *planes = scratch;
    for (size_t c = 0; c + 64 <= w->n_cols; c += 64)
        for (size_t t = 0; t < n_tokens; t++) {
            *planes++ = _mm512_loadu_si512(x[t].hi + c);
            *planes++ = _mm512_loadu_si512(x[t].lo + c);
        }
    struct product product = {.w = w, .x = x, .n_tokens = n_tokens, .planes = scratch};
    multiply_all(product, row, n_rows, y, y_stride);
}
