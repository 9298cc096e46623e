/*
 * decompress.c - the verb "decompress": a coded folder becomes an ordinary one.
 */
#include "base/error.h"
#include "cli.h"
#include "report.h"
#include <moebius/checkpoint.h>
#include <stdio.h>
#include <string.h>

static struct {
    const char *dtype;
    bool force;
    int n_threads;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT(0, "dtype", "f32|bf16|f16", args.dtype,
                 "type of the matrices that were coded: f32 (default) holds the decoded\nvalues exactly, the "
                 "others round"),
    CLI_ROW_FLAG(0, "force", args.force, "replace OUT, or work that was begun there with other options"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON, "table (default) or JSON"),
};

static const struct cli_command command = {
    .name = "decompress",
    .args = "CODED OUT [options]",
    .summary = "Write the coded folder CODED as an ordinary checkpoint OUT, which any program reads.",
    .details =
        "Tensors that were kept exact keep their type. With --dtype bf16 or f16 each decoded weight is\n"
        "rounded, which adds to its error: the report says by how much of the bound.\n\n"
        "  moebius decompress reference-coded reference-plain --dtype bf16",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 2,
    .n_args_max = 2,
};

static const char *const dtype_names[] = {[MB_F32] = "f32", [MB_F16] = "f16", [MB_BF16] = "bf16"};

static bool parse_dtype(enum mb_dtype *dtype)
{
    if (args.dtype == NULL)
        args.dtype = "f32";
    for (int i = MB_F32; i <= MB_BF16; i++)
        if (strcmp(args.dtype, dtype_names[i]) == 0) {
            *dtype = (enum mb_dtype)i;
            return true;
        }
    return false;
}

static void print_md(const struct mb_decompress_report *r, double seconds)
{
    static const char *const heads[] = {"type", "weights", "written", "rounded", "rounding / bound", "time"};
    char text[32];
    struct cli_table *table = cli_table_new("lrrrrr", heads);
    cli_table_cell(table, "%s", args.dtype);
    cli_table_cell(table, "%s", cli_count(text, r->n_weights));
    cli_table_cell(table, "%s", cli_bytes(text, r->out_nbytes));
    cli_table_cell(table, "%s", cli_count(text, r->n_weights_changed));
    cli_table_cell(table, "%.4f", r->err_enlarged_ratio);
    cli_table_cell(table, "%s", cli_seconds(text, seconds));
    cli_table_print(table);
    if (r->n_weights_changed == 0)
        puts("\nNo weight was rounded: the bounds of the coded folder hold.");
    else
        printf("\nRounding to %s moved weights by at most %.4f of their bound: errors are at most %.4f times "
               "the bound.\n",
               args.dtype, r->err_enlarged_ratio, 1 + r->err_enlarged_ratio);
}

static json_t *report_json(const struct mb_decompress_report *r, double seconds)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:f, s:f}", "dtype", args.dtype, "n_weights",
                     (json_int_t)r->n_weights, "out_nbytes", (json_int_t)r->out_nbytes, "n_weights_changed",
                     (json_int_t)r->n_weights_changed, "err_enlarged_ratio", r->err_enlarged_ratio, "seconds",
                     seconds);
}

int cli_decompress(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    struct mb_decompress_options to = {.size = sizeof to};
    struct mb_error err;
    struct mb_decompress_report report = {0};
    struct cli_progress progress;
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    if (!parse_dtype(&to.dtype))
        return cli_usage_error(&command, "--dtype '%s': is not f32, bf16 or f16", args.dtype);
    cli_catch_interrupts();
    cli_progress_begin(&progress, "B");
    to.force = args.force;
    to.n_threads = args.n_threads;
    to.progress = cli_progress_show;
    to.progress_ctx = &progress;
    enum mb_status status = mb_decompress(positional[0], positional[1], &to, &report, &err);
    cli_progress_end(&progress);
    if (status == MB_CANCELLED)
        mb_error_set(&err, status, "interrupted; the same command resumes");
    if (status != MB_OK)
        return cli_fail(&err);
    double seconds = cli_seconds_since(progress.begun_ns);
    if (args.format == CLI_JSON)
        return cli_print_json(report_json(&report, seconds));
    print_md(&report, seconds);
    return 0;
}
