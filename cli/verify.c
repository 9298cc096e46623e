/*
 * verify.c - the verb "verify": is a coded folder sound, and does every weight keep to its bound?
 */
#include "base/error.h"
#include "cli.h"
#include "report.h"
#include <inttypes.h>
#include <math.h>
#include <moebius/calibrate.h>
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *moments;
    bool all;
    int n_threads;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_FLAG(0, "all", args.all, "a line for each matrix (default: the experts of a layer share one)"),
    CLI_ROW_TEXT(0, "moments", "FILE", args.moments,
                 "measure errors of outputs over a calibration text (compress --moments), needs ORIGINAL"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON,
                   "table (default) or JSON, which has every matrix"),
};

static const struct cli_command command = {
    .name = "verify",
    .args = "CODED [ORIGINAL] [options]",
    .summary = "Check a coded folder; with the checkpoint that it was made from, prove every bound.",
    .details =
        "Checksums and structure of everything are checked, config.json and copied files included. With\n"
        "ORIGINAL, every weight is decoded and compared: its error must not exceed the bound that the "
        "folder\n"
        "states, and exact tensors must be equal. 'worst' is the largest error over the bound, 'entropy' "
        "what\n"
        "an ideal coder of the same indices would need. Exit status 1: a bound is broken.\n\n"
        "compress --calibrate proves a second bound, of the error of each matrix's outputs over the text, "
        "and\n"
        "stores it. With --moments it is measured again on these weights.\n\n"
        "  moebius verify reference-coded\n"
        "  moebius verify reference-coded models/reference",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 2,
};

/* ---------------------------------------------------------------- results of mb_verify */

/* Every coded matrix, in order. Names are ours. */
struct results {
    struct mb_verify_tensor *tensors;
    size_t n, cap;
    bool is_out_of_memory;
};

static void keep(void *ctx, const struct mb_verify_tensor *tensor)
{
    struct results *results = ctx;
    if (results->n == results->cap) {
        size_t cap = results->cap == 0 ? 256 : 2 * results->cap;
        struct mb_verify_tensor *grown = realloc(results->tensors, cap * sizeof *grown);
        if (grown == NULL) {
            results->is_out_of_memory = true;
            return;
        }
        results->tensors = grown;
        results->cap = cap;
    }
    struct mb_verify_tensor *kept = &results->tensors[results->n];
    *kept = *tensor;
    kept->name = strdup(tensor->name);
    if (kept->name == NULL)
        results->is_out_of_memory = true;
    else
        results->n++;
}

static void free_results(struct results *results)
{
    for (size_t i = 0; i < results->n; i++)
        free((char *)results->tensors[i].name);
    free(results->tensors);
}

/* ---------------------------------------------------------------- a table */

/* A line of the table: one matrix, or those of a layer's experts. */
struct row {
    const struct mb_verify_tensor *first, *worst;
    size_t n;
    uint64_t n_weights, n_outliers, n_broken;
    double eps_min, eps_max, bits, entropy; /* sums over the weights */
    struct mb_tensor_role place;
};

static void add_to_row(struct row *row, const struct mb_verify_tensor *tensor)
{
    uint64_t n_weights = tensor->n_rows * tensor->n_cols;
    if (row->n == 0)
        *row = (struct row){.first = tensor,
                            .worst = tensor,
                            .eps_min = tensor->eps_min,
                            .eps_max = tensor->eps,
                            .place = mb_role_of(tensor->name)};
    if (tensor->err_ratio_max > row->worst->err_ratio_max)
        row->worst = tensor;
    row->eps_min = fmin(row->eps_min, tensor->eps_min);
    row->eps_max = fmax(row->eps_max, tensor->eps);
    row->n++;
    row->n_weights += n_weights;
    row->n_outliers += tensor->n_outliers;
    row->n_broken += tensor->n_broken;
    row->bits += tensor->bits_per_weight * (double)n_weights;
    row->entropy += tensor->entropy_bits * (double)n_weights;
}

static bool belongs(const struct row *row, const struct mb_verify_tensor *tensor)
{
    struct mb_tensor_role place = mb_role_of(tensor->name);
    return !args.all && row->n > 0 && place.role == MB_ROLE_EXPERT && row->place.role == MB_ROLE_EXPERT &&
           place.layer == row->place.layer;
}

/* How many steps a bound is matters where several levels are within it. */
static void print_bound(struct cli_table *table, double eps, const struct mb_verify_tensor *tensor)
{
    if (tensor->step < mb_step_of_eps(eps))
        cli_table_cell(table, "%.4g (%.3g steps)", eps, eps / (double)tensor->step);
    else
        cli_table_cell(table, "%.4g", eps);
}

/* What kind of thing the line is: a matrix by name, or "layers.3 experts". */
static void print_identity(struct cli_table *table, const struct row *row)
{
    if (row->n == 1) {
        cli_table_cell(table, "%s", row->first->name);
        cli_table_cell(table, "%" PRIu64 " x %" PRIu64, row->first->n_rows, row->first->n_cols);
    } else {
        cli_table_cell(table, "layers.%d experts", row->place.layer);
        cli_table_cell(table, "%zu matrices", row->n);
    }
    if (row->eps_min == row->eps_max)
        print_bound(table, row->eps_min, row->first);
    else
        cli_table_cell(table, "%.4g to %.4g", row->eps_min, row->eps_max);
}

static void print_worst(struct cli_table *table, const struct row *row)
{
    const struct mb_verify_tensor *worst = row->worst;
    if (isnan(worst->err_abs_max)) {
        cli_table_cell(table, "-");
        cli_table_cell(table, "-");
        return;
    }
    uint64_t r = worst->err_max_index / worst->n_cols, c = worst->err_max_index % worst->n_cols;
    struct mb_tensor_role place = mb_role_of(worst->name);
    cli_table_cell(table, "%.6f%s", worst->err_ratio_max, row->n_broken > 0 ? " BROKEN" : "");
    if (row->n == 1) {
        cli_table_cell(table, "[%" PRIu64 ", %" PRIu64 "]", r, c);
        return;
    }
    const char *matrix = strstr(worst->name, ".experts.");
    cli_table_cell(table, "%d%s [%" PRIu64 ", %" PRIu64 "]", place.expert,
                   matrix == NULL ? "" : strchr(matrix + strlen(".experts."), '.'), r, c);
}

static void print_row(struct cli_table *table, const struct row *row)
{
    double n = (double)row->n_weights;
    char text[32];
    print_identity(table, row);
    print_worst(table, row);
    cli_table_cell(table, "%.3f", row->bits / n);
    cli_table_cell(table, "%.3f", row->entropy / n);
    if (row->entropy > 0)
        cli_table_cell(table, "%.1f %%", 100 * (row->bits / row->entropy - 1));
    else
        cli_table_cell(table, "-");
    cli_table_cell(table, "%s", cli_count(text, row->n_outliers));
}

static void print_table(const struct results *results)
{
    static const char *const heads[] = {"tensor",  "shape",         "bound",
                                        "worst",   "at [row, col]", "bits a weight",
                                        "entropy", "over entropy",  "outliers"};
    struct cli_table *table = cli_table_new("llrrlrrrr", heads);
    struct row row = {0}, total = {0};
    for (size_t i = 0; i < results->n; i++) {
        if (row.n > 0 && !belongs(&row, &results->tensors[i])) {
            print_row(table, &row);
            row.n = 0;
        }
        add_to_row(&row, &results->tensors[i]);
        add_to_row(&total, &results->tensors[i]);
    }
    if (row.n > 0)
        print_row(table, &row);
    cli_table_print(table);
    if (total.n > 0)
        printf("\n%zu coded matrices: %.3f bits a weight, entropy %.3f (%.1f %% over it), %" PRIu64
               " outliers.\n",
               total.n, total.bits / (double)total.n_weights, total.entropy / (double)total.n_weights,
               100 * (cli_ratio(total.bits, total.entropy) - (total.entropy > 0)), total.n_outliers);
}

static void print_files(const struct mb_verify_report *r)
{
    if (r->n_files > 0)
        printf("config.json and %" PRIu64 " other files are as compress wrote them.\n", r->n_files - 1);
    else
        printf("config.json has no checksums of itself and other files: they are not checked.\n");
}

/* Bounds of single matrices have units of their own: shares of what the matrix puts out can be compared. */
static void print_outputs(const struct results *results, const struct mb_verify_report *r)
{
    size_t worst = 0;
    for (size_t i = 1; i < results->n; i++)
        if (results->tensors[i].output_relative > results->tensors[worst].output_relative)
            worst = i;
    if (r->n_output_errors > 0 && r->n_measured == 0)
        printf("Errors of outputs over a calibration text are stored for %" PRIu64
               " matrices; --moments measures them (-o json lists them).\n",
               r->n_output_errors);
    if (r->n_measured == 0)
        return;
    printf("Outputs over the calibration text: measured for %" PRIu64
           " matrices, the worst is off by %.3g %% (root mean square, %s).\n",
           r->n_measured, 100 * results->tensors[worst].output_relative, results->tensors[worst].name);
    if (r->n_output_errors > 0)
        printf("%s: of %" PRIu64 " stored errors of outputs %" PRIu64 " are exceeded.\n",
               r->n_output_errors_broken == 0 ? "Proved" : "BROKEN", r->n_output_errors,
               r->n_output_errors_broken);
}

static void print_verdict(const struct mb_verify_report *r, bool has_original)
{
    if (!has_original)
        printf("Sound: checksums and structure of %" PRIu64 " blobs and %" PRIu64
               " exact tensors. Bounds are proved with the original: moebius verify CODED ORIGINAL.\n",
               r->n_blobs, r->n_exact);
    else if (r->n_broken == 0)
        printf("Proved: all %" PRIu64
               " coded weights keep to their bound (worst %.6f of it, in %s), and %" PRIu64
               " exact tensors are equal.\n",
               r->n_weights, r->worst_ratio, r->worst_tensor[0] == '\0' ? "none" : r->worst_tensor,
               r->n_exact);
    else
        printf("BROKEN: %" PRIu64
               " weights or exact tensors differ by more than their bound (worst %.6f of it, "
               "in %s).\n",
               r->n_broken, r->worst_ratio, r->worst_tensor);
}

/* ---------------------------------------------------------------- JSON */

static void add_outputs(json_t *json, const struct mb_verify_tensor *t)
{
    if (t->has_output_error)
        json_object_set_new(json, "output_error",
                            json_pack("{s:f, s:f, s:I}", "rms", t->output_error.rms, "max",
                                      t->output_error.max, "n_rows_clipped",
                                      (json_int_t)t->output_error.n_rows_clipped));
    if (t->is_measured)
        json_object_set_new(json, "output_measured",
                            json_pack("{s:o, s:o, s:o}", "rms", cli_json_real(t->output_rms), "max",
                                      cli_json_real(t->output_max), "relative",
                                      cli_json_real(t->output_relative)));
}

static json_t *tensor_json(const struct mb_verify_tensor *t)
{
    static const char *const dtypes[] = {[MB_F32] = "F32", [MB_F16] = "F16", [MB_BF16] = "BF16"};
    json_t *json = json_pack("{s:s, s:s, s:[I, I], s:f, s:f, s:f, s:f, s:I}", "name", t->name, "dtype",
                             dtypes[t->dtype], "shape", (json_int_t)t->n_rows, (json_int_t)t->n_cols, "eps",
                             t->eps, "step", (double)t->step, "bits_per_weight", t->bits_per_weight,
                             "entropy_bits", t->entropy_bits, "n_outliers", (json_int_t)t->n_outliers);
    if (json != NULL && t->eps_min < t->eps) /* columns have bounds of their own */
        json_object_set_new(json, "eps_min", json_real(t->eps_min));
    if (json != NULL)
        add_outputs(json, t);
    if (json == NULL || isnan(t->err_abs_max))
        return json;
    json_t *error =
        json_pack("{s:o, s:o, s:[I, I], s:I}", "err_abs_max", cli_json_real(t->err_abs_max), "worst_ratio",
                  cli_json_real(t->err_ratio_max), "at", (json_int_t)(t->err_max_index / t->n_cols),
                  (json_int_t)(t->err_max_index % t->n_cols), "n_broken", (json_int_t)t->n_broken);
    if (error == NULL || json_object_update(json, error) != 0) {
        json_decref(json);
        json = NULL;
    }
    json_decref(error);
    return json;
}

static bool is_ok(const struct mb_verify_report *r)
{
    return r->n_broken == 0 && r->n_output_errors_broken == 0;
}

static json_t *report_json(const struct results *results, const struct mb_verify_report *r, bool has_original)
{
    json_t *tensors = json_array();
    for (size_t i = 0; i < results->n; i++)
        if (json_array_append_new(tensors, tensor_json(&results->tensors[i])) != 0) {
            json_decref(tensors);
            return NULL;
        }
    json_t *json = json_pack("{s:b, s:b, s:I, s:I, s:I, s:I, s:o}", "ok", (int)is_ok(r), "bounds_proved",
                             (int)(has_original && r->n_broken == 0), "n_blobs", (json_int_t)r->n_blobs,
                             "n_exact", (json_int_t)r->n_exact, "n_files", (json_int_t)r->n_files,
                             "n_weights", (json_int_t)r->n_weights, "tensors", tensors);
    if (json != NULL && has_original) {
        json_object_set_new(json, "n_broken", json_integer((json_int_t)r->n_broken));
        json_object_set_new(json, "worst_ratio", cli_json_real(r->worst_ratio));
        json_object_set_new(json, "worst_tensor", json_string(r->worst_tensor));
    }
    if (json != NULL && r->n_output_errors > 0)
        json_object_set_new(json, "n_output_errors", json_integer((json_int_t)r->n_output_errors));
    if (json != NULL && r->n_measured > 0) {
        json_object_set_new(json, "n_measured", json_integer((json_int_t)r->n_measured));
        json_object_set_new(json, "n_output_errors_broken",
                            json_integer((json_int_t)r->n_output_errors_broken));
    }
    return json;
}

/* ---------------------------------------------------------------- the verb */

static enum mb_status open_moments(const char *original, struct mb_moments **moments, struct mb_error *err)
{
    char hash[MB_HASH_NBYTES];
    if (original == NULL)
        return mb_fail(err, MB_USAGE, "--moments needs ORIGINAL too: errors are measured against it");
    MB_TRY(mb_model_hash(original, hash, err));
    return mb_moments_open(args.moments, hash, moments, err);
}

static enum mb_status run(const char *coded, const char *original, struct results *results,
                          struct mb_verify_report *report, struct mb_error *err)
{
    struct cli_progress progress;
    struct mb_moments *moments = NULL;
    struct mb_output_meter meter = {0};
    if (args.moments != NULL) {
        MB_TRY(open_moments(original, &moments, err));
        meter = mb_moments_as_meter(moments);
    }
    cli_catch_interrupts();
    cli_progress_begin(&progress, "B");
    const struct mb_verify_options to = {
        .size = sizeof to,
        .n_threads = args.n_threads,
        .each = keep,
        .each_ctx = results,
        .progress = cli_progress_show,
        .progress_ctx = &progress,
        .meter = moments == NULL ? NULL : &meter,
    };
    enum mb_status status = mb_verify(coded, original, &to, report, err);
    cli_progress_end(&progress);
    mb_moments_close(moments);
    if (status == MB_CANCELLED)
        return mb_fail(err, status, "interrupted; nothing is known about the rest of %s", coded);
    if (status == MB_OK && results->is_out_of_memory)
        return mb_fail_memory(err, "the results");
    return status;
}

int cli_verify(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    struct mb_error err;
    struct mb_verify_report report = {0};
    struct results results = {0};
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    const char *original = n_args == 2 ? positional[1] : NULL;
    if (run(positional[0], original, &results, &report, &err) != MB_OK) {
        exit_status = cli_fail(&err);
    } else {
        exit_status = is_ok(&report) ? 0 : 1;
        if (args.format == CLI_JSON) {
            int printed = cli_print_json(report_json(&results, &report, original != NULL));
            exit_status = printed == 0 ? exit_status : printed;
        } else {
            print_table(&results);
            mb_make_printable(report.worst_tensor);
            print_verdict(&report, original != NULL);
            print_outputs(&results, &report);
            print_files(&report);
        }
    }
    free_results(&results);
    return exit_status;
}
