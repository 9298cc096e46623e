/*
 * sweep.c - a sweep from its beginning to its end: what is opened, the plan, the manifest, the comparison.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "sweep_paper.h"
#include "sweep_work.h"
#include <math.h>
#include <moebius/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_NBYTES_MAX = 1 << 30, N_PREDICT_DEFAULT = 256 };

/* Before a sweep nobody knows how many answers its errors turn: one in twenty is assumed. */
static const double assumed_discordance = 0.05;

/* ---------------------------------------------------------------- the plan */

static size_t count_groups(const struct mb_sweep *plan)
{
    size_t n = 0;
    for (size_t i = 1; i < plan->n_items; i++)
        n += plan->items[i].seed == 0 || i == 1 || plan->items[i].seed == plan->seeds[0];
    return n;
}

static struct mb_sweep_plan plan_of(const struct mb_sweep_work *work, size_t n_done)
{
    struct mb_sweep_plan plan = {.n_runs = work->plan->n_items,
                                 .n_done = n_done,
                                 .n_comparisons = count_groups(work->plan),
                                 .n_questions = mb_sweep_n_questions(work),
                                 .n_windows = mb_sweep_n_windows(work),
                                 .discordance = assumed_discordance,
                                 .notes = work->notes};
    double n = plan.n_comparisons > 0 ? (double)plan.n_comparisons : 1;
    plan.detectable_one = mb_detectable_difference(plan.n_questions, plan.discordance, 0.05, 0.8);
    plan.detectable_sweep = mb_detectable_difference(plan.n_questions, plan.discordance, 0.05 / n, 0.8);
    return plan;
}

static enum mb_status find_done(struct mb_sweep_work *work, bool *is_done, size_t *n_done,
                                struct mb_error *err)
{
    for (size_t id = 0; id < work->plan->n_items; id++) {
        MB_TRY(mb_results_has_run(work->results, (int64_t)id, &is_done[id], err));
        *n_done += is_done[id];
    }
    if (is_done[0] && mb_sweep_n_questions(work) > 0) {
        size_t n;
        MB_TRY(mb_results_get_answers(work->results, 0, &work->clean, &n, err));
        if (n != mb_sweep_n_questions(work))
            return mb_fail(err, MB_BAD_DATA, "the results file has %zu answers of the clean run, not %zu", n,
                           mb_sweep_n_questions(work));
        MB_TRY(mb_results_get_replies(work->results, 0, &work->clean_replies, &n, err));
        work->n_clean_replies = n;
        if (n != work->task.n_items)
            return mb_fail(err, MB_BAD_DATA, "the results file has %zu replies of the clean run, not %zu", n,
                           work->task.n_items);
    }
    return MB_OK;
}

static struct mb_result_question question_of(const struct mb_task *task, size_t i, char expected[32])
{
    if (i < task->n_items)
        return (struct mb_result_question){.format = mb_answer_format_name(task->items[i].format),
                                           .expected = task->items[i].answer,
                                           .hash = mb_sweep_hash_text(task->items[i].question)};
    const struct mb_choice_item *item = &task->choices[i - task->n_items];
    snprintf(expected, 32, "%zu", item->right);
    return (struct mb_result_question){
        .format = "choice", .expected = expected, .hash = mb_sweep_hash_text(item->contexts[item->right])};
}

static enum mb_status put_questions(struct mb_sweep_work *work, struct mb_error *err)
{
    size_t n = mb_sweep_n_questions(work);
    struct mb_result_question *questions = calloc(n + 1, sizeof *questions);
    char(*expected)[32] = calloc(n + 1, sizeof *expected);
    enum mb_status status;
    if (questions == NULL || expected == NULL) {
        status = mb_fail_memory(err, "the questions");
    } else {
        for (size_t i = 0; i < n; i++)
            questions[i] = question_of(&work->task, i, expected[i]);
        status = mb_results_put_questions(work->results, questions, n, err);
    }
    free(questions);
    free(expected);
    return status;
}

static enum mb_status run_missing(struct mb_sweep_work *work, bool *is_done, struct mb_sweep_report *report,
                                  struct mb_error *err)
{
    MB_TRY(find_done(work, is_done, &report->n_done_before, err));
    MB_TRY(put_questions(work, err));
    struct mb_sweep_plan plan = plan_of(work, report->n_done_before);
    report->n_runs = plan.n_runs;
    work->shared->n_runs = plan.n_runs - plan.n_done;
    if (work->options.plan != NULL && work->options.plan(work->options.ctx, &plan))
        return mb_fail(err, MB_CANCELLED, "stopped before the first run");
    MB_TRY(mb_sweep_do_all(work, is_done, report, err));
    return mb_sweep_compare(work, true, err);
}

/* ---------------------------------------------------------------- the manifest */

struct hashes {
    char model[MB_SWEEP_HASH_NBYTES], files[MB_SWEEP_HASH_NBYTES], task[MB_SWEEP_HASH_NBYTES],
        text[MB_SWEEP_HASH_NBYTES], plan[MB_SWEEP_HASH_NBYTES];
};

enum { N_ROWS_MAX = 32, NUMBER_NBYTES = 32 };

struct manifest {
    struct mb_manifest_row rows[N_ROWS_MAX];
    size_t n;
    char numbers[N_ROWS_MAX][NUMBER_NBYTES];
    char layers[1024];
};

static void add(struct manifest *manifest, const char *key, const char *value)
{
    manifest->rows[manifest->n++] = (struct mb_manifest_row){.key = key, .value = value};
}

static void add_telling(struct manifest *manifest, const char *key, const char *value, const char *what)
{
    add(manifest, key, value);
    manifest->rows[manifest->n - 1].is_telling = true;
    manifest->rows[manifest->n - 1].what = what;
}

static void add_number(struct manifest *manifest, const char *key, uint64_t value)
{
    char *text = manifest->numbers[manifest->n];
    snprintf(text, NUMBER_NBYTES, "%llu", (unsigned long long)value);
    add(manifest, key, text);
}

/* What is infinite has no value. */
static void add_share(struct manifest *manifest, const char *key, double value)
{
    char *text = manifest->numbers[manifest->n];
    snprintf(text, NUMBER_NBYTES, "%.6g", value);
    add(manifest, key, isfinite(value) ? text : NULL);
}

/* As it was used: all windows of a text are of one length, those of replies are not. */
static void add_ctx_size(struct manifest *manifest, const struct mb_sweep_work *work)
{
    if (work->text == NULL || mb_sweep_has_lines(work))
        add(manifest, "ctx_size", NULL);
    else
        add_number(manifest, "ctx_size", work->windows.n_longest);
}

/* "1,2,3"; the end of a very long list is left out. */
static void write_layers(const struct mb_sweep_work *work, char text[1024])
{
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < work->n_moe_layers && n < 1000; i++)
        n += (size_t)snprintf(text + n, 1024 - n, "%s%d", i == 0 ? "" : ",", work->moe_layers[i]);
}

static void fill_manifest(const struct mb_sweep_work *work, const struct hashes *hashes, const char *now,
                          struct manifest *m)
{
    const struct mb_sweep *sweep = work->sweep;
    const struct mb_model_info *info = mb_model_info(work->model);
    add_telling(m, "version", MB_VERSION, "the version of Moebius");
    add_telling(m, "commit", work->options.commit == NULL ? "" : work->options.commit,
                "the build of Moebius");
    add(m, "command", work->options.command == NULL ? "" : work->options.command);
    add(m, "sweep", sweep->form);
    add(m, "suite", sweep->suite == NULL ? "" : sweep->suite);
    add(m, "model", work->model_path);
    add_telling(m, "model_hash", hashes->model, "the model");
    add_telling(m, "files_hash", hashes->files, "the tokenizer, chat template or generation_config.json");
    add(m, "architecture", info->architecture);
    add_number(m, "n_layers", info->n_layers);
    add_number(m, "n_experts", info->n_experts);
    add_number(m, "n_experts_used", info->n_experts_used);
    add_number(m, "n_params", info->n_params);
    add_number(m, "is_coded", info->is_coded);
    add(m, "activations", "auto"); /* as mb_sweep_open_model leaves them */
    write_layers(work, m->layers);
    add(m, "moe_layers", m->layers);
    add(m, "task", sweep->task == NULL ? "" : sweep->task);
    add_telling(m, "task_hash", hashes->task, "the task, or what is used of it,");
    add_number(m, "n_questions", mb_sweep_n_questions(work));
    add_number(m, "n_malformed", work->task.n_malformed);
    add_number(m, "predict", sweep->n_predict == 0 ? N_PREDICT_DEFAULT : sweep->n_predict);
    add(m, "text", sweep->text == NULL ? "" : sweep->text);
    add_telling(m, "text_hash", hashes->text, "the text");
    add_ctx_size(m, work);
    add_number(m, "n_windows", mb_sweep_n_windows(work));
    add_telling(m, "plan_hash", hashes->plan, "the plan of runs");
    add_number(m, "n_runs", work->plan->n_items);
    add_share(m, "detectable", plan_of(work, 0).detectable_sweep);
    add(m, "begun", now);
}

static enum mb_status compute_hashes(const struct mb_sweep_work *work, struct hashes *hashes,
                                     struct mb_error *err)
{
    *hashes = (struct hashes){.task = ""};
    MB_TRY(mb_model_hash(work->model_path, hashes->model, err));
    MB_TRY(mb_sweep_hash_files(work->model_path, hashes->files, err));
    if (mb_sweep_n_questions(work) > 0)
        mb_sweep_hash_task(&work->task, hashes->task);
    if (work->text != NULL)
        mb_sweep_hash_bytes(work->text, work->text_nbytes, hashes->text);
    return mb_sweep_hash_plan(work, hashes->plan, err);
}

/* ---------------------------------------------------------------- opening and closing */

static enum mb_status run_with_results(struct mb_sweep_work *work, const char *results_path,
                                       struct mb_sweep_report *report, struct mb_error *err)
{
    struct manifest manifest = {.n = 0};
    struct hashes hashes;
    char now[32];
    mb_sweep_now(now);
    MB_TRY(compute_hashes(work, &hashes, err));
    fill_manifest(work, &hashes, now, &manifest);
    MB_TRY(
        mb_results_open(results_path, manifest.rows, manifest.n, work->options.resume, &work->results, err));
    bool *is_done = calloc(work->plan->n_items, sizeof *is_done);
    enum mb_status status =
        is_done == NULL ? mb_fail_memory(err, "the runs") : run_missing(work, is_done, report, err);
    free(is_done);
    return status;
}

static enum mb_status open_task(struct mb_sweep_work *work, struct mb_error *err)
{
    MB_TRY(mb_sweep_open_task(work, err));
    if (work->task.n_choices == 0 || work->sweep->text != NULL)
        return MB_OK;
    return mb_fail(err, MB_USAGE, "%s: multiple choice has no replies for KL to be of: give a text, too",
                   work->sweep->task);
}

/* What a model is not needed for comes first: a wrong path should not wait for it. */
static enum mb_status open_data(struct mb_sweep_work *work, const char *results_path, struct mb_error *err)
{
    const struct mb_sweep *sweep = work->sweep;
    bool is_there;
    MB_TRY(mb_look_at(results_path, &is_there, NULL, err));
    if (is_there && !work->options.resume)
        return mb_fail(err, MB_USAGE, "%s: exists; --resume goes on with it, or name another file",
                       results_path);
    if (sweep->task != NULL)
        MB_TRY(open_task(work, err));
    if (sweep->text != NULL)
        MB_TRY(mb_read_file(sweep->text, TEXT_NBYTES_MAX, &work->text, &work->text_nbytes, err));
    return MB_OK;
}

static enum mb_status open_model(struct mb_sweep_work *work, struct mb_error *err)
{
    MB_TRY(mb_checkpoint_look(work->model_path, err)); /* first: it says more about what is no model */
    MB_TRY(mb_tokenizer_open(work->model_path, &work->tokenizer, err));
    return mb_sweep_open_model(work, err);
}

/* The runs, now that the model is known. */
static enum mb_status make_plan(struct mb_sweep_work *work, struct mb_error *err)
{
    MB_TRY(mb_sweep_copy(work->sweep, &work->plan, err));
    MB_TRY(mb_sweep_find_moe_layers(work->model_path, &work->moe_layers, &work->n_moe_layers, err));
    struct mb_sweep_shape shape = mb_sweep_shape_of(work);
    if (work->sweep->suite != NULL)
        MB_TRY(mb_sweep_paper_add(work->plan, &shape, err));
    MB_TRY(mb_sweep_check_errors(work, err));
    MB_TRY(mb_sweep_check_words(work, err));
    return mb_sweep_read_bounds(work, err);
}

static enum mb_status run_sweep(struct mb_sweep_work *work, const char *results_path,
                                struct mb_sweep_report *report, struct mb_error *err)
{
    MB_TRY(open_data(work, results_path, err));
    MB_TRY(open_model(work, err));
    MB_TRY(make_plan(work, err));
    MB_TRY(mb_sweep_add_text(work, err));
    return run_with_results(work, results_path, report, err);
}

enum mb_status mb_sweep_run(const char *model_path, const struct mb_sweep *sweep, const char *results_path,
                            const struct mb_sweep_options *options, struct mb_sweep_report *report,
                            struct mb_error *err)
{
    uint64_t begun_ns = mb_now_ns();
    struct mb_sweep_shared shared = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    struct mb_sweep_work work = {.model_path = model_path, .sweep = sweep, .shared = &shared};
    *report = (struct mb_sweep_report){0};
    MB_TRY(MB_OPTIONS_TAKE(work.options, options, err));
    if (work.options.n_jobs == 0)
        work.options.n_jobs = 1;
    enum mb_status status = run_sweep(&work, results_path, report, err);
    mb_sweep_close_model(&work);
    mb_results_close(work.results);
    mb_windows_free(&work.windows);
    mb_tokenizer_close(work.tokenizer);
    mb_task_close(&work.task);
    mb_sweep_free_bounds(&work);
    mb_sweep_close(work.plan);
    free(work.moe_layers);
    free(work.text);
    free(work.clean);
    for (size_t i = 0; i < work.n_clean_replies; i++)
        free(work.clean_replies[i]);
    free(work.clean_replies);
    report->seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return status;
}
