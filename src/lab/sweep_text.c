/*
 * sweep_text.c - what a run predicts of a text: perplexity.
 */
#include "base/error.h"
#include "sweep_work.h"
#include <math.h>

enum mb_status mb_sweep_measure_text(struct mb_sweep_work *work, const struct mb_sweep_item *item,
                                     struct mb_sweep_row *row, struct mb_error *err)
{
    struct mb_perplexity_report report;
    struct mb_perplexity_options options = {.size = sizeof options,
                                            .n_ctx = work->sweep->n_ctx,
                                            .limit_windows = work->sweep->n_windows,
                                            .cache_type = work->options.cache_type,
                                            .progress = mb_sweep_progress,
                                            .progress_ctx = work};
    (void)item;
    MB_TRY(mb_eval_perplexity(work->model, work->tokenizer, work->text, work->text_nbytes, &options, &report,
                              err));
    double half = 1.959963984540054 * report.ppl_stderr, half_nll = half / report.ppl;
    mb_sweep_row_value(row, "ppl", report.ppl, report.ppl - half, report.ppl + half, report.n_tokens_scored);
    mb_sweep_row_value(row, "nll", report.nll_mean, report.nll_mean - half_nll, report.nll_mean + half_nll,
                       report.n_tokens_scored);
    return MB_OK;
}
