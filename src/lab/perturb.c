/*
 * perturb.c - puts errors into a model and takes them out.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "perturb_work.h"
#include "random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One call of mb_perturb_apply, until it is undone. */
struct mb_perturb_applied {
    struct mb_perturb_applied *before;
    struct mb_perturb_item *items;
    size_t n_items, n_laid; /* items whose matrix lies over the model, or whose expert is dropped */
    bool is_drop;
    void *arena;
    uint64_t arena_nbytes;
};

/* ---------------------------------------------------------------- open and close */

static enum mb_status make_scratch(struct mb_perturber *p, struct mb_error *err)
{
    size_t n = (size_t)mb_pool_n_threads(p->pool), n_weights = 0, coded_nbytes = 0;
    for (size_t i = 0; i < p->n_matrices; i++) {
        size_t n_cols = p->matrices[i].n_cols;
        size_t rows = (size_t)mb_perturb_piece_rows(p->matrices[i].n_rows, n_cols);
        size_t nbytes = mb_encode_bound(MB_F32, rows, n_cols);
        n_weights = rows * n_cols > n_weights ? rows * n_cols : n_weights;
        coded_nbytes = nbytes > coded_nbytes ? nbytes : coded_nbytes;
    }
    p->scratch = calloc(n, sizeof *p->scratch);
    if (p->scratch == NULL)
        return mb_fail_memory(err, "a perturber");
    for (size_t i = 0; i < n; i++) {
        struct mb_perturb_scratch *s = &p->scratch[i];
        s->weights = mb_alloc(n_weights, sizeof *s->weights);
        s->changed = mb_alloc(n_weights, sizeof *s->changed);
        s->draws = mb_alloc(n_weights, sizeof *s->draws);
        s->coded = mb_alloc(coded_nbytes, 1);
        s->coded_nbytes = coded_nbytes;
        if (s->weights == NULL || s->changed == NULL || s->draws == NULL || s->coded == NULL)
            return mb_fail_memory(err, "a perturber");
    }
    return MB_OK;
}

static enum mb_status open_parts(struct mb_perturber *p, struct mb_error *err)
{
    const struct mb_model_info *info = mb_model_info(p->model);
    p->n_layers = info->n_layers;
    p->matrices = mb_model_matrices(p->model, &p->n_matrices);
    for (size_t i = 0; i < p->n_matrices; i++)
        p->has_head = p->has_head || p->matrices[i].kind == MB_MATRIX_HEAD;
    p->is_changed = mb_alloc(p->n_matrices, sizeof *p->is_changed);
    p->stats = mb_alloc(p->n_matrices, sizeof *p->stats);
    if (p->is_changed == NULL || p->stats == NULL)
        return mb_fail_memory(err, "a perturber");
    MB_TRY(mb_pool_create(p->options.n_threads == 0 ? info->n_threads : p->options.n_threads, &p->pool, err));
    return make_scratch(p, err);
}

enum mb_status mb_perturb_open(struct mb_model *model, const struct mb_perturb_options *options,
                               struct mb_perturber **perturber, struct mb_error *err)
{
    struct mb_perturb_options taken;
    MB_TRY(MB_OPTIONS_TAKE(taken, options, err));
    if (mb_model_info(model)->memory.reads != MB_READS_NONE)
        return mb_fail(
            err, MB_UNSUPPORTED,
            "experts are streamed from disk, and errors need all of them in memory: give more memory "
            "(--memory), or use a machine that has it");
    struct mb_perturber *p = calloc(1, sizeof *p);
    if (p == NULL)
        return mb_fail_memory(err, "a perturber");
    p->model = model;
    p->options = taken;
    enum mb_status status = open_parts(p, err);
    if (status != MB_OK) {
        mb_perturb_close(p);
        return status;
    }
    *perturber = p;
    return MB_OK;
}

void mb_perturb_close(struct mb_perturber *perturber)
{
    if (perturber == NULL)
        return;
    mb_perturb_undo(perturber, NULL);
    for (int i = 0; perturber->scratch != NULL && i < mb_pool_n_threads(perturber->pool); i++) {
        free(perturber->scratch[i].weights);
        free(perturber->scratch[i].changed);
        free(perturber->scratch[i].draws);
        free(perturber->scratch[i].coded);
    }
    free(perturber->scratch);
    if (perturber->pool != NULL)
        mb_pool_destroy(perturber->pool);
    free(perturber->is_changed);
    free(perturber->stats);
    free(perturber);
}

/* ---------------------------------------------------------------- in and out */

/* An expert is dropped by the first of its matrices. */
static bool begins_expert(const struct mb_perturber *p, size_t number)
{
    const struct mb_model_matrix *m = &p->matrices[number];
    return number == 0 || p->matrices[number - 1].layer != m->layer ||
           p->matrices[number - 1].expert != m->expert;
}

static enum mb_status put_in(struct mb_perturber *p, const struct mb_perturb_applied *applied,
                             const struct mb_perturb_item *item, struct mb_error *err)
{
    const struct mb_model_matrix *m = &p->matrices[item->number];
    if (!applied->is_drop)
        return mb_model_overlay(p->model, m->name, &item->laid, err);
    return begins_expert(p, item->number)
               ? mb_model_drop_expert(p->model, (size_t)m->layer, (size_t)m->expert, true, err)
               : MB_OK;
}

static enum mb_status take_out(struct mb_perturber *p, const struct mb_perturb_applied *applied,
                               const struct mb_perturb_item *item, struct mb_error *err)
{
    const struct mb_model_matrix *m = &p->matrices[item->number];
    if (!applied->is_drop)
        return mb_model_overlay(p->model, m->name, NULL, err);
    return begins_expert(p, item->number)
               ? mb_model_drop_expert(p->model, (size_t)m->layer, (size_t)m->expert, false, err)
               : MB_OK;
}

static enum mb_status put_all_in(struct mb_perturber *p, struct mb_perturb_applied *applied,
                                 struct mb_error *err)
{
    for (; applied->n_laid < applied->n_items; applied->n_laid++) {
        MB_TRY(put_in(p, applied, &applied->items[applied->n_laid], err));
        p->is_changed[applied->items[applied->n_laid].number] = true;
    }
    return MB_OK;
}

static void free_applied(struct mb_perturb_applied *applied)
{
    for (size_t i = 0; i < applied->n_items; i++)
        free(applied->items[i].block);
    free(applied->items);
    mb_pages_free(applied->arena, applied->arena_nbytes);
    free(applied);
}

static enum mb_status take_all_out(struct mb_perturber *p, struct mb_perturb_applied *applied,
                                   struct mb_error *err)
{
    for (; applied->n_laid > 0; applied->n_laid--) {
        const struct mb_perturb_item *item = &applied->items[applied->n_laid - 1];
        MB_TRY(take_out(p, applied, item, err));
        p->is_changed[item->number] = false;
    }
    return MB_OK;
}

/* What could not be taken out keeps its memory: the model still reads it. */
enum mb_status mb_perturb_undo(struct mb_perturber *perturber, struct mb_error *err)
{
    for (struct mb_perturb_applied *applied; (applied = perturber->applied) != NULL;) {
        MB_TRY(take_all_out(perturber, applied, err));
        perturber->applied = applied->before;
        free_applied(applied);
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- checks */

static bool is_same_expert(const struct mb_model_matrix *a, const struct mb_model_matrix *b)
{
    return a->layer == b->layer && a->expert == b->expert;
}

/* Experts, each with all of its matrices: the neighbours in the list that belong to it are selected as well.
 */
static enum mb_status check_drop(const struct mb_perturber *p, const struct mb_selection *selection,
                                 struct mb_error *err)
{
    for (size_t i = 0; i < selection->n; i++) {
        size_t number = selection->at[i];
        const struct mb_model_matrix *m = &p->matrices[number];
        if (m->expert < 0)
            return mb_fail(err, MB_USAGE, "%s: cannot be dropped; 'drop' is for routed experts", m->name);
        bool misses_before = number > 0 && is_same_expert(m, &p->matrices[number - 1]) &&
                             (i == 0 || selection->at[i - 1] != number - 1);
        bool misses_after = number + 1 < p->n_matrices && is_same_expert(m, &p->matrices[number + 1]) &&
                            (i + 1 == selection->n || selection->at[i + 1] != number + 1);
        if (misses_before || misses_after)
            return mb_fail(err, MB_USAGE,
                           "%s: 'drop' is for whole experts; leave out proj= or name=", m->name);
    }
    return MB_OK;
}

static enum mb_status check(const struct mb_perturber *p, const struct mb_selection *selection,
                            const struct mb_perturbation *perturbation, struct mb_error *err)
{
    for (size_t i = 0; i < selection->n; i++) {
        size_t number = selection->at[i];
        if (number >= p->n_matrices || (i > 0 && number <= selection->at[i - 1]))
            return mb_fail(err, MB_USAGE, "the selection is of another model");
        if (p->is_changed[number])
            return mb_fail(err, MB_USAGE, "%s: has an error already, and can have one",
                           p->matrices[number].name);
    }
    return perturbation->kind == MB_PERTURB_DROP ? check_drop(p, selection, err) : MB_OK;
}

/* ---------------------------------------------------------------- the report */

struct totals {
    double error_squares, weight_squares, relative_squares, n;
    uint64_t n_beyond, coded_nbytes;
};

static void add_item(const struct mb_perturber *p, const struct mb_perturb_item *item,
                     struct mb_perturb_report *report, struct totals *totals)
{
    const struct mb_model_matrix *m = &p->matrices[item->number];
    const struct mb_perturb_sums *sums = &item->sums;
    uint64_t n = m->n_rows * m->n_cols;
    size_t layer = m->layer >= 0 ? (size_t)m->layer : m->kind == MB_MATRIX_HEAD ? p->n_layers : 0;
    report->n_matrices++;
    report->n_weights += n;
    report->first_layer = layer < report->first_layer ? layer : report->first_layer;
    report->is_head_changed = report->is_head_changed || m->kind == MB_MATRIX_HEAD ||
                              (m->kind == MB_MATRIX_EMBEDDING && !p->has_head);
    report->nbytes += item->block_nbytes;
    totals->n += (double)n;
    totals->coded_nbytes += item->coded_nbytes;
    totals->error_squares += sums->error_squares;
    totals->weight_squares += sums->weight_squares;
    if (isnan(item->eps))
        return;
    report->eps_min = item->eps < report->eps_min || isnan(report->eps_min) ? item->eps : report->eps_min;
    report->eps_max = item->eps > report->eps_max || isnan(report->eps_max) ? item->eps : report->eps_max;
    double err_max = item->eps > 0 ? sums->err_max / item->eps : 0;
    report->err_max = err_max > report->err_max || isnan(report->err_max) ? err_max : report->err_max;
    totals->relative_squares += item->eps > 0 ? sums->error_squares / item->eps / item->eps : 0;
    totals->n_beyond += sums->n_beyond;
}

static void make_report(const struct mb_perturber *p, const struct mb_perturb_applied *applied,
                        struct mb_perturb_report *report)
{
    struct totals totals = {0};
    *report = (struct mb_perturb_report){.eps_min = NAN,
                                         .eps_max = NAN,
                                         .err_max = NAN,
                                         .err_rms = NAN,
                                         .share_beyond = NAN,
                                         .norm = NAN,
                                         .bits = NAN,
                                         .first_layer = p->n_layers,
                                         .nbytes = applied == NULL ? 0 : applied->arena_nbytes};
    for (size_t i = 0; applied != NULL && i < applied->n_items; i++) {
        add_item(p, &applied->items[i], report, &totals);
        report->n_dropped += applied->is_drop && begins_expert(p, applied->items[i].number);
    }
    if (!isnan(report->eps_max)) {
        report->err_rms = sqrt(totals.relative_squares / totals.n);
        report->share_beyond = (double)totals.n_beyond / totals.n;
    }
    if (totals.coded_nbytes > 0)
        report->bits = 8 * (double)totals.coded_nbytes / totals.n;
    if (report->n_dropped > 0)
        report->norm = 1;
    else if (totals.weight_squares > 0)
        report->norm = sqrt(totals.error_squares / totals.weight_squares);
}

/* ---------------------------------------------------------------- apply */

static struct mb_perturb_item *make_items(const struct mb_perturber *p, const struct mb_selection *selection,
                                          uint64_t seed)
{
    struct mb_perturb_item *items = calloc(selection->n + 1, sizeof *items);
    for (size_t i = 0; i < selection->n && items != NULL; i++) {
        items[i].number = selection->at[i];
        items[i].original = mb_model_weights(p->model, selection->at[i]);
        items[i].eps = NAN;
        items[i].key = mb_random_key(seed, p->matrices[selection->at[i]].name);
    }
    return items;
}

static enum mb_status make_pieces(struct mb_perturb_work *work, struct mb_error *err)
{
    for (size_t i = 0; i < work->n_items; i++) {
        const struct mb_matrix *w = &work->items[i].original;
        uint64_t rows = mb_perturb_piece_rows(w->n_rows, w->n_cols);
        work->n_pieces += (size_t)((w->n_rows + rows - 1) / rows);
    }
    work->pieces =
        calloc(work->n_pieces + 1, sizeof *work->pieces); /* one more: of none, NULL means no memory */
    if (work->pieces == NULL || work->n_pieces > MB_POOL_TASKS_MAX)
        return mb_fail_memory(err, "the pieces of changed matrices");
    for (size_t i = 0, k = 0; i < work->n_items; i++) {
        const struct mb_matrix *w = &work->items[i].original;
        uint64_t rows = mb_perturb_piece_rows(w->n_rows, w->n_cols);
        for (uint64_t row = 0; row < w->n_rows; row += rows, k++) {
            work->pieces[k].item = &work->items[i];
            work->pieces[k].row = row;
            work->pieces[k].n_rows = w->n_rows - row < rows ? w->n_rows - row : rows;
        }
    }
    return MB_OK;
}

/* What 'applied' holds after a failure is freed by the caller. */
static enum mb_status make_matrices(struct mb_perturber *p, const struct mb_perturbation *perturbation,
                                    struct mb_perturb_applied *applied, struct mb_error *err)
{
    struct mb_perturb_work work = {
        .perturber = p, .perturbation = perturbation, .items = applied->items, .n_items = applied->n_items};
    enum mb_status status = make_pieces(&work, err);
    if (status == MB_OK)
        status = mb_perturb_make(&work, err);
    free(work.pieces);
    applied->arena = work.arena;
    applied->arena_nbytes = work.arena == NULL ? 0 : work.arena_nbytes;
    return status;
}

static enum mb_status fill(struct mb_perturber *p, const struct mb_selection *selection,
                           const struct mb_perturbation *perturbation, uint64_t seed,
                           struct mb_perturb_applied *applied, struct mb_error *err)
{
    applied->items = make_items(p, selection, seed);
    if (applied->items == NULL)
        return mb_fail_memory(err, "the changed matrices");
    applied->n_items = selection->n;
    applied->is_drop = perturbation->kind == MB_PERTURB_DROP;
    if (!applied->is_drop)
        MB_TRY(make_matrices(p, perturbation, applied, err));
    enum mb_status status = put_all_in(p, applied, err);
    if (status != MB_OK)
        take_all_out(p, applied, NULL);
    return status;
}

static enum mb_status apply(struct mb_perturber *p, const struct mb_selection *selection,
                            const struct mb_perturbation *perturbation, uint64_t seed, struct mb_error *err)
{
    struct mb_perturb_applied *applied = calloc(1, sizeof *applied);
    if (applied == NULL)
        return mb_fail_memory(err, "the changed matrices");
    enum mb_status status = fill(p, selection, perturbation, seed, applied, err);
    if (status != MB_OK) {
        free_applied(applied);
        return status;
    }
    applied->before = p->applied;
    p->applied = applied;
    return MB_OK;
}

enum mb_status mb_perturb_apply(struct mb_perturber *perturber, const struct mb_selection *selection,
                                const struct mb_perturbation *perturbation, uint64_t seed,
                                struct mb_perturb_report *report, struct mb_error *err)
{
    uint64_t begun_ns = mb_now_ns();
    bool is_none = perturbation->kind == MB_PERTURB_NONE || selection->n == 0;
    MB_TRY(check(perturber, selection, perturbation, err));
    if (!is_none)
        MB_TRY(apply(perturber, selection, perturbation, seed, err));
    make_report(perturber, is_none ? NULL : perturber->applied, report);
    report->seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return MB_OK;
}

static enum mb_status apply_text(struct mb_perturber *perturber, const char *target, const char *error,
                                 const struct mb_profile *profile, uint64_t seed,
                                 struct mb_perturb_report *report, struct mb_error *err)
{
    struct mb_perturbation perturbation;
    struct mb_selection selection;
    MB_TRY(mb_perturbation_parse(error, &perturbation, err));
    enum mb_status status = mb_select(perturber->model, target, profile, &selection, err);
    if (status == MB_OK)
        status = mb_perturb_apply(perturber, &selection, &perturbation, seed, report, err);
    mb_selection_free(&selection);
    return status;
}

enum mb_status mb_perturb_text(struct mb_perturber *perturber, const char *text,
                               const struct mb_profile *profile, uint64_t seed,
                               struct mb_perturb_report *report, struct mb_error *err)
{
    const char *colon = strchr(text, ':');
    if (colon == NULL)
        return mb_fail(
            err, MB_USAGE,
            "'%.120s': no colon; write SELECTION: ERROR, as in 'layer=4 experts=top1: normal 80%%'", text);
    char *target = strndup(text, (size_t)(colon - text));
    if (target == NULL)
        return mb_fail_memory(err, "a selection");
    enum mb_status status = apply_text(perturber, target, colon + 1, profile, seed, report, err);
    free(target);
    return status;
}
