/*
 * plan_check.c - see plan_check.h.
 */
#include "plan_check.h"
#include "base/error.h"
#include "base/file.h"
#include "cli.h"
#include <dirent.h>
#include <moebius/engine.h>
#include <moebius/measure.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t TEXT_NBYTES_MAX = 1 << 30;

struct checking {
    const char *model_path;
    const struct mb_plan_options *options;
    char folder[MB_PATH_MAX]; /* that is made anew for each plan */
    char planned[MB_PATH_MAX], uniform[MB_PATH_MAX];
    struct mb_model *model;
    struct mb_windows windows;
    struct cli_progress progress;
};

/* Files of a coded folder: there are no folders in it. */
static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    char file[MB_PATH_MAX];
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.' && mb_join_path(file, path, entry->d_name, NULL) == MB_OK)
            unlink(file);
    if (folder != NULL)
        closedir(folder);
    rmdir(path);
}

static enum mb_status read_windows(struct checking *c, const char *path, size_t limit, struct mb_error *err)
{
    struct mb_tokenizer *tokenizer;
    const struct mb_model_info *info = mb_model_info(c->model);
    char *text;
    size_t nbytes, n = strlen(path);
    bool has_lines = n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
    MB_TRY(mb_read_file(path, TEXT_NBYTES_MAX, &text, &nbytes, err));
    enum mb_status status = mb_tokenizer_open(c->model_path, &tokenizer, err);
    if (status == MB_OK)
        status = has_lines ? mb_windows_add_replies(&c->windows, info, tokenizer, text, nbytes, limit, err)
                           : mb_windows_add_text(&c->windows, info, tokenizer, text, nbytes, 0, limit, err);
    mb_tokenizer_close(tokenizer);
    free(text);
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "%s", path);
}

static enum mb_status compare(struct checking *c, double *kl, struct mb_error *err)
{
    struct mb_model *coded;
    struct mb_comparison comparison;
    const struct mb_model_options open = {.size = sizeof open, .n_threads = c->options->n_threads};
    const struct mb_measure_options measure = {
        .size = sizeof measure, .progress = cli_progress_show, .progress_ctx = &c->progress};
    MB_TRY(mb_model_open(c->folder, &open, &coded, err));
    cli_progress_begin(&c->progress, "windows");
    enum mb_status status =
        mb_measure_models(c->model, coded, MB_CACHE_F16, &c->windows, &measure, &comparison, err);
    cli_progress_end(&c->progress);
    mb_model_close(coded);
    *kl = comparison.kl.value;
    return status;
}

static enum mb_status measure(struct checking *c, const char *plan_path, double *kl, struct mb_error *err)
{
    struct mb_compress_report report;
    const struct mb_plan_options *from = c->options;
    const struct mb_compress_options options = {.size = sizeof options,
                                                .has_dense_bound = from->has_dense_bound,
                                                .dense_bound = from->dense_bound,
                                                .dense = true,
                                                .force = true,
                                                .plan_path = plan_path,
                                                .rounder = from->rounder,
                                                .n_threads = from->n_threads,
                                                .progress = cli_progress_show,
                                                .progress_ctx = &c->progress};
    cli_progress_begin(&c->progress, "B");
    enum mb_status status = mb_compress(c->model_path, c->folder, &options, &report, err);
    cli_progress_end(&c->progress);
    return status == MB_OK ? compare(c, kl, err) : status;
}

static enum mb_status make(const struct checking *c, const char *path, const struct mb_plan_options *options,
                           struct mb_plan_report *report, struct mb_error *err)
{
    struct cli_progress progress;
    struct mb_plan_options shown = *options;
    shown.progress = cli_progress_show;
    shown.progress_ctx = &progress;
    cli_progress_begin(&progress, "B");
    enum mb_status status = mb_plan_make(c->model_path, path, &shown, report, err);
    cli_progress_end(&progress);
    return status;
}

/* The uniform plan is made for the size of the other one, and measured beside it. */
static enum mb_status check_both(struct checking *c, struct mb_plan_report *report, struct plan_check *check,
                                 struct mb_error *err)
{
    struct mb_plan_options uniform = *c->options;
    struct mb_plan_report uniform_report;
    MB_TRY(make(c, c->planned, c->options, report, err));
    uniform.policy = "uniform";
    uniform.kl_max = 0;
    uniform.target_nbytes = 0;
    uniform.target_bits = report->bits; /* pages that blobs fill are a matter of chance */
    memset(uniform.depth, 0, sizeof uniform.depth);
    MB_TRY(make(c, c->uniform, &uniform, &uniform_report, err));
    MB_TRY(measure(c, c->planned, &check->kl, err));
    MB_TRY(measure(c, c->uniform, &check->kl_uniform, err));
    check->is_done = true;
    check->fell_back = !(check->kl <= check->kl_uniform) && strcmp(report->policy, "uniform") != 0;
    if (check->fell_back)
        *report = uniform_report;
    return MB_OK;
}

static enum mb_status check_locked(struct checking *c, const char *plan_path, const char *text, size_t limit,
                                   struct mb_plan_report *report, struct plan_check *check,
                                   struct mb_error *err)
{
    const struct mb_model_options open = {.size = sizeof open, .n_threads = c->options->n_threads};
    MB_TRY(mb_model_open(c->model_path, &open, &c->model, err));
    enum mb_status status = read_windows(c, text, limit, err);
    if (status == MB_OK)
        status = check_both(c, report, check, err);
    if (status == MB_OK && rename(check->fell_back ? c->uniform : c->planned, plan_path) != 0)
        status = mb_fail_errno(err, plan_path, "rename");
    unlink(c->planned);
    unlink(c->uniform);
    remove_folder(c->folder);
    mb_windows_free(&c->windows);
    mb_model_close(c->model);
    return status;
}

/* PLAN and a word. false: too long. */
static bool join(char path[MB_PATH_MAX], const char *plan_path, const char *word)
{
    return (size_t)snprintf(path, MB_PATH_MAX, "%s.%s", plan_path, word) < MB_PATH_MAX;
}

enum mb_status plan_check(const char *model, const char *plan_path, const char *text, size_t limit,
                          const struct mb_plan_options *options, struct mb_plan_report *report,
                          struct plan_check *check, struct mb_error *err)
{
    struct checking c = {.model_path = model, .options = options};
    char lock[MB_PATH_MAX];
    int lock_fd;
    if (!join(c.folder, plan_path, "check") || !join(c.planned, plan_path, "planned") ||
        !join(c.uniform, plan_path, "uniform") || !join(lock, plan_path, "lock"))
        return mb_fail(err, MB_USAGE, "the path of the plan is too long");
    MB_TRY(mb_create_partial(lock, &lock_fd, err));
    enum mb_status status = check_locked(&c, plan_path, text, limit, report, check, err);
    unlink(lock); /* before it is closed, which lets the lock go */
    close(lock_fd);
    return status;
}
