/*
 * eval_task.c - eval --task: answers to questions, and how many are right.
 */
#include "base/error.h"
#include "eval.h"
#include "output_file.h"
#include "report.h"
#include <jansson.h>
#include <moebius/lab.h>
#include <stdio.h>

struct task_work {
    struct cli_progress progress;
    struct cli_output_file replies;
    bool has_write_error;
};

static bool show_questions(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct task_work *work = ctx;
    return cli_progress_show(&work->progress, what, done, total) || work->has_write_error;
}

static void write_reply(void *ctx, size_t index, const struct mb_task_item *item, const char *reply,
                        struct mb_score score, size_t n_tokens)
{
    struct task_work *work = ctx;
    if (work->replies.file == NULL)
        return;
    json_t *line = json_pack("{s:I, s:s, s:s, s:s, s:s, s:I, s:b, s:b}", "index", (json_int_t)index,
                             "question", item->question, "reply", reply, "answer", item->answer, "format",
                             mb_answer_format_name(item->format), "n_tokens", (json_int_t)n_tokens, "ica",
                             (int)score.ica, "pia", (int)score.pia);
    if (line == NULL || json_dumpf(line, work->replies.file, JSON_COMPACT) != 0 ||
        fputc('\n', work->replies.file) == EOF)
        work->has_write_error = true;
    json_decref(line);
}

static json_t *share_json(uint64_t k, uint64_t n)
{
    double low, high;
    mb_wilson95(k, n, &low, &high);
    return json_pack("{s:I, s:f, s:[f, f]}", "n", (json_int_t)k, "share", (double)k / (double)n, "wilson95",
                     low, high);
}

static void print_share(struct cli_table *table, const char *what, uint64_t k, uint64_t n)
{
    double low, high;
    mb_wilson95(k, n, &low, &high);
    cli_table_cell(table, "%s", what);
    cli_table_cell(table, "%llu", (unsigned long long)k);
    cli_table_cell(table, "%llu", (unsigned long long)n);
    cli_table_cell(table, "%.2f %%", 100 * (double)k / (double)n);
    cli_table_cell(table, "%.2f to %.2f %%", 100 * low, 100 * high);
}

static int print_task(const struct eval *eval, const struct mb_eval_report *r)
{
    double tokens_per_s = (double)(r->n_prompt_tokens + r->n_reply_tokens) / r->seconds;
    if (eval->args->format == CLI_JSON) {
        return cli_print_json(json_pack(
            "{s:o, s:b, s:o, s:I, s:o, s:o, s:I, s:I, s:I, s:f, s:f}", "model",
            cli_json_path(eval->model_path), "coded", (int)mb_model_info(eval->model)->is_coded, "task",
            cli_json_path(eval->args->task), "n", (json_int_t)r->n, "ica", share_json(r->n_ica, r->n), "pia",
            share_json(r->n_pia, r->n), "n_prompt_tokens", (json_int_t)r->n_prompt_tokens, "n_reply_tokens",
            (json_int_t)r->n_reply_tokens, "n_truncated", (json_int_t)r->n_truncated, "seconds", r->seconds,
            "tokens_per_s", tokens_per_s));
    }
    static const char *const heads[] = {"", "right", "of", "share", "95 % interval"};
    struct cli_table *table = cli_table_new("lrrrr", heads);
    print_share(table, "ICA (in the asked format)", r->n_ica, r->n);
    print_share(table, "PIA (in any format)", r->n_pia, r->n);
    cli_table_print(table);
    char seconds[32];
    printf("\n%llu prompt and %llu reply tokens in %s, %.0f tokens/s; %llu replies cut\n",
           (unsigned long long)r->n_prompt_tokens, (unsigned long long)r->n_reply_tokens,
           cli_seconds(seconds, r->seconds), tokens_per_s, (unsigned long long)r->n_truncated);
    return 0;
}

/* The replies are written to work->replies if --replies names a file. */
static enum mb_status answer(const struct eval *eval, const struct mb_task *task, struct task_work *work,
                             struct mb_eval_report *report, struct mb_error *err)
{
    const struct eval_args *args = eval->args;
    struct mb_eval_options options = {
        .size = sizeof options,
        .n_parallel = (size_t)args->n_parallel,
        .n_predict = (size_t)args->n_predict,
        .cache_type = eval->cache_type,
        .reply = write_reply,
        .reply_ctx = work,
        .progress = show_questions,
        .progress_ctx = work,
    };
    if (args->replies != NULL)
        MB_TRY(cli_output_open(&work->replies, args->replies, args->task, err));
    cli_progress_begin(&work->progress, "questions");
    enum mb_status status = mb_eval_task(eval->model, eval->tokenizer, task, &options, report, err);
    cli_progress_end(&work->progress);
    if (work->has_write_error)
        status = mb_fail(err, MB_IO, "%s: cannot write", args->replies);
    return cli_output_close(&work->replies, status, err);
}

enum { N_NAMED_MAX = 10 }; /* malformed lines that are named; the rest is counted */

static void name_malformed(void *ctx, const char *message)
{
    size_t *n_named = ctx;
    if (++*n_named <= N_NAMED_MAX)
        fprintf(stderr, "moebius: left out: %s\n", message);
}

static enum mb_status open_task(const struct eval_args *args, struct mb_task *task, struct mb_error *err)
{
    size_t n_named = 0;
    struct mb_task_options options = {.size = sizeof options,
                                      .limit = (size_t)args->limit,
                                      .skips_malformed = !args->is_strict,
                                      .malformed = name_malformed,
                                      .malformed_ctx = &n_named};
    MB_TRY(mb_task_open(args->task, &options, task, err));
    if (task->n_malformed > 0)
        fprintf(stderr,
                "moebius: %zu malformed lines left out, %zu questions read (--strict stops instead)\n",
                task->n_malformed, task->n_items + task->n_choices);
    return MB_OK;
}

enum mb_status eval_task(const struct eval *eval, struct mb_error *err)
{
    struct mb_task task;
    struct mb_eval_report report;
    struct task_work work = {0};
    MB_TRY(open_task(eval->args, &task, err));
    enum mb_status status = answer(eval, &task, &work, &report, err);
    mb_task_close(&task);
    MB_TRY(status);
    return print_task(eval, &report) == 0 ? MB_OK : mb_fail_memory(err, "the report");
}
