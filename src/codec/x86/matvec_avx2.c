/*
 * matvec_avx2.c - the fused product y = W x on AVX2.
 *
 * Rows are taken in batches.  When a row is taken, its tail is decoded to bytes in L1.  Then bodies of one
 * width are decoded and multiplied row after row (spread_avx2.h), and finally the sums of all rows are added
 * over their lanes and scaled, four at a time.  Groups that cannot be spread are decoded to indices in L1
 * first.
 *
 * AVX-512 has another design (matvec_avx512.c): it expands escapes by a mask, and has registers for the sums
 * of four groups. Here a table spreads escapes, and the constants and one block fill the sixteen registers,
 * so that latencies are hidden by working on the next block, not on other groups.
 */
#include "by_width.h"
#include "carry_avx2.h"
#include "row_ends_avx2.h"
#include "spread_avx2.h"
#include <string.h>

enum { ROWS_PENDING = 32 };

/* How far ahead of a batch memory is prefetched, line by line in order, into L2. */
enum { AHEAD_NBYTES = 32768, TAIL_AHEAD_ROWS = 8 };

/* Decoded tails of a batch: at least that of the widest row. */
enum { TAILS_NBYTES = 2 * (MB_GROUP_WEIGHTS_MAX / 4 + 64) };

/* A group whose rows are multiplied straight from its codes. */
struct stream {
    const uint8_t *body, *tail; /* 'tail' points to decoded bytes */
    const uint8_t *rest_tail;   /* of the columns after whole blocks */
    size_t first;               /* its first row among the pending ones */
};

/* The outliers of a pending row. */
struct row_outliers {
    const uint8_t *positions, *values;
    size_t n, row;
};

/* Rows that were taken: first their sums are missing, then the end of their products. */
struct pending {
    struct sums sums[ROWS_PENDING];
    int32_t offset[ROWS_PENDING]; /* u of q = 0: what the sum of X is multiplied by */
    double outliers[ROWS_PENDING];
    int64_t wide[ROWS_PENDING]; /* sums of q E, or of u E: then offset times the sum of E is taken off */
    size_t n;
    struct row_outliers row_outliers[ROWS_PENDING + 1]; /* groups of one row; the last one may have none */
    size_t n_row_outliers;
    struct stream streams[7][ROWS_PENDING + 1]; /* by their a */
    size_t n_streams[7];
    uint8_t *tails, *next_tail; /* [TAILS_NBYTES]; where the next group's begins */
    const struct mb_coded_matrix *w;
    const struct mb_activation *x;
    float *y;             /* of the first pending row */
    uint64_t row;         /* the first pending row */
    size_t n_rounds;      /* of the last tail */
    const uint8_t *ahead; /* memory to prefetch next */
};

MB_INLINE __m256i pairs(__m256i u, const int8_t *x)
{
    return _mm256_maddubs_epi16(u, _mm256_loadu_si256((const __m256i *)x));
}

MB_INLINE __m256i widen(__m256i sum, __m256i pair_sums)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pair_sums, _mm256_set1_epi16(1)));
}

/* ---------------------------------------------------------------- indices in L1 */

static struct sums row_sums(const int8_t *q, size_t n, const struct mb_activation *x)
{
    struct sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t c = 0; c < n; c += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(q + c));
        s.hi = widen(s.hi, mb_signed_pairs_avx2(v, x->hi + c));
        s.lo = widen(s.lo, mb_signed_pairs_avx2(v, x->lo + c));
    }
    return s;
}

/* Rows [first, first + n_rows) of a group; 'row' is the first one's place among the pending ones. */
static void sum_group(struct pending *pending, const struct mb_group_view *group, size_t first, size_t n_rows,
                      size_t row)
{
    int8_t q[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    mb_group_indices_avx2(group, q);
    for (size_t r = 0; r < n_rows; r++) {
        const int8_t *row_q = q + (first + r) * pending->w->n_cols;
        pending->offset[row + r] = 0;
        pending->sums[row + r] = row_sums(row_q, pending->w->n_cols, pending->x);
        pending->wide[row + r] = 0;
        for (size_t k = 0; k < pending->x->n_wide; k++)
            pending->wide[row + r] +=
                mb_wide_sum_avx2(row_q + (size_t)pending->x->wide_at[k] * MB_BLOCK,
                                 mb_wide_planes(pending->x, k), pending->x->n_wide_planes);
    }
}

/* ---------------------------------------------------------------- straight from codes */

/*
 * Pairs of u that meet in a lane of 16 bits before it is widened: u <= 2 (M + base), a pair's sum is at most
 * 256 times that, and a lane holds 32767.
 */
MB_INLINE size_t pairs_of_width(unsigned a)
{
    return a <= 4 ? 4 : a == 5 ? 2 : 1;
}

/* Adds the products of quarter k of a block. */
MB_INLINE void multiply_quarter(unsigned a, size_t k, const __m256i u[4], const int8_t *hi, ptrdiff_t to_lo,
                                struct sums *pair_sums, struct sums *s)
{
    pair_sums->hi = _mm256_add_epi16(pair_sums->hi, pairs(u[k], hi + 32 * k));
    pair_sums->lo = _mm256_add_epi16(pair_sums->lo, pairs(u[k], hi + 32 * k + to_lo));
    if ((k + 1) % pairs_of_width(a) == 0) {
        s->hi = widen(s->hi, pair_sums->hi);
        s->lo = widen(s->lo, pair_sums->lo);
        pair_sums->hi = pair_sums->lo = _mm256_setzero_si256();
    }
}

/* The sum of u E over a block. */
MB_INLINE int64_t unsigned_wide_sum(const __m256i u[4], const int8_t *planes, size_t n_planes)
{
    int64_t sum = 0;
    for (size_t p = 0; p < n_planes; p++, planes += MB_BLOCK) {
        __m256i s = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            s = widen(s, pairs(u[k], planes + 32 * k));
        sum += (int64_t)mb_add_lanes_avx2(s) * ((int64_t)1 << 8 * p);
    }
    return sum;
}

/*
 * The sums of n_rows rows of each stream, over the whole blocks of n_cols.  Returns how many streams are
 * done: fewer than n_streams where 32 weights of the next one have too many escapes.
 */
MB_INLINE size_t stream_sums(unsigned a, bool is_wide, struct stream *streams, size_t n_streams,
                             size_t n_rows, size_t n_cols, const struct mb_activation *x, struct sums *sums,
                             int64_t *wide, const uint8_t *ahead)
{
    struct mb_spread spread = mb_spread_of_width(a);
    struct mb_block block;
    const uint8_t *p = streams->body;
    const int8_t *const begin = x->hi, *const end = begin + n_cols / MB_BLOCK * MB_BLOCK;
    const ptrdiff_t to_lo = x->lo - x->hi;
    mb_block_of(&block, p, a, &spread);
    for (size_t i = 0; i < n_streams; i++) {
        const uint8_t *tail = streams[i].tail;
        for (size_t r = 0; r < n_rows; r++) {
            struct sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            size_t k_wide = 0;
            int64_t sum_wide = 0;
            for (const int8_t *hi = begin; hi != end; hi += MB_BLOCK) {
                struct sums pair_sums = {_mm256_setzero_si256(), _mm256_setzero_si256()};
                __m256i u[4], codes[4];
                bool is_last = hi + MB_BLOCK == end && r + 1 == n_rows;
                p = is_last ? streams[i + 1].body : p + MB_BLOCK / 8 * a;
                _mm_prefetch((const char *)ahead, _MM_HINT_T1);
                if (a > 4)
                    _mm_prefetch((const char *)ahead + 64, _MM_HINT_T1);
                ahead += MB_BLOCK / 8 * a;
#pragma GCC unroll 4
                for (size_t k = 0; k < 4; k++) {
                    size_t n = mb_count_escapes(block.escapes[k]);
                    if (n > MB_SPREAD_REACH)
                        return i;
                    u[k] = mb_spread_32(block.u[k], block.escapes[k], &spread, tail);
                    tail += n;
                    if (k > 0) /* one quarter later, when its u is ready */
                        multiply_quarter(a, k - 1, u, hi, to_lo, &pair_sums, &s);
                    mb_block_quarter(&block, k, p, a, &spread, codes);
                }
                multiply_quarter(a, 3, u, hi, to_lo, &pair_sums, &s);
                if (is_wide && k_wide < x->n_wide && hi == begin + (size_t)x->wide_at[k_wide] * MB_BLOCK) {
                    sum_wide += unsigned_wide_sum(u, mb_wide_planes(x, k_wide), x->n_wide_planes);
                    k_wide++;
                }
            }
            sums[streams[i].first + r] = s;
            if (is_wide)
                wide[streams[i].first + r] = sum_wide;
        }
        streams[i].rest_tail = tail;
    }
    return n_streams;
}

/* Adds the columns after whole blocks of groups of one row; returns as stream_sums does. */
MB_INLINE size_t rest_sums(unsigned a, bool is_wide, struct stream *streams, size_t n_streams, size_t n_cols,
                           const struct mb_activation *x, struct sums *sums, int64_t *wide)
{
    struct mb_spread spread = mb_spread_of_width(a);
    size_t first = n_cols / MB_BLOCK * MB_BLOCK, rest = n_cols - first;
    is_wide = is_wide && x->wide_at[x->n_wide - 1] == first / MB_BLOCK;
    for (size_t i = 0; i < n_streams; i++) {
        uint8_t codes[MB_BLOCK + MB_DECODED_SLACK];
        mb_unpack_codes_avx2(streams[i].body + first / 8 * a, rest, a, codes);
        const uint8_t *tail = streams[i].rest_tail;
        struct sums *s = &sums[streams[i].first];
        __m256i all_u[4] = {0};
        for (size_t c = 0; c < rest; c += 32) {
            __m256i u = mb_plain_codes_to_u(_mm256_loadu_si256((const __m256i *)(codes + c)), a, &spread);
            uint64_t escapes = _bzhi_u64(mb_escapes_of_u(u, a, &spread), (unsigned)(rest - c));
            size_t n = mb_count_escapes(escapes);
            if (n > MB_SPREAD_REACH)
                return i;
            u = mb_spread_32(u, escapes, &spread, tail);
            tail += n;
            s->hi = widen(s->hi, pairs(u, x->hi + first + c));
            s->lo = widen(s->lo, pairs(u, x->lo + first + c));
            if (is_wide)
                all_u[c / 32] = u;
        }
        if (is_wide)
            wide[streams[i].first] +=
                unsigned_wide_sum(all_u, mb_wide_planes(x, x->n_wide - 1u), x->n_wide_planes);
    }
    return n_streams;
}

typedef size_t (*stream_sums_fn)(struct stream *streams, size_t n_streams, struct pending *pending);

MB_INLINE size_t all_sums(unsigned a, bool is_wide, struct stream *streams, size_t n_streams,
                          struct pending *pending)
{
    const struct mb_coded_matrix *w = pending->w;
    n_streams = stream_sums(a, is_wide, streams, n_streams, w->group_rows, w->n_cols, pending->x,
                            pending->sums, pending->wide, pending->ahead);
    if (w->n_cols % MB_BLOCK != 0)
        n_streams =
            rest_sums(a, is_wide, streams, n_streams, w->n_cols, pending->x, pending->sums, pending->wide);
    return n_streams;
}

/* Activations with wide blocks have functions of their own, so that the others' loops do not see them. */
#define SUMS(a)                                                                                         \
    MB_NOINLINE size_t sums_##a(struct stream *streams, size_t n_streams, struct pending *pending)      \
    {                                                                                                   \
        return all_sums(a, false, streams, n_streams, pending);                                         \
    }                                                                                                   \
    MB_NOINLINE size_t wide_sums_##a(struct stream *streams, size_t n_streams, struct pending *pending) \
    {                                                                                                   \
        return all_sums(a, true, streams, n_streams, pending);                                          \
    }

MB_WIDTHS_2_TO_6(SUMS)

static const stream_sums_fn sums_of_width[] = {NULL, NULL, MB_NAMES_2_TO_6(sums)};
static const stream_sums_fn wide_sums_of_width[] = {NULL, NULL, MB_NAMES_2_TO_6(wide_sums)};

static void multiply_streams(struct pending *pending, unsigned a)
{
    size_t left = pending->n_streams[a], group_rows = pending->w->group_rows;
    struct stream *streams = pending->streams[a];
    stream_sums_fn sums = (pending->x->n_wide > 0 ? wide_sums_of_width : sums_of_width)[a];
    streams[left].body = streams[left - 1].body; /* is read, but not used */
    while (left > 0) {
        size_t done = sums(streams, left, pending);
        pending->ahead += done * (group_rows * pending->w->n_cols * a / 8);
        if (done == left)
            break;
        struct mb_group_walk walk = mb_group_seek(pending->w, pending->row + streams[done].first);
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        sum_group(pending, &view, 0, group_rows, streams[done].first);
        streams += done + 1;
        left -= done + 1;
    }
    pending->n_streams[a] = 0;
}

/* ---------------------------------------------------------------- batches */

/* The sums of q E of four rows from the first-th pending one on. */
static __m256d wide_4(const struct pending *pending, size_t first)
{
    double wide[4];
    for (size_t r = 0; r < 4; r++)
        wide[r] =
            (double)(pending->wide[first + r] - (int64_t)pending->offset[first + r] * pending->x->wide_sum);
    return _mm256_loadu_pd(wide);
}

/* The results of four rows from the first-th pending one on. S is exact in double: it is below 2^53. */
static __m128 results_4(const struct pending *pending, size_t first)
{
    __m256d offset = _mm256_cvtepi32_pd(_mm_loadu_si128((const __m128i *)(pending->offset + first)));
    __m256d shift = _mm256_mul_pd(offset, _mm256_set1_pd((double)pending->x->sum));
    __m256d s = _mm256_sub_pd(mb_row_sums_4(pending->sums + first), shift);
    if (pending->x->n_wide > 0) /* mb_sum_of_parts */
        s = _mm256_add_pd(s, _mm256_mul_pd(wide_4(pending, first), _mm256_set1_pd(MB_WIDE_UNIT)));
    return mb_results_4(s, _mm256_loadu_pd(pending->outliers + first), pending->w->step, pending->x->scale);
}

static void flush(struct pending *pending)
{
    for (unsigned a = 2; a <= 6; a++)
        if (pending->n_streams[a] > 0)
            multiply_streams(pending, a);
    for (size_t r = pending->n; r % 4 != 0; r++) { /* finished with the others, and not used */
        pending->sums[r].hi = pending->sums[r].lo = _mm256_setzero_si256();
        pending->offset[r] = 0;
        pending->outliers[r] = 0;
        pending->wide[r] = 0;
    }
    for (const struct row_outliers *row = pending->row_outliers;
         row < pending->row_outliers + pending->n_row_outliers; row++)
        pending->outliers[row->row] =
            mb_outliers(pending->w->dtype, row->positions, row->values, row->n, 0, pending->x);
    for (size_t first = 0; first < pending->n; first += 4) {
        float y[4];
        size_t left = pending->n - first;
        _mm_storeu_ps(left >= 4 ? pending->y + first : y, results_4(pending, first));
        if (left < 4)
            memcpy(pending->y + first, y, left * sizeof y[0]);
    }
    pending->y += pending->n;
    pending->row += pending->n;
    pending->n = pending->n_row_outliers = 0;
    pending->next_tail = pending->tails;
}

/*
 * The processor cannot predict whether a row has outliers.  Those of groups of one row are noted without a
 * branch, and one short loop adds those of all rows.
 */
MB_INLINE void take_outliers(struct pending *pending, const struct mb_group_view *view, size_t group_rows,
                             size_t first, size_t n_rows)
{
    const struct mb_coded_matrix *w = pending->w;
    if (group_rows == 1) {
        pending->outliers[pending->n] = 0;
        struct row_outliers *row = &pending->row_outliers[pending->n_row_outliers];
        row->positions = view->outlier_positions;
        row->values = view->outlier_values;
        row->n = view->n_outliers;
        row->row = pending->n;
        pending->n_row_outliers += view->n_outliers > 0;
        return;
    }
    struct mb_group_view group = *view; /* a copy, so that the view itself stays in registers */
    unsigned next = 0;
    for (size_t r = 0; r < n_rows; r++)
        pending->outliers[pending->n + r] =
            mb_row_outliers(w->dtype, &group, w->n_cols, first + r, &next, pending->x);
}

/* A whole group straight from its codes. */
MB_INLINE void take_group(struct pending *pending, const struct mb_group_walk *walk,
                          const struct mb_group_view *view, size_t group_rows)
{
    unsigned a = view->a, b = view->b;
    if (pending->n + group_rows > ROWS_PENDING ||
        view->n_escapes + 64u > (size_t)(pending->tails + TAILS_NBYTES - pending->next_tail))
        flush(pending);
    if (pending->n == 0) {
        pending->ahead = view->body + AHEAD_NBYTES;
        mb_prefetch_directory(walk, MB_GROUPS_AHEAD);
    }
    size_t n_rounds = (view->n_escapes + 31u) / 32, last = pending->n_rounds;
    if (last - n_rounds == 1) /* a round too many is cheaper than a branch that is mispredicted */
        n_rounds = last;
    pending->n_rounds = n_rounds;
    uint8_t *tail = pending->next_tail;
    pending->next_tail = tail + 32 * n_rounds;
    struct stream *stream = &pending->streams[a][pending->n_streams[a]++];
    stream->body = view->body;
    stream->tail = tail;
    stream->first = pending->n;
    /* Prefetch a later tail, about where it will be: tails are read before the bodies of their batch. */
    const uint8_t *next = view->tail + TAIL_AHEAD_ROWS * (size_t)(view->end - view->body);
    for (size_t i = 0; i < 3; i++)
        _mm_prefetch((const char *)next + 64 * i, _MM_HINT_T0);
    const uint8_t *ahead = pending->ahead;
    pending->ahead = ahead + 4 * n_rounds * b;
    for (; ahead < pending->ahead; ahead += 64)
        _mm_prefetch((const char *)ahead, _MM_HINT_T1);
    for (size_t r = 0; r < group_rows; r++)
        pending->offset[pending->n + r] = mb_inner_max(a) + (int)mb_base_avx2(a);
    take_outliers(pending, view, group_rows, 0, group_rows);
    pending->n += group_rows;
    mb_spread_tail_avx2(view->tail, a, b, n_rounds, tail);
}

/* Rows [first, first + n_rows) of a group by way of indices in L1. */
static void take_rows(struct pending *pending, const struct mb_group_view *view, size_t first, size_t n_rows)
{
    for (size_t n; n_rows > 0; first += n, n_rows -= n) {
        if (pending->n == ROWS_PENDING)
            flush(pending);
        n = n_rows < ROWS_PENDING - pending->n ? n_rows : ROWS_PENDING - pending->n;
        sum_group(pending, view, first, n, pending->n);
        take_outliers(pending, view, pending->w->group_rows, first, n);
        pending->n += n;
    }
}

static void take_raw_rows(struct pending *pending, const struct mb_group_view *view, size_t first,
                          size_t n_rows)
{
    const struct mb_coded_matrix *w = pending->w;
    flush(pending);
    size_t row_nbytes = w->n_cols * mb_dtype_nbytes(w->dtype);
    for (size_t r = first; r < first + n_rows; r++)
        *pending->y++ = mb_raw_row_product(w->dtype, view->body + r * row_nbytes, w->n_cols, pending->x);
    pending->row += n_rows;
}

/* Rows [first, first + n_rows) of the walk's next group, whatever it is. */
MB_NOINLINE void take_slowly(struct pending *pending, struct mb_group_walk walk, size_t first, size_t n_rows)
{
    struct mb_group_view view;
    mb_group_next(&walk, &view);
    if (view.is_raw)
        take_raw_rows(pending, &view, first, n_rows);
    else
        take_rows(pending, &view, first, n_rows);
}

/* All rows [row, end); 'group_rows' is a constant where that is possible, which saves half of the work. */
MB_INLINE void take_all(struct pending *pending, uint64_t row, uint64_t end, size_t group_rows)
{
    struct mb_coded_matrix w = *pending->w;
    w.group_rows = group_rows;
    bool in_place = group_rows == 1 ? w.n_cols >= MB_BLOCK : w.n_cols % MB_BLOCK == 0;
    struct mb_group_walk walk = mb_group_seek(&w, row);
    while (row < end) {
        struct mb_group_walk before = walk;
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        uint64_t group_end = view.row + view.n_rows;
        size_t first = (size_t)(row - view.row), n = (size_t)((group_end < end ? group_end : end) - row);
        row += n;
        if (in_place && n == group_rows && mb_can_spread(&view)) /* not raw: a > 0 */
            take_group(pending, &walk, &view, group_rows);
        else
            take_slowly(pending, before, first, n);
    }
}

void mb_matvec_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                    const struct mb_activation *x, float *y)
{
    if (w->form == MB_FORM_CARRY) {
        mb_carry_matvec_avx2(w, row, n_rows, x, y);
        return;
    }
    if (n_rows == 0)
        return;
    uint8_t tails[TAILS_NBYTES + 64]; /* whole vectors are read */
    struct pending pending;
    pending.n = pending.n_row_outliers = 0;
    memset(pending.n_streams, 0, sizeof pending.n_streams);
    pending.tails = pending.next_tail = tails;
    pending.w = w;
    pending.x = x;
    pending.y = y;
    pending.row = row;
    pending.n_rounds = 0;
    pending.ahead = w->data;
    if (w->group_rows == 1)
        take_all(&pending, row, row + n_rows, 1);
    else
        take_all(&pending, row, row + n_rows, w->group_rows);
    flush(&pending);
}
