/*
 * eval_kl.c - eval --kl-divergence: how far a model is from its original, on a text or on replies.
 */
#include "base/error.h"
#include "eval.h"
#include "eval_perturb.h"
#include "memory.h"
#include "report.h"
#include <jansson.h>
#include <moebius/measure.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- report */

static json_t *mean_json(const struct mb_token_mean *m)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "mean", cli_json_real(m->value), "stderr_tokens",
                     cli_json_real(m->stderr_tokens), "stderr_windows", cli_json_real(m->stderr_windows),
                     "low", cli_json_real(m->low), "high", cli_json_real(m->high));
}

static json_t *percentiles_json(const double *values)
{
    static const double percents[] = MB_PERCENTS;
    json_t *list = json_array();
    for (size_t i = 0; i < MB_N_PERCENTS; i++)
        json_array_append_new(
            list, json_pack("{s:f, s:o}", "percent", percents[i], "value", cli_json_real(values[i])));
    return list;
}

/* What paired statistics of several runs are made of. */
static json_t *windows_json(const struct mb_window_sums *sums, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:I, s:o, s:o}", "n_scored", (json_int_t)sums[i].n_scored,
                                              "kl", cli_json_real(sums[i].kl), "same_top",
                                              cli_json_real(sums[i].same_top)));
    return list;
}

static int print_json(const struct eval *eval, bool is_floor, const struct mb_comparison *c,
                      const struct mb_window_sums *sums)
{
    const char *data = eval->args->perplexity != NULL ? eval->args->perplexity : eval->args->task;
    json_t *json = json_pack(
        "{s:o, s:o, s:b, s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
        "s:o, "
        "s:o, s:o, s:o, s:f}",
        "model", cli_json_path(eval->model_path), "original", cli_json_path(eval->args->original), "floor",
        (int)(is_floor && eval->args->perturb.n == 0), "data", cli_json_path(data), "n_windows",
        (json_int_t)c->n_windows, "n_tokens", (json_int_t)c->n_tokens, "n_scored", (json_int_t)c->n_scored,
        "n_not_finite", (json_int_t)c->n_not_finite, "kl", mean_json(&c->kl), "tv", mean_json(&c->tv),
        "same_top", mean_json(&c->same_top), "nll", mean_json(&c->nll), "nll_original",
        mean_json(&c->nll_clean), "ln_ratio", mean_json(&c->ln_ratio), "dp", mean_json(&c->dp), "dp_rms",
        cli_json_real(c->dp_rms), "dp_rms_stderr", cli_json_real(c->dp_rms_stderr), "ppl",
        cli_json_real(c->ppl), "ppl_stderr", cli_json_real(c->ppl_stderr), "ppl_original",
        cli_json_real(c->ppl_clean), "ppl_original_stderr", cli_json_real(c->ppl_clean_stderr),
        "kl_percentiles", percentiles_json(c->kl_percentiles), "dp_percentiles",
        percentiles_json(c->dp_percentiles), "seconds", c->seconds);
    if (json != NULL && json_object_set_new(json, "windows", windows_json(sums, c->n_windows)) != 0) {
        json_decref(json);
        json = NULL;
    }
    return eval_print_json(eval, json);
}

/* A mean times 'scale', its errors and its interval. */
static void print_mean(struct cli_table *table, const char *what, const struct mb_token_mean *m, double scale)
{
    cli_table_cell(table, "%s", what);
    cli_table_cell(table, "%.6g", scale * m->value);
    cli_table_cell(table, "%.2g", scale * m->stderr_tokens);
    cli_table_cell(table, "%.2g", scale * m->stderr_windows);
    cli_table_cell(table, "%.6g to %.6g", scale * m->low, scale * m->high);
}

static void print_value(struct cli_table *table, const char *what, double value, double error)
{
    cli_table_cell(table, "%s", what);
    cli_table_cell(table, "%.6g", value);
    cli_table_cell(table, "%.2g", error);
    cli_table_cell(table, "%s", "");
    cli_table_cell(table, "%s", "");
}

static void print_means(const struct mb_comparison *c)
{
    static const char *const heads[] = {"mean", "", "± by token", "± by window", "95 %, by window", NULL};
    struct cli_table *table = cli_table_new("lrrrl", heads);
    print_value(table, "PPL(MODEL)", c->ppl, c->ppl_stderr);
    print_value(table, "PPL(ORIGINAL)", c->ppl_clean, c->ppl_clean_stderr);
    print_mean(table, "ln(PPL(MODEL) / PPL(ORIGINAL))", &c->ln_ratio, 1);
    print_mean(table, "KLD", &c->kl, 1);
    print_mean(table, "shared probability (1 - TV), %",
               &(struct mb_token_mean){1 - c->tv.value, c->tv.stderr_tokens, c->tv.stderr_windows,
                                       1 - c->tv.high, 1 - c->tv.low},
               100);
    print_mean(table, "same top p, %", &c->same_top, 100);
    print_mean(table, "Δp, %", &c->dp, 100);
    print_value(table, "RMS Δp, %", 100 * c->dp_rms, 100 * c->dp_rms_stderr);
    cli_table_print(table);
}

static void print_percentiles(const struct mb_comparison *c)
{
    static const double percents[] = MB_PERCENTS;
    static const char *const heads[] = {"percentile", "KLD", "Δp, %", NULL};
    struct cli_table *table = cli_table_new("lrr", heads);
    for (size_t i = MB_N_PERCENTS; i-- > 0;) {
        if (percents[i] == 0 || percents[i] == 50 || percents[i] == 100)
            cli_table_cell(table, "%s",
                           percents[i] == 0    ? "minimum"
                           : percents[i] == 50 ? "median"
                                               : "maximum");
        else
            cli_table_cell(table, "%.1f %%", percents[i]);
        cli_table_cell(table, "%.6g", c->kl_percentiles[i]);
        cli_table_cell(table, "%.4g", 100 * c->dp_percentiles[i]);
    }
    cli_table_print(table);
}

static int print_comparison(const struct eval *eval, bool is_floor, const struct mb_comparison *c,
                            const struct mb_window_sums *sums)
{
    char seconds[32];
    if (eval->args->format == CLI_JSON)
        return print_json(eval, is_floor, c, sums);
    if (is_floor && eval->args->perturb.n > 0)
        printf("MODEL with the error, ORIGINAL without it.\n\n");
    else if (is_floor)
        printf("The floor: the same model twice, its cache in f16 (MODEL) and in f32 (ORIGINAL).\n\n");
    print_means(c);
    printf("\n");
    print_percentiles(c);
    printf("\n%llu of %llu tokens scored in %llu windows, %s\n", (unsigned long long)c->n_scored,
           (unsigned long long)c->n_tokens, (unsigned long long)c->n_windows,
           cli_seconds(seconds, c->seconds));
    if (c->n_not_finite > 0)
        printf("%llu tokens have logits of MODEL that are not finite: there are no figures\n",
               (unsigned long long)c->n_not_finite);
    return 0;
}

/* ---------------------------------------------------------------- reading */

static enum mb_status add_windows(const struct eval *eval, const struct mb_model *model,
                                  const struct mb_tokenizer *tokenizer, struct mb_windows *windows,
                                  struct mb_error *err)
{
    const struct eval_args *args = eval->args;
    const struct mb_model_info *info = mb_model_info(model);
    const char *path = args->perplexity != NULL ? args->perplexity : args->task;
    char *text;
    size_t nbytes;
    MB_TRY(cli_read_text(path, &text, &nbytes, err));
    enum mb_status status =
        args->perplexity != NULL
            ? mb_windows_add_text(windows, info, tokenizer, text, nbytes, (size_t)args->n_ctx,
                                  (size_t)args->limit, err)
            : mb_windows_add_replies(windows, info, tokenizer, text, nbytes, (size_t)args->limit, err);
    free(text);
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "%s", path);
}

static enum mb_status compare_tokens(const struct eval *eval, const struct mb_windows *a,
                                     const struct mb_windows *b, struct mb_error *err)
{
    bool is_same = a->n == b->n;
    for (size_t i = 0; is_same && i < a->n; i++)
        is_same = a->at[i].n_tokens == b->at[i].n_tokens &&
                  memcmp(a->at[i].tokens, b->at[i].tokens, a->at[i].n_tokens * sizeof *a->at[i].tokens) == 0;
    return is_same ? MB_OK
                   : mb_fail(err, MB_BAD_DATA,
                             "%s and %s make different tokens of the text: give models of one "
                             "tokenizer",
                             eval->model_path, eval->args->original);
}

static enum mb_status measure(const struct eval *eval, struct mb_model *original, bool is_floor,
                              const struct mb_windows *windows, struct mb_error *err)
{
    struct cli_progress progress;
    struct mb_comparison comparison;
    struct mb_window_sums *sums = calloc(windows->n + 1, sizeof *sums);
    struct mb_measure_options options = {.size = sizeof options,
                                         .cache_type = is_floor ? MB_CACHE_F32 : eval->cache_type,
                                         .progress = cli_progress_show,
                                         .progress_ctx = &progress,
                                         .sums = sums};
    if (sums == NULL)
        return mb_fail_memory(err, "what is found in windows");
    cli_progress_begin(&progress, "windows");
    enum mb_status status =
        mb_measure_models(original, eval->model, is_floor ? MB_CACHE_F16 : eval->cache_type, windows,
                          &options, &comparison, err);
    cli_progress_end(&progress);
    if (status == MB_OK && print_comparison(eval, is_floor, &comparison, sums) != 0)
        status = mb_fail_memory(err, "the report");
    free(sums);
    return status;
}

static enum mb_status run_changed(const struct eval *eval, struct mb_measure *clean,
                                  struct mb_comparison *comparison, struct mb_error *err)
{
    MB_TRY(eval_perturb_apply(eval, err));
    struct mb_measure_change change = eval_perturb_change(eval);
    return mb_measure_run(clean, &change, comparison, err);
}

/* A clean pass, then the error, then what it changes. */
static enum mb_status measure_error(const struct eval *eval, const struct mb_windows *windows,
                                    struct mb_error *err)
{
    struct cli_progress progress;
    struct mb_measure *clean = NULL;
    struct mb_comparison comparison;
    struct mb_measure_options options = {.size = sizeof options,
                                         .cache_type = eval->cache_type,
                                         .skips_routes = true,
                                         .progress = cli_progress_show,
                                         .progress_ctx = &progress};
    cli_progress_begin(&progress, "windows");
    enum mb_status status = mb_measure_open(eval->model, windows, &options, &clean, err);
    if (status == MB_OK)
        status = run_changed(eval, clean, &comparison, err);
    cli_progress_end(&progress);
    if (status == MB_OK && print_comparison(eval, true, &comparison, mb_measure_window_sums(clean)) != 0)
        status = mb_fail_memory(err, "the report");
    mb_measure_close(clean);
    return status;
}

/* The tokens are those of the original, which the model has to make as well. */
static enum mb_status measure_with(const struct eval *eval, struct mb_model *original,
                                   const struct mb_tokenizer *tokenizer, struct mb_error *err)
{
    struct mb_windows windows = {0}, others = {0};
    bool is_floor = original == eval->model;
    enum mb_status status = add_windows(eval, original, tokenizer, &windows, err);
    if (status == MB_OK && !is_floor)
        status = add_windows(eval, eval->model, eval->tokenizer, &others, err);
    if (status == MB_OK && !is_floor)
        status = compare_tokens(eval, &windows, &others, err);
    mb_windows_free(&others);
    if (status == MB_OK && is_floor && eval->args->perturb.n > 0)
        status = measure_error(eval, &windows, err);
    else if (status == MB_OK)
        status = measure(eval, original, is_floor, &windows, err);
    mb_windows_free(&windows);
    return status;
}

static enum mb_status measure_other(const struct eval *eval, const struct mb_tokenizer *tokenizer,
                                    struct mb_error *err)
{
    struct mb_model *original;
    /* The original is what the other is compared with: a coded one is multiplied exactly. */
    struct mb_model_options options = {
        .size = sizeof options, .n_threads = eval->args->n_threads, .activations = MB_ACTIVATIONS_EXACT};
    cli_memory(eval->args->memory, &options.memory_nbytes);
    eval_expect_sessions(eval->args, &options);
    MB_TRY(mb_model_open(eval->args->original, &options, &original, err));
    cli_print_notes(mb_model_info(original)->notes);
    enum mb_status status = measure_with(eval, original, tokenizer, err);
    mb_model_close(original);
    return status;
}

enum mb_status eval_kl(const struct eval *eval, struct mb_error *err)
{
    struct mb_tokenizer *tokenizer;
    if (strcmp(eval->args->original, eval->model_path) == 0)
        return measure_with(eval, eval->model, eval->tokenizer, err);
    MB_TRY(mb_checkpoint_look(eval->args->original, err));
    MB_TRY(mb_tokenizer_open(eval->args->original, &tokenizer, err));
    enum mb_status status = measure_other(eval, tokenizer, err);
    mb_tokenizer_close(tokenizer);
    return status;
}
