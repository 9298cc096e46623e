/*
 * compress.c - the verb "compress": a plain folder becomes a coded one.
 */
#include "base/error.h"
#include "base/file.h"
#include "calibration.h"
#include "cli.h"
#include "report.h"
#include <inttypes.h>
#include <moebius/checkpoint.h>
#include <stdio.h>
#include <string.h>

static struct {
    const char *bound, *dense_bound, *plan;
    struct cli_strings tensor_bounds;
    struct cli_calibration_args calibration;
    bool dense, dry_run, force;
    int n_threads;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT(0, "bound", "BOUND", args.bound, "largest error in routed and shared experts (default 30%)"),
    CLI_ROW_TEXT(0, "dense-bound", "BOUND", args.dense_bound,
                 "the same for all other matrices (default 10%; head and embedding 5%)"),
    CLI_ROW_TEXTS(
        0, "tensor-bound", "REGEX=BOUND", args.tensor_bounds,
        "tensors whose name matches (at least one) get BOUND; may be given several\ntimes, the last match "
        "wins; split at the last '='"),
    CLI_ROW_TEXT(0, "plan", "FILE", args.plan,
                 "bounds by tensor name or pattern from a JSON file, see above"),
    CLI_ROW_TEXT(0, "calibrate", "TEXT", args.calibration.text,
                 "round with what a text says about the model: a file (txt, jsonl), or 'default'"),
    CLI_ROW_UINT64(0, "calibrate-tokens", "N", args.calibration.n_tokens, 1, 1e15,
                   "read no more of the text than about so many tokens"),
    CLI_ROW_TEXT(0, "moments", "FILE", args.calibration.moments,
                 "keep what --calibrate found in FILE, or use FILE that is there"),
    CLI_ROW_DOUBLE(0, "feedback", "RHO", args.calibration.rho, 0.5, MB_RHO_MAX,
                   "how many steps the bound is, with --calibrate or --moments (default 1)"),
    CLI_ROW_FLAG(0, "no-column-factors", args.calibration.no_column_factors,
                 "with --calibrate or --moments: columns of 'down' all have the same step"),
    CLI_ROW_FLAG(0, "dense", args.dense, "compress a model that has no experts"),
    CLI_ROW_FLAG(0, "dry-run", args.dry_run, "predict the size from samples; write nothing"),
    CLI_ROW_FLAG(0, "force", args.force, "replace OUT, or work that was begun there with other options"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON, "table (default) or JSON"),
};

static const struct cli_command command = {
    .name = "compress",
    .args = "MODEL OUT [options]",
    .summary = "Write MODEL as a coded folder OUT, in which every weight keeps to an error bound.",
    .details =
        "A BOUND is the largest error of one weight: '30%' of the mean absolute weight (of an expert, or of\n"
        "the matrix), 'abs:0.001' in weight units, 'range:0.01' of max - min, or '0': kept exact. Router,\n"
        "norms and biases are exact unless --plan or --tensor-bound names them. To continue an interrupted\n"
        "run, give the same command again.\n\n"
        "A plan ('moebius plan' makes one) is {\"bounds\": [{\"tensor\": \"lm_head.weight\", \"bound\": "
        "\"10%\"},\n"
        "{\"pattern\": \"layers\\\\.3\\\\.\", \"bound\": \"20%\"}, ...]}. It overrides --bound and "
        "--dense-bound, and\n"
        "--tensor-bound overrides the plan.\n\n"
        "With --calibrate the model first reads a text; then the error of each weight is fed into those of "
        "its\n"
        "row that are not rounded yet. A weight still keeps to its bound, of which a step is only the RHO-th "
        "part.\n"
        "At the same bound the file is larger; at the same size the model is closer to the original. "
        "Default\n"
        "bounds are 2 RHO times as wide then: the file is a twentieth larger than without, the loss a third "
        "to "
        "a fifth.\n"
        "In 'down' of experts columns whose input is large have a finer bound, others a wider one: BOUND is "
        "their\n"
        "geometric mean, and 2^E times finer in a column of exponent E ('verify' says from where to "
        "where).\n\n"
        "  moebius compress models/reference reference-coded --dry-run\n"
        "  moebius compress models/reference reference-coded --bound 20% --tensor-bound "
        "'layers\\.0\\.=abs:0.0005'",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 2,
    .n_args_max = 2,
};

/* ---------------------------------------------------------------- options */

/* Cuts the argument at its last '=': argv is ours to change. */
static enum mb_status split_tensor_bound(const char *text, struct mb_tensor_bound *bound,
                                         struct mb_error *err)
{
    char *equals = strrchr(text, '=');
    if (equals == NULL || equals == text)
        return mb_fail(err, MB_USAGE, "--tensor-bound '%.200s': is not REGEX=BOUND, as in 'experts\\.0=10%%'",
                       text);
    MB_TRY(mb_bound_parse(equals + 1, &bound->bound, err));
    *equals = '\0';
    bound->pattern = text;
    return MB_OK;
}

static enum mb_status parse_bounds(struct mb_compress_options *to, struct mb_tensor_bound *tensor_bounds,
                                   struct mb_error *err)
{
    to->has_bound = args.bound != NULL;
    to->has_dense_bound = args.dense_bound != NULL;
    to->tensor_bounds = tensor_bounds;
    to->n_tensor_bounds = args.tensor_bounds.n;
    if (to->has_bound)
        MB_TRY(mb_bound_parse(args.bound, &to->bound, err));
    if (to->has_dense_bound)
        MB_TRY(mb_bound_parse(args.dense_bound, &to->dense_bound, err));
    for (size_t i = 0; i < args.tensor_bounds.n; i++)
        MB_TRY(split_tensor_bound(args.tensor_bounds.items[i], &tensor_bounds[i], err));
    return MB_OK;
}

/* ---------------------------------------------------------------- the report */

static double bits(uint64_t nbytes, uint64_t n_weights)
{
    return cli_ratio(8 * (double)nbytes, (double)n_weights);
}

static void print_row(struct cli_table *table, const char *part, uint64_t n_weights, uint64_t before,
                      uint64_t after)
{
    char text[32];
    cli_table_cell(table, "%s", part);
    cli_table_cell(table, "%s", n_weights == 0 ? "" : cli_count(text, n_weights));
    cli_table_cell(table, "%s", before == 0 ? "" : cli_bytes(text, before));
    cli_table_cell(table, "%s", cli_bytes(text, after));
    char ratio[32] = "", bits_text[32] = "";
    if (before != 0 && after != 0)
        snprintf(ratio, sizeof ratio, "%.2f", (double)before / (double)after);
    if (n_weights != 0)
        snprintf(bits_text, sizeof bits_text, "%.3f", bits(after, n_weights));
    cli_table_cell(table, "%s", ratio);
    cli_table_cell(table, "%s", bits_text);
}

static void print_md(const struct mb_compress_report *r)
{
    static const char *const heads[] = {"part", "weights", "before", "after", "ratio", "bits a weight"};
    struct cli_table *table = cli_table_new("lrrrrr", heads);
    print_row(table, "experts", r->expert_n_weights, r->expert_in_nbytes, r->expert_coded_nbytes);
    print_row(table, "other linear", r->dense_n_weights, r->dense_in_nbytes, r->dense_coded_nbytes);
    print_row(table, "all coded", r->n_weights, r->expert_in_nbytes + r->dense_in_nbytes, r->coded_nbytes);
    print_row(table, "kept exact", r->n_weights_exact, r->exact_nbytes, r->exact_nbytes);
    print_row(table, "page padding", 0, 0, r->padding_nbytes);
    print_row(table, args.dry_run ? "files, predicted" : "files", 0, r->in_nbytes, r->out_nbytes);
    cli_table_print(table);
    char outliers[32], raw[32], groups[32], seconds[32];
    printf("\n%s%s outliers, %s raw of %s row groups; %s, %.2f G weights/s",
           args.dry_run ? "predicted: " : "", cli_count(outliers, r->n_outliers),
           cli_count(raw, r->n_raw_groups), cli_count(groups, r->n_groups), cli_seconds(seconds, r->seconds),
           cli_ratio((double)r->n_weights / 1e9, r->seconds));
    if (r->n_shards_resumed > 0)
        printf("; %zu of %zu shards were finished before", r->n_shards_resumed, r->n_shards);
    if (r->n_blobs_reused > 0)
        printf("; %" PRIu64 " matrices or experts are those of the folder that was there", r->n_blobs_reused);
    putchar('\n');
}

/* A pattern that matches the tensor, or all matrices of its expert: they share their bound. */
static void pattern_of(const char *tensor, char pattern[300])
{
    size_t n = strlen(tensor);
    bool is_expert = mb_role_of(tensor).projection != MB_PROJECTION_NONE;
    for (int n_dots = 0; is_expert && n > 0 && n_dots < 2; n_dots += tensor[n] == '.')
        n--;
    snprintf(pattern, 300, "%.*s%s", (int)n, tensor, is_expert ? "\\." : "");
}

static void warn_of(const struct mb_extreme *e)
{
    char pattern[300];
    pattern_of(e->tensor, pattern);
    fprintf(stderr, "moebius: warning: tensor %s: weight [%" PRIu64 ", %" PRIu64 "] is %g, %.3g times the ",
            e->tensor, e->row, e->col, e->value, e->ratio);
    fprintf(stderr, "mean of the others");
    if (e->n > 1)
        fprintf(stderr, " (and %" PRIu64 " more like it)", e->n - 1);
    if (e->eps > 1.25 * e->eps_rest)
        fprintf(stderr,
                ", and makes the bound of these %.3g instead of %.3g; if it is not damaged, give "
                "--tensor-bound '%s=abs:%.3g'\n",
                e->eps, e->eps_rest, pattern, e->eps_rest);
    else
        fprintf(stderr, "; it may be damaged\n");
}

/* What would be found too late otherwise: a bound that keeps nothing of a matrix. */
static void warn(const struct mb_extremes *extremes)
{
    for (size_t i = 0; i < extremes->n_listed; i++)
        warn_of(&extremes->list[i]);
    if (extremes->n > extremes->n_listed)
        fprintf(stderr, "moebius: warning: %" PRIu64 " more tensors or experts have such weights\n",
                extremes->n - extremes->n_listed);
}

static json_t *extremes_json(const struct mb_extremes *extremes)
{
    json_t *list = json_array();
    for (size_t i = 0; i < extremes->n_listed; i++) {
        const struct mb_extreme *e = &extremes->list[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:I, s:f, s:f, s:I, s:f, s:f}", "tensor", e->tensor,
                                        "row", (json_int_t)e->row, "column", (json_int_t)e->col, "value",
                                        e->value, "times_mean", e->ratio, "n_weights", (json_int_t)e->n,
                                        "bound", e->eps, "bound_of_others", e->eps_rest));
    }
    return json_pack("{s:I, s:o}", "n_tensors", (json_int_t)extremes->n, "largest", list);
}

static json_t *part_json(uint64_t n_weights, uint64_t before, uint64_t after)
{
    return json_pack("{s:I, s:I, s:I, s:f}", "n_weights", (json_int_t)n_weights, "in_nbytes",
                     (json_int_t)before, "out_nbytes", (json_int_t)after, "bits_per_weight",
                     bits(after, n_weights));
}

static json_t *report_json(const struct mb_compress_report *r)
{
    json_t *json = json_pack(
        "{s:b, s:I, s:I, s:f, s:o*, s:o*, s:o*, s:I, s:I, s:I, s:I, s:I, s:I}", "predicted",
        (int)args.dry_run, "in_nbytes", (json_int_t)r->in_nbytes, "out_nbytes", (json_int_t)r->out_nbytes,
        "ratio", cli_ratio((double)r->in_nbytes, (double)r->out_nbytes), "experts",
        part_json(r->expert_n_weights, r->expert_in_nbytes, r->expert_coded_nbytes), "other_linear",
        part_json(r->dense_n_weights, r->dense_in_nbytes, r->dense_coded_nbytes), "coded",
        part_json(r->n_weights, r->expert_in_nbytes + r->dense_in_nbytes, r->coded_nbytes), "n_weights_exact",
        (json_int_t)r->n_weights_exact, "exact_nbytes", (json_int_t)r->exact_nbytes, "padding_nbytes",
        (json_int_t)r->padding_nbytes, "n_outliers", (json_int_t)r->n_outliers, "n_raw_groups",
        (json_int_t)r->n_raw_groups, "n_groups", (json_int_t)r->n_groups);
    if (json == NULL)
        return NULL;
    json_object_set_new(json, "seconds", json_real(r->seconds));
    json_object_set_new(json, "gweights_per_s", json_real(cli_ratio((double)r->n_weights / 1e9, r->seconds)));
    json_object_set_new(json, "n_shards", json_integer((json_int_t)r->n_shards));
    json_object_set_new(json, "extreme_weights", extremes_json(&r->extremes));
    json_object_set_new(json, "n_blobs_reused", json_integer((json_int_t)r->n_blobs_reused));
    json_object_set_new(json, "n_shards_resumed", json_integer((json_int_t)r->n_shards_resumed));
    return json;
}

/* ---------------------------------------------------------------- the verb */

static bool is_calibrated(void)
{
    return args.calibration.text != NULL || args.calibration.moments != NULL;
}

/* What would be found after the calibration otherwise. */
static enum mb_status check_calibration(const char *out, struct mb_error *err)
{
    bool is_there;
    char config[MB_PATH_MAX];
    if (!is_calibrated())
        return args.calibration.rho != 0 || args.calibration.n_tokens != 0 ||
                       args.calibration.no_column_factors
                   ? mb_fail(err, MB_USAGE,
                             "--feedback, --calibrate-tokens and --no-column-factors need --calibrate or "
                             "--moments")
                   : MB_OK;
    if (args.calibration.n_tokens != 0 && args.calibration.text == NULL)
        return mb_fail(err, MB_USAGE, "--calibrate-tokens needs --calibrate");
    if (args.dry_run && args.calibration.moments == NULL)
        return mb_fail(err, MB_USAGE, "--dry-run writes nothing: give --moments FILE, or no --calibrate");
    MB_TRY(mb_join_path(config, out, "config.json", err));
    MB_TRY(mb_look_at(config, &is_there, NULL, err));
    if (is_there && !args.force && !args.dry_run)
        return mb_fail(err, MB_USAGE, "%s: exists; --force replaces it", out);
    return MB_OK;
}

static enum mb_status compress(const char *model, const char *out, struct mb_compress_options *to,
                               struct mb_compress_report *report, struct mb_error *err)
{
    struct cli_progress progress;
    to->dense = args.dense;
    to->dry_run = args.dry_run;
    to->force = args.force;
    to->plan_path = args.plan;
    to->n_threads = args.n_threads;
    to->progress = cli_progress_show;
    to->progress_ctx = &progress;
    cli_progress_begin(&progress, "B");
    enum mb_status status = mb_compress(model, out, to, report, err);
    cli_progress_end(&progress);
    return status;
}

static enum mb_status run(const char *model, const char *out, struct mb_compress_options *to,
                          struct cli_calibration *calibration, struct mb_compress_report *report,
                          struct mb_error *err)
{
    MB_TRY(check_calibration(out, err));
    cli_catch_interrupts();
    args.calibration.n_threads = args.n_threads;
    enum mb_status status = MB_OK;
    if (is_calibrated())
        status = cli_calibration_open(calibration, &args.calibration, model, out, err);
    if (status == MB_OK && is_calibrated()) {
        cli_calibration_print(calibration);
        to->rounder = mb_feedback_rounder(calibration->feedback);
    }
    if (status == MB_OK)
        status = compress(model, out, to, report, err);
    if (status == MB_CANCELLED)
        return mb_fail(err, status, "interrupted; the same command %s",
                       args.dry_run ? "begins again" : "resumes");
    return status;
}

static void print_clipped(const struct cli_calibration *calibration)
{
    char weights[32], rows[32];
    struct mb_feedback_report r = mb_feedback_report(calibration->feedback);
    printf(
        "feedback: %" PRIu64 " matrices with %s weights, the bound is %g steps, %.2f %% of the weights at it",
        r.n_matrices, cli_count(weights, r.n_weights), args.calibration.rho == 0 ? 1 : args.calibration.rho,
        100 * cli_ratio((double)r.n_clipped, (double)r.n_weights));
    printf("; of %s rows %.1f %% have none", cli_count(rows, r.n_rows),
           100 * cli_ratio((double)(r.n_rows - r.n_rows_clipped), (double)r.n_rows));
    if (r.n_unreached > 0)
        printf("; %" PRIu64 " matrices that no token reached are rounded plainly", r.n_unreached);
    if (r.n_wide > 0)
        printf("; %" PRIu64 " matrices with too many columns are rounded plainly, the first is %s", r.n_wide,
               r.wide_tensor);
    putchar('\n');
}

static int print(const struct mb_compress_report *report, const struct cli_calibration *calibration)
{
    cli_print_notes(report->notes);
    warn(&report->extremes);
    if (args.format == CLI_JSON) {
        json_t *json = report_json(report);
        if (json != NULL && is_calibrated())
            json_object_set_new(json, "calibration", cli_calibration_json(calibration));
        return cli_print_json(json);
    }
    print_md(report);
    if (is_calibrated())
        print_clipped(calibration);
    return 0;
}

int cli_compress(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    struct mb_error err;
    struct mb_compress_options to = {.size = sizeof to};
    struct mb_compress_report report = {0};
    struct mb_tensor_bound tensor_bounds[CLI_STRINGS_MAX] = {{0}};
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    struct cli_calibration calibration = {0};
    enum mb_status status = parse_bounds(&to, tensor_bounds, &err);
    if (status == MB_OK)
        status = run(positional[0], positional[1], &to, &calibration, &report, &err);
    int result = status == MB_OK ? print(&report, &calibration) : cli_fail(&err);
    cli_calibration_close(&calibration, status == MB_OK && !args.dry_run);
    return result;
}
