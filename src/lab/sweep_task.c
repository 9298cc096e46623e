/*
 * sweep_task.c - a run's answers to the task, and how they differ from the clean run's.
 */
#include "base/error.h"
#include "sweep_work.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* More answers at once make larger batches; their replies do not depend on it. */
enum { N_PARALLEL_DEFAULT = 64, N_RESAMPLES = 1000 };

/* An mb_reply_fn; ctx is the row. */
static void take_reply(void *ctx, size_t index, const struct mb_task_item *item, const char *reply,
                       struct mb_score score, size_t n_tokens)
{
    struct mb_sweep_row *row = ctx;
    (void)item;
    row->answers[index] = (struct mb_result_answer){.ica = score.ica,
                                                    .pia = score.pia,
                                                    .dead = (int)score.dead,
                                                    .n_tokens = n_tokens,
                                                    .reply_hash = mb_sweep_hash_text(reply)};
    if (row->replies != NULL)
        row->replies[index] = strdup(reply); /* looked at when all are there */
}

static uint64_t count(const struct mb_sweep_row *row, bool (*is)(const struct mb_result_answer *))
{
    uint64_t n = 0;
    for (size_t i = 0; i < row->n_answers; i++)
        n += is(&row->answers[i]);
    return n;
}

static bool is_ica(const struct mb_result_answer *answer)
{
    return answer->ica;
}

static bool is_pia(const struct mb_result_answer *answer)
{
    return answer->pia;
}

static bool is_dead(const struct mb_result_answer *answer)
{
    return answer->dead != MB_ALIVE;
}

static void put_differences(struct mb_sweep_row *row, const struct mb_result_answer *clean)
{
    uint64_t n_lost = 0, n_gained = 0, n_same = 0;
    for (size_t i = 0; i < row->n_answers; i++) {
        n_lost += clean[i].pia && !row->answers[i].pia;
        n_gained += !clean[i].pia && row->answers[i].pia;
        n_same += clean[i].reply_hash == row->answers[i].reply_hash;
    }
    mb_sweep_row_share(row, "flips", n_lost + n_gained, row->n_answers);
    mb_sweep_row_share(row, "lost", n_lost, row->n_answers);
    mb_sweep_row_share(row, "gained", n_gained, row->n_answers);
    mb_sweep_row_share(row, "same_reply", n_same, row->n_answers);
}

static enum mb_status put_length(struct mb_sweep_row *row, struct mb_error *err)
{
    struct mb_bootstrap_options options = {.size = sizeof options, .n_resamples = N_RESAMPLES, .seed = 1};
    struct mb_estimate mean;
    double *lengths = malloc(row->n_answers * sizeof *lengths);
    if (lengths == NULL)
        return mb_fail_memory(err, "the replies' lengths");
    for (size_t i = 0; i < row->n_answers; i++)
        lengths[i] = (double)row->answers[i].n_tokens;
    enum mb_status status = mb_bootstrap_mean95(lengths, row->n_answers, &options, &mean, err);
    free(lengths);
    if (status == MB_OK)
        mb_sweep_row_value(row, "reply_tokens", mean.value, mean.low, mean.high, row->n_answers);
    return status;
}

static enum mb_status allocate(struct mb_sweep_row *row, size_t n_questions, bool with_replies,
                               struct mb_error *err)
{
    row->n_answers = n_questions;
    row->answers = calloc(n_questions, sizeof *row->answers);
    row->replies = with_replies ? calloc(n_questions, sizeof *row->replies) : NULL;
    return row->answers != NULL && (row->replies != NULL || !with_replies)
               ? MB_OK
               : mb_fail_memory(err, "the answers");
}

/*
 * An error may be so large that the model gives NaN.  That is no failure of the sweep: all replies are of no
 * use.  Whatever else MB_BAD_DATA says of model and task, the clean run has met it before.
 */
static enum mb_status or_dead(const struct mb_sweep_work *work, struct mb_sweep_row *row,
                              enum mb_status status)
{
    if (status != MB_BAD_DATA || work->clean == NULL)
        return status;
    for (size_t i = 0; i < row->n_answers; i++)
        row->answers[i] = (struct mb_result_answer){.dead = MB_DEAD_EMPTY};
    return MB_OK;
}

static size_t n_parallel(const struct mb_sweep_work *work)
{
    return work->options.n_parallel == 0 ? N_PARALLEL_DEFAULT : work->options.n_parallel;
}

static enum mb_status answer(struct mb_sweep_work *work, struct mb_sweep_row *row, struct mb_error *err)
{
    struct mb_eval_report report;
    struct mb_eval_options options = {
        .size = sizeof options,
        .n_parallel = n_parallel(work),
        .n_predict = work->sweep->n_predict,
        .cache_type = work->options.cache_type,
        .reply = take_reply,
        .reply_ctx = row,
        .progress = mb_sweep_progress,
        .progress_ctx = work,
    };
    MB_TRY(allocate(row, work->task.n_items, work->clean == NULL, err));
    MB_TRY(
        or_dead(work, row, mb_eval_task(work->model, work->tokenizer, &work->task, &options, &report, err)));
    for (size_t i = 0; row->replies != NULL && i < row->n_answers; i++)
        if (row->replies[i] == NULL)
            return mb_fail_memory(err, "the replies");
    mb_sweep_row_share(row, "dead", count(row, is_dead), row->n_answers);
    return put_length(row, err);
}

struct choosing {
    struct mb_sweep_row *row;
    uint64_t n_norm, n_bytes;
};

/* An mb_choice_fn; what was chosen takes the place of a reply's checksum. */
static void take_choice(void *ctx, size_t index, const struct mb_choice_item *item,
                        const struct mb_choice_score *score)
{
    struct choosing *choosing = ctx;
    (void)item;
    choosing->n_norm += score->acc_norm;
    choosing->n_bytes += score->acc_bytes;
    choosing->row->answers[index] =
        (struct mb_result_answer){.ica = score->acc,
                                  .pia = score->acc,
                                  .dead = score->has_room ? MB_ALIVE : MB_DEAD_NO_ROOM,
                                  .reply_hash = (int64_t)score->chosen};
}

static enum mb_status choose(struct mb_sweep_work *work, struct mb_sweep_row *row, struct mb_error *err)
{
    struct choosing choosing = {.row = row};
    struct mb_choices_report report;
    struct mb_choices_options options = {.size = sizeof options,
                                         .n_parallel = n_parallel(work),
                                         .cache_type = work->options.cache_type,
                                         .choice = take_choice,
                                         .choice_ctx = &choosing,
                                         .progress = mb_sweep_progress,
                                         .progress_ctx = work};
    MB_TRY(allocate(row, work->task.n_choices, false, err));
    MB_TRY(or_dead(work, row,
                   mb_eval_choices(work->model, work->tokenizer, &work->task, &options, &report, err)));
    mb_sweep_row_share(row, "acc_norm", choosing.n_norm, row->n_answers);
    mb_sweep_row_share(row, "acc_bytes", choosing.n_bytes, row->n_answers);
    return MB_OK;
}

enum mb_status mb_sweep_measure_task(struct mb_sweep_work *work, const struct mb_sweep_change *change,
                                     struct mb_sweep_row *row, struct mb_error *err)
{
    (void)change;
    MB_TRY(work->task.n_choices > 0 ? choose(work, row, err) : answer(work, row, err));
    mb_sweep_row_share(row, "ica", count(row, is_ica), row->n_answers);
    mb_sweep_row_share(row, "pia", count(row, is_pia), row->n_answers);
    put_differences(row, work->clean == NULL ? row->answers : work->clean);
    return MB_OK;
}
