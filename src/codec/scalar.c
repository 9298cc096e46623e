/*
 * scalar.c - the scalar kernels of coded matrices: the specification that fast kernels match bit for bit.
 *
 * A row's product is, in double,  S step scale + O scale,  evaluated from the left, where S is the exact
 * integer sum of q X, rounded once (mb_sum_of_parts), and O adds (double)w X over the row's outliers in
 * order. A raw row's is  R scale, where R sums (double)w X in 8 lanes (element i in lane i % 8, in order),
 * added as
 * ((0+4)+(2+6)) + ((1+5)+(3+7)).  Where x has wide blocks, these are sums of the narrow parts of X, 256 hi +
 * lo, to which the wide parts are added: 32768 times the sum of (double)w E in order.  Both products are
 * rounded to float once.
 */
#include "activation.h"
#include "decode.h"
#include "encode.h"
#include "exponents.h"
#include <float.h>
#include <math.h>
#include <string.h>

static void parts_scalar(const float *x, size_t n, uint32_t *largest)
{
    memset(largest, 0, MB_PARTS * sizeof *largest);
    for (size_t i = 0; i < n; i++) {
        uint32_t magnitude = mb_bits_of_float(x[i]) & 0x7fffffff;
        if (magnitude > largest[i % MB_PARTS])
            largest[i % MB_PARTS] = magnitude;
    }
}

static int64_t split_scalar(const float *x, size_t n, float scale, int8_t *hi, int8_t *lo)
{
    int64_t sum = 0;
    memset(hi, 0, mb_activation_plane_nbytes(n));
    memset(lo, 0, mb_activation_plane_nbytes(n));
    for (size_t i = 0; i < n; i++) {
        int value = (int)rintf(x[i] / scale);
        hi[i] = (int8_t)((value + 128) >> 8);
        lo[i] = (int8_t)(value - 256 * hi[i]);
        sum += value;
    }
    return sum;
}

static int64_t split_fast_scalar(const float *x, size_t n, float scale, int factor, int8_t *bytes, int8_t *hi,
                                 int8_t *lo)
{
    int64_t sum = 0;
    memset(bytes, 0, MB_ACTIVATION_BLOCK);
    memset(hi, 0, MB_ACTIVATION_BLOCK);
    memset(lo, 0, MB_ACTIVATION_BLOCK);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (int8_t)rintf(x[i] / scale);
        int value = factor * bytes[i];
        hi[i] = (int8_t)((value + 128) >> 8);
        lo[i] = (int8_t)(value - 256 * hi[i]);
        sum += value;
    }
    return sum;
}

static const struct mb_activation_ops activation_ops = {parts_scalar, split_scalar, split_fast_scalar};

static void activation_scalar(const float *x, size_t n, int8_t *hi, int8_t *lo, void *wide,
                              struct mb_activation *out)
{
    mb_activation_by(&activation_ops, x, n, hi, lo, wide, out);
}

static void activation_fast_scalar(const float *x, size_t n, int8_t *bytes, int8_t *hi, int8_t *lo,
                                   void *wide, struct mb_activation *out)
{
    mb_activation_fast_by(&activation_ops, x, n, bytes, hi, lo, wide, out);
}

static float coded_result(int64_t narrow, int64_t wide, double o, float step, float scale)
{
    return (float)(mb_sum_of_parts(narrow, wide) * (double)step * (double)scale + o * (double)scale);
}

float mb_raw_row_product(enum mb_dtype dtype, const uint8_t *values, size_t n_cols,
                         const struct mb_activation *x)
{
    double lane[8] = {0};
    for (size_t c = 0; c < n_cols; c++)
        lane[c % 8] += (double)mb_load_value(dtype, values, c) * (double)mb_narrow_value(x, c);
    double sum = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    if (x->n_wide > 0)
        sum += mb_wide_raw_row(dtype, values, n_cols, x);
    return (float)(sum * (double)x->scale);
}

double mb_wide_outliers(enum mb_dtype dtype, const uint8_t *positions, const uint8_t *values, size_t n,
                        size_t begin, const struct mb_activation *x)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t wide = mb_wide_value(x, mb_load_u16(positions + 2 * i) - begin);
        sum += (double)mb_load_value(dtype, values, i) * (double)wide;
    }
    return (double)MB_WIDE_UNIT * sum;
}

double mb_wide_raw_row(enum mb_dtype dtype, const uint8_t *values, size_t n_cols,
                       const struct mb_activation *x)
{
    double sum = 0;
    for (size_t k = 0; k < x->n_wide; k++) {
        size_t c = (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK, end = c + MB_ACTIVATION_BLOCK;
        for (; c < end && c < n_cols; c++)
            sum += (double)mb_load_value(dtype, values, c) * (double)mb_wide_value(x, c);
    }
    return (double)MB_WIDE_UNIT * sum;
}

double mb_outliers(enum mb_dtype dtype, const uint8_t *positions, const uint8_t *values, size_t n,
                   size_t begin, const struct mb_activation *x)
{
    double sum = 0;
    if (x->bytes == NULL)
        for (size_t i = 0; i < n; i++)
            sum += mb_outlier_product(dtype, positions, values, i, begin, x);
    else
        for (size_t i = 0; i < n; i++)
            sum += (double)mb_load_value(dtype, values, i) *
                   (double)mb_fast_narrow_value(x, mb_load_u16(positions + 2 * i) - begin);
    if (x->n_wide > 0 && n > 0)
        sum += mb_wide_outliers(dtype, positions, values, n, begin, x);
    return sum;
}

double mb_row_outliers(enum mb_dtype dtype, const struct mb_group_view *view, size_t n_cols,
                       size_t row_in_group, unsigned *next, const struct mb_activation *x)
{
    size_t begin = row_in_group * n_cols, first;
    size_t n = mb_find_row_outliers(view, begin, n_cols, *next, &first);
    *next = (unsigned)(first + n);
    return mb_outliers(dtype, view->outlier_positions + 2 * first,
                       view->outlier_values + first * mb_dtype_nbytes(dtype), n, begin, x);
}

static float coded_row_product(const struct mb_coded_matrix *w, const struct mb_group_view *view,
                               const int8_t *q, size_t row_in_group, unsigned *next_outlier,
                               const struct mb_activation *x)
{
    int64_t narrow = 0, wide = 0;
    q += row_in_group * w->n_cols;
    for (size_t c = 0; c < w->n_cols; c++)
        narrow += (int64_t)q[c] * mb_narrow_value(x, c);
    for (size_t k = 0; k < x->n_wide; k++) {
        size_t c = (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK, end = c + MB_ACTIVATION_BLOCK;
        for (; c < end && c < w->n_cols; c++)
            wide += (int64_t)q[c] * mb_wide_value(x, c);
    }
    double outliers = mb_row_outliers(w->dtype, view, w->n_cols, row_in_group, next_outlier, x);
    return coded_result(narrow, wide, outliers, w->step, x->scale);
}

/* The rows of a group that lie in [row, end): first and count, in the group. */
static size_t rows_inside(const struct mb_group_view *view, uint64_t row, uint64_t end, size_t *first)
{
    *first = row > view->row ? (size_t)(row - view->row) : 0;
    uint64_t stop = end < view->row + view->n_rows ? end - view->row : view->n_rows;
    return (size_t)stop - *first;
}

static void matmul_scalar(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                          const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                          void *scratch)
{
    (void)scratch;
    int8_t q[MB_GROUP_WEIGHTS_MAX] = {0};
    uint64_t end = row + n_rows;
    struct mb_group_walk walk = n_rows > 0 ? mb_group_seek(w, row) : (struct mb_group_walk){.w = w};
    for (uint64_t at = row; at < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        size_t first, n = rows_inside(&view, row, end, &first);
        if (!view.is_raw)
            mb_group_indices(&view, q);
        for (size_t t = 0; t < n_tokens; t++) {
            unsigned next_outlier = 0;
            for (size_t r = first; r < first + n; r++)
                y[t * y_stride + (at - row) + (r - first)] =
                    view.is_raw
                        ? mb_raw_row_product(w->dtype, view.body + r * w->n_cols * mb_dtype_nbytes(w->dtype),
                                             w->n_cols, &x[t])
                        : coded_row_product(w, &view, q, r, &next_outlier, &x[t]);
        }
        at += n;
    }
}

static size_t matmul_scratch_nbytes_scalar(size_t n_cols)
{
    (void)n_cols;
    return 0;
}

static void matvec_scalar(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                          const struct mb_activation *x, float *y)
{
    matmul_scalar(w, row, n_rows, x, 1, y, 0, NULL);
}

/* Of each column: sums of q (256 hi + lo), of q E, and of outliers and raw rows. */
struct column_sums {
    int64_t *narrow, *wide;
    double *outliers;
};

/* Adds row r of a group, times element x_at of x, to the sums of all columns. */
static void add_row_transposed(const struct mb_coded_matrix *w, const struct mb_group_view *view,
                               const int8_t *q, size_t r, const struct mb_activation *x, size_t x_at,
                               unsigned *next_outlier, const struct column_sums *sums)
{
    int32_t narrow = mb_narrow_value(x, x_at), wide = mb_wide_value(x, x_at);
    double value = mb_activation_value(x, x_at), *o = sums->outliers;
    size_t begin = r * w->n_cols;
    if (view->is_raw) {
        const uint8_t *values = view->body + begin * mb_dtype_nbytes(w->dtype);
        for (size_t c = 0; c < w->n_cols; c++)
            o[c] += (double)mb_load_value(w->dtype, values, c) * value;
        return;
    }
    for (size_t c = 0; c < w->n_cols; c++)
        sums->narrow[c] += (int64_t)q[begin + c] * narrow;
    for (size_t c = 0; c < w->n_cols && wide != 0; c++)
        sums->wide[c] += (int64_t)q[begin + c] * wide;
    for (; *next_outlier < view->n_outliers; ++*next_outlier) {
        size_t at = mb_load_u16(view->outlier_positions + 2 * (size_t)*next_outlier);
        if (at >= begin + w->n_cols)
            return;
        if (at >= begin)
            o[at - begin] += (double)mb_load_value(w->dtype, view->outlier_values, *next_outlier) * value;
    }
}

/* Three sums a column. */
static size_t transposed_scratch_nbytes_scalar(size_t n_cols)
{
    return n_cols * (2 * sizeof(int64_t) + sizeof(double));
}

/* y[c] = S step scale + O scale, where O adds outliers and raw rows, in order of rows. */
static void matvec_transposed_scalar(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                                     const struct mb_activation *x, float *y, void *scratch)
{
    int8_t q[MB_GROUP_WEIGHTS_MAX] = {0};
    struct column_sums sums = {.narrow = scratch};
    sums.wide = sums.narrow + w->n_cols;
    sums.outliers = (double *)(sums.wide + w->n_cols);
    memset(scratch, 0, transposed_scratch_nbytes_scalar(w->n_cols));
    struct mb_group_walk walk = n_rows > 0 ? mb_group_seek(w, row) : (struct mb_group_walk){.w = w};
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        size_t first, n = rows_inside(&view, row, end, &first);
        unsigned next_outlier = 0;
        if (!view.is_raw)
            mb_group_indices(&view, q);
        for (size_t r = first; r < first + n; r++)
            add_row_transposed(w, &view, q, r, x, (size_t)(at - row) + r - first, &next_outlier, &sums);
        at += n;
    }
    for (size_t c = 0; c < w->n_cols; c++)
        y[c] = coded_result(sums.narrow[c], sums.wide[c], sums.outliers[c], w->step, x->scale);
}

/* All weights of a group. */
static void group_weights(const struct mb_coded_matrix *w, const struct mb_group_view *view, float *out)
{
    if (view->is_raw) {
        for (size_t i = 0; i < view->n; i++)
            out[i] = mb_load_value(w->dtype, view->body, i);
        return;
    }
    int8_t q[MB_GROUP_WEIGHTS_MAX] = {0};
    mb_group_indices(view, q);
    for (size_t i = 0; i < view->n; i++)
        out[i] = w->step * (float)q[i];
    for (size_t i = 0; i < view->n_outliers; i++)
        out[mb_load_u16(view->outlier_positions + 2 * i)] = mb_load_value(w->dtype, view->outlier_values, i);
}

static void decode_rows_scalar(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out)
{
    float group[2 * MB_GROUP_WEIGHTS], *rows = out;
    struct mb_group_walk walk = n_rows > 0 ? mb_group_seek(w, row) : (struct mb_group_walk){.w = w};
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        size_t first, n = rows_inside(&view, row, end, &first);
        if (view.n_rows == n) {
            group_weights(w, &view, out);
        } else { /* part of a group of several rows: less than 2048 weights */
            group_weights(w, &view, group);
            memcpy(out, group + first * w->n_cols, n * w->n_cols * sizeof *out);
        }
        out += n * w->n_cols;
        at += n;
    }
    mb_unscale_rows(w, n_rows, rows);
}

size_t mb_count_full_codes_scalar(const uint8_t *stream, size_t n, unsigned width)
{
    const unsigned n_word = mb_word_codes(width);
    const size_t word_nbytes = n_word * width / 8;
    const uint64_t lowest = mb_lowest_bits(width);
    size_t count = 0, i = 0;
    for (; i + n_word <= n; i += n_word, stream += word_nbytes) {
        uint64_t word = 0, full;
        memcpy(&word, stream, word_nbytes);
        full = word;
        for (unsigned k = 1; k < width; k++)
            full &= word >> k;
        count += (size_t)__builtin_popcountll(full & lowest);
    }
    for (size_t k = 0; i + k < n; k++)
        count += mb_stream_code(stream, k, width) == (1u << width) - 1;
    return count;
}

void mb_prefetch_rows(const struct mb_coded_matrix *w, uint64_t row)
{
    enum { NBYTES = 20480, PAGE_NBYTES = 4096, LINE_NBYTES = 64 };
    uint64_t tile = row / (w->group_rows * w->tile_groups), pos = w->tiles[tile].data_pos;
    struct mb_group_walk walk = {
        .w = w,
        .group = tile * w->tile_groups,
        .outlier_count = w->outlier_counts + 2 * (size_t)w->tiles[tile].first_outlier,
    };
    for (size_t n = 0; n <= MB_GROUPS_AHEAD; n += LINE_NBYTES / 2)
        mb_prefetch_directory(&walk, n);
    uint64_t n = w->data_nbytes - pos < NBYTES ? w->data_nbytes - pos : NBYTES;
    const uint8_t *p = w->data + pos;
    for (uint64_t i = 0; i < n; i += PAGE_NBYTES) /* else prefetches of the page may be dropped */
        (void)*(const volatile uint8_t *)(p + i);
    for (uint64_t i = 0; i < n; i += LINE_NBYTES)
        __builtin_prefetch(p + i);
}

const struct mb_kernels mb_kernels_scalar = {
    .isa = "scalar",
    .activation = activation_scalar,
    .activation_fast = activation_fast_scalar,
    .matvec = matvec_scalar,
    .matmul = matmul_scalar,
    .matvec_transposed = matvec_transposed_scalar,
    .matmul_scratch_nbytes = matmul_scratch_nbytes_scalar,
    .transposed_scratch_nbytes = transposed_scratch_nbytes_scalar,
    .decode_rows = decode_rows_scalar,
    .encode_rows = mb_encode_rows_scalar,
    .count_full_codes = mb_count_full_codes_scalar,
};
