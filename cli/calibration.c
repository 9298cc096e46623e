/*
 * calibration.c - see calibration.h.
 */
#include "calibration.h"
#include "base/error.h"
#include "base/file.h"
#include "cli.h"
#include "report.h"
#include <inttypes.h>
#include <moebius/engine.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NAMES_MAX = 6 }; /* of experts that no token reached */
#define STRANGE_SHARE 0.1

/* ---------------------------------------------------------------- the text */

struct sources {
    struct mb_model *model;
    struct mb_tokenizer *tokenizer;
    struct mb_calibration calibration;
    struct mb_moments_key key;
};

static void close_sources(struct sources *s)
{
    mb_calibration_free(&s->calibration);
    mb_tokenizer_close(s->tokenizer);
    mb_model_close(s->model);
}

static void warn_of_text(const struct mb_calibration *c)
{
    double share = cli_ratio((double)c->n_strange, (double)c->n_read);
    if (share > STRANGE_SHARE)
        fprintf(stderr,
                "moebius: warning: %.0f %% of the calibration text's tokens are unknown or parts of "
                "characters, most of them on line %zu: the tokenizer hardly knows it\n",
                100 * share, c->strange_line);
}

static enum mb_status open_sources(struct sources *s, const struct cli_calibration_args *args,
                                   const char *model_path, struct mb_error *err)
{
    struct mb_model_options options = {.size = sizeof options, .n_threads = args->n_threads};
    struct mb_calibration_options text = {.size = sizeof text, .n_tokens_max = args->n_tokens};
    const char *path = strcmp(args->text, "default") == 0 ? NULL : args->text;
    MB_TRY(mb_model_open(model_path, &options, &s->model, err));
    MB_TRY(mb_tokenizer_open(model_path, &s->tokenizer, err));
    MB_TRY(mb_calibration_read(path, mb_model_info(s->model), s->tokenizer, &text, &s->calibration, err));
    warn_of_text(&s->calibration);
    return mb_moments_key_of(model_path, &s->calibration, &s->key, err);
}

/* ---------------------------------------------------------------- moments */

static enum mb_status make(struct cli_calibration *c, struct sources *s, int n_threads, struct mb_error *err)
{
    struct cli_progress progress;
    struct mb_moments_options options = {.size = sizeof options,
                                         .n_threads = n_threads,
                                         .progress = cli_progress_show,
                                         .progress_ctx = &progress};
    cli_progress_begin(&progress, "tokens");
    enum mb_status status =
        mb_moments_make(c->path, s->model, &s->calibration, &s->key, &options, &c->made, err);
    cli_progress_end(&progress);
    c->was_made = status == MB_OK;
    return status;
}

/* Moments that are there have to be of this text, where one was given. */
static enum mb_status check_text(const struct cli_calibration *c, const struct mb_moments_key *key,
                                 struct mb_error *err)
{
    const struct mb_moments_key *of = &mb_moments_contents(c->moments)->key;
    if (strcmp(of->tokens, key->tokens) == 0)
        return MB_OK;
    return mb_fail(err, MB_USAGE,
                   "%s: the moments of another text: name another file, or leave --calibrate out to use it",
                   c->path);
}

static enum mb_status open_with_text(struct cli_calibration *c, const struct cli_calibration_args *args,
                                     const char *model_path, bool is_there, struct mb_error *err)
{
    struct sources s = {0};
    enum mb_status status = open_sources(&s, args, model_path, err);
    if (status == MB_OK && !is_there)
        status = make(c, &s, args->n_threads, err);
    if (status == MB_OK)
        status = mb_moments_open(c->path, s.key.model, &c->moments, err);
    if (status == MB_OK)
        status = check_text(c, &s.key, err);
    close_sources(&s);
    return status;
}

static enum mb_status open_kept(struct cli_calibration *c, const char *model_path, struct mb_error *err)
{
    char hash[MB_HASH_NBYTES];
    MB_TRY(mb_model_hash(model_path, hash, err));
    return mb_moments_open(c->path, hash, &c->moments, err);
}

static enum mb_status find_path(struct cli_calibration *c, const struct cli_calibration_args *args,
                                const char *out_path, struct mb_error *err)
{
    int n = args->moments != NULL ? snprintf(c->path, sizeof c->path, "%s", args->moments)
                                  : snprintf(c->path, sizeof c->path, "%s.moments", out_path);
    c->is_own = args->moments == NULL;
    return (size_t)n < sizeof c->path ? MB_OK : mb_fail(err, MB_USAGE, "the path of the moments is too long");
}

static enum mb_status open_moments(struct cli_calibration *c, const struct cli_calibration_args *args,
                                   const char *model_path, const char *out_path, struct mb_error *err)
{
    bool is_there;
    MB_TRY(find_path(c, args, out_path, err));
    MB_TRY(mb_look_at(c->path, &is_there, NULL, err));
    if (args->text != NULL)
        return open_with_text(c, args, model_path, is_there, err);
    if (!is_there)
        return mb_fail(err, MB_BAD_DATA, "%s: no such file: --calibrate TEXT makes it", c->path);
    return open_kept(c, model_path, err);
}

enum mb_status cli_calibration_open(struct cli_calibration *c, const struct cli_calibration_args *args,
                                    const char *model_path, const char *out_path, struct mb_error *err)
{
    struct mb_feedback_options options = {
        .size = sizeof options, .rho = args->rho, .no_column_factors = args->no_column_factors};
    MB_TRY(open_moments(c, args, model_path, out_path, err));
    c->source = mb_moments_as_source(c->moments);
    return mb_feedback_create(&c->source, &options, &c->feedback, err);
}

void cli_calibration_close(struct cli_calibration *c, bool is_done)
{
    mb_feedback_free(c->feedback);
    mb_moments_close(c->moments);
    if (is_done && c->is_own)
        unlink(c->path);
}

/* ---------------------------------------------------------------- the report */

struct counts {
    size_t n_experts, n_none, n_few; /* few: fewer tokens than values, so that directions are missing */
};

/* Whether it is the first input of a routed expert. */
static bool is_first_of_expert(const struct mb_moments_input *inputs, size_t i)
{
    return inputs[i].expert >= 0 &&
           (i == 0 || inputs[i - 1].expert != inputs[i].expert || inputs[i - 1].layer != inputs[i].layer);
}

static struct counts count(const struct mb_moments *moments)
{
    size_t n;
    struct counts counts = {0};
    const struct mb_moments_input *inputs = mb_moments_inputs(moments, &n);
    for (size_t i = 0; i < n; i++) {
        if (!is_first_of_expert(inputs, i))
            continue;
        counts.n_experts++;
        counts.n_none += inputs[i].n_tokens == 0;
        counts.n_few += inputs[i].n_tokens > 0 && inputs[i].n_tokens < inputs[i].n_values;
    }
    return counts;
}

static void print_unreached(const struct mb_moments *moments, size_t n_none)
{
    size_t n, n_named = 0;
    const struct mb_moments_input *inputs = mb_moments_inputs(moments, &n);
    fprintf(stderr,
            "moebius: warning: no token of the calibration text reached %zu experts, which are rounded "
            "plainly:",
            n_none);
    for (size_t i = 0; i < n && n_named < NAMES_MAX; i++)
        if (is_first_of_expert(inputs, i) && inputs[i].n_tokens == 0)
            fprintf(stderr, "%s layer %zu expert %d", n_named++ == 0 ? "" : ",", inputs[i].layer,
                    inputs[i].expert);
    fprintf(stderr, "%s\n", n_named < n_none ? ", ..." : "");
}

void cli_calibration_print(const struct cli_calibration *c)
{
    char size[32], seconds[32], windows[32], tokens[32];
    const struct mb_moments_contents *contents = mb_moments_contents(c->moments);
    struct counts counts = count(c->moments);
    fprintf(stderr, "moebius: calibrated with %s tokens in %s windows; moments of %zu inputs, %s",
            cli_count(tokens, contents->n_tokens), cli_count(windows, contents->n_windows),
            contents->n_inputs, cli_bytes(size, contents->nbytes));
    if (c->was_made)
        fprintf(stderr, ", in %s (sums: %.0f %%, %.1f G additions and multiplications a second)",
                cli_seconds(seconds, c->made.seconds), 100 * cli_ratio(c->made.sum_seconds, c->made.seconds),
                cli_ratio(c->made.sum_flops / 1e9, c->made.sum_seconds));
    fputc('\n', stderr);
    if (counts.n_few > 0)
        fprintf(stderr,
                "moebius: warning: %zu of %zu experts had fewer tokens than columns: a longer text may be "
                "better for them\n",
                counts.n_few, counts.n_experts);
    if (counts.n_none > 0)
        print_unreached(c->moments, counts.n_none);
}

json_t *cli_calibration_json(const struct cli_calibration *c)
{
    const struct mb_moments_contents *contents = mb_moments_contents(c->moments);
    struct mb_feedback_report feedback = mb_feedback_report(c->feedback);
    struct counts counts = count(c->moments);
    return json_pack("{s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "n_tokens",
                     (json_int_t)contents->n_tokens, "n_windows", (json_int_t)contents->n_windows, "n_inputs",
                     (json_int_t)contents->n_inputs, "text_hash", contents->key.text, "n_experts",
                     (json_int_t)counts.n_experts, "n_experts_without_tokens", (json_int_t)counts.n_none,
                     "n_experts_with_few_tokens", (json_int_t)counts.n_few, "n_matrices",
                     (json_int_t)feedback.n_matrices, "n_weights", (json_int_t)feedback.n_weights,
                     "n_clipped", (json_int_t)feedback.n_clipped, "n_too_wide", (json_int_t)feedback.n_wide,
                     "seconds", c->made.seconds);
}
