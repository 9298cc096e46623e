/*
 * answer.c - greedy answers to many questions at once, by the scheduler.
 *
 * Owns the replies under way and the finished ones that wait for earlier ones.  What a request computes does
 * not depend on the others (scheduler.h), so neither do the replies.  One thread.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/options.h"
#include "base/utf8.h"
#include "task_form.h"
#include <moebius/lab.h>
#include <moebius/scheduler.h>
#include <stdlib.h>
#include <string.h>

enum { N_PARALLEL_DEFAULT = 16, N_PREDICT_DEFAULT = 256 };

struct prompt {
    int32_t *ids;
    size_t n;
};

/* A finished question. */
struct result {
    char *reply; /* NULL: not finished */
    size_t n_tokens;
    bool is_cut, has_no_room;
};

struct answering;

/* A question whose reply is under way. */
struct asking {
    struct answering *all;
    size_t question;
    bool is_busy;
    int32_t *reply; /* [n_predict] */
    size_t n_reply;
};

struct answering {
    struct mb_model *model;
    const struct mb_tokenizer *tokenizer;
    const struct mb_task *task;
    struct mb_eval_options options; /* defaults filled in */
    struct mb_eval_report *report;
    struct mb_scheduler *scheduler;
    size_t n_ctx; /* of every request */
    size_t next_question, next_report, n_done;
    struct prompt *prompts;
    struct result *results;
    struct asking *asking; /* [n_parallel] */
    enum mb_status status; /* of what failed inside an event, and how */
    struct mb_error err;
};

static enum mb_status encode_prompt(const struct answering *a, const struct mb_chat_message *turns,
                                    size_t n_turns, struct prompt *prompt, struct mb_error *err)
{
    char *text;
    MB_TRY(mb_tokenizer_chat(a->tokenizer, turns, n_turns, true, &text, err));
    enum mb_status status =
        mb_tokenizer_encode(a->tokenizer, text, strlen(text), false, &prompt->ids, &prompt->n, err);
    free(text);
    return status;
}

/* All prompts, and the context that the longest needs. */
static enum mb_status encode_prompts(struct answering *a, struct mb_error *err)
{
    size_t n_turns, n_longest = 0;
    enum mb_status status = MB_OK;
    struct mb_chat_message *turns = mb_task_turns(a->task, &n_turns);
    if (turns == NULL)
        return mb_fail_memory(err, "the examples");
    for (size_t i = 0; i < a->task->n_items && status == MB_OK; i++) {
        turns[n_turns - 1] = (struct mb_chat_message){"user", a->task->items[i].question};
        status = encode_prompt(a, turns, n_turns, &a->prompts[i], err);
        if (a->prompts[i].n > n_longest)
            n_longest = a->prompts[i].n;
    }
    free(turns);
    MB_TRY(status);
    size_t n_ctx_train = mb_model_info(a->model)->n_ctx_train;
    a->n_ctx = n_longest + a->options.n_predict;
    if (a->n_ctx > n_ctx_train)
        a->n_ctx = n_ctx_train;
    return MB_OK;
}

static enum mb_status allocate(struct answering *a, struct mb_error *err)
{
    size_t n_parallel = a->options.n_parallel;
    a->prompts = calloc(a->task->n_items, sizeof *a->prompts);
    a->results = calloc(a->task->n_items, sizeof *a->results);
    a->asking = calloc(n_parallel, sizeof *a->asking);
    if (a->prompts == NULL || a->results == NULL || a->asking == NULL)
        return mb_fail_memory(err, "the questions");
    for (size_t i = 0; i < n_parallel; i++) {
        a->asking[i] = (struct asking){.all = a, .reply = malloc(a->options.n_predict * sizeof(int32_t))};
        if (a->asking[i].reply == NULL)
            return mb_fail_memory(err, "the replies");
    }
    return MB_OK;
}

/* Whole prompts in a step: nobody waits for the tokens of one reply. */
static enum mb_status open_scheduler(struct answering *a, struct mb_error *err)
{
    struct mb_scheduler_options options = {.size = sizeof options,
                                           .n_slots = a->options.n_parallel,
                                           .n_ctx = a->n_ctx,
                                           .n_waiting_max = a->options.n_parallel,
                                           .n_step_tokens = SIZE_MAX,
                                           .cache_type = a->options.cache_type};
    return mb_scheduler_open(a->model, &options, &a->scheduler, err);
}

static void release(struct answering *a)
{
    mb_scheduler_close(a->scheduler);
    for (size_t i = 0; a->prompts != NULL && i < a->task->n_items; i++)
        free(a->prompts[i].ids);
    for (size_t i = 0; a->results != NULL && i < a->task->n_items; i++)
        free(a->results[i].reply);
    for (size_t i = 0; a->asking != NULL && i < a->options.n_parallel; i++)
        free(a->asking[i].reply);
    free(a->prompts);
    free(a->results);
    free(a->asking);
}

/* Scores and reports what is finished, in the order of the file. */
static void report_finished(struct answering *a)
{
    for (; a->next_report < a->task->n_items; a->next_report++) {
        struct result *result = &a->results[a->next_report];
        const struct mb_task_item *item = &a->task->items[a->next_report];
        if (result->reply == NULL)
            return;
        struct mb_score score = mb_score_reply(item, result->reply, result->is_cut);
        if (result->has_no_room)
            score.dead = MB_DEAD_NO_ROOM;
        a->report->n++;
        a->report->n_dead += score.dead != MB_ALIVE;
        a->report->n_no_room += result->has_no_room;
        a->report->n_ica += score.ica;
        a->report->n_pia += score.pia;
        if (a->options.reply != NULL)
            a->options.reply(a->options.reply_ctx, a->next_report, item, result->reply, score,
                             result->n_tokens);
        free(result->reply);
        result->reply = NULL;
    }
}

/* Ids that the tokenizer does not have are no text. */
static size_t drop_unknown(const struct mb_tokenizer *tokenizer, int32_t *ids, size_t n)
{
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++)
        if (mb_tokenizer_has(tokenizer, ids[i]))
            ids[n_kept++] = ids[i];
    return n_kept;
}

static enum mb_status finish(struct asking *asking, bool is_truncated, struct mb_error *err)
{
    struct answering *a = asking->all;
    struct result *result = &a->results[asking->question];
    size_t nbytes, n_known = drop_unknown(a->tokenizer, asking->reply, asking->n_reply);
    MB_TRY(mb_tokenizer_decode(a->tokenizer, asking->reply, n_known, true, &result->reply, &nbytes, err));
    mb_utf8_clean(result->reply, nbytes);
    result->n_tokens = asking->n_reply;
    result->is_cut = is_truncated;
    asking->is_busy = false;
    a->n_done++;
    a->report->n_truncated += is_truncated;
    a->report->n_prompt_tokens += a->prompts[asking->question].n;
    a->report->n_reply_tokens += asking->n_reply;
    report_finished(a);
    return MB_OK;
}

static enum mb_status take_end(struct asking *asking, const struct mb_event *event, struct mb_error *err)
{
    switch (event->finish) {
    case MB_FINISH_ERROR:
        return mb_fail(err, event->status, "%s", event->message);
    case MB_FINISH_CANCELLED: /* the evaluation stops; that question is not answered */
        return MB_OK;
    default:
        return finish(asking, event->finish != MB_FINISH_STOP, err);
    }
}

/* An mb_event_fn; ctx is a struct asking. */
static bool take_event(void *ctx, const struct mb_event *event)
{
    struct asking *asking = ctx;
    struct answering *a = asking->all;
    if (event->kind == MB_EVENT_TOKEN)
        asking->reply[asking->n_reply++] = event->token;
    if (event->kind == MB_EVENT_DONE && a->status == MB_OK)
        a->status = take_end(asking, event, &a->err);
    return a->status != MB_OK;
}

/* A prompt that fills the context leaves no room for a reply: it is answered by nothing. */
static enum mb_status ask(struct asking *asking, struct mb_error *err)
{
    struct answering *a = asking->all;
    while (!asking->is_busy && a->next_question < a->task->n_items) {
        const struct prompt *prompt = &a->prompts[a->next_question];
        struct mb_request request = {.size = sizeof request,
                                     .prompt = prompt->ids,
                                     .n_prompt = prompt->n,
                                     .n_predict = a->options.n_predict,
                                     .event = take_event,
                                     .ctx = asking};
        asking->question = a->next_question++;
        asking->n_reply = 0;
        asking->is_busy = true;
        if (prompt->n > 0 && prompt->n <= a->n_ctx) {
            MB_TRY(mb_scheduler_submit(a->scheduler, &request, NULL, err));
        } else {
            a->results[asking->question].has_no_room = true;
            MB_TRY(finish(asking, true, err));
        }
    }
    return MB_OK;
}

static enum mb_status answer_all(struct answering *a, struct mb_error *err)
{
    for (;;) {
        for (size_t i = 0; i < a->options.n_parallel; i++)
            MB_TRY(ask(&a->asking[i], err));
        if (mb_scheduler_n_requests(a->scheduler) == 0)
            return MB_OK;
        MB_TRY(mb_scheduler_step(a->scheduler, err));
        if (a->status != MB_OK)
            return mb_fail(err, a->status, "%s", a->err.msg);
        if (a->options.progress != NULL &&
            a->options.progress(a->options.progress_ctx, "answering", a->n_done, a->task->n_items))
            return mb_fail(err, MB_CANCELLED, "stopped after %zu of %zu questions", a->n_done,
                           a->task->n_items);
    }
}

static void fill_defaults(struct answering *a)
{
    if (a->options.n_parallel == 0)
        a->options.n_parallel = N_PARALLEL_DEFAULT;
    if (a->options.n_parallel > a->task->n_items)
        a->options.n_parallel = a->task->n_items;
    if (a->options.n_predict == 0)
        a->options.n_predict = N_PREDICT_DEFAULT;
}

static enum mb_status evaluate(struct answering *a, struct mb_error *err)
{
    if (!mb_tokenizer_has_chat(a->tokenizer))
        return mb_fail(err, MB_UNSUPPORTED, "the model has no chat template, which questions need");
    if (a->task->n_items == 0)
        return MB_OK;
    MB_TRY(allocate(a, err));
    MB_TRY(encode_prompts(a, err));
    MB_TRY(open_scheduler(a, err));
    return answer_all(a, err);
}

enum mb_status mb_eval_task(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                            const struct mb_task *task, const struct mb_eval_options *options,
                            struct mb_eval_report *report, struct mb_error *err)
{
    uint64_t begun_ns = mb_now_ns();
    struct answering a = {.model = model, .tokenizer = tokenizer, .task = task, .report = report};
    *report = (struct mb_eval_report){0};
    MB_TRY(MB_OPTIONS_TAKE(a.options, options, err));
    fill_defaults(&a);
    enum mb_status status = evaluate(&a, err);
    release(&a);
    report->seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return status;
}
