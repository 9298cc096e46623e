/*
 * perturb_bounds.c - how large an error may be: what bounds are relative to, as compress takes it.
 *
 * A *unit* has one base for all of its matrices: gate, up and down of an expert or a shared expert together,
 * and any other matrix by itself.
 */
#include "base/error.h"
#include "perturb_work.h"
#include <math.h>

static bool is_same_unit(const struct mb_model_matrix *a, const struct mb_model_matrix *b)
{
    bool has_parts = a->kind == MB_MATRIX_EXPERT || a->kind == MB_MATRIX_SHARED;
    return has_parts && a->kind == b->kind && a->layer == b->layer && a->expert == b->expert;
}

/* The first matrix of its unit: they follow one another. */
static size_t unit_of(const struct mb_perturber *p, size_t number)
{
    while (number > 0 && is_same_unit(&p->matrices[number], &p->matrices[number - 1]))
        number--;
    return number;
}

static enum mb_status fail_weight(const struct mb_model_matrix *matrix, uint64_t index, struct mb_error *err)
{
    return mb_fail(err, MB_BAD_DATA, "%s: weight [%" PRIu64 ", %" PRIu64 "] is NaN or infinite", matrix->name,
                   index / matrix->n_cols, index % matrix->n_cols);
}

/* In the order of its elements, as compress adds them: the same sum, bit for bit. */
static enum mb_status add_matrix(const struct mb_perturber *p, size_t number, int thread,
                                 struct mb_weight_stats *stats, struct mb_error *err)
{
    const struct mb_model_matrix *matrix = &p->matrices[number];
    struct mb_matrix w = mb_model_weights(p->model, number);
    size_t bad;
    if (!w.is_coded)
        return mb_weight_stats_add(stats, w.dtype, w.dense, (size_t)(w.n_rows * w.n_cols), &bad) == MB_OK
                   ? MB_OK
                   : fail_weight(matrix, bad, err);
    uint64_t rows = mb_perturb_piece_rows(w.n_rows, w.n_cols);
    float *values = p->scratch[thread].weights;
    for (uint64_t row = 0; row < w.n_rows; row += rows) {
        uint64_t n = w.n_rows - row < rows ? w.n_rows - row : rows;
        mb_matrix_rows(&w, row, n, values);
        if (mb_weight_stats_add(stats, MB_F32, values, (size_t)n * w.n_cols, &bad) != MB_OK)
            return fail_weight(matrix, row * w.n_cols + bad, err);
    }
    return MB_OK;
}

/* Only the item with which its unit begins in the list does it, and only once. */
static void gather(struct mb_perturb_work *work, size_t number, int thread)
{
    struct mb_perturber *p = work->perturber;
    struct mb_perturb_item *item = &work->items[number];
    size_t unit = unit_of(p, item->number);
    bool is_first = number == 0 || unit_of(p, work->items[number - 1].number) != unit;
    if (!is_first || p->stats[unit].n > 0)
        return;
    struct mb_weight_stats stats = MB_WEIGHT_STATS_INIT;
    for (size_t i = unit; i < p->n_matrices && unit_of(p, i) == unit && item->status == MB_OK; i++)
        item->status = add_matrix(p, i, thread, &stats, &item->err);
    if (item->status == MB_OK)
        p->stats[unit] = stats;
}

static const struct mb_bound *bound_of(const struct mb_perturb_work *work, size_t item)
{
    const struct mb_perturbation *perturbation = work->perturbation;
    return perturbation->bounds == NULL ? &perturbation->bound : &perturbation->bounds[item];
}

static bool needs_stats(const struct mb_bound *bound)
{
    return bound->kind == MB_BOUND_MEAN_ABS || bound->kind == MB_BOUND_RANGE;
}

enum mb_status mb_perturb_bounds(struct mb_perturb_work *work, struct mb_error *err)
{
    bool any_needs = false;
    if (bound_of(work, 0)->kind == MB_BOUND_EXACT)
        return MB_OK;
    for (size_t i = 0; i < work->n_items; i++)
        any_needs = any_needs || needs_stats(bound_of(work, i));
    if (any_needs)
        MB_TRY(mb_perturb_items(work, gather, err));
    for (size_t i = 0; i < work->n_items; i++) {
        struct mb_weight_stats stats = {.n = 1}; /* an absolute bound does not depend on how many there are */
        if (needs_stats(bound_of(work, i)))
            stats = work->perturber->stats[unit_of(work->perturber, work->items[i].number)];
        work->items[i].eps = mb_bound_eps(bound_of(work, i), &stats);
    }
    return MB_OK;
}

/* Two passes in order: the mean, then squares of differences from it. */
static void find_moments(struct mb_perturb_work *work, size_t number, int thread)
{
    struct mb_perturb_item *item = &work->items[number];
    const struct mb_matrix *w = &item->original;
    float *values = work->perturber->scratch[thread].weights;
    uint64_t rows = mb_perturb_piece_rows(w->n_rows, w->n_cols);
    double mean = 0, n_all = (double)w->n_rows * (double)w->n_cols;
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0;
        for (uint64_t row = 0; row < w->n_rows; row += rows) {
            uint64_t n = w->n_rows - row < rows ? w->n_rows - row : rows;
            mb_matrix_rows(w, row, n, values);
            for (size_t i = 0; i < (size_t)n * w->n_cols; i++)
                sum += pass == 0 ? values[i] : (values[i] - mean) * (values[i] - mean);
        }
        if (pass == 0)
            mean = sum / n_all;
        else
            item->deviation = sqrt(sum / n_all);
    }
    item->mean = mean;
    if (!isfinite(mean) || !isfinite(item->deviation))
        item->status = mb_fail(&item->err, MB_BAD_DATA, "%s: a weight is NaN or infinite",
                               work->perturber->matrices[item->number].name);
}

enum mb_status mb_perturb_moments(struct mb_perturb_work *work, struct mb_error *err)
{
    return mb_perturb_items(work, find_moments, err);
}
