/*
 * eval_perplexity.c - eval --perplexity: how well a model predicts a text.
 */
#include "base/error.h"
#include "eval.h"
#include "eval_perturb.h"
#include "report.h"
#include <jansson.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>

static int print_perplexity(const struct eval *eval, const struct mb_perplexity_report *r)
{
    if (eval->args->format == CLI_JSON) {
        return eval_print_json(
            eval,
            json_pack("{s:o, s:b, s:o, s:o, s:o, s:o, s:I, s:I, s:f}", "model",
                      cli_json_path(eval->model_path), "coded", (int)mb_model_info(eval->model)->is_coded,
                      "text", cli_json_path(eval->args->perplexity), "ppl", cli_json_real(r->ppl),
                      "ppl_stderr", cli_json_real(r->ppl_stderr), "nll_mean", cli_json_real(r->nll_mean),
                      "n_tokens_scored", (json_int_t)r->n_tokens_scored, "n_windows",
                      (json_int_t)r->n_windows, "seconds", r->seconds));
    }
    char seconds[32];
    printf("PPL = %.4f +/- %.4f\n\n%llu tokens scored in %llu windows, %s\n", r->ppl, r->ppl_stderr,
           (unsigned long long)r->n_tokens_scored, (unsigned long long)r->n_windows,
           cli_seconds(seconds, r->seconds));
    return 0;
}

enum mb_status eval_perplexity(const struct eval *eval, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    struct cli_progress progress;
    struct mb_perplexity_report report;
    struct mb_perplexity_options options = {
        .size = sizeof options,
        .n_ctx = (size_t)eval->args->n_ctx,
        .limit_windows = (size_t)eval->args->limit,
        .cache_type = eval->cache_type,
        .progress = cli_progress_show,
        .progress_ctx = &progress,
    };
    MB_TRY(cli_read_text(eval->args->perplexity, &text, &nbytes, err));
    cli_progress_begin(&progress, "windows");
    enum mb_status status =
        mb_eval_perplexity(eval->model, eval->tokenizer, text, nbytes, &options, &report, err);
    cli_progress_end(&progress);
    free(text);
    MB_TRY(status);
    return print_perplexity(eval, &report) == 0 ? MB_OK : mb_fail_memory(err, "the report");
}
