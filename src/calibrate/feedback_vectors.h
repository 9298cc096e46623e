/*
 * feedback_vectors.h - the kernels, written once for vectors of any length.
 *
 * A file that includes this has defined VECTOR_NBYTES and NAMED(name), the name with the suffix of its
 * instruction set.  A vector lies across rows where a panel of columns is rounded, one column after the
 * other, and across columns where the panel's errors go to all later columns.
 */
#include "base/inline.h"
#include "base/value.h"
#include "feedback_kernels.h"
#include <math.h>
#include <string.h>

typedef float floats __attribute__((vector_size(VECTOR_NBYTES)));
typedef int32_t ints __attribute__((vector_size(VECTOR_NBYTES)));
typedef double doubles __attribute__((vector_size(VECTOR_NBYTES)));
enum { LANES = VECTOR_NBYTES / 4, TILE_ROWS = 4 };

/* ---------------------------------------------------------------- updates */

/*
 * A tile of TILE_ROWS rows (or one) and two vectors stays in registers while all of b's rows are added.  A
 * tile of b is copied first: its rows lie far apart, often by a power of two.
 */
/* NOLINTBEGIN(bugprone-macro-parentheses): types and names take none */
#define UPDATE(name, element, vector)                                                                    \
    MB_INLINE void name##_tile(element *c, size_t c_stride, size_t n_rows, const element *a,             \
                               size_t a_stride, const vector *b, size_t depth)                           \
    {                                                                                                    \
        vector sums[TILE_ROWS][2];                                                                       \
        for (size_t r = 0; r < n_rows; r++)                                                              \
            memcpy(sums[r], c + r * c_stride, sizeof sums[r]);                                           \
        for (size_t m = 0; m < depth; m++)                                                               \
            for (size_t r = 0; r < n_rows; r++) {                                                        \
                sums[r][0] += a[r * a_stride + m] * b[2 * m];                                            \
                sums[r][1] += a[r * a_stride + m] * b[2 * m + 1];                                        \
            }                                                                                            \
        for (size_t r = 0; r < n_rows; r++)                                                              \
            memcpy(c + r * c_stride, sums[r], sizeof sums[r]);                                           \
    }                                                                                                    \
    static void name(element *c, size_t c_stride, size_t n_rows, size_t n_cols, const element *a,        \
                     size_t a_stride, const element *b, size_t b_stride, size_t depth)                   \
    {                                                                                                    \
        enum { WIDTH = 2 * VECTOR_NBYTES / sizeof(element) };                                            \
        vector tile[2 * MB_FEED_PANEL];                                                                  \
        for (size_t k = 0; k < n_cols; k += WIDTH) {                                                     \
            size_t r = 0;                                                                                \
            for (size_t m = 0; m < depth; m++)                                                           \
                memcpy(&tile[2 * m], b + m * b_stride + k, 2 * VECTOR_NBYTES);                           \
            for (; r + TILE_ROWS <= n_rows; r += TILE_ROWS)                                              \
                name##_tile(c + r * c_stride + k, c_stride, TILE_ROWS, a + r * a_stride, a_stride, tile, \
                            depth);                                                                      \
            for (; r < n_rows; r++)                                                                      \
                name##_tile(c + r * c_stride + k, c_stride, 1, a + r * a_stride, a_stride, tile, depth); \
        }                                                                                                \
    }
UPDATE(update_f64, double, doubles)
UPDATE(update_f32, float, floats)
/* NOLINTEND(bugprone-macro-parentheses) */

/* ---------------------------------------------------------------- a panel of columns */

MB_INLINE floats choose(ints mask, floats yes, floats no)
{
    return (floats)((mask & (ints)yes) | (~mask & (ints)no));
}

/* NaN becomes 'low'. */
MB_INLINE floats clamp(floats x, floats low, floats high)
{
    x = choose(x >= low, x, low);
    return choose(x > high, high, x);
}

/* To the nearest integer, ties to even, for |x| < 2^22: no integer has digits below the point up there. */
MB_INLINE floats nearest(floats x)
{
    const float shift = 0x1.8p23F;
    return (x + shift) - shift;
}

MB_INLINE floats magnitude(floats x)
{
    return (floats)((ints)x & 0x7fffffff);
}

/* LANES rows and a panel of columns, a vector across the rows for each column. */
struct panel {
    floats weights[MB_FEED_PANEL], fed[MB_FEED_PANEL], errors[MB_FEED_PANEL], rests[MB_FEED_PANEL];
    floats q[MB_FEED_PANEL];
    ints n_clipped;
};

/* A bound that float arithmetic cannot mistake: what is off by no more is within eps. */
static float surely_within(double eps)
{
    double sure = eps * (1 - 0x1p-20);
    return sure < 0x1p126 ? nextafterf((float)sure, 0) : 0x1p126F;
}

/* The levels within the bound, a step too many at either end perhaps. */
MB_INLINE void find_levels(floats w, float step, float rho, floats *low, floats *high)
{
    const floats zero = {0};
    floats own = clamp(w / step, zero - 1000, zero + 1000);
    floats below = own - rho, above = own + rho;
    *low = nearest(below);
    *low += choose(*low < below, zero + 1, zero);
    *high = nearest(above);
    *high -= choose(*high > above, zero + 1, zero);
    *low = clamp(*low, zero - MB_INDEX_MAX, zero + 1000);
    *high = clamp(*high, zero - 1000, zero + MB_INDEX_MAX);
}

/* Those that float arithmetic cannot be sure of: decided as decoders decide. */
static void settle(const struct mb_coding *coding, floats w, ints is_sure, floats *q, floats *decoded)
{
    for (int i = 0; i < LANES; i++)
        if (!is_sure[i]) {
            int settled = mb_index_within(coding, w[i], (int)(*q)[i]);
            (*q)[i] = (float)settled;
            (*decoded)[i] = settled == MB_INDEX_NONE ? w[i] : coding->step * (float)settled;
        }
}

MB_INLINE bool all_set(ints mask)
{
    int64_t halves[VECTOR_NBYTES / 8];
    memcpy(halves, &mask, sizeof halves);
    int64_t all = -1;
    for (size_t i = 0; i < VECTOR_NBYTES / 8; i++)
        all &= halves[i];
    return all == -1;
}

/* Column j of the panel: its indices, errors, and what is left of what was fed into it. */
MB_INLINE void round_column(const struct mb_coding *coding, float rho, float sure, struct panel *p, size_t j)
{
    const floats zero = {0};
    floats w = p->weights[j], aim = w + p->fed[j], low, high;
    find_levels(w, coding->step, rho, &low, &high);
    floats t = clamp(aim / coding->step, zero - 1000, zero + 1000);
    floats q = nearest(clamp(t, low, high));
    floats decoded = coding->step * q;
    ints is_sure = (low <= high) & (magnitude(w - decoded) <= sure);
    if (!all_set(is_sure))
        settle(coding, w, is_sure, &q, &decoded);
    p->n_clipped -= q != nearest(t);
    p->q[j] = q;
    p->errors[j] = w - decoded;
    p->rests[j] = aim - decoded;
}

static void load_panel(const struct mb_feed *feed, size_t row, size_t begin, size_t width, struct panel *p)
{
    size_t n = feed->factor->n;
    memset(p, 0, sizeof *p);
    for (size_t i = 0; i < LANES; i++) {
        const float *fed = feed->fed + (row + i) * feed->factor->stride + begin;
        for (size_t j = 0; j < width; j++)
            p->fed[j][i] = fed[j];
        for (size_t j = 0; j < width && row + i < feed->n_rows; j++)
            p->weights[j][i] = mb_load_value(feed->coding->dtype, feed->weights,
                                             (row + i) * n + feed->factor->order[begin + j]);
    }
}

static void store_panel(const struct mb_feed *feed, size_t row, size_t begin, size_t width,
                        const struct panel *p)
{
    size_t n = feed->factor->n;
    for (size_t i = 0; i < LANES; i++) {
        for (size_t j = 0; j < width; j++)
            feed->errors[(row + i) * MB_FEED_PANEL + j] = p->errors[j][i];
        for (size_t j = 0; j < width && row + i < feed->n_rows; j++)
            feed->wanted[(row + i) * n + feed->factor->order[begin + j]] = (int8_t)p->q[j][i];
        feed->n_clipped[row + i] += (uint32_t)p->n_clipped[i];
    }
}

/* V_kk^2 times the square of what is left, and of how far that may be off. */
static void add_row_errors(const struct mb_feed *feed, size_t row, size_t begin, size_t width,
                           const struct panel *p)
{
    for (size_t j = 0; j < width; j++) {
        double weight = feed->factor->weights[begin + j], drift = feed->drift[begin + j];
        for (size_t i = 0; i < LANES; i++) {
            double aim = fabs((double)p->weights[j][i]) + fabs((double)p->fed[j][i]);
            double rest = fabs((double)p->rests[j][i]) * (1 + 0x1p-22) + drift + aim * 0x1p-22;
            feed->row_errors2[row + i] += weight * (rest * rest);
        }
    }
}

static void round_panel(const struct mb_feed *feed, size_t row, size_t begin, size_t width)
{
    const struct mb_coding *coding = feed->coding;
    const float rho = (float)(coding->eps / (double)coding->step), sure = surely_within(coding->eps);
    struct panel p;
    load_panel(feed, row, begin, width, &p);
    for (size_t j = 0; j < width; j++) {
        const float *feeds = feed->factor->feeds + (begin + j) * feed->factor->stride + begin;
        round_column(coding, rho, sure, &p, j);
        for (size_t k = j + 1; k < width; k++)
            p.fed[k] += p.errors[j] * feeds[k];
    }
    store_panel(feed, row, begin, width, &p);
    add_row_errors(feed, row, begin, width, &p);
}

static void round_rows(const struct mb_feed *feed)
{
    size_t n = feed->factor->n, stride = feed->factor->stride;
    for (size_t begin = 0; begin < n; begin += MB_FEED_PANEL) {
        size_t end = begin + MB_FEED_PANEL < n ? begin + MB_FEED_PANEL : n;
        for (size_t row = 0; row < feed->n_rows; row += LANES)
            round_panel(feed, row, begin, end - begin);
        if (end < n)
            update_f32(feed->fed + end, stride, feed->n_rows, stride - end, feed->errors, MB_FEED_PANEL,
                       feed->factor->feeds + begin * stride + end, stride, end - begin);
    }
}

const struct mb_feedback_kernels NAMED(mb_feedback_kernels) = {update_f64, round_rows};
