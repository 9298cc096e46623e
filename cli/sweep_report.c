/*
 * sweep_report.c - the verb "report": what a sweep measured, as a page, as JSON or as CSV.
 */
#include "base/error.h"
#include "cli.h"
#include "output_file.h"
#include <errno.h>
#include <moebius/report.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct {
    const char *out;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT('o', "output", "FILE", args.out,
                 "NAME.html (default: report.html), NAME.json, or FOLDER/ for a CSV file a table"),
};

static const struct cli_command command = {
    .name = "report",
    .args = "RESULTS.db [-o FILE]",
    .summary = "Show what a sweep measured: one page with charts and tables that needs nothing else.",
    .details = "  moebius report results.db -o report.html\n"
               "  moebius report results.db -o report.json\n"
               "  moebius report results.db -o tables/",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

typedef enum mb_status (*text_fn)(struct mb_report *, char **, size_t *, struct mb_error *);

static enum mb_status write_text(const char *path, const char *input, const char *text, size_t nbytes,
                                 struct mb_error *err)
{
    struct cli_output_file output = {0};
    MB_TRY(cli_output_open(&output, path, input, err));
    fwrite(text, 1, nbytes, output.file); /* closing says whether that failed */
    return cli_output_close(&output, MB_OK, err);
}

static enum mb_status write_one(struct mb_report *report, text_fn make, const char *input,
                                struct mb_error *err)
{
    char *text;
    size_t nbytes;
    MB_TRY(make(report, &text, &nbytes, err));
    enum mb_status status = write_text(args.out, input, text, nbytes, err);
    free(text);
    return status;
}

static enum mb_status write_table(struct mb_report *report, size_t i, const char *input, struct mb_error *err)
{
    char path[MB_PATH_MAX], *text;
    size_t nbytes;
    int n = snprintf(path, sizeof path, "%s%s.csv", args.out, mb_report_table_name(i));
    if (n < 0 || (size_t)n >= sizeof path)
        return mb_fail(err, MB_USAGE, "%s: the path is too long", args.out);
    MB_TRY(mb_report_csv(report, i, &text, &nbytes, err));
    enum mb_status status = write_text(path, input, text, nbytes, err);
    free(text);
    return status;
}

static enum mb_status write_tables(struct mb_report *report, const char *input, struct mb_error *err)
{
    if (mkdir(args.out, 0777) != 0 && errno != EEXIST)
        return mb_fail_errno(err, args.out, "cannot be made");
    for (size_t i = 0; i < mb_report_n_tables(); i++)
        MB_TRY(write_table(report, i, input, err));
    return MB_OK;
}

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), n_end = strlen(end);
    return n >= n_end && strcmp(path + n - n_end, end) == 0;
}

static enum mb_status write_report(struct mb_report *report, const char *input, struct mb_error *err)
{
    if (ends_in(args.out, "/"))
        return write_tables(report, input, err);
    if (ends_in(args.out, ".json"))
        return write_one(report, mb_report_json, input, err);
    if (ends_in(args.out, ".html") || ends_in(args.out, ".htm"))
        return write_one(report, mb_report_page, input, err);
    return mb_fail(err, MB_USAGE, "-o %s: write NAME.html, NAME.json or FOLDER/ (CSV)", args.out);
}

int cli_report(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    args.out = "report.html";
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    struct mb_report *report;
    struct mb_error err;
    if (mb_report_open(positional[0], &report, &err) != MB_OK)
        return cli_fail(&err);
    enum mb_status status = write_report(report, positional[0], &err);
    mb_report_close(report);
    if (status != MB_OK)
        return cli_fail(&err);
    fprintf(stderr, "wrote %s\n", args.out);
    return 0;
}
