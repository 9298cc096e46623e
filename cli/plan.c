/*
 * plan.c - the verb "plan": a bound for each matrix, for a size or a loss that is wanted.
 */
#include "base/error.h"
#include "calibration.h"
#include "cli.h"
#include "output_file.h"
#include "plan_check.h"
#include "report.h"
#include "units.h"
#include <jansson.h>
#include <math.h>
#include <moebius/plan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    struct cli_strings sensitivities;
    const char *moments, *policy, *usage, *profile, *size, *dense_bound, *out, *check;
    double bits, kl_max, rho;
    bool no_column_factors;
    int n_check, n_threads;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT('o', "output", "FILE.json", args.out, "the plan"),
    CLI_ROW_TEXTS(0, "sensitivity", "FILE", args.sensitivities,
                  "results of a sweep (.db), or Fisher traces (.json); may be given again"),
    CLI_ROW_TEXT(0, "moments", "FILE", args.moments,
                 "moments of inputs; compress is to round with them (see --feedback)"),
    CLI_ROW_DOUBLE(0, "feedback", "RHO", args.rho, 0.5, MB_RHO_MAX,
                   "how many steps the bound will be, with --moments (default 1)"),
    CLI_ROW_FLAG(0, "no-column-factors", args.no_column_factors,
                 "as compress has it: columns of 'down' will all have the same step"),
    CLI_ROW_DOUBLE(0, "target-bpw", "BITS", args.bits, 0.5, 32, "bits a weight, of all coded matrices"),
    CLI_ROW_TEXT(0, "target-size", "SIZE", args.size, "of the folder's weights: 6GiB, 900MB"),
    CLI_ROW_DOUBLE(0, "max-kl", "NATS", args.kl_max, 1e-12, 100,
                   "the smallest folder whose predicted KL, with its interval, is below"),
    CLI_ROW_TEXT(0, "profile", "shallow=B,middle=B,deep=B", args.profile,
                 "bounds by thirds of the depth, as in shallow=40%,middle=20%,deep=40%"),
    CLI_ROW_TEXT(0, "policy", "NAME", args.policy,
                 "uniform, depth, frequency, waterfill or search (default: waterfill where\n"
                 "something was measured, depth with --profile, else uniform)"),
    CLI_ROW_TEXT(0, "usage", "FILE", args.usage, "a usage profile, for --policy frequency"),
    CLI_ROW_TEXT(0, "dense-bound", "BOUND", args.dense_bound,
                 "other linear matrices than experts' get this bound and are not planned"),
    CLI_ROW_TEXT(0, "check", "TEXT", args.check,
                 "measure the plan and a uniform one of its size on a text (txt, jsonl), and\n"
                 "write the better one"),
    CLI_ROW_INT(0, "check-limit", "N", args.n_check, 1, 1e9, "only the first N windows or lines of it"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW(0, "format", "md|json", "what is printed: words (default) or JSON", .type = CLI_FORMAT,
            CLI_VALUE(enum cli_format, args.format), .formats = CLI_MD | CLI_JSON),
};

static const struct cli_command command = {
    .name = "plan",
    .args = "MODEL -o FILE.json --target-bpw BITS | --target-size SIZE | --max-kl NATS | --profile ...",
    .summary = "Give each matrix a bound, for a size or a loss that is wanted.",
    .details =
        "A plan is a JSON file that people may edit (docs/plan.md). 'moebius compress MODEL OUT --plan "
        "FILE'\n"
        "uses it, with the --moments, --feedback and --dense-bound that were given here. Where nothing was\n"
        "measured all experts get the same bound. Without --check nothing says that a plan is better than "
        "a\n"
        "uniform one of its size.\n\n"
        "  moebius plan models/reference --target-bpw 3.2 -o plan.json\n"
        "  moebius plan models/reference --sensitivity results.db --moments M --target-bpw 3 --check "
        "text.jsonl "
        "-o plan.json\n"
        "  moebius compress models/reference OUT --moments M --plan plan.json",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

/* ---------------------------------------------------------------- options */

static enum mb_status parse_size(const char *text, uint64_t *nbytes, struct mb_error *err)
{
    bool has_unit = text[strspn(text, "0123456789.")] != '\0'; /* who writes 9 hardly means bytes */
    if (has_unit && cli_unit_bytes(text, strlen(text), nbytes) && *nbytes > 0)
        return MB_OK;
    return mb_fail(err, MB_USAGE, "--target-size '%.60s': is not a size, as in 6GiB or 900MB", text);
}

/* One of "shallow=40%". */
static enum mb_status parse_third(const char *text, double depth[3], struct mb_error *err)
{
    static const char *const names[] = {"shallow", "middle", "deep"};
    const char *equals = strchr(text, '=');
    struct mb_bound bound;
    for (int i = 0; i < 3 && equals != NULL; i++) {
        size_t n = strlen(names[i]);
        if ((size_t)(equals - text) != n || strncmp(text, names[i], n) != 0)
            continue;
        MB_TRY(mb_bound_parse(equals + 1, &bound, err));
        if (bound.kind != MB_BOUND_MEAN_ABS || depth[i] != 0)
            break;
        depth[i] = bound.value;
        return MB_OK;
    }
    return mb_fail(err, MB_USAGE, "--profile '%.60s': write shallow=40%%,middle=20%%,deep=40%%, each once",
                   text);
}

static enum mb_status parse_profile(struct mb_plan_options *to, struct mb_error *err)
{
    char text[200], *rest = text;
    if ((size_t)snprintf(text, sizeof text, "%s", args.profile) >= sizeof text)
        return mb_fail(err, MB_USAGE, "--profile: too long");
    for (const char *part; (part = strsep(&rest, ",")) != NULL;)
        MB_TRY(parse_third(part, to->depth, err));
    for (int i = 0; i < 3; i++)
        if (to->depth[i] == 0)
            return mb_fail(err, MB_USAGE, "--profile: shallow, middle and deep have to be there");
    return MB_OK;
}

static enum mb_status parse_options(struct mb_plan_options *to, struct mb_error *err)
{
    to->policy = args.policy;
    to->sensitivities = args.sensitivities.items;
    to->n_sensitivities = args.sensitivities.n;
    to->usage = args.usage;
    to->target_bits = args.bits;
    to->kl_max = args.kl_max;
    to->n_threads = args.n_threads;
    to->has_dense_bound = args.dense_bound != NULL;
    if (args.out == NULL)
        return mb_fail(err, MB_USAGE, "-o FILE.json is missing: where the plan goes");
    if (args.rho != 0 && args.moments == NULL)
        return mb_fail(err, MB_USAGE, "--feedback needs --moments");
    if (args.no_column_factors && args.moments == NULL)
        return mb_fail(err, MB_USAGE, "--no-column-factors needs --moments");
    if (args.n_check != 0 && args.check == NULL)
        return mb_fail(err, MB_USAGE, "--check-limit needs --check");
    if (args.dense_bound != NULL)
        MB_TRY(mb_bound_parse(args.dense_bound, &to->dense_bound, err));
    if (args.size != NULL)
        MB_TRY(parse_size(args.size, &to->target_nbytes, err));
    return args.profile == NULL ? MB_OK : parse_profile(to, err);
}

/* ---------------------------------------------------------------- the report */

static json_t *report_json(const struct mb_plan_report *r, const struct plan_check *check)
{
    json_t *json =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:o, s:f, s:f}", "policy", r->policy,
                  "n_matrices", (json_int_t)r->n_matrices, "n_measured", (json_int_t)r->n_measured,
                  "n_weights", (json_int_t)r->n_weights, "coded_nbytes", (json_int_t)r->coded_nbytes,
                  "nbytes", (json_int_t)r->out_nbytes, "bits", r->bits, "kl", cli_json_real(r->kl), "kl_low",
                  cli_json_real(r->kl_low), "kl_high", cli_json_real(r->kl_high), "fraction_min",
                  r->fraction_min, "fraction_max", r->fraction_max);
    if (json != NULL && check->is_done)
        json_object_set_new(json, "check",
                            json_pack("{s:o, s:o, s:b}", "kl", cli_json_real(check->kl), "kl_uniform",
                                      cli_json_real(check->kl_uniform), "fell_back", (int)check->fell_back));
    return json;
}

static void print_words(const struct mb_plan_report *r, const struct plan_check *check)
{
    char size[32];
    printf("%s: policy %s, %zu matrices, bounds from %.3g %% to %.3g %%\n", args.out, r->policy,
           r->n_matrices, 100 * r->fraction_min, 100 * r->fraction_max);
    printf("predicted: %s, %.3f bits a weight in coded matrices", cli_bytes(size, r->out_nbytes), r->bits);
    if (isfinite(r->kl))
        printf("; KL %.3g (%.2g to %.2g) nats a token by %zu measured matrices", r->kl, r->kl_low, r->kl_high,
               r->n_measured);
    putchar('\n');
    if (!check->is_done)
        puts("not checked: nothing says that it is better than a uniform plan of its size (--check TEXT)");
    else
        printf("checked: KL %.4g, of a uniform plan of this size %.4g%s\n", check->kl, check->kl_uniform,
               check->fell_back ? ": it is no better, and the uniform one was written" : "");
}

/* ---------------------------------------------------------------- the verb */

static enum mb_status make(const char *model, struct mb_plan_options *to, struct mb_plan_report *report,
                           struct plan_check *check, struct mb_error *err)
{
    struct cli_progress progress;
    if (args.check != NULL)
        return plan_check(model, args.out, args.check, (size_t)args.n_check, to, report, check, err);
    to->progress = cli_progress_show;
    to->progress_ctx = &progress;
    cli_progress_begin(&progress, "B");
    enum mb_status status = mb_plan_make(model, args.out, to, report, err);
    cli_progress_end(&progress);
    return status;
}

static enum mb_status run(const char *model, struct mb_plan_report *report, struct plan_check *check,
                          struct mb_error *err)
{
    struct mb_plan_options to = {.size = sizeof to};
    struct cli_calibration calibration = {0};
    const struct cli_calibration_args from = {.moments = args.moments,
                                              .rho = args.rho,
                                              .no_column_factors = args.no_column_factors,
                                              .n_threads = args.n_threads};
    MB_TRY(parse_options(&to, err));
    MB_TRY(cli_output_check(args.out, model, err));
    cli_catch_interrupts();
    enum mb_status status = MB_OK;
    if (args.moments != NULL)
        status = cli_calibration_open(&calibration, &from, model, args.out, err);
    if (status == MB_OK && args.moments != NULL) {
        to.moments = calibration.moments;
        to.rounder = mb_feedback_rounder(calibration.feedback);
    }
    if (status == MB_OK)
        status = make(model, &to, report, check, err);
    cli_calibration_close(&calibration, false);
    return status;
}

int cli_plan(int argc, char **argv)
{
    const char *words[CLI_ARGS_MAX];
    size_t n_words;
    int exit_status;
    struct mb_error err;
    struct mb_plan_report report = {0};
    struct plan_check check = {0};
    if (!cli_parse(&command, argc, argv, words, &n_words, &exit_status))
        return exit_status;
    if (run(words[0], &report, &check, &err) != MB_OK)
        return cli_fail(&err);
    cli_print_notes(report.notes);
    if (args.format == CLI_JSON)
        return cli_print_json(report_json(&report, &check));
    print_words(&report, &check);
    return 0;
}
