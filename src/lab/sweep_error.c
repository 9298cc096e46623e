/*
 * sweep_error.c - the error of a run: into the model, and out of it again.
 */
#include "base/error.h"
#include "sweep_work.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum mb_status parse(const struct mb_sweep_item *item, struct mb_perturbation *perturbation,
                            struct mb_error *err)
{
    char text[160];
    int n = snprintf(text, sizeof text, "%s%s%s", item->error, item->bound == NULL ? "" : " ",
                     item->bound == NULL ? "" : item->bound);
    if (n < 0 || (size_t)n >= sizeof text)
        return mb_fail(err, MB_USAGE, "'%.64s...': too long for an error", text);
    return mb_perturbation_parse(text, perturbation, err);
}

enum mb_status mb_sweep_check_errors(struct mb_sweep_work *work, struct mb_error *err)
{
    for (size_t i = 1; i < work->plan->n_items; i++) {
        struct mb_perturbation perturbation;
        if (work->plan->items[i].plan == NULL)
            MB_TRY(parse(&work->plan->items[i], &perturbation, err));
    }
    return MB_OK;
}

static enum mb_status select_all(const struct mb_sweep_work *work, const struct mb_profile *profile,
                                 struct mb_error *err)
{
    for (size_t i = 1; i < work->plan->n_items; i++) {
        const char *target = work->plan->items[i].target;
        struct mb_selection selection;
        if (work->plan->items[i].plan != NULL || strcmp(target, work->plan->items[i - 1].target) == 0)
            continue;
        MB_TRY(mb_select(work->model, target, profile, &selection, err));
        mb_selection_free(&selection);
    }
    return MB_OK;
}

enum mb_status mb_sweep_check_words(struct mb_sweep_work *work, struct mb_error *err)
{
    struct mb_profile *nobody;
    MB_TRY(mb_profile_open(work->model, &nobody, err));
    enum mb_status status = select_all(work, nobody, err);
    mb_profile_close(nobody);
    return status;
}

/* Of matrices of one shape and type the first: what a codec does not take shows in it. */
static void keep_shapes(const struct mb_model *model, struct mb_selection *selection)
{
    size_t n_matrices, n_kept = 0;
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n_matrices);
    for (size_t i = 0; i < selection->n; i++) {
        const struct mb_model_matrix *matrix = &matrices[selection->at[i]];
        bool is_there = false;
        for (size_t k = 0; k < n_kept; k++) {
            const struct mb_model_matrix *kept = &matrices[selection->at[k]];
            is_there = is_there || (kept->n_cols == matrix->n_cols && kept->n_rows == matrix->n_rows &&
                                    kept->dtype == matrix->dtype && kept->is_coded == matrix->is_coded);
        }
        if (!is_there)
            selection->at[n_kept++] = selection->at[i];
    }
    selection->n = n_kept;
}

static enum mb_status try_selection(struct mb_sweep_work *work, const struct mb_selection *selection,
                                    const struct mb_perturbation *perturbation, struct mb_error *err)
{
    struct mb_perturb_report report;
    if (work->perturber == NULL)
        MB_TRY(mb_perturb_open(work->model, NULL, &work->perturber, err));
    MB_TRY(mb_perturb_apply(work->perturber, selection, perturbation, 1, &report, err));
    return mb_perturb_undo(work->perturber, err);
}

/* What may be refused depends on what is selected: dropped experts, and the shapes that a codec takes. */
static enum mb_status try_item(struct mb_sweep_work *work, const struct mb_sweep_item *item,
                               struct mb_error *err)
{
    struct mb_perturbation perturbation;
    struct mb_selection selection;
    MB_TRY(parse(item, &perturbation, err));
    if (perturbation.kind != MB_PERTURB_DROP && perturbation.codec == NULL)
        return MB_OK;
    MB_TRY(mb_select(work->model, item->target, work->profile, &selection, err));
    if (perturbation.kind != MB_PERTURB_DROP)
        keep_shapes(work->model, &selection);
    enum mb_status status = try_selection(work, &selection, &perturbation, err);
    mb_selection_free(&selection);
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "%s, %s", item->target, item->error);
}

enum mb_status mb_sweep_check_targets(struct mb_sweep_work *work, struct mb_error *err)
{
    MB_TRY(select_all(work, work->profile, err));
    for (size_t i = 1; i < work->plan->n_items; i++) {
        const struct mb_sweep_item *item = &work->plan->items[i], *before = item - 1;
        bool is_tried = strcmp(item->target, before->target) == 0 && strcmp(item->error, before->error) == 0;
        if (!work->is_done[i] && !is_tried && item->plan == NULL)
            MB_TRY(try_item(work, item, err));
    }
    return MB_OK;
}

static void fill_change(const struct mb_perturb_report *report, struct mb_sweep_change *change)
{
    change->n_matrices = report->n_matrices;
    change->n_weights = report->n_weights;
    change->err_max = report->err_max;
    change->err_rms = report->err_rms;
    change->norm = report->norm;
    change->bits = report->bits;
    change->layers = (struct mb_measure_change){report->first_layer, report->is_head_changed};
}

static enum mb_status note_experts(const struct mb_model *model, const struct mb_selection *selection,
                                   struct mb_sweep_change *change, struct mb_error *err)
{
    size_t n_matrices, n_experts = mb_model_info(model)->n_experts;
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n_matrices);
    for (size_t i = 0; i < selection->n; i++) {
        const struct mb_model_matrix *matrix = &matrices[selection->at[i]];
        if (matrix->expert < 0)
            continue;
        if (change->has_expert == NULL)
            change->has_expert = calloc(mb_model_info(model)->n_layers * n_experts, sizeof(bool));
        if (change->has_expert == NULL)
            return mb_fail_memory(err, "the selection");
        change->has_expert[(size_t)matrix->layer * n_experts + (size_t)matrix->expert] = true;
    }
    return MB_OK;
}

static enum mb_status apply(struct mb_sweep_work *work, const struct mb_selection *selection,
                            const struct mb_perturbation *perturbation, uint64_t seed,
                            struct mb_sweep_change *change, struct mb_error *err)
{
    struct mb_perturb_report report;
    change->selected = mb_selection_text(work->model, selection);
    change->projection = strdup(selection->projection);
    if (change->selected == NULL || change->projection == NULL)
        return mb_fail_memory(err, "the selection");
    MB_TRY(note_experts(work->model, selection, change, err));
    if (work->perturber == NULL)
        MB_TRY(mb_perturb_open(work->model, NULL, &work->perturber, err));
    MB_TRY(mb_perturb_apply(work->perturber, selection, perturbation, seed, &report, err));
    fill_change(&report, change);
    return MB_OK;
}

static enum mb_status apply_plan(struct mb_sweep_work *work, const struct mb_sweep_bounds *bounds,
                                 struct mb_sweep_change *change, struct mb_error *err)
{
    const struct mb_selection selection = {.at = bounds->at, .n = bounds->n, .projection = "all"};
    const struct mb_perturbation perturbation = {.kind = MB_PERTURB_CODEC, .bounds = bounds->bounds};
    return apply(work, &selection, &perturbation, 0, change, err);
}

static enum mb_status apply_target(struct mb_sweep_work *work, const struct mb_sweep_item *item,
                                   struct mb_sweep_change *change, struct mb_error *err)
{
    struct mb_selection selection;
    struct mb_perturbation perturbation;
    MB_TRY(parse(item, &perturbation, err));
    MB_TRY(mb_select(work->model, item->target, work->profile, &selection, err));
    enum mb_status status = apply(work, &selection, &perturbation, item->seed, change, err);
    mb_selection_free(&selection);
    return status;
}

enum mb_status mb_sweep_apply(struct mb_sweep_work *work, const struct mb_sweep_item *item,
                              struct mb_sweep_change *change, struct mb_error *err)
{
    *change = (struct mb_sweep_change){.err_max = NAN, .err_rms = NAN, .norm = NAN, .bits = NAN};
    change->layers.first_layer = mb_model_info(work->model)->n_layers;
    if (strcmp(item->error, "none") == 0)
        return MB_OK;
    return item->plan == NULL ? apply_target(work, item, change, err)
                              : apply_plan(work, &work->bounds[item - work->plan->items], change, err);
}

enum mb_status mb_sweep_undo(struct mb_sweep_work *work, struct mb_error *err)
{
    return work->perturber == NULL ? MB_OK : mb_perturb_undo(work->perturber, err);
}
