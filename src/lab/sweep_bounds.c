/*
 * sweep_bounds.c - what compress would code by a plan file (docs/plan.md), told by a dry run of it: so a run
 * has the bounds of the folder that 'compress --plan' writes, defaults of what the plan does not name
 * included, and what compress refuses in a plan is refused here.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "sweep_work.h"
#include <moebius/checkpoint.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t PLAN_NBYTES_MAX = 256 << 20;

/* ---------------------------------------------------------------- the matrices of the model, by name */

struct named {
    const char *name;
    size_t at;
    struct mb_bound bound; /* exact: the plan does not code it */
};

struct names {
    struct named *list; /* [n] by name, until the bounds are known */
    size_t n, n_unknown;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    size_t x = ((const struct named *)a)->at, y = ((const struct named *)b)->at;
    return x < y ? -1 : x > y;
}

static enum mb_status list_matrices(const struct mb_model *model, struct names *names, struct mb_error *err)
{
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &names->n);
    names->list = calloc(names->n + 1, sizeof *names->list);
    if (names->list == NULL)
        return mb_fail_memory(err, "the matrices of a plan");
    for (size_t i = 0; i < names->n; i++)
        names->list[i] = (struct named){.name = matrices[i].name, .at = i, .bound = {MB_BOUND_EXACT, 0}};
    qsort(names->list, names->n, sizeof *names->list, by_name);
    return MB_OK;
}

/* An mb_compress_matrix_fn. */
static void take_bound(void *ctx, const struct mb_compress_matrix *coded)
{
    struct names *names = ctx;
    const struct named key = {.name = coded->tensor};
    struct named *found = bsearch(&key, names->list, names->n, sizeof key, by_name);
    if (found == NULL)
        names->n_unknown++;
    else
        found->bound = coded->bound;
}

/* ---------------------------------------------------------------- a plan */

static void add_note(struct mb_sweep_work *work, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add_note(struct mb_sweep_work *work, const char *format, ...)
{
    size_t n = strlen(work->notes), room = sizeof work->notes - n;
    va_list arguments;
    va_start(arguments, format);
    int k = vsnprintf(work->notes + n, room, format, arguments);
    va_end(arguments);
    if (k < 0 || (size_t)k >= room)
        work->notes[n] = '\0';
}

/* The bound of its item is the file's checksum. */
static enum mb_status read_file(struct mb_sweep_work *work, struct mb_sweep_item *item, struct mb_error *err)
{
    char *text, hash[MB_SWEEP_HASH_NBYTES];
    size_t nbytes;
    json_t *json;
    MB_TRY(mb_read_file(item->plan, PLAN_NBYTES_MAX, &text, &nbytes, err));
    mb_sweep_hash_bytes(text, nbytes, hash);
    enum mb_status status = mb_json_parse_file(item->plan, text, nbytes, &json, err);
    free(text);
    MB_TRY(status);
    if (json_is_number(json_object_get(json, "feedback")))
        add_note(work, "%s: made for rounding with feedback; a sweep rounds plainly, which loses more\n",
                 item->plan);
    json_decref(json);
    free(item->bound);
    return asprintf(&item->bound, "plan:%s", hash) < 0 ? mb_fail_memory(err, "a plan") : MB_OK;
}

static enum mb_status ask_compress(const struct mb_sweep_work *work, const struct mb_sweep_item *item,
                                   struct names *names, struct mb_error *err)
{
    struct mb_compress_report report;
    struct mb_compress_options options = {.size = sizeof options,
                                          .has_dense_bound = item->dense_bound != NULL,
                                          .dry_run = true,
                                          .n_threads = work->options.n_threads,
                                          .plan_path = item->plan,
                                          .dense = true,
                                          .each = take_bound,
                                          .each_ctx = names};
    if (item->dense_bound != NULL)
        MB_TRY(mb_bound_parse(item->dense_bound, &options.dense_bound, err));
    return mb_compress(work->model_path, "", &options, &report, err);
}

static enum mb_status keep_bounds(struct names *names, struct mb_sweep_bounds *bounds, struct mb_error *err)
{
    qsort(names->list, names->n, sizeof *names->list, by_place);
    bounds->at = calloc(names->n + 1, sizeof *bounds->at);
    bounds->bounds = calloc(names->n + 1, sizeof *bounds->bounds);
    if (bounds->at == NULL || bounds->bounds == NULL)
        return mb_fail_memory(err, "the bounds of a plan");
    for (size_t i = 0; i < names->n; i++) {
        if (names->list[i].bound.kind == MB_BOUND_EXACT)
            continue;
        bounds->at[bounds->n] = names->list[i].at;
        bounds->bounds[bounds->n++] = names->list[i].bound;
    }
    return MB_OK;
}

static enum mb_status read_plan(struct mb_sweep_work *work, size_t i, struct mb_error *err)
{
    struct mb_sweep_item *item = &work->plan->items[i];
    struct names names = {0};
    MB_TRY(read_file(work, item, err));
    enum mb_status status = list_matrices(work->model, &names, err);
    if (status == MB_OK)
        status = ask_compress(work, item, &names, err);
    if (status == MB_OK)
        status = keep_bounds(&names, &work->bounds[i], err);
    if (status == MB_OK && names.n_unknown > 0)
        add_note(work, "%s: %zu matrices are not used by the model, and their bounds are left aside\n",
                 item->plan, names.n_unknown);
    free(names.list);
    return status;
}

enum mb_status mb_sweep_read_bounds(struct mb_sweep_work *work, struct mb_error *err)
{
    work->bounds = calloc(work->plan->n_items, sizeof *work->bounds);
    if (work->bounds == NULL)
        return mb_fail_memory(err, "the plans");
    for (size_t i = 0; i < work->plan->n_items; i++)
        if (work->plan->items[i].plan != NULL)
            MB_TRY(read_plan(work, i, err));
    return MB_OK;
}

void mb_sweep_free_bounds(struct mb_sweep_work *work)
{
    for (size_t i = 0; work->bounds != NULL && i < work->plan->n_items; i++) {
        free(work->bounds[i].at);
        free(work->bounds[i].bounds);
    }
    free(work->bounds);
}
