/*
 * sweep_work.c - what the measurements of a run have in common: its figures, progress, time.
 */
#include "sweep_work.h"
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

bool mb_sweep_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct mb_sweep_work *work = ctx;
    (void)what;
    double share = total == 0 ? 1 : (double)done / (double)total;
    work->step.share = work->share_begin + share * (work->share_end - work->share_begin);
    return work->options.step != NULL && work->options.step(work->options.ctx, &work->step);
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
