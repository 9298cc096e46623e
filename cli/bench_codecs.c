/*
 * bench_codecs.c - "bench codecs": our codec beside others on the experts of a model, at many bounds.
 */
#include "bench_codecs.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BOUNDS_MAX = 32, N_CODECS_MAX = 64, N_ROWS_MAX = N_BOUNDS_MAX * N_CODECS_MAX, TEXT_NBYTES = 64 };
static const char usual_bounds[] = "2%,5%,10%,20%,30%,50%,80%,100%,150%,200%";

static struct {
    const char *codecs, *bounds, *layers, *chart;
    int n_experts, n_threads, n_repeats;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT(0, "codec", "NAMES", args.codecs,
                 "comma-separated; a name that ends in '*' means all that begin so\n"
                 "(default: all that are on this machine)"),
    CLI_ROW_TEXT(0, "bounds", "LIST", args.bounds,
                 "comma-separated, as compress --bound spells them\n(default "
                 "2%,5%,10%,20%,30%,50%,80%,100%,150%,200%)"),
    CLI_ROW_TEXT(0, "layers", "FROM-TO", args.layers, "layers of the model, from 0 (default: all)"),
    CLI_ROW_INT(0, "limit", "N", args.n_experts, 1, 1e6,
                "experts at most, spread over the layers (default 8)"),
    CLI_ROW_INT('r', "repetitions", "N", args.n_repeats, 1, 1000,
                "windows of which the best counts (default 5)"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW_TEXT(0, "chart", "FILE.svg", args.chart, "draw bits against bounds, and rates"),
    CLI_ROW_FORMAT("md|csv|json", args.format, CLI_MD | CLI_CSV | CLI_JSON, "tables (default), CSV or JSON"),
};

static const struct cli_command command = {
    .name = "bench codecs",
    .args = "MODEL [options]",
    .summary = "Compare codecs on a model's experts: bits a weight, errors, bounds kept, rates.",
    .details =
        "Ours beside SZ3, cuSZp, zfp, bf16 without loss, round-to-nearest, NF4, Q4_0 and Q4_K. Bits count\n"
        "everything. SZ3 (the Python package pysz, or MOEBIUS_SZ3=FILE), zfp and OpenCL are used where they "
        "are\n"
        "installed; what is missing is named. docs/codecs.md says what each codec is.\n"
        "  moebius bench codecs models/reference\n"
        "  moebius bench codecs models/reference --codec 'ours,sz3*' --bounds 5%,30%,80% --chart codecs.svg",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

struct bench {
    const struct mb_codec *codecs[N_CODECS_MAX];
    size_t n_codecs;
    struct mb_bound bounds[N_BOUNDS_MAX];
    size_t n_bounds;
    struct bench_row rows[N_ROWS_MAX];
    size_t n_rows;
    char *missing[N_CODECS_MAX];
    size_t n_missing;
    struct bench_matrices matrices;
    struct bench_work work;
    int n_threads;
};

/* ---------------------------------------------------------------- options */

/* The next item of a comma-separated list, in text[TEXT_NBYTES]; false: none is left. */
static bool next_item(const char **list, char text[TEXT_NBYTES])
{
    if (**list == '\0')
        return false;
    size_t nbytes = strcspn(*list, ",");
    snprintf(text, TEXT_NBYTES, "%.*s", nbytes < TEXT_NBYTES ? (int)nbytes : TEXT_NBYTES - 1, *list);
    *list += nbytes + ((*list)[nbytes] == ',');
    return true;
}

static void add_codec(struct bench *bench, const struct mb_codec *codec)
{
    for (size_t i = 0; i < bench->n_codecs; i++)
        if (bench->codecs[i] == codec)
            return;
    if (bench->n_codecs < N_CODECS_MAX)
        bench->codecs[bench->n_codecs++] = codec;
}

static enum mb_status add_codecs(struct bench *bench, const char *name, struct mb_error *err)
{
    size_t n_all, nbytes = strlen(name), n_before = bench->n_codecs;
    const struct mb_codec *all = mb_codecs(&n_all), *codec;
    if (nbytes > 0 && name[nbytes - 1] == '*') {
        for (size_t i = 0; i < n_all; i++)
            if (strncmp(all[i].name, name, nbytes - 1) == 0)
                add_codec(bench, &all[i]);
        if (bench->n_codecs > n_before)
            return MB_OK;
    }
    MB_TRY(mb_codec_find(name, &codec, err));
    add_codec(bench, codec);
    return MB_OK;
}

static enum mb_status parse_codecs(struct bench *bench, struct mb_error *err)
{
    const char *list = args.codecs == NULL ? "*" : args.codecs;
    char text[TEXT_NBYTES];
    while (next_item(&list, text))
        MB_TRY(add_codecs(bench, text, err));
    return bench->n_codecs > 0 ? MB_OK : mb_fail(err, MB_USAGE, "--codec names none");
}

static enum mb_status parse_bounds(struct bench *bench, struct mb_error *err)
{
    const char *list = args.bounds == NULL ? usual_bounds : args.bounds;
    char text[TEXT_NBYTES];
    while (next_item(&list, text)) {
        if (bench->n_bounds == N_BOUNDS_MAX)
            return mb_fail(err, MB_USAGE, "--bounds: more than %d", N_BOUNDS_MAX);
        MB_TRY(mb_bound_parse(text, &bench->bounds[bench->n_bounds], err));
        if (bench->bounds[bench->n_bounds++].value == 0)
            return mb_fail(err, MB_USAGE, "--bounds: '%s' leaves nothing to compare", text);
    }
    return bench->n_bounds > 0 ? MB_OK : mb_fail(err, MB_USAGE, "--bounds names none");
}

static enum mb_status parse_layers(struct bench_choice *choice, struct mb_error *err)
{
    char rest;
    int n = args.layers == NULL
                ? 2
                : sscanf(args.layers, "%9d-%9d%c", &choice->first_layer, &choice->last_layer, &rest);
    if (n == 1 && strchr(args.layers, '-') == NULL &&
        args.layers[strspn(args.layers, "0123456789")] == '\0') {
        choice->last_layer = choice->first_layer;
        n = 2;
    }
    if (n != 2 || choice->first_layer < 0 || choice->last_layer < choice->first_layer)
        return mb_fail(err, MB_USAGE, "--layers '%.32s' is no FROM-TO", args.layers);
    return MB_OK;
}

/* ---------------------------------------------------------------- running */

/* A line for each reason, with the names of all codecs that it keeps away. */
static void add_missing(struct bench *bench, const char *name, const char *why)
{
    char *line = NULL, *last = bench->n_missing > 0 ? bench->missing[bench->n_missing - 1] : NULL;
    const char *colon = last == NULL ? NULL : strstr(last, ": ");
    bool is_same = colon != NULL && strcmp(colon + 2, why) == 0;
    int n = is_same ? asprintf(&line, "%.*s, %s: %s", (int)(colon - last), last, name, why)
                    : asprintf(&line, "%s: %s", name, why);
    cli_check_memory(n < 0 ? NULL : line);
    if (is_same)
        free(last);
    bench->missing[is_same ? bench->n_missing - 1 : bench->n_missing++] = line;
}

/* Codecs that are not here are named and taken out; one that was asked for by name is an error. */
static enum mb_status look_for_codecs(struct bench *bench, struct mb_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < bench->n_codecs; i++) {
        struct mb_error why;
        if (mb_codec_check(bench->codecs[i], &why) == MB_OK) {
            bench->codecs[n++] = bench->codecs[i];
            continue;
        }
        if (args.codecs != NULL && strchr(args.codecs, '*') == NULL)
            return mb_pass_on(err, why.status, &why);
        add_missing(bench, bench->codecs[i]->name, why.msg);
    }
    bench->n_codecs = n;
    return n > 0 ? MB_OK : mb_fail(err, MB_UNSUPPORTED, "none of these codecs is on this machine");
}

static void list_rows(struct bench *bench)
{
    for (size_t c = 0; c < bench->n_codecs; c++) {
        const struct mb_codec *codec = bench->codecs[c];
        bool has_bound = codec->takes <= MB_CODEC_TAKES_RANGE;
        for (size_t b = 0; b < (has_bound ? bench->n_bounds : 1); b++)
            bench->rows[bench->n_rows++] = (struct bench_row){.codec = codec,
                                                              .has_bound = has_bound,
                                                              .bound = bench->bounds[b],
                                                              .worst = has_bound ? 0 : NAN};
    }
}

static void allocate_scratch(struct bench *bench)
{
    const struct bench_matrices *m = &bench->matrices;
    size_t cap = 0;
    for (size_t i = 0; i < m->n; i++) {
        size_t nbytes = mb_codec_nbytes_max(m->at[i].codec.n_rows, m->at[i].codec.n_cols);
        cap = nbytes > cap ? nbytes : cap;
    }
    bench->work.scratch = cli_check_memory(calloc((size_t)bench->n_threads, sizeof *bench->work.scratch));
    for (int t = 0; t < bench->n_threads; t++) {
        bench->work.scratch[t] =
            (struct bench_scratch){.bytes = cli_check_memory(mb_alloc(cap, 1)),
                                   .bytes_cap = cap,
                                   .decoded = cli_check_memory(mb_alloc(m->n_weights_max, sizeof(float))),
                                   .x = cli_check_memory(mb_alloc(m->n_cols_max, sizeof(float))),
                                   .y = cli_check_memory(mb_alloc(m->n_rows_max, sizeof(float)))};
        for (size_t i = 0; i < m->n_cols_max; i++)
            bench->work.scratch[t].x[i] = (float)(i % 17) - 8;
    }
}

static enum mb_status measure_rows(struct bench *bench, struct mb_error *err)
{
    struct cli_progress progress;
    enum mb_status status = MB_OK;
    bench->work.matrices = &bench->matrices;
    bench->work.n_repeats = args.n_repeats;
    MB_TRY(mb_pool_create(args.n_threads, &bench->work.pool, err));
    bench->n_threads = mb_pool_n_threads(bench->work.pool);
    allocate_scratch(bench);
    cli_progress_begin(&progress, "rows");
    for (size_t i = 0; i < bench->n_rows && status == MB_OK; i++) {
        cli_progress_show(&progress, bench->rows[i].codec->name, i, bench->n_rows);
        status = bench_codecs_measure(&bench->work, &bench->rows[i], err);
    }
    cli_progress_end(&progress);
    return status;
}

static void free_bench(struct bench *bench)
{
    for (int t = 0; t < bench->n_threads && bench->work.scratch != NULL; t++) {
        free(bench->work.scratch[t].bytes);
        free(bench->work.scratch[t].decoded);
        free(bench->work.scratch[t].x);
        free(bench->work.scratch[t].y);
    }
    free(bench->work.scratch);
    mb_pool_destroy(bench->work.pool);
    bench_matrices_free(&bench->matrices);
    for (size_t i = 0; i < bench->n_missing; i++)
        free(bench->missing[i]);
    free(bench);
}

static enum mb_status print(const struct bench *bench, const char *model, int *exit_status,
                            struct mb_error *err)
{
    const struct bench_codecs results = {.model = model,
                                         .matrices = &bench->matrices,
                                         .rows = bench->rows,
                                         .n_rows = bench->n_rows,
                                         .missing = (const char *const *)bench->missing,
                                         .n_missing = bench->n_missing,
                                         .n_threads = bench->n_threads};
    if (args.format == CLI_JSON)
        *exit_status = bench_codecs_print_json(&results);
    else if (args.format == CLI_CSV)
        bench_codecs_print_csv(&results);
    else
        bench_codecs_print_tables(&results);
    return args.chart == NULL ? MB_OK : bench_codecs_chart(&results, args.chart, err);
}

static enum mb_status run(struct bench *bench, const char *model, int *exit_status, struct mb_error *err)
{
    struct bench_choice choice = {.last_layer = 1 << 30, .n_experts = args.n_experts};
    struct mb_checkpoint *ckpt;
    MB_TRY(parse_codecs(bench, err));
    MB_TRY(parse_bounds(bench, err));
    MB_TRY(parse_layers(&choice, err));
    MB_TRY(look_for_codecs(bench, err));
    MB_TRY(mb_checkpoint_open(model, &ckpt, err));
    enum mb_status status = bench_matrices_read(ckpt, &choice, &bench->matrices, err);
    if (status == MB_OK) {
        list_rows(bench);
        status = measure_rows(bench, err);
    }
    if (status == MB_OK)
        status = print(bench, model, exit_status, err);
    mb_checkpoint_close(ckpt);
    return status;
}

int cli_bench_codecs(int argc, char **argv)
{
    const char *paths[CLI_ARGS_MAX];
    size_t n_paths;
    int exit_status;
    struct mb_error err;
    args.n_experts = 8;
    args.n_repeats = 5;
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, paths, &n_paths, &exit_status))
        return exit_status;
    cli_catch_interrupts();
    struct bench *bench = cli_check_memory(calloc(1, sizeof *bench));
    exit_status = 0;
    enum mb_status status = run(bench, paths[0], &exit_status, &err);
    free_bench(bench);
    return status == MB_OK ? exit_status : cli_fail(&err);
}
