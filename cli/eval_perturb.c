/*
 * eval_perturb.c - eval --perturb, --profile, --profile-out.
 */
#include "eval_perturb.h"
#include "base/error.h"
#include "output_file.h"
#include "report.h"
#include <math.h>
#include <moebius/measure.h>
#include <moebius/perturb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct eval_perturb {
    struct mb_perturber *perturber; /* NULL: nothing is changed */
    struct mb_profile *profile;     /* that was read; NULL: none */
    struct mb_profile *counted;     /* that will be written; NULL: none */
    char model_hash[MB_HASH_NBYTES];
    struct mb_perturb_report reports[CLI_STRINGS_MAX]; /* [perturb.n] */
};

/* ---------------------------------------------------------------- opening */

/* Words first: a slip should not wait for a clean pass. */
static enum mb_status check_text(const struct eval *eval, const char *text, struct mb_error *err)
{
    struct mb_perturbation perturbation;
    struct mb_selection selection;
    const char *colon = strchr(text, ':');
    if (colon == NULL)
        return MB_OK; /* mb_perturb_text has the words for it */
    MB_TRY(mb_perturbation_parse(colon + 1, &perturbation, err));
    char *target = cli_check_memory(strndup(text, (size_t)(colon - text)));
    enum mb_status status = mb_select(eval->model, target, eval->perturb->profile, &selection, err);
    if (status == MB_OK)
        mb_selection_free(&selection);
    free(target);
    return status;
}

static enum mb_status open_parts(struct eval *eval, struct eval_perturb *p, struct mb_error *err)
{
    const struct eval_args *args = eval->args;
    if (args->profile != NULL || args->profile_out != NULL)
        MB_TRY(mb_model_hash(eval->model_path, p->model_hash, err));
    if (args->profile != NULL)
        MB_TRY(mb_profile_load(args->profile, p->model_hash, &p->profile, err));
    if (args->profile_out != NULL) {
        MB_TRY(cli_output_check(args->profile_out, eval->model_path, err));
        MB_TRY(mb_profile_open(eval->model, &p->counted, err));
        mb_model_watch_routes(eval->model, mb_profile_count, p->counted);
    }
    for (size_t i = 0; i < args->perturb.n; i++)
        MB_TRY(check_text(eval, args->perturb.items[i], err));
    return args->perturb.n == 0 ? MB_OK : mb_perturb_open(eval->model, NULL, &p->perturber, err);
}

enum mb_status eval_perturb_open(struct eval *eval, struct mb_error *err)
{
    eval->perturb = cli_check_memory(calloc(1, sizeof *eval->perturb));
    return open_parts(eval, eval->perturb, err);
}

void eval_perturb_close(struct eval *eval)
{
    struct eval_perturb *p = eval->perturb;
    if (p == NULL)
        return;
    if (p->counted != NULL)
        mb_model_watch_routes(eval->model, NULL, NULL);
    mb_perturb_close(p->perturber);
    mb_profile_close(p->profile);
    mb_profile_close(p->counted);
    free(p);
    eval->perturb = NULL;
}

/* ---------------------------------------------------------------- the report */

/* "-" for what an error has not. */
static void print_number(struct cli_table *table, const char *format, double value, double scale)
{
    char text[32] = "-";
    if (!isnan(value))
        snprintf(text, sizeof text, format, scale * value);
    cli_table_cell(table, "%s", text);
}

static void print_table(const struct eval *eval)
{
    static const char *const heads[] = {"error in", "matrices",    "weights", "largest / e",
                                        "rms / e",  "beyond e, %", "norm, %", "memory"};
    struct cli_table *table = cli_table_new("lrrrrrrr", heads);
    for (size_t i = 0; i < eval->args->perturb.n; i++) {
        const struct mb_perturb_report *r = &eval->perturb->reports[i];
        char text[32];
        cli_table_cell(table, "%s", eval->args->perturb.items[i]);
        cli_table_cell(table, "%llu", (unsigned long long)r->n_matrices);
        cli_table_cell(table, "%s", cli_count(text, r->n_weights));
        print_number(table, "%.4f", r->err_max, 1);
        print_number(table, "%.4f", r->err_rms, 1);
        print_number(table, "%.2f", r->share_beyond, 100);
        print_number(table, "%.3f", r->norm, 100);
        cli_table_cell(table, "%s", cli_bytes(text, r->nbytes));
    }
    cli_table_print(table);
    printf("\n");
}

static json_t *number_json(double value)
{
    return isnan(value) ? json_null() : cli_json_real(value);
}

static json_t *report_json(const char *text, uint64_t seed, const struct mb_perturb_report *r)
{
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:f}", "perturb",
                     cli_json_path(text), "seed", (json_int_t)seed, "n_matrices", (json_int_t)r->n_matrices,
                     "n_weights", (json_int_t)r->n_weights, "n_dropped", (json_int_t)r->n_dropped, "e_min",
                     number_json(r->eps_min), "e_max", number_json(r->eps_max), "err_max",
                     number_json(r->err_max), "err_rms", number_json(r->err_rms), "share_beyond",
                     number_json(r->share_beyond), "norm", number_json(r->norm), "bits", number_json(r->bits),
                     "nbytes", (json_int_t)r->nbytes, "seconds", r->seconds);
}

int eval_print_json(const struct eval *eval, json_t *report)
{
    const struct eval_args *args = eval->args;
    json_t *list = args->perturb.n == 0 ? NULL : json_array();
    for (size_t i = 0; i < args->perturb.n; i++)
        json_array_append_new(list,
                              report_json(args->perturb.items[i], args->seed, &eval->perturb->reports[i]));
    if (report != NULL && list != NULL)
        json_object_set(report, "perturbed", list);
    json_decref(list);
    if (report != NULL)
        json_object_set_new(report, "activations",
                            json_string(args->activations == NULL ? "auto" : args->activations));
    return cli_print_json(report);
}

/* ---------------------------------------------------------------- errors and profiles */

enum mb_status eval_perturb_apply(const struct eval *eval, struct mb_error *err)
{
    const struct eval_args *args = eval->args;
    struct eval_perturb *p = eval->perturb;
    for (size_t i = 0; i < args->perturb.n; i++)
        MB_TRY(mb_perturb_text(p->perturber, args->perturb.items[i], p->profile, args->seed, &p->reports[i],
                               err));
    if (args->perturb.n > 0 && args->format != CLI_JSON)
        print_table(eval);
    return MB_OK;
}

struct mb_measure_change eval_perturb_change(const struct eval *eval)
{
    struct mb_measure_change change = {.first_layer = mb_model_info(eval->model)->n_layers};
    for (size_t i = 0; i < eval->args->perturb.n; i++) {
        const struct mb_perturb_report *r = &eval->perturb->reports[i];
        change.first_layer = r->first_layer < change.first_layer ? r->first_layer : change.first_layer;
        change.is_head_changed = change.is_head_changed || r->is_head_changed;
    }
    return change;
}

enum mb_status eval_perturb_finish(const struct eval *eval, struct mb_error *err)
{
    const char *path = eval->args->profile_out;
    if (path == NULL)
        return MB_OK;
    MB_TRY(mb_profile_save(eval->perturb->counted, path, eval->perturb->model_hash, err));
    struct mb_profile_layer first = mb_profile_layer(eval->perturb->counted, 0);
    fprintf(stderr, "usage of %zu layers by %llu tokens written to %s\n",
            mb_profile_n_layers(eval->perturb->counted), (unsigned long long)first.n_tokens, path);
    return MB_OK;
}
