/*
 * sweep_text.c - the clean and the changed model read the same tokens: KL, perplexity.
 */
#include "base/error.h"
#include "sweep_work.h"
#include "task_form.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Questions with their replies that are read where no text is given. */
enum { N_QUESTIONS_DEFAULT = 256 };

/* ---------------------------------------------------------------- the clean pass */

static size_t n_questions_read(const struct mb_sweep_work *work)
{
    size_t n = work->sweep->n_windows == 0 ? N_QUESTIONS_DEFAULT : work->sweep->n_windows;
    return n < work->task.n_items ? n : work->task.n_items;
}

static enum mb_status add_replies(struct mb_sweep_work *work, struct mb_error *err)
{
    const struct mb_model_info *info = mb_model_info(work->model);
    enum mb_status status = MB_OK;
    size_t n_turns;
    struct mb_chat_message *turns = mb_task_turns(&work->task, &n_turns);
    if (turns == NULL)
        return mb_fail_memory(err, "the examples");
    for (size_t i = 0; i < n_questions_read(work) && status == MB_OK; i++) {
        turns[n_turns - 1] = (struct mb_chat_message){"user", work->task.items[i].question};
        if (work->clean[i].dead == MB_ALIVE)
            status = mb_windows_add_chat(&work->windows, info, work->tokenizer, turns, n_turns,
                                         work->clean_replies[i], err);
    }
    free(turns);
    MB_TRY(status);
    return work->windows.n > 0
               ? MB_OK
               : mb_fail(err, MB_BAD_DATA, "the clean model has no reply of use: give a text");
}

bool mb_sweep_has_lines(const struct mb_sweep_work *work)
{
    const char *path = work->sweep->text;
    size_t n = path == NULL ? 0 : strlen(path);
    return n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

static enum mb_status add_lines(struct mb_sweep_work *work, struct mb_error *err)
{
    if (work->sweep->n_ctx != 0)
        return mb_fail(err, MB_USAGE, "%s: has replies, each of its own length: leave out 'ctx_size'",
                       work->sweep->text);
    enum mb_status status =
        mb_windows_add_replies(&work->windows, mb_model_info(work->model), work->tokenizer, work->text,
                               work->text_nbytes, work->sweep->n_windows, err);
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "%s", work->sweep->text);
}

enum mb_status mb_sweep_add_text(struct mb_sweep_work *work, struct mb_error *err)
{
    if (work->text == NULL)
        return MB_OK;
    if (mb_sweep_has_lines(work))
        return add_lines(work, err);
    return mb_windows_add_text(&work->windows, mb_model_info(work->model), work->tokenizer, work->text,
                               work->text_nbytes, work->sweep->n_ctx, work->sweep->n_windows, err);
}

size_t mb_sweep_n_windows(const struct mb_sweep_work *work)
{
    return work->text == NULL ? n_questions_read(work) : work->windows.n;
}

enum mb_status mb_sweep_read_clean(struct mb_sweep_work *work, struct mb_error *err)
{
    struct mb_measure_options options = {.size = sizeof options,
                                         .cache_type = work->options.cache_type,
                                         .progress = mb_sweep_progress,
                                         .progress_ctx = work};
    if (work->measure != NULL)
        return MB_OK;
    if (work->windows.n == 0)
        MB_TRY(add_replies(work, err));
    MB_TRY(mb_profile_open(work->model, &work->profile, err));
    mb_model_watch_routes(work->model, mb_profile_count, work->profile);
    enum mb_status status = mb_measure_open(work->model, &work->windows, &options, &work->measure, err);
    mb_model_watch_routes(work->model, NULL, NULL);
    return status;
}

/* ---------------------------------------------------------------- rows */

static void put_mean(struct mb_sweep_row *row, const char *name, const struct mb_token_mean *mean, uint64_t n)
{
    mb_sweep_row_value(row, name, mean->value, mean->low, mean->high, n);
}

static enum mb_status put_percentiles(struct mb_sweep_row *row, const struct mb_comparison *c,
                                      struct mb_error *err)
{
    static const double percents[] = MB_PERCENTS;
    row->percentiles = malloc(2 * MB_N_PERCENTS * sizeof *row->percentiles);
    if (row->percentiles == NULL)
        return mb_fail_memory(err, "the percentiles");
    for (size_t i = 0; i < MB_N_PERCENTS; i++) {
        row->percentiles[row->n_percentiles++] =
            (struct mb_result_percentile){"kl", percents[i], c->kl_percentiles[i]};
        row->percentiles[row->n_percentiles++] =
            (struct mb_result_percentile){"dp", percents[i], c->dp_percentiles[i]};
    }
    return MB_OK;
}

enum mb_status mb_sweep_measure_text(struct mb_sweep_work *work, const struct mb_sweep_change *change,
                                     struct mb_sweep_row *row, struct mb_error *err)
{
    struct mb_comparison c;
    MB_TRY(mb_sweep_read_clean(work, err)); /* in the clean run: by now it has its replies */
    MB_TRY(mb_measure_run(work->measure, &change->layers, &c, err));
    put_mean(row, "kl", &c.kl, c.n_scored);
    put_mean(row, "tv", &c.tv, c.n_scored);
    put_mean(row, "top1", &c.same_top, c.n_scored);
    put_mean(row, "nll", &c.nll, c.n_scored);
    put_mean(row, "ln_ratio", &c.ln_ratio, c.n_scored);
    mb_sweep_row_value(row, "ppl", c.ppl, exp(c.nll.low), exp(c.nll.high), c.n_scored);
    mb_sweep_row_value(row, "not_finite", (double)c.n_not_finite, NAN, NAN, c.n_scored);
    MB_TRY(put_percentiles(row, &c, err));
    return mb_sweep_measure_routes(work, change, row, err);
}
