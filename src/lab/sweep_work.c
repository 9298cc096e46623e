/*
 * sweep_work.c - what the measurements of a run have in common: its figures, progress, time.
 */
#include "sweep_work.h"
#include "base/cpus.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

void mb_sweep_row_free(struct mb_sweep_row *row)
{
    for (size_t i = 0; row->replies != NULL && i < row->n_answers; i++)
        free(row->replies[i]);
    free(row->replies);
    free(row->answers);
    free(row->routing);
    free(row->loads);
    free(row->flows);
    free(row->percentiles);
    *row = (struct mb_sweep_row){0};
}

void mb_sweep_row_value(struct mb_sweep_row *row, const char *name, double value, double low, double high,
                        uint64_t n)
{
    assert(row->n_values < MB_SWEEP_VALUES_MAX);
    row->values[row->n_values++] = (struct mb_result_value){name, value, low, high, n};
}

void mb_sweep_row_share(struct mb_sweep_row *row, const char *name, uint64_t k, uint64_t n)
{
    double low, high;
    mb_wilson95(k, n, &low, &high);
    mb_sweep_row_value(row, name, n == 0 ? NAN : (double)k / (double)n, low, high, n);
}

bool mb_sweep_show(struct mb_sweep_work *work, double share)
{
    struct mb_sweep_shared *shared = work->shared;
    pthread_mutex_lock(&shared->mutex);
    shared->share += share - work->share;
    work->share = share;
    struct mb_sweep_step step = {
        .run = shared->n_done, .n_runs = shared->n_runs, .what = work->what, .share = shared->share};
    bool stops = shared->status != MB_OK ||
                 (work->options.step != NULL && work->options.step(work->options.ctx, &step));
    pthread_mutex_unlock(&shared->mutex);
    return stops;
}

bool mb_sweep_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct mb_sweep_work *work = ctx;
    (void)what;
    double share = total == 0 ? 1 : (double)done / (double)total;
    return mb_sweep_show(work, work->share_begin + share * (work->share_end - work->share_begin));
}

/* Threads are dealt out to the jobs; each job has one at least. */
enum mb_status mb_sweep_open_model(struct mb_sweep_work *work, struct mb_error *err)
{
    struct mb_cpu_share share = mb_cpu_share();
    int n_jobs = (int)work->options.n_jobs, n_all = work->options.n_threads;
    if (n_all == 0)
        n_all = mb_cpu_share_threads(&share);
    struct mb_model_options options = {.size = sizeof options,
                                       .n_threads = n_all > n_jobs ? n_all / n_jobs : 1};
    if (n_jobs == 1)
        options.n_threads = work->options.n_threads;
    return mb_model_open(work->model_path, &options, &work->model, err);
}

void mb_sweep_close_model(struct mb_sweep_work *work)
{
    mb_perturb_close(work->perturber);
    mb_profile_close(work->profile);
    mb_measure_close(work->measure);
    mb_model_close(work->model);
}

void mb_sweep_now(char text[32])
{
    time_t now = time(NULL);
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

struct mb_sweep_shape mb_sweep_shape_of(const struct mb_sweep_work *work)
{
    return (struct mb_sweep_shape){work->moe_layers, work->n_moe_layers,
                                   mb_model_info(work->model)->n_experts};
}

size_t mb_sweep_n_questions(const struct mb_sweep_work *work)
{
    return work->task.n_items + work->task.n_choices; /* one of them is 0 */
}
