/*
 * convert_kernels.h - decoded rows as floats, and activations, written once for vectors of any length.
 *
 * A file that includes this has defined, for its instruction set:
 *   NAMED(name)     the name with the suffix of the instruction set
 *   LANES           floats of a vector
 *   ints            type: as many 32-bit integers
 *   SEEK, NEXT      the walk over groups: mb_group_seek and mb_group_next, or others
 *   decode_group    a group that is not raw to bytes; returns by how much they exceed its indices
 *   WHOLE_GROUP     true: it has made floats of a whole group that is not raw, without its outliers
 *   store_weights   the first n <= LANES of such bytes as floats
 *   store_values    n <= LANES original values as floats
 *   v_zero, v_add   of ints
 *   v_max_bits      the larger of ints and the magnitudes of n <= LANES floats, as their bits
 *   sum_of          over the lanes of ints
 *   ADD_COLUMNS     what else the activation of a table has
 *   SPLIT, split    as many elements at once to both planes; returns the sums of X
 *   split_bytes     the same for fast activations, with a factor and a plane more (activation.h)
 */
#include "activation.h"
#include "base/inline.h"
#include "exponents.h"
#include <string.h>

/* ---------------------------------------------------------------- rows as floats */

/* Weights [begin, end) of a group that is not raw, without its outliers. */
static void coded_floats(const struct mb_coded_matrix *w, const struct mb_group_view *view, size_t begin,
                         size_t end, float *out)
{
    if (end - begin == view->n && WHOLE_GROUP(w, view, out))
        return;
    uint8_t bytes[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    int offset = decode_group(w, view, bytes);
    size_t i = begin;
    for (; i + LANES <= end; i += LANES)
        store_weights(bytes + i, offset, w->step, LANES, out + (i - begin));
    if (i < end)
        store_weights(bytes + i, offset, w->step, end - i, out + (i - begin));
}

static void group_floats(const struct mb_coded_matrix *w, const struct mb_group_view *view, size_t begin,
                         size_t end, float *out)
{
    coded_floats(w, view, begin, end, out);
    for (size_t k = 0; k < view->n_outliers; k++) {
        size_t at = mb_load_u16(view->outlier_positions + 2 * k);
        if (at >= begin && at < end)
            out[at - begin] = mb_load_value(w->dtype, view->outlier_values, k);
    }
}

static void raw_floats(enum mb_dtype dtype, const uint8_t *values, size_t n, float *out)
{
    size_t elem_nbytes = mb_dtype_nbytes(dtype), i = 0;
    for (; i + LANES <= n; i += LANES)
        store_values(dtype, values + i * elem_nbytes, LANES, out + i);
    if (i < n)
        store_values(dtype, values + i * elem_nbytes, n - i, out + i);
}

void NAMED(mb_decode_rows)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out)
{
    struct mb_group_walk walk = n_rows > 0 ? SEEK(w, row) : (struct mb_group_walk){.w = w};
    float *rows = out;
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view view;
        NEXT(&walk, &view);
        uint64_t group_end = view.row + view.n_rows < end ? view.row + view.n_rows : end;
        size_t from = (size_t)(at - view.row) * w->n_cols, to = (size_t)(group_end - view.row) * w->n_cols;
        if (view.is_raw)
            raw_floats(w->dtype, view.body + from * mb_dtype_nbytes(w->dtype), to - from, out);
        else
            group_floats(w, &view, from, to, out);
        out += to - from;
        at = group_end;
    }
    mb_unscale_rows(w, n_rows, rows);
}

/* ---------------------------------------------------------------- activations */

/* Vectors for MB_PARTS lanes. */
enum { N_VECTORS = MB_PARTS / LANES };

/* The bits of NaN and infinity, as integers, are above those of all other floats. */
static void parts(const float *x, size_t n, uint32_t *largest)
{
    ints max[N_VECTORS];
    size_t i = 0;
    for (size_t k = 0; k < N_VECTORS; k++)
        max[k] = v_zero();
    for (; i + MB_PARTS <= n; i += MB_PARTS)
        for (size_t k = 0; k < N_VECTORS; k++)
            max[k] = v_max_bits(max[k], x + i + k * LANES, LANES);
    for (size_t k = 0; i < n; k++, i += LANES)
        max[k] = v_max_bits(max[k], x + i, n - i < LANES ? n - i : LANES);
    memcpy(largest, max, sizeof max);
}

/* All elements to both planes; returns the sum of X. A lane adds at most 65536 / 8 of them: it fits. */
static int64_t split_all(const float *x, size_t n, float scale, int8_t *hi, int8_t *lo)
{
    ints sum = v_zero();
    size_t i = 0;
    for (; i + SPLIT <= n; i += SPLIT)
        sum = v_add(sum, split(x + i, scale, hi + i, lo + i));
    if (i < n) {
        float last[SPLIT] = {0};
        memcpy(last, x + i, (n - i) * sizeof *x);
        sum = v_add(sum, split(last, scale, hi + i, lo + i));
        i += SPLIT;
    }
    memset(hi + i, 0, mb_activation_plane_nbytes(n) - i);
    memset(lo + i, 0, mb_activation_plane_nbytes(n) - i);
    return sum_of(sum);
}

static int64_t split_block(const float *x, size_t n, float scale, int factor, int8_t *bytes, int8_t *hi,
                           int8_t *lo)
{
    ints sum = v_zero();
    size_t i = 0;
    for (; i + SPLIT <= n; i += SPLIT)
        sum = v_add(sum, split_bytes(x + i, scale, factor, bytes + i, hi + i, lo + i));
    for (; i < MB_ACTIVATION_BLOCK; i += SPLIT) {
        float last[SPLIT] = {0};
        if (i < n)
            memcpy(last, x + i, (n - i) * sizeof *x);
        sum = v_add(sum, split_bytes(last, scale, factor, bytes + i, hi + i, lo + i));
    }
    return sum_of(sum);
}

static const struct mb_activation_ops activation_ops = {parts, split_all, split_block};

void NAMED(mb_activation)(const float *x, size_t n, int8_t *hi, int8_t *lo, void *wide,
                          struct mb_activation *out)
{
    mb_activation_by(&activation_ops, x, n, hi, lo, wide, out);
    ADD_COLUMNS(n, wide, out);
}

void NAMED(mb_activation_fast)(const float *x, size_t n, int8_t *bytes, int8_t *hi, int8_t *lo, void *wide,
                               struct mb_activation *out)
{
    mb_activation_fast_by(&activation_ops, x, n, bytes, hi, lo, wide, out);
    ADD_COLUMNS(n, wide, out);
}
