/*
 * statistics.c - what coded matrices consist of: raw groups, escapes, outliers, and how often each index
 * occurs.
 */
#include "kernels.h"
#include <math.h>

enum { Q_MAX = 127, SYMBOL_OFF_GRID = MB_N_SYMBOLS - 1 };

bool mb_group_is_raw(const struct mb_group *group)
{
    return group->kind == MB_KIND_RAW;
}

/* 'slack': how far from the grid a weight may be that is counted as an index. */
static void count_symbols(struct mb_coded_statistics *statistics, float step, float slack,
                          const float *weights, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float q = step == 0 ? 0 : rintf(weights[i] / step);
        bool is_index = fabsf(q) <= Q_MAX && fabsf(weights[i] - step * q) <= slack;
        statistics->n_symbols[is_index ? (int)q + Q_MAX : SYMBOL_OFF_GRID]++;
    }
}

void mb_coded_statistics_add(struct mb_coded_statistics *statistics, const struct mb_coded_matrix *w,
                             uint64_t row, uint64_t n_rows, const float *weights)
{
    if (n_rows == 0)
        return;
    struct mb_group_walk walk = mb_group_seek(w, row);
    for (uint64_t end = row + n_rows; row < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        count_symbols(statistics, w->step, view.is_raw ? (float)w->eps : 0, weights, view.n);
        statistics->n_weights += view.n;
        statistics->n_groups++;
        statistics->n_raw_groups += view.is_raw;
        statistics->n_escapes += view.n_escapes;
        statistics->n_outliers += view.n_outliers;
        weights += view.n;
        row += view.n_rows;
    }
}

void mb_coded_statistics_merge(struct mb_coded_statistics *to, const struct mb_coded_statistics *from)
{
    to->n_weights += from->n_weights;
    to->n_groups += from->n_groups;
    to->n_raw_groups += from->n_raw_groups;
    to->n_escapes += from->n_escapes;
    to->n_outliers += from->n_outliers;
    for (size_t i = 0; i < MB_N_SYMBOLS; i++)
        to->n_symbols[i] += from->n_symbols[i];
}

double mb_coded_entropy_bits(const struct mb_coded_statistics *statistics)
{
    double bits = 0, n = (double)statistics->n_weights;
    for (size_t i = 0; i < MB_N_SYMBOLS; i++) {
        double share = (double)statistics->n_symbols[i] / n;
        if (statistics->n_symbols[i] > 0)
            bits -= share * log2(share);
    }
    return bits;
}
