/*
 * perturb_make.c - makes the matrices with errors, and measures the errors that they have.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "perturb_work.h"
#include "random.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

/* ---------------------------------------------------------------- values */

/* Rounding to float must not go beyond the bound: the next float towards w does not. */
static float within(double w, double changed, double eps)
{
    float rounded = (float)changed;
    return fabs((double)rounded - w) <= eps ? rounded : nextafterf(rounded, (float)w);
}

static void add_noise(struct mb_perturb_work *work, size_t number, int thread)
{
    const struct mb_perturb_piece *piece = &work->pieces[number];
    const struct mb_perturb_item *item = piece->item;
    const struct mb_perturb_scratch *scratch = &work->perturber->scratch[thread];
    size_t n_cols = item->original.n_cols, n = (size_t)piece->n_rows * n_cols;
    uint64_t first = piece->row * n_cols;
    float *out = item->out + first;
    const float *w = scratch->weights;
    const double *draws = scratch->draws;
    bool is_even = work->perturbation->kind == MB_PERTURB_UNIFORM;
    bool is_new = work->perturbation->kind == MB_PERTURB_RANDOM;
    if (is_even)
        mb_random_even(item->key, first, n, scratch->draws);
    else
        mb_random_normal(item->key, first, n, scratch->draws);
    if (!is_new)
        mb_matrix_rows(&item->original, piece->row, piece->n_rows, scratch->weights);
    for (size_t i = 0; i < n; i++) {
        if (is_even)
            out[i] = within(w[i], w[i] + item->eps * draws[i], item->eps);
        else
            out[i] = (float)((is_new ? item->mean : (double)w[i]) + item->deviation * draws[i]);
    }
}

/* Another codec, on a whole matrix. What has a bound of 0 is all zeros, which no codec need see. */
static void apply_codec(struct mb_perturb_work *work, size_t number, int thread)
{
    struct mb_perturb_item *item = &work->items[number];
    const struct mb_matrix *w = &item->original;
    size_t nbytes = (size_t)w->n_rows * w->n_cols * sizeof(float);
    size_t coded_nbytes = 0;
    float *values = malloc(nbytes + 1);
    (void)thread;
    if (values == NULL) {
        item->status = mb_fail_memory(&item->err, "the weights of a matrix");
        return;
    }
    mb_matrix_rows(w, 0, w->n_rows, values);
    struct mb_codec_matrix matrix = {.dtype = w->is_coded ? MB_F32 : w->dtype,
                                     .weights = w->is_coded ? values : w->dense,
                                     .values = values,
                                     .n_rows = (size_t)w->n_rows,
                                     .n_cols = w->n_cols,
                                     .eps = item->eps};
    if (item->eps == 0)
        memcpy(item->out, values, nbytes);
    else
        item->status =
            mb_codec_apply(work->perturbation->codec, &matrix, item->out, &coded_nbytes, NULL, &item->err);
    item->coded_nbytes = coded_nbytes;
    if (item->status != MB_OK)
        mb_fail_in(&item->err, item->status, "%s", work->perturber->matrices[item->number].name);
    free(values);
}

/* ---------------------------------------------------------------- what it did */

static void add_error(struct mb_perturb_sums *sums, double w, double changed, double eps)
{
    double error = fabs(changed - w);
    sums->error_squares += error * error;
    sums->weight_squares += w * w;
    sums->err_max = error > sums->err_max ? error : sums->err_max;
    sums->n_beyond += error > eps;
    sums->n_bad_weights += !isfinite(w);
    sums->n_infinite += !isfinite(changed);
}

static void measure_piece(struct mb_perturb_work *work, size_t number, int thread)
{
    struct mb_perturb_piece *piece = &work->pieces[number];
    const struct mb_perturb_item *item = piece->item;
    const struct mb_perturb_scratch *scratch = &work->perturber->scratch[thread];
    size_t n = (size_t)piece->n_rows * item->original.n_cols;
    struct mb_perturb_sums sums = {0};
    mb_matrix_rows(&item->original, piece->row, piece->n_rows, scratch->weights);
    mb_matrix_rows(&item->laid, piece->row, piece->n_rows, scratch->changed);
    for (size_t i = 0; i < n; i++)
        add_error(&sums, scratch->weights[i], scratch->changed[i], item->eps);
    piece->sums = sums;
}

/* Sums of pieces in their order: the same bits for every number of threads. */
static enum mb_status measure(struct mb_perturb_work *work, struct mb_error *err)
{
    MB_TRY(mb_perturb_pieces(work, measure_piece, err));
    for (size_t i = 0; i < work->n_items; i++)
        work->items[i].sums = (struct mb_perturb_sums){0};
    for (size_t i = 0; i < work->n_pieces; i++) {
        const struct mb_perturb_sums *from = &work->pieces[i].sums;
        struct mb_perturb_sums *to = &work->pieces[i].item->sums;
        to->error_squares += from->error_squares;
        to->weight_squares += from->weight_squares;
        to->err_max = from->err_max > to->err_max ? from->err_max : to->err_max;
        to->n_beyond += from->n_beyond;
        to->n_bad_weights += from->n_bad_weights;
        to->n_infinite += from->n_infinite;
    }
    for (size_t i = 0; i < work->n_items; i++) {
        const struct mb_perturb_item *item = &work->items[i];
        const char *name = work->perturber->matrices[item->number].name;
        if (item->sums.n_bad_weights > 0)
            return mb_fail(err, MB_BAD_DATA, "%s: a weight is NaN or infinite", name);
        if (item->sums.n_infinite > 0)
            return mb_fail(err, MB_USAGE, "%s: the error makes weights infinite; choose a smaller bound",
                           name);
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- memory */

static uint64_t value_nbytes(const struct mb_perturb_item *item)
{
    return mb_round_up(item->original.n_rows * item->original.n_cols * sizeof(float), ALIGNMENT);
}

static void lay_values(struct mb_perturb_item *item, float *out)
{
    item->out = out;
    item->laid = (struct mb_matrix){
        .n_rows = item->original.n_rows, .n_cols = item->original.n_cols, .dtype = MB_F32, .dense = out};
}

/* Floats: no rounding hides an error. */
static enum mb_status make_arena(struct mb_perturb_work *work, struct mb_error *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < work->n_items; i++)
        work->arena_nbytes += value_nbytes(&work->items[i]);
    work->arena = mb_pages_alloc(work->arena_nbytes);
    if (work->arena == NULL)
        return mb_fail_memory(err, "the changed weights");
    for (size_t i = 0; i < work->n_items; i++) {
        lay_values(&work->items[i], (float *)((uint8_t *)work->arena + at));
        at += value_nbytes(&work->items[i]);
    }
    return MB_OK;
}

/* Pages that nobody writes are all the kernel's one page of zeros: one matrix's worth of them serves all. */
static enum mb_status make_zeros(struct mb_perturb_work *work, struct mb_error *err)
{
    for (size_t i = 0; i < work->n_items; i++)
        if (value_nbytes(&work->items[i]) > work->arena_nbytes)
            work->arena_nbytes = value_nbytes(&work->items[i]);
    work->arena = mb_sparse_alloc(work->arena_nbytes);
    if (work->arena == NULL)
        return mb_fail_memory(err, "the changed weights");
    for (size_t i = 0; i < work->n_items; i++)
        lay_values(&work->items[i], work->arena);
    return MB_OK;
}

/* ---------------------------------------------------------------- kinds */

static enum mb_status make_noise(struct mb_perturb_work *work, struct mb_error *err)
{
    MB_TRY(make_arena(work, err));
    return mb_perturb_pieces(work, add_noise, err);
}

static enum mb_status make_normal(struct mb_perturb_work *work, struct mb_error *err)
{
    for (size_t i = 0; i < work->n_items; i++)
        work->items[i].deviation = work->items[i].eps;
    return make_noise(work, err);
}

static enum mb_status make_random(struct mb_perturb_work *work, struct mb_error *err)
{
    MB_TRY(mb_perturb_moments(work, err));
    return make_noise(work, err);
}

static enum mb_status make_coded(struct mb_perturb_work *work, struct mb_error *err)
{
    if (work->perturbation->codec == NULL)
        return mb_perturb_code(work, err);
    MB_TRY(make_arena(work, err));
    return mb_perturb_items(work, apply_codec, err);
}

/* The coded matrices are needed no longer than their error is measured. */
static enum mb_status make_isotropic(struct mb_perturb_work *work, struct mb_error *err)
{
    MB_TRY(mb_perturb_code(work, err));
    MB_TRY(measure(work, err));
    for (size_t i = 0; i < work->n_items; i++) {
        struct mb_perturb_item *item = &work->items[i];
        double n = (double)item->original.n_rows * (double)item->original.n_cols;
        item->deviation = sqrt(item->sums.error_squares / n);
        free(item->block);
        item->block = NULL;
        item->block_nbytes = 0;
        item->coded_nbytes = 0;
    }
    return make_noise(work, err);
}

enum mb_status mb_perturb_make(struct mb_perturb_work *work, struct mb_error *err)
{
    static enum mb_status (*const makers[])(struct mb_perturb_work *, struct mb_error *) = {
        [MB_PERTURB_NORMAL] = make_normal, [MB_PERTURB_UNIFORM] = make_noise,
        [MB_PERTURB_CODEC] = make_coded,   [MB_PERTURB_RANDOM] = make_random,
        [MB_PERTURB_ZERO] = make_zeros,    [MB_PERTURB_GAUSS_ISO] = make_isotropic,
    };
    MB_TRY(mb_perturb_bounds(work, err));
    MB_TRY(makers[work->perturbation->kind](work, err));
    return measure(work, err);
}
