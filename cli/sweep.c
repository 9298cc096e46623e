/*
 * sweep.c - the verb "sweep": a model with errors in chosen weights, run after run, into a results file.
 */
#include "base/clock.h"
#include "base/error.h"
#include "cli.h"
#include "commit.h"
#include "report.h"
#include <jansson.h>
#include <math.h>
#include <moebius/results.h>
#include <moebius/sweep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *file, *task, *examples, *text, *errors, *bounds, *dense_bound, *suite, *out, *cache;
    struct cli_strings targets, plans;
    int limit, n_examples, n_predict, n_ctx, n_windows, n_seeds, n_parallel, n_jobs, n_threads;
    bool resume, is_strict;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT('o', "output", "FILE.db", args.out, "the results file (SQLite, docs/sweep.md)"),
    CLI_ROW_FLAG(0, "resume", args.resume, "go on with a results file: what it has is not done again"),
    CLI_ROW_TEXT(0, "file", "FILE.json", args.file,
                 "a sweep file; options here take the place of what it says"),
    CLI_ROW_TEXT(0, "suite", "paper", args.suite, "the runs of the paper's tables, scaled to this model"),
    CLI_ROW_TEXTS(0, "target", "SELECTION", args.targets,
                  "which weights: 'layers=1-4 experts=top1'; may be given again"),
    CLI_ROW_TEXT(0, "error", "LIST", args.errors,
                 "normal,uniform,codec,codec:NAME,random,zero,drop,gauss-iso (default codec; docs/lab.md)"),
    CLI_ROW_TEXT(0, "bound", "LIST", args.bounds, "how large: 30%,80%"),
    CLI_ROW_TEXTS(0, "plan", "FILE.json", args.plans,
                  "a run with the bounds of a plan (docs/plan.md); may be given again"),
    CLI_ROW_TEXT(0, "dense-bound", "BOUND", args.dense_bound,
                 "of linear matrices that the plans do not name, as compress has it"),
    CLI_ROW_INT(0, "seeds", "N", args.n_seeds, 1, 1000, "seeds of random errors (default 1)"),
    CLI_ROW_TEXT(0, "task", "FILE.jsonl", args.task, "questions to answer (docs/scoring.md)"),
    CLI_ROW_INT(0, "limit", "N", args.limit, 1, 1e9, "only the first N questions"),
    CLI_ROW_FLAG(0, "strict", args.is_strict,
                 "stop at a malformed line of the task instead of leaving it out"),
    CLI_ROW_INT(0, "few-shot", "N", args.n_examples, 1, 1e6, "put N answered questions before each"),
    CLI_ROW_TEXT(0, "examples", "FILE.jsonl", args.examples,
                 "whose first questions those are (default: the task's, which are then not asked)"),
    CLI_ROW_INT('n', "predict", "N", args.n_predict, 1, 1e6, "most tokens in a reply (default 256)"),
    CLI_ROW_TEXT(0, "kl", "FILE", args.text,
                 "a text for KL to the clean model, and perplexity (txt), or questions with replies (jsonl)"),
    CLI_ROW_INT('c', "ctx-size", "N", args.n_ctx, 4, 1e9,
                "tokens in a window of the text (default: 512, or the model's context)"),
    CLI_ROW_INT(0, "windows", "N", args.n_windows, 1, 1e9, "only the first N windows"),
    CLI_ROW_INT(0, "parallel", "N", args.n_parallel, 1, 4096,
                "questions answered at once (default 64); replies do not depend on it"),
    CLI_ROW_INT(0, "jobs", "N", args.n_jobs, 1, 64,
                "models side by side, which share the threads (default 1); rows do not depend on it"),
    CLI_ROW_TEXT(0, "cache-type", "TYPE", args.cache, "f16 (default) or f32: what the attention cache holds"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW(0, "format", "md|csv|json", "what is printed: tables (default), CSV or JSON", .type = CLI_FORMAT,
            CLI_VALUE(enum cli_format, args.format), .formats = CLI_MD | CLI_CSV | CLI_JSON),
};

static const struct cli_command command = {
    .name = "sweep",
    .args =
        "MODEL --file FILE.json | --target SELECTION --bound LIST | --plan FILE | --suite paper  -o FILE.db",
    .summary = "Put errors into chosen weights, one set after another, and measure what each does.",
    .details =
        "Run 0 is the clean model, with which all others are compared (docs/sweep.md). A sweep that was "
        "killed\n"
        "goes on with --resume; the rows are those of a sweep without interruption.\n\n"
        "  moebius sweep models/reference --task models/reference/eval.jsonl --limit 500 \\\n"
        "      --target 'layer=1 experts=top1' --error normal,codec --bound 80% --seeds 3 -o results.db\n"
        "  moebius sweep models/reference --file sweep.json -o results.db --resume\n"
        "  moebius sweep models/reference --kl book.txt --plan plan.json -o plan.db\n"
        "  moebius sweep models/reference --suite paper --task models/reference/eval.jsonl -o paper.db",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

/* ---------------------------------------------------------------- before and meanwhile */

struct showing {
    uint64_t begun_ns, shown_ns;
    bool is_terminal, is_shown;
};

/* "4.4 points", or that nothing can be seen. */
static const char *points(char text[32], double difference)
{
    if (isfinite(difference))
        snprintf(text, 32, "%.1f points", 100 * difference);
    else
        snprintf(text, 32, "nothing");
    return text;
}

static void show_power(const struct mb_sweep_plan *plan)
{
    char one[32], all[32];
    fprintf(stderr, "what %zu questions show at least (power 80 %%), if %.0f %% of the answers flip: %s",
            plan->n_questions, 100 * plan->discordance, points(one, plan->detectable_one));
    if (plan->n_comparisons > 1)
        fprintf(stderr, "; as one of %zu comparisons: %s", plan->n_comparisons,
                points(all, plan->detectable_sweep));
    if (!isfinite(plan->detectable_sweep))
        fputs(" (take more questions)", stderr);
    fputc('\n', stderr);
}

static bool show_plan(void *ctx, const struct mb_sweep_plan *plan)
{
    struct showing *showing = ctx;
    fprintf(stderr, "%zu run%s", plan->n_runs, plan->n_runs == 1 ? "" : "s");
    if (plan->n_done > 0)
        fprintf(stderr, ", %zu of them done before", plan->n_done);
    if (plan->n_questions > 0)
        fprintf(stderr, "; %zu questions each", plan->n_questions);
    if (plan->n_windows > 0)
        fprintf(stderr, "; %zu windows of text each", plan->n_windows);
    fputc('\n', stderr);
    if (plan->n_questions > 0)
        show_power(plan);
    fputs(plan->notes, stderr);
    cli_catch_interrupts(); /* only now: while the model loads nothing looks at the flag */
    showing->begun_ns = mb_now_ns();
    showing->is_terminal = isatty(STDERR_FILENO) == 1;
    return false;
}

static bool show_step(void *ctx, const struct mb_sweep_step *step)
{
    struct showing *showing = ctx;
    if (!showing->is_terminal || (showing->is_shown && cli_seconds_since(showing->shown_ns) < 0.1))
        return cli_interrupted();
    double done = (double)step->run + step->share, seconds = cli_seconds_since(showing->begun_ns);
    char each[32], left[32], what[96];
    snprintf(what, sizeof what, "%s", step->what);
    mb_make_printable(what);
    fprintf(stderr, "\r\033[K%zu of %zu runs, %d %%: %.60s", step->run, step->n_runs,
            (int)(100 * done / (double)step->n_runs), what);
    if (done > 0.05 && seconds > 0.5)
        fprintf(stderr, "; %s a run, %s left", cli_seconds(each, seconds / done),
                cli_seconds(left, ((double)step->n_runs - done) * seconds / done));
    fflush(stderr);
    showing->is_shown = true;
    showing->shown_ns = mb_now_ns();
    return cli_interrupted();
}

static void show_note(void *ctx, const char *text)
{
    struct showing *showing = ctx;
    if (showing->is_shown)
        fputs("\r\033[K", stderr);
    fprintf(stderr, "moebius: %s\n", text);
}

/* ---------------------------------------------------------------- tables */

static const char *or_empty(const char *text)
{
    return text == NULL ? "" : text;
}

/* "99.1 (98.3 to 99.5)": points of 100. */
static void cell_interval(struct cli_table *table, double value, double low, double high, double scale,
                          const char *format)
{
    char text[3][32];
    snprintf(text[0], sizeof text[0], format, scale * value);
    snprintf(text[1], sizeof text[1], format, scale * low);
    snprintf(text[2], sizeof text[2], format, scale * high);
    if (isnan(value))
        cli_table_cell(table, "%s", "");
    else if (isnan(low))
        cli_table_cell(table, "%s", text[0]);
    else
        cli_table_cell(table, "%s (%s to %s)", text[0], text[1], text[2]);
}

/* The figures of one group of runs that a reader looks at first; all are in CSV, JSON and the file. */
enum shown { ICA, PIA, KL, NLL, ROUTES, N_SHOWN };
static const char *const shown_names[N_SHOWN] = {"ica", "pia", "kl", "nll", "route_changed"};

struct group {
    struct cli_table *table;
    char target[512], error[64], bound[64];
    uint64_t n_seeds;
    bool is_open, has[N_SHOWN];
    struct mb_result_pooled figures[N_SHOWN]; /* their texts are gone */
};

static void cell_figure(struct group *group, enum shown which, double scale, const char *format)
{
    const struct mb_result_pooled *row = &group->figures[which];
    cell_interval(group->table, group->has[which] ? row->mean : NAN, row->low, row->high, scale, format);
}

/* What the verdict is of: PIA, or without a task how the text is predicted. */
static void cell_verdict(struct group *group)
{
    bool is_task = group->has[PIA], is_clean = strcmp(group->error, "none") == 0;
    const struct mb_result_pooled *row = &group->figures[is_task ? PIA : NLL];
    cell_interval(group->table, is_clean ? NAN : row->difference, row->difference_low, row->difference_high,
                  is_task ? 100 : 1, is_task ? "%+.1f" : "%+.4f");
    cli_table_cell(group->table, "%s", row->verdict);
}

static void close_group(struct group *group)
{
    if (!group->is_open)
        return;
    cli_table_cell(group->table, "%s", group->target);
    cli_table_cell(group->table, "%s", group->error);
    cli_table_cell(group->table, "%s", group->bound);
    cli_table_cell(group->table, "%llu", (unsigned long long)group->n_seeds);
    cell_figure(group, ICA, 100, "%.1f");
    cell_figure(group, PIA, 100, "%.1f");
    cell_verdict(group);
    cell_figure(group, KL, 1, "%.2e");
    cell_figure(group, ROUTES, 100, "%.1f");
    group->is_open = false;
}

static bool is_same_group(const struct group *group, const struct mb_result_pooled *row)
{
    return group->is_open && strcmp(group->target, or_empty(row->target)) == 0 &&
           strcmp(group->error, or_empty(row->error)) == 0 && strcmp(group->bound, or_empty(row->bound)) == 0;
}

static void add_md_row(void *ctx, const struct mb_result_pooled *row)
{
    struct group *group = ctx;
    if (!is_same_group(group, row)) {
        close_group(group);
        *group = (struct group){.table = group->table, .is_open = true};
        snprintf(group->target, sizeof group->target, "%s", or_empty(row->target));
        snprintf(group->error, sizeof group->error, "%s", or_empty(row->error));
        snprintf(group->bound, sizeof group->bound, "%s", or_empty(row->bound));
    }
    for (size_t i = 0; i < N_SHOWN; i++)
        if (strcmp(or_empty(row->name), shown_names[i]) == 0) {
            group->has[i] = true;
            group->figures[i] = *row;
            group->n_seeds = row->n_seeds;
        }
}

static void print_csv_text(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

static void print_csv_number(double value)
{
    if (isnan(value))
        putchar(',');
    else
        printf(",%.10g", value);
}

static void print_csv_row(void *ctx, const struct mb_result_pooled *row)
{
    const char *texts[] = {row->label, row->target, row->error, row->bound, row->name};
    const double numbers[] = {row->mean,
                              row->low,
                              row->high,
                              row->seed_sd,
                              row->difference,
                              row->difference_low,
                              row->difference_high,
                              row->p,
                              row->p_adjusted};
    (void)ctx;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        print_csv_text(or_empty(texts[i]));
        putchar(',');
    }
    printf("%llu", (unsigned long long)row->n_seeds);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        print_csv_number(numbers[i]);
    putchar(',');
    print_csv_text(row->verdict);
    putchar('\n');
}

struct printing {
    json_t *rows;
};

static void add_json_row(void *ctx, const struct mb_result_pooled *row)
{
    struct printing *printing = ctx;
    json_t *json = json_pack(
        "{s:s, s:s, s:s, s:s?, s:s, s:I, s:o, s:[o, o], s:o, s:o, s:[o, o], s:o, s:o, s:s}", "label",
        or_empty(row->label), "target", or_empty(row->target), "error", or_empty(row->error), "bound",
        row->bound, "name", or_empty(row->name), "n_seeds", (json_int_t)row->n_seeds, "mean",
        cli_json_real(row->mean), "interval95", cli_json_real(row->low), cli_json_real(row->high), "seed_sd",
        cli_json_real(row->seed_sd), "difference", cli_json_real(row->difference), "difference95",
        cli_json_real(row->difference_low), cli_json_real(row->difference_high), "p", cli_json_real(row->p),
        "p_adjusted", cli_json_real(row->p_adjusted), "verdict", row->verdict);
    json_array_append_new(printing->rows, json);
}

/* ---------------------------------------------------------------- the paper's tables */

struct papers {
    struct cli_table *table;
    char part[16]; /* of the table that is open */
    uint64_t n_agree, n_disagree, n_small;
};

static void close_part(struct papers *papers)
{
    if (papers->table != NULL)
        cli_table_print(papers->table);
    papers->table = NULL;
}

static void print_paper_row(void *ctx, const struct mb_result_paper *row)
{
    static const char *const heads[] = {"place",         "bound", "error",        "figure", "paper",
                                        "paper - clean", "ours",  "ours - clean", "verdict"};
    struct papers *papers = ctx;
    if (strcmp(papers->part, row->part) != 0) {
        close_part(papers);
        snprintf(papers->part, sizeof papers->part, "%s", row->part);
        printf("\n%s%s\n\n", row->part,
               row->part[0] == 'T' && row->part[1] >= '8' ? " (there on MATH, here on the task)" : "");
        papers->table = cli_table_new("llllrrrrl", heads);
    }
    struct cli_table *table = papers->table;
    cli_table_cell(table, "%s", row->place);
    cli_table_cell(table, "%s", or_empty(row->bound));
    cli_table_cell(table, "%s", row->error);
    cli_table_cell(table, "%s", strcmp(row->name, "ica") == 0 ? "ICA" : "PIA");
    cell_interval(table, row->paper, NAN, NAN, 100, "%.0f");
    cell_interval(table, row->paper - row->paper_clean, row->paper_low, row->paper_high, 100, "%+.0f");
    cell_interval(table, row->ours, NAN, NAN, 100, "%.1f");
    cell_interval(table, row->ours - row->ours_clean, row->low, row->high, 100, "%+.1f");
    cli_table_cell(table, "%s", row->agrees);
    papers->n_agree += strcmp(row->agrees, "agree") == 0;
    papers->n_disagree += strcmp(row->agrees, "disagree") == 0;
    papers->n_small += strcmp(row->agrees, "n too small to tell") == 0;
}

static void add_paper_json(void *ctx, const struct mb_result_paper *row)
{
    struct printing *printing = ctx;
    json_array_append_new(
        printing->rows,
        json_pack("{s:s, s:s, s:s?, s:s, s:s, s:o, s:o, s:[o, o], s:o, s:o, s:[o, o], s:s}", "part",
                  row->part, "place", row->place, "bound", row->bound, "error", row->error, "name", row->name,
                  "paper", cli_json_real(row->paper), "paper_clean", cli_json_real(row->paper_clean),
                  "paper_difference95", cli_json_real(row->paper_low), cli_json_real(row->paper_high), "ours",
                  cli_json_real(row->ours), "ours_clean", cli_json_real(row->ours_clean), "difference95",
                  cli_json_real(row->low), cli_json_real(row->high), "agrees", row->agrees));
}

/* ---------------------------------------------------------------- all in one form */

static enum mb_status print_groups(struct mb_results *results, struct mb_error *err)
{
    static const char *const heads[] = {"target", "error",         "bound",   "seeds", "ICA, %",
                                        "PIA, %", "against clean", "verdict", "KL",    "routes changed, %"};
    struct group group = {.table = cli_table_new("lllrrrrlrr", heads)};
    enum mb_status status = mb_results_each_pooled(results, add_md_row, &group, err);
    close_group(&group);
    cli_table_print(group.table);
    return status;
}

/* The paper's tables say of its runs what the table of all runs would. */
static enum mb_status print_md(struct mb_results *results, struct mb_error *err)
{
    struct papers papers = {0};
    MB_TRY(mb_results_each_paper(results, print_paper_row, &papers, err));
    close_part(&papers);
    if (papers.part[0] == '\0')
        return print_groups(results, err);
    printf("\nFigures of the paper: %llu agree, %llu disagree, %llu with n too small to tell.\n",
           (unsigned long long)papers.n_agree, (unsigned long long)papers.n_disagree,
           (unsigned long long)papers.n_small);
    return MB_OK;
}

static enum mb_status print_csv(struct mb_results *results, struct mb_error *err)
{
    puts("label,target,error,bound,name,n_seeds,mean,low,high,seed_sd,difference,difference_low,"
         "difference_high,p,p_adjusted,verdict");
    return mb_results_each_pooled(results, print_csv_row, NULL, err);
}

static enum mb_status print_json(struct mb_results *results, const struct mb_sweep_report *report,
                                 struct mb_error *err)
{
    struct printing printing = {.rows = json_array()}, paper = {.rows = json_array()};
    enum mb_status status = mb_results_each_pooled(results, add_json_row, &printing, err);
    if (status == MB_OK)
        status = mb_results_each_paper(results, add_paper_json, &paper, err);
    if (status != MB_OK) {
        json_decref(printing.rows);
        json_decref(paper.rows);
        return status;
    }
    return cli_print_json(json_pack("{s:o, s:I, s:I, s:I, s:f, s:o, s:o}", "results", cli_json_path(args.out),
                                    "n_runs", (json_int_t)report->n_runs, "n_done",
                                    (json_int_t)report->n_done, "n_done_before",
                                    (json_int_t)report->n_done_before, "seconds", report->seconds, "pooled",
                                    printing.rows, "paper", paper.rows)) == 0
               ? MB_OK
               : mb_fail_memory(err, "the report");
}

static enum mb_status print_results(const struct mb_sweep_report *report, struct mb_error *err)
{
    struct mb_results *results;
    MB_TRY(mb_results_read(args.out, &results, err));
    enum mb_status status = args.format == CLI_JSON  ? print_json(results, report, err)
                            : args.format == CLI_CSV ? print_csv(results, err)
                                                     : print_md(results, err);
    mb_results_close(results);
    return status;
}

/* ---------------------------------------------------------------- the verb */

static enum mb_status run(const char *model_path, const struct mb_sweep *sweep, const char *words,
                          struct mb_error *err)
{
    struct showing showing = {0};
    struct mb_sweep_report report;
    struct mb_sweep_options to = {
        .size = sizeof to,
        .resume = args.resume,
        .n_threads = args.n_threads,
        .n_parallel = (size_t)args.n_parallel,
        .n_jobs = (size_t)args.n_jobs,
        .cache_type = args.cache != NULL && strcmp(args.cache, "f32") == 0 ? MB_CACHE_F32 : MB_CACHE_F16,
        .commit = MB_COMMIT,
        .command = words,
        .plan = show_plan,
        .step = show_step,
        .note = show_note,
        .ctx = &showing,
        .is_strict = args.is_strict,
    };
    enum mb_status status = mb_sweep_run(model_path, sweep, args.out, &to, &report, err);
    if (showing.is_shown)
        fputs("\r\033[K", stderr);
    if (status == MB_CANCELLED)
        return mb_fail(err, status, "interrupted; %zu of %zu runs are in %s, --resume goes on",
                       report.n_done + report.n_done_before, report.n_runs, args.out);
    MB_TRY(status);
    return print_results(&report, err);
}

/* What a table of options cannot say: which go together. NULL when all is well. */
static const char *find_contradiction(void)
{
    if (args.out == NULL)
        return "-o FILE.db is missing: where the results go";
    if ((args.file != NULL) + (args.suite != NULL) + (args.targets.n > 0 || args.plans.n > 0) != 1)
        return "give one of --file, --suite, and --target or --plan or both";
    if (args.targets.n == 0 && (args.errors != NULL || args.bounds != NULL))
        return "--error and --bound go with --target";
    if (args.plans.n == 0 && args.dense_bound != NULL)
        return "--dense-bound goes with --plan";
    if (args.suite != NULL && strcmp(args.suite, "paper") != 0)
        return "--suite is paper";
    if (args.file == NULL && args.task == NULL && args.text == NULL)
        return "nothing to measure: give --task or --kl";
    if (args.is_strict && args.task == NULL && args.file == NULL)
        return "--strict is of a task, and there is none";
    if (args.cache != NULL && strcmp(args.cache, "f16") != 0 && strcmp(args.cache, "f32") != 0)
        return "--cache-type is f16 or f32";
    return NULL;
}

/* The words of the command line as a shell reads them back. NULL: no memory. */
static char *join_words(int argc, char **argv)
{
    size_t cap = sizeof "moebius";
    for (int i = 0; i < argc; i++)
        cap += 4 * strlen(argv[i]) + 3;
    char *text = cli_check_memory(malloc(cap)), *p = stpcpy(text, "moebius");
    for (int i = 0; i < argc; i++) {
        bool is_plain =
            argv[i][0] != '\0' && strspn(argv[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                                  "0123456789-_./,=%:+") == strlen(argv[i]);
        *p++ = ' ';
        if (!is_plain)
            *p++ = '\'';
        for (const char *c = argv[i]; *c != '\0'; c++)
            p = *c == '\'' ? stpcpy(p, "'\\''") : (*p = *c, p + 1);
        if (!is_plain)
            *p++ = '\'';
        *p = '\0';
    }
    return text;
}

static enum mb_status read_sweep(struct mb_sweep **sweep, struct mb_error *err)
{
    struct mb_sweep_flags flags = {.size = sizeof flags,
                                   .task = args.task,
                                   .text = args.text,
                                   .limit = (size_t)args.limit,
                                   .n_predict = (size_t)args.n_predict,
                                   .n_ctx = (size_t)args.n_ctx,
                                   .n_windows = (size_t)args.n_windows,
                                   .n_seeds = (size_t)args.n_seeds,
                                   .targets = args.targets.items,
                                   .n_targets = args.targets.n,
                                   .errors = args.errors,
                                   .bounds = args.bounds,
                                   .suite = args.suite,
                                   .plans = args.plans.items,
                                   .n_plans = args.plans.n,
                                   .dense_bound = args.dense_bound,
                                   .examples = args.examples,
                                   .n_examples = (size_t)args.n_examples};
    return mb_sweep_read(args.file, &flags, sweep, err);
}

int cli_sweep(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    struct mb_error err;
    struct mb_sweep *sweep;
    args.format = CLI_MD;
    char *words = join_words(argc, argv); /* before getopt changes their order */
    bool goes_on = cli_parse(&command, argc, argv, positional, &n_args, &exit_status);
    const char *contradiction = goes_on ? find_contradiction() : NULL;
    if (contradiction != NULL)
        exit_status = cli_usage_error(&command, "%s", contradiction);
    if (goes_on && contradiction == NULL) {
        enum mb_status status = read_sweep(&sweep, &err);
        if (status == MB_OK) {
            status = run(positional[0], sweep, words, &err);
            mb_sweep_close(sweep);
        }
        exit_status = status == MB_OK ? 0 : cli_fail(&err);
    }
    free(words);
    return exit_status;
}
