/*
 * eval_task.c - eval --task: answers to questions, and how many are right.
 */
#include "base/error.h"
#include "eval.h"
#include "eval_against.h"
#include "eval_perturb.h"
#include "output_file.h"
#include "report.h"
#include <jansson.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_DEAD_KINDS = MB_DEAD_NO_ROOM + 1 };

/* What the callbacks are given, and what they collect. */
struct task_work {
    const struct eval *eval;
    const struct mb_task *task;
    struct cli_progress progress;
    struct cli_output_file replies;
    bool has_write_error;
    struct eval_marks marks;
    struct eval_against against; /* path NULL: none */
    struct eval_long too_long;
    double *lengths; /* of the replies, in tokens */
    struct mb_estimate length;
    uint64_t n_dead[N_DEAD_KINDS];
};

static bool show_questions(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct task_work *work = ctx;
    return cli_progress_show(&work->progress, what, done, total) || work->has_write_error;
}

/* Takes the line. */
static void write_line(struct task_work *work, json_t *line)
{
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

static struct cli_table *share_table(void)
{
    static const char *const heads[] = {"", "right", "of", "share", "95 % interval"};
    return cli_table_new("lrrrr", heads);
}

static const char *examples_path(const struct eval_args *args)
{
    return args->examples != NULL ? args->examples : args->task;
}

static json_t *examples_json(const struct task_work *work)
{
    const struct eval_args *args = work->eval->args;
    return json_pack("{s:i, s:o, s:I}", "n", args->n_examples, "examples", cli_json_path(examples_path(args)),
                     "n_not_asked", (json_int_t)work->task->n_shown);
}

/* What every report of a task says first. */
static json_t *report_json(const struct task_work *work, uint64_t n)
{
    const struct eval *eval = work->eval;
    json_t *report =
        json_pack("{s:o, s:b, s:o, s:I, s:I}", "model", cli_json_path(eval->model_path), "coded",
                  (int)mb_model_info(eval->model)->is_coded, "task", cli_json_path(eval->args->task), "n",
                  (json_int_t)n, "n_malformed", (json_int_t)work->task->n_malformed);
    if (eval->args->n_examples > 0 && json_object_set_new(report, "few_shot", examples_json(work)) != 0) {
        json_decref(report);
        return NULL;
    }
    if (work->against.path != NULL &&
        json_object_set_new(report, "against", eval_against_json(&work->against, &work->marks)) != 0) {
        json_decref(report);
        return NULL;
    }
    return report;
}

/* Both references are taken. */
static int print_json(const struct eval *eval, json_t *report, json_t *more)
{
    if (more == NULL || json_object_update(report, more) != 0) {
        json_decref(report);
        report = NULL;
    }
    json_decref(more);
    return eval_print_json(eval, report);
}

/* ---------------------------------------------------------------- replies */

static void take_reply(void *ctx, size_t index, const struct mb_task_item *item, const char *reply,
                       struct mb_score score, size_t n_tokens)
{
    struct task_work *work = ctx;
    work->marks.rights[0][index] = score.ica;
    work->marks.rights[1][index] = score.pia;
    work->lengths[index] = (double)n_tokens;
    work->n_dead[score.dead]++;
    if (score.dead == MB_DEAD_NO_ROOM)
        eval_long_add(&work->too_long, item->line);
    if (work->replies.file == NULL)
        return;
    write_line(work, json_pack("{s:I, s:I, s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:s}", "index",
                               (json_int_t)index, "line", (json_int_t)item->line, "question", item->question,
                               "reply", reply, "answer", item->answer, "format",
                               mb_answer_format_name(item->format), "n_tokens", (json_int_t)n_tokens, "ica",
                               (int)score.ica, "pia", (int)score.pia, "dead", mb_dead_name(score.dead)));
}

static const char *question_of_item(const struct mb_task *task, size_t index)
{
    return task->items[index].question;
}

static json_t *dead_json(const struct task_work *work, uint64_t n_dead)
{
    json_t *dead = json_pack("{s:I}", "n", (json_int_t)n_dead);
    for (int kind = MB_DEAD_EMPTY; kind < N_DEAD_KINDS; kind++)
        json_object_set_new(dead, mb_dead_name((enum mb_dead)kind),
                            json_integer((json_int_t)work->n_dead[kind]));
    return dead;
}

static int print_replies(const struct task_work *work, const struct mb_eval_report *r)
{
    double tokens_per_s = (double)(r->n_prompt_tokens + r->n_reply_tokens) / r->seconds;
    const struct mb_estimate *length = &work->length;
    if (work->eval->args->format == CLI_JSON) {
        return print_json(work->eval, report_json(work, r->n),
                          json_pack("{s:o, s:o, s:{s:f, s:[f, f]}, s:o, s:I, s:I, s:I, s:f, s:f}", "ica",
                                    share_json(r->n_ica, r->n), "pia", share_json(r->n_pia, r->n),
                                    "reply_tokens", "mean", length->value, "bootstrap95", length->low,
                                    length->high, "dead", dead_json(work, r->n_dead), "n_prompt_tokens",
                                    (json_int_t)r->n_prompt_tokens, "n_reply_tokens",
                                    (json_int_t)r->n_reply_tokens, "n_truncated", (json_int_t)r->n_truncated,
                                    "seconds", r->seconds, "tokens_per_s", tokens_per_s));
    }
    struct cli_table *table = share_table();
    print_share(table, work->marks.names[0], r->n_ica, r->n);
    print_share(table, work->marks.names[1], r->n_pia, r->n);
    cli_table_print(table);
    if (work->against.path != NULL)
        eval_against_print(&work->against, &work->marks);
    printf("\n%.1f tokens in a reply (%.1f to %.1f); %llu replies of no use", length->value, length->low,
           length->high, (unsigned long long)r->n_dead);
    for (int kind = MB_DEAD_EMPTY; kind < N_DEAD_KINDS; kind++)
        if (work->n_dead[kind] > 0)
            printf(", %llu %s", (unsigned long long)work->n_dead[kind], mb_dead_name((enum mb_dead)kind));
    char seconds[32];
    printf("\n%llu prompt and %llu reply tokens in %s, %.0f tokens/s; %llu replies cut\n",
           (unsigned long long)r->n_prompt_tokens, (unsigned long long)r->n_reply_tokens,
           cli_seconds(seconds, r->seconds), tokens_per_s, (unsigned long long)r->n_truncated);
    return 0;
}

static enum mb_status answer(struct task_work *work, struct mb_eval_report *report, struct mb_error *err)
{
    const struct eval *eval = work->eval;
    struct mb_eval_options options = {
        .size = sizeof options,
        .n_parallel = (size_t)eval->args->n_parallel,
        .n_predict = (size_t)eval->args->n_predict,
        .cache_type = eval->cache_type,
        .reply = take_reply,
        .reply_ctx = work,
        .progress = show_questions,
        .progress_ctx = work,
    };
    return mb_eval_task(eval->model, eval->tokenizer, work->task, &options, report, err);
}

/* ---------------------------------------------------------------- choices */

static void take_choice(void *ctx, size_t index, const struct mb_choice_item *item,
                        const struct mb_choice_score *score)
{
    struct task_work *work = ctx;
    work->marks.rights[0][index] = score->acc;
    work->marks.rights[1][index] = score->acc_norm;
    if (!score->has_room)
        eval_long_add(&work->too_long, item->line);
    if (work->replies.file == NULL)
        return;
    json_t *sums = json_array();
    for (size_t i = 0; score->has_room && i < item->n_choices; i++)
        json_array_append_new(sums, cli_json_real(score->log_likelihoods[i]));
    write_line(work, json_pack("{s:I, s:I, s:s, s:I, s:o, s:o, s:b, s:b, s:b}", "index", (json_int_t)index,
                               "line", (json_int_t)item->line, "question", item->contexts[0], "right",
                               (json_int_t)item->right, "chosen",
                               score->has_room ? json_integer((json_int_t)score->chosen) : json_null(),
                               "log_likelihoods", sums, "acc", (int)score->acc, "acc_norm",
                               (int)score->acc_norm, "acc_bytes", (int)score->acc_bytes));
}

static const char *question_of_choice(const struct mb_task *task, size_t index)
{
    return task->choices[index].contexts[0];
}

static int print_choices(const struct task_work *work, const struct mb_choices_report *r)
{
    double questions_per_s = (double)r->n / r->seconds;
    if (work->eval->args->format == CLI_JSON) {
        return print_json(work->eval, report_json(work, r->n),
                          json_pack("{s:o, s:o, s:o, s:I, s:I, s:f, s:f}", "acc", share_json(r->n_acc, r->n),
                                    "acc_norm", share_json(r->n_acc_norm, r->n), "acc_bytes",
                                    share_json(r->n_acc_bytes, r->n), "n_no_room", (json_int_t)r->n_no_room,
                                    "n_tokens_computed", (json_int_t)r->n_tokens_computed, "seconds",
                                    r->seconds, "questions_per_s", questions_per_s));
    }
    struct cli_table *table = share_table();
    print_share(table, work->marks.names[0], r->n_acc, r->n);
    print_share(table, work->marks.names[1], r->n_acc_norm, r->n);
    print_share(table, "acc_bytes (a byte)", r->n_acc_bytes, r->n);
    cli_table_print(table);
    if (work->against.path != NULL)
        eval_against_print(&work->against, &work->marks);
    char seconds[32];
    printf("\n%llu questions, %llu tokens computed, in %s: %.1f questions/s\n", (unsigned long long)r->n,
           (unsigned long long)r->n_tokens_computed, cli_seconds(seconds, r->seconds), questions_per_s);
    return 0;
}

static enum mb_status choose(struct task_work *work, struct mb_choices_report *report, struct mb_error *err)
{
    const struct eval *eval = work->eval;
    struct mb_choices_options options = {
        .size = sizeof options,
        .n_parallel = (size_t)eval->args->n_parallel,
        .cache_type = eval->cache_type,
        .choice = take_choice,
        .choice_ctx = work,
        .progress = show_questions,
        .progress_ctx = work,
    };
    return mb_eval_choices(eval->model, eval->tokenizer, work->task, &options, report, err);
}

/* ---------------------------------------------------------------- both */

union task_report {
    struct mb_eval_report replies;
    struct mb_choices_report choices;
};

/* The replies are written to work->replies if --replies names a file. */
static enum mb_status measure(struct task_work *work, union task_report *report, struct mb_error *err)
{
    const struct eval_args *args = work->eval->args;
    if (args->replies != NULL)
        MB_TRY(cli_output_open(&work->replies, args->replies, args->task, err));
    cli_progress_begin(&work->progress, "questions");
    enum mb_status status =
        work->task->n_items > 0 ? answer(work, &report->replies, err) : choose(work, &report->choices, err);
    cli_progress_end(&work->progress);
    if (work->has_write_error)
        status = mb_fail(err, MB_IO, "%s: cannot write", args->replies);
    return cli_output_close(&work->replies, status, err);
}

static enum mb_status compare(struct task_work *work, struct mb_error *err)
{
    bool has_items = work->task->n_items > 0;
    work->against.path = work->eval->args->against;
    if (has_items)
        MB_TRY(mb_bootstrap_mean95(work->lengths, work->task->n_items, NULL, &work->length, err));
    if (work->against.path == NULL)
        return MB_OK;
    return eval_against(&work->against, &work->marks, work->task,
                        has_items ? question_of_item : question_of_choice, err);
}

static enum mb_status run(struct task_work *work, struct mb_error *err)
{
    union task_report report;
    bool has_items = work->task->n_items > 0;
    size_t n = has_items ? work->task->n_items : work->task->n_choices;
    work->marks = has_items
                      ? (struct eval_marks){.keys = {"ica", "pia"},
                                            .names = {"ICA (in the asked format)", "PIA (in any format)"}}
                      : (struct eval_marks){.keys = {"acc", "acc_norm"},
                                            .names = {"acc (likeliest choice)", "acc_norm (a character)"}};
    MB_TRY(eval_marks_open(&work->marks, n, err));
    work->lengths = calloc(n, sizeof *work->lengths);
    if (work->lengths == NULL)
        return mb_fail_memory(err, "the answers");
    MB_TRY(measure(work, &report, err));
    eval_long_print(&work->too_long, mb_model_info(work->eval->model)->n_ctx_train);
    MB_TRY(compare(work, err));
    int status = has_items ? print_replies(work, &report.replies) : print_choices(work, &report.choices);
    return status == 0 ? MB_OK : mb_fail_memory(err, "the report");
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
                                      .malformed_ctx = &n_named,
                                      .n_examples = (size_t)args->n_examples,
                                      .examples = args->examples};
    MB_TRY(mb_task_open(args->task, &options, task, err));
    size_t n = task->n_items + task->n_choices;
    if (task->n_malformed > 0)
        fprintf(stderr,
                "moebius: %zu malformed line%s left out, %zu question%s read (--strict stops instead)\n",
                task->n_malformed, task->n_malformed == 1 ? "" : "s", n, n == 1 ? "" : "s");
    if (args->n_examples > 0)
        fprintf(stderr, "moebius: %d %s before each question, the first of %s%s\n", args->n_examples,
                args->n_examples == 1 ? "example" : "examples", examples_path(args),
                task->n_shown > 0 ? ", which are not asked" : "");
    return MB_OK;
}

enum mb_status eval_task(const struct eval *eval, struct mb_error *err)
{
    struct mb_task task;
    struct task_work work = {.eval = eval, .task = &task};
    MB_TRY(open_task(eval->args, &task, err));
    enum mb_status status = run(&work, err);
    eval_marks_close(&work.marks);
    free(work.lengths);
    mb_task_close(&task);
    return status;
}
