/*
 * bench_codecs_print.c - the rows of "bench codecs" as tables, CSV and JSON.
 */
#include "bench_codecs.h"
#include "cli.h"
#include "machine.h"
#include "report.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *bound_text(const struct bench_row *row, char text[40])
{
    snprintf(text, 40, "-");
    if (row->has_bound)
        mb_bound_format(&row->bound, text);
    return text;
}

/* "yes", or by how much the bound is broken. */
static const char *kept_text(const struct bench_row *row, char text[32])
{
    if (!row->has_bound)
        snprintf(text, 32, "-");
    else if (row->is_kept)
        snprintf(text, 32, "yes");
    else if (row->worst < 1.001)
        snprintf(text, 32, "no, by %.0e", row->worst - 1);
    else
        snprintf(text, 32, "no, %.3g x", row->worst);
    return text;
}

static bool is_lossless(const struct bench_row *row)
{
    return row->codec->takes == MB_CODEC_LOSSLESS;
}

static void print_row(struct cli_table *table, const struct bench_row *row)
{
    char bound[40], kept[32];
    cli_table_cell(table, "%s", row->codec->name);
    cli_table_cell(table, "%s", bound_text(row, bound));
    cli_table_cell(table, "%.3f", row->bits);
    cli_table_cell(table, "%.2f", 16 / row->bits);
    cli_table_cell(table, row->has_bound ? "%.6f" : "-", row->worst);
    cli_table_cell(table, "%s", kept_text(row, kept));
    cli_table_cell(table, "%.1f %%", 100 * row->met);
    cli_table_cell(table, "%.2f %%", 100 * row->rms);
    cli_table_cell(table, is_lossless(row) ? "-" : "%.2f", row->sqnr);
    for (int k = ONE_THREAD; k < N_THREAD_COUNTS; k++) {
        cli_table_cell(table, "%.3f", row->encode_rate[k] * 1e-9);
        cli_table_cell(table, "%.3f", row->decode_rate[k] * 1e-9);
    }
}

/* ---------------------------------------------------------------- ours beside SZ3 */

static bool is_same_bound(const struct bench_row *a, const struct bench_row *b)
{
    return a->has_bound && b->has_bound && a->bound.kind == b->bound.kind && a->bound.value == b->bound.value;
}

bool bench_codecs_pair(const struct bench_codecs *bench, const struct bench_row *ours,
                       struct bench_pair *pair)
{
    *pair = (struct bench_pair){.ours = ours};
    if (strcmp(ours->codec->name, "ours") != 0 || ours->n_matrices == 0)
        return false;
    for (size_t i = 0; i < bench->n_rows; i++) {
        const struct bench_row *row = &bench->rows[i];
        if (strncmp(row->codec->name, "sz3", 3) != 0 || row->n_matrices == 0 || !is_same_bound(ours, row))
            continue;
        if (pair->smallest == NULL || row->bits < pair->smallest->bits)
            pair->smallest = row;
        if (pair->fastest == NULL || row->decode_rate[ONE_THREAD] > pair->fastest->decode_rate[ONE_THREAD])
            pair->fastest = row;
    }
    return pair->smallest != NULL;
}

static double times(double ours, double theirs)
{
    return cli_ratio(ours, theirs);
}

/* The product's rate is beside SZ3's decoder, whose weights would still have to be multiplied. */
static void print_pairs(const struct bench_codecs *bench)
{
    static const char *const heads[] = {"bound",         "ours, bits", "SZ3's smallest", "bits",
                                        "ours / SZ3",    "encode",     "decode",         "product",
                                        "SZ3's fastest", "encode",     "decode",         "product"};
    struct cli_table *table = NULL;
    for (size_t i = 0; i < bench->n_rows; i++) {
        struct bench_pair pair;
        char bound[40];
        if (!bench_codecs_pair(bench, &bench->rows[i], &pair))
            continue;
        if (table == NULL)
            table = cli_table_new("rrlrrrrrlrrr", heads);
        cli_table_cell(table, "%s", bound_text(pair.ours, bound));
        cli_table_cell(table, "%.3f", pair.ours->bits);
        cli_table_cell(table, "%s", pair.smallest->codec->name);
        cli_table_cell(table, "%.3f", pair.smallest->bits);
        cli_table_cell(table, "%.3f", times(pair.ours->bits, pair.smallest->bits));
        for (int k = 0; k < 2; k++) {
            const struct bench_row *sz3 = k == 0 ? pair.smallest : pair.fastest;
            if (k == 1)
                cli_table_cell(table, "%s", sz3->codec->name);
            cli_table_cell(table, "%.1f x", times(pair.ours->encode_rate[0], sz3->encode_rate[0]));
            cli_table_cell(table, "%.0f x", times(pair.ours->decode_rate[0], sz3->decode_rate[0]));
            cli_table_cell(table, "%.0f x", times(pair.ours->product_rate, sz3->decode_rate[0]));
        }
    }
    if (table == NULL)
        return;
    printf("\nours beside SZ3, rates on one thread (product: ours decodes and multiplies, SZ3 decodes "
           "alone):\n\n");
    cli_table_print(table);
}

/* ---------------------------------------------------------------- tables */

static void print_ours(const struct bench_codecs *bench)
{
    double check = INFINITY, product = INFINITY;
    for (size_t i = 0; i < bench->n_rows; i++) {
        const struct bench_row *row = &bench->rows[i];
        if (row->n_matrices > 0 && row->codec->has_check && row->codec->has_product) {
            check = fmin(check, row->check_rate);
            product = fmin(product, row->product_rate);
        }
    }
    if (isfinite(check))
        printf("ours, at the least: products from the coded form %.1f G weights/s; decode is of what was "
               "checked "
               "when it\nwas opened, once, at %.2f G weights/s\n",
               product * 1e-9, check * 1e-9);
}

static void print_notes(const struct bench_codecs *bench)
{
    const struct bench_row *last = NULL;
    for (size_t i = 0; i < bench->n_rows; i++) {
        const struct bench_row *row = &bench->rows[i];
        if (row->refusal[0] != '\0' && (last == NULL || last->codec != row->codec)) {
            printf("%s: %zu of %zu matrices were left out: %s\n", row->codec->name,
                   bench->matrices->n - row->n_matrices, bench->matrices->n, row->refusal);
            last = row;
        }
    }
    for (size_t i = 0; i < bench->n_missing; i++)
        printf("not here: %s\n", bench->missing[i]);
}

void bench_codecs_print_tables(const struct bench_codecs *bench)
{
    static const char *const heads[] = {"codec",  "bound",       "bits",       "ratio",    "worst / bound",
                                        "kept",   "would meet",  "rms",        "SQNR, dB", "encode",
                                        "decode", "encode, all", "decode, all"};
    struct cli_table *table = cli_table_new("lrrrrlrrrrrrr", heads);
    char cpu[128], threads[64], count[32];
    for (size_t i = 0; i < bench->n_rows; i++)
        if (bench->rows[i].n_matrices > 0)
            print_row(table, &bench->rows[i]);
    cli_table_print(table);
    print_pairs(bench);
    cli_cpu_name(cpu);
    printf("\nbits a weight, everything counted; ratio to 16 bits; would meet: the worst error, and rms, in "
           "%% of "
           "the expert's mean\nabsolute weight; rates in G weights/s on one thread and on all (%s), best of "
           "some\n",
           cli_threads(threads, bench->n_threads));
    printf("build %s, %s; %zu matrices of %zu of %zu experts, %s weights\n", cli_commit, cpu,
           bench->matrices->n, bench->matrices->n_experts, bench->matrices->n_model_experts,
           cli_count(count, bench->matrices->n_weights));
    print_ours(bench);
    print_notes(bench);
}

/* ---------------------------------------------------------------- JSON and CSV */

static const char *takes_name(enum mb_codec_takes takes)
{
    static const char *const names[] = {"bound", "range", "bits", "nothing"};
    return names[takes];
}

static json_t *row_json(const struct bench_row *row)
{
    char bound[40];
    return json_pack(
        "{s:s, s:s, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "codec",
        row->codec->name, "takes", takes_name(row->codec->takes), "bound",
        row->has_bound ? json_string(bound_text(row, bound)) : json_null(), "n_matrices",
        (json_int_t)row->n_matrices, "n_weights", (json_int_t)row->n_weights, "bits_per_weight",
        cli_json_real(row->bits), "worst_over_bound",
        row->has_bound ? cli_json_real(row->worst) : json_null(), "is_kept",
        row->has_bound ? json_boolean(row->is_kept) : json_null(), "worst_over_mean_abs",
        cli_json_real(row->met), "rms_over_mean_abs", cli_json_real(row->rms), "sqnr_db",
        cli_json_real(row->sqnr), "encode_weights_per_s", cli_json_real(row->encode_rate[ONE_THREAD]),
        "decode_weights_per_s", cli_json_real(row->decode_rate[ONE_THREAD]), "encode_weights_per_s_all",
        cli_json_real(row->encode_rate[ALL_THREADS]), "decode_weights_per_s_all",
        cli_json_real(row->decode_rate[ALL_THREADS]), "check_weights_per_s",
        row->codec->has_check ? cli_json_real(row->check_rate) : json_null(), "product_weights_per_s",
        row->codec->has_product ? cli_json_real(row->product_rate) : json_null(), "left_out_because",
        row->refusal);
}

int bench_codecs_print_json(const struct bench_codecs *bench)
{
    char cpu[128];
    json_t *rows = json_array(), *missing = json_array();
    for (size_t i = 0; i < bench->n_rows; i++)
        json_array_append_new(rows, row_json(&bench->rows[i]));
    for (size_t i = 0; i < bench->n_missing; i++)
        json_array_append_new(missing, json_string(bench->missing[i]));
    cli_cpu_name(cpu);
    return cli_print_json(json_pack(
        "{s:s, s:s, s:o, s:I, s:I, s:I, s:i, s:o, s:o}", "build_commit", cli_commit, "cpu_info", cpu, "model",
        cli_json_path(bench->model), "n_experts", (json_int_t)bench->matrices->n_experts, "n_matrices",
        (json_int_t)bench->matrices->n, "n_weights", (json_int_t)bench->matrices->n_weights, "n_threads",
        bench->n_threads, "missing", missing, "rows", rows));
}

/* Nothing between two commas: there is no such number. */
static void print_real(double value)
{
    if (isfinite(value))
        printf(",%.8g", value);
    else
        printf(",");
}

void bench_codecs_print_csv(const struct bench_codecs *bench)
{
    printf(
        "codec,takes,bound,n_matrices,n_weights,is_kept,bits_per_weight,worst_over_bound,worst_over_mean_abs,"
        "rms_over_mean_abs,sqnr_db,encode_weights_per_s,decode_weights_per_s,encode_weights_per_s_all,"
        "decode_weights_per_s_all\n");
    for (size_t i = 0; i < bench->n_rows; i++) {
        const struct bench_row *row = &bench->rows[i];
        char bound[40];
        const double values[] = {row->bits,
                                 row->worst,
                                 row->met,
                                 row->rms,
                                 row->sqnr,
                                 row->encode_rate[ONE_THREAD],
                                 row->decode_rate[ONE_THREAD],
                                 row->encode_rate[ALL_THREADS],
                                 row->decode_rate[ALL_THREADS]};
        if (row->n_matrices == 0)
            continue;
        printf("%s,%s,%s,%zu,%" PRIu64 ",%s", row->codec->name, takes_name(row->codec->takes),
               row->has_bound ? bound_text(row, bound) : "", row->n_matrices, row->n_weights,
               !row->has_bound ? ""
               : row->is_kept  ? "yes"
                               : "no");
        for (size_t k = 0; k < sizeof values / sizeof *values; k++)
            print_real(values[k]);
        printf("\n");
    }
}
