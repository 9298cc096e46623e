/*
 * sweep_run.c - one run of a sweep: its error, its measurements, its row.
 */
#include "base/clock.h"
#include "base/error.h"
#include "sweep_work.h"
#include <math.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- measurements */

static bool has_task(const struct mb_sweep_work *work)
{
    return mb_sweep_n_questions(work) > 0;
}

static bool has_windows(const struct mb_sweep_work *work)
{
    return has_task(work) || work->text != NULL;
}

/* 'weight': about how much of a run's time it takes. */
static const struct {
    bool (*is_wanted)(const struct mb_sweep_work *work);
    enum mb_status (*measure)(struct mb_sweep_work *work, const struct mb_sweep_change *change,
                              struct mb_sweep_row *row, struct mb_error *err);
    double weight;
} measurements[] = {
    {has_task, mb_sweep_measure_task, 0.8},
    {has_windows, mb_sweep_measure_text, 0.2},
};
enum { N_MEASUREMENTS = sizeof measurements / sizeof *measurements };

/* The clean run's answers, as soon as they are there: the run's other measurements need them. */
static void lend_clean(struct mb_sweep_work *work, struct mb_sweep_row *row)
{
    if (work->clean != NULL || row->answers == NULL)
        return;
    work->clean = row->answers;
    work->clean_replies = row->replies;
}

static enum mb_status measure(struct mb_sweep_work *work, const struct mb_sweep_change *change,
                              struct mb_sweep_row *row, struct mb_error *err)
{
    double all = 0;
    for (size_t i = 0; i < N_MEASUREMENTS; i++)
        all += measurements[i].is_wanted(work) ? measurements[i].weight : 0;
    work->share_end = 0;
    for (size_t i = 0; i < N_MEASUREMENTS; i++) {
        if (!measurements[i].is_wanted(work))
            continue;
        work->share_begin = work->share_end;
        work->share_end += measurements[i].weight / all;
        MB_TRY(measurements[i].measure(work, change, row, err));
        lend_clean(work, row);
    }
    return MB_OK;
}

/* Once its row is written: what is lent is kept, or taken back. */
static void keep_clean(struct mb_sweep_work *work, struct mb_sweep_row *row, bool is_written)
{
    if (work->clean == NULL || work->clean != row->answers)
        return;
    if (is_written) {
        work->n_clean_replies = row->replies == NULL ? 0 : row->n_answers;
        row->answers = NULL;
        row->replies = NULL;
    } else {
        work->clean = NULL;
        work->clean_replies = NULL;
    }
}

/* ---------------------------------------------------------------- one run */

static enum mb_status put_row(struct mb_sweep_work *work, size_t id, const struct mb_sweep_change *change,
                              const struct mb_sweep_row *row, const char *begun, double seconds,
                              struct mb_error *err)
{
    const struct mb_sweep_item *item = &work->plan->items[id];
    struct mb_result_run run = {.id = (int64_t)id,
                                .label = item->label,
                                .target = item->target,
                                .selected = change->selected == NULL ? "" : change->selected,
                                .projection = change->projection == NULL ? "" : change->projection,
                                .error = item->error,
                                .bound = item->bound,
                                .seed = item->seed,
                                .n_matrices = change->n_matrices,
                                .n_weights = change->n_weights,
                                .has_task = has_task(work),
                                .has_text = work->text != NULL,
                                .values = row->values,
                                .n_values = row->n_values,
                                .answers = row->answers,
                                .n_answers = row->n_answers,
                                .replies = (const char *const *)row->replies,
                                .n_replies = row->replies == NULL ? 0 : row->n_answers,
                                .routing = row->routing,
                                .n_routing = row->n_routing,
                                .loads = row->loads,
                                .n_loads = row->n_loads,
                                .flows = row->flows,
                                .n_flows = row->n_flows,
                                .percentiles = row->percentiles,
                                .n_percentiles = row->n_percentiles,
                                .begun = begun,
                                .seconds = seconds,
                                .n_threads = mb_model_info(work->model)->n_threads};
    pthread_mutex_lock(&work->shared->mutex);
    enum mb_status status = mb_results_put_run(work->results, &run, err);
    pthread_mutex_unlock(&work->shared->mutex);
    return status;
}

static enum mb_status measure_changed(struct mb_sweep_work *work, size_t id, struct mb_sweep_change *change,
                                      struct mb_sweep_row *row, struct mb_error *err)
{
    const struct mb_sweep_item *item = &work->plan->items[id];
    MB_TRY(mb_sweep_apply(work, item, change, err));
    if (!isnan(change->err_max)) {
        mb_sweep_row_value(row, "err_max", change->err_max, NAN, NAN, change->n_weights);
        mb_sweep_row_value(row, "err_rms", change->err_rms, NAN, NAN, change->n_weights);
    }
    if (!isnan(change->norm))
        mb_sweep_row_value(row, "norm", change->norm, NAN, NAN, change->n_weights);
    if (!isnan(change->bits))
        mb_sweep_row_value(row, "bits", change->bits, NAN, NAN, change->n_weights);
    enum mb_status status = measure(work, change, row, err), undone = mb_sweep_undo(work, err);
    return status == MB_OK ? undone : status;
}

enum mb_status mb_sweep_do_run(struct mb_sweep_work *work, size_t id, struct mb_error *err)
{
    struct mb_sweep_change change = {0};
    struct mb_sweep_row row = {0};
    char begun[32];
    uint64_t begun_ns = mb_now_ns();
    mb_sweep_now(begun);
    enum mb_status status = measure_changed(work, id, &change, &row, err);
    if (status == MB_OK)
        status = put_row(work, id, &change, &row, begun, (double)(mb_now_ns() - begun_ns) * 1e-9, err);
    keep_clean(work, &row, status == MB_OK);
    free(change.selected);
    free(change.projection);
    free(change.has_expert);
    mb_sweep_row_free(&row);
    return status;
}
