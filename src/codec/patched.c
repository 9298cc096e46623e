/*
 * patched.c - the table of the form "patched fixed width", and what its groups add to statistics.
 */
#include "patched.h"
#include "exponents.h"
#include "forms.h"
#include <math.h>

static bool group_is_raw(const struct mb_group *group)
{
    return group->kind == MB_KIND_RAW;
}

/* The encoder of the best kernel table. */
static enum mb_status encode_rows(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                  uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                                  size_t *bad_index)
{
    return mb_kernels()->encode_rows(coding, weights, n_rows, out, out_cap, out_nbytes, groups, bad_index);
}

/* 'slack': how far from the grid a weight may be that is counted as an index. */
static void count_symbols(struct mb_coded_statistics *statistics, const struct mb_coded_matrix *w,
                          float slack, const float *weights, size_t n)
{
    enum { Q_MAX = 127, SYMBOL_OFF_GRID = MB_N_SYMBOLS - 1 };
    for (size_t i = 0; i < n; i++) {
        float v = mb_scaled_weight(w, weights[i], i), q = w->step == 0 ? 0 : rintf(v / w->step);
        bool is_index = fabsf(q) <= Q_MAX && fabsf(v - w->step * q) <= slack;
        statistics->n_symbols[is_index ? (int)q + Q_MAX : SYMBOL_OFF_GRID]++;
    }
}

static void statistics_add(struct mb_coded_statistics *statistics, const struct mb_coded_matrix *w,
                           uint64_t row, uint64_t n_rows, const float *weights)
{
    if (n_rows == 0)
        return;
    struct mb_group_walk walk = mb_group_seek(w, row);
    for (uint64_t end = row + n_rows; row < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        statistics->n_weights += view.n;
        statistics->n_groups++;
        statistics->n_raw_groups += view.is_raw;
        statistics->n_escapes += view.n_escapes;
        statistics->n_outliers += view.n_outliers;
        if (weights != NULL) {
            count_symbols(statistics, w, view.is_raw ? (float)w->eps : 0, weights, view.n);
            weights += view.n;
        }
        row += view.n_rows;
    }
}

const struct mb_form mb_form_patched = {
    .id = MB_FORM_PATCHED,
    .encode_bound = mb_patched_encode_bound,
    .encode_rows = encode_rows,
    .group_is_raw = group_is_raw,
    .directory_nbytes = mb_patched_directory_nbytes,
    .directory_write = mb_patched_directory_write,
    .directory_nbytes_min = mb_patched_directory_nbytes_min,
    .view_nbytes = mb_patched_view_nbytes,
    .view = mb_patched_view,
    .check = mb_patched_check,
    .statistics_add = statistics_add,
};
