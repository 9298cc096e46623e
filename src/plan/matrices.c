/*
 * matrices.c - the matrices of a model and what they cost: dry runs of compress at bounds of a grid.
 */
#include "base/error.h"
#include "planner.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double grid(int i)
{
    return MB_PLAN_FRACTION_MIN * exp2(0.5 * i);
}

double mb_plan_nbytes(const struct mb_plan_matrix *matrix, double fraction)
{
    double at = 2 * log2(fraction / MB_PLAN_FRACTION_MIN);
    at = fmin(fmax(at, 0), MB_PLAN_N_GRID - 1);
    int i = at >= MB_PLAN_N_GRID - 1 ? MB_PLAN_N_GRID - 2 : (int)at;
    return matrix->nbytes[i] + (at - i) * (matrix->nbytes[i + 1] - matrix->nbytes[i]);
}

void mb_plan_note(struct mb_planner *planner, const char *format, ...)
{
    char *notes = planner->report->notes;
    size_t n = strlen(notes), room = sizeof planner->report->notes - n;
    va_list arguments;
    va_start(arguments, format);
    int k = vsnprintf(notes + n, room, format, arguments);
    va_end(arguments);
    if (k < 0 || (size_t)k + 1 >= room)
        notes[n] = '\0';
    else
        memcpy(notes + n + k, "\n", 2);
}

/* ---------------------------------------------------------------- the list */

static int compare(const struct mb_plan_matrix *a, const struct mb_plan_matrix *b)
{
    const struct mb_tensor_role *x = &a->role, *y = &b->role;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    if (x->expert != y->expert)
        return x->expert < y->expert ? -1 : 1;
    if (x->projection != y->projection)
        return x->projection < y->projection ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int by_place(const void *a, const void *b)
{
    return compare(a, b);
}

size_t mb_plan_find(const struct mb_planner *planner, const char *name)
{
    const struct mb_plan_matrix key = {.name = (char *)name, .role = mb_role_of(name)};
    const struct mb_plan_matrix *found =
        bsearch(&key, planner->matrices, planner->n_matrices, sizeof key, by_place);
    return found == NULL ? planner->n_matrices : (size_t)(found - planner->matrices);
}

size_t mb_plan_find_expert(const struct mb_planner *planner, int layer, int expert)
{
    size_t low = 0, high = planner->n_matrices;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct mb_tensor_role *role = &planner->matrices[middle].role;
        if (role->layer < layer || (role->layer == layer && role->expert < expert))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == planner->n_matrices || planner->matrices[low].role.layer != layer ||
        planner->matrices[low].role.expert != expert)
        return planner->n_matrices;
    return low;
}

static bool may_be_planned(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    enum mb_role role = mb_role_of(tensor->name).role;
    bool is_float =
        tensor->type == MB_TENSOR_F32 || tensor->type == MB_TENSOR_F16 || tensor->type == MB_TENSOR_BF16;
    return tensor->n_dims == 2 && tensor->n_elems > 0 && is_float && tensor->shape[1] <= MB_COLS_MAX &&
           mb_tensor_is_text(ckpt, tensor->name) && role != MB_ROLE_ROUTER && role != MB_ROLE_OTHER;
}

static enum mb_status add(struct mb_planner *planner, const struct mb_tensor *tensor, struct mb_error *err)
{
    struct mb_plan_matrix *matrix = &planner->matrices[planner->n_matrices];
    *matrix = (struct mb_plan_matrix){.name = strdup(tensor->name),
                                      .role = mb_role_of(tensor->name),
                                      .n_weights = tensor->n_elems,
                                      .n_rows = tensor->shape[0],
                                      .n_cols = (size_t)tensor->shape[1],
                                      .amplitude = 1,
                                      .column_share = 1,
                                      .sensitivity = NAN,
                                      .run = SIZE_MAX,
                                      .factor = 1};
    if (matrix->name == NULL)
        return mb_fail_memory(err, "the matrices of a plan");
    planner->n_matrices++;
    enum mb_role role = matrix->role.role;
    matrix->is_planned = role == MB_ROLE_EXPERT || role == MB_ROLE_SHARED_EXPERT;
    if (matrix->role.layer >= planner->n_layers)
        planner->n_layers = matrix->role.layer + 1;
    return MB_OK;
}

static enum mb_status add_all(struct mb_planner *planner, const struct mb_checkpoint *ckpt,
                              struct mb_error *err)
{
    size_t n = mb_checkpoint_n_tensors(ckpt);
    if (mb_checkpoint_is_coded(ckpt))
        return mb_fail(err, MB_UNSUPPORTED, "%s: is coded already; plan with its original",
                       planner->model_path);
    planner->matrices = calloc(n + 1, sizeof *planner->matrices);
    if (planner->matrices == NULL)
        return mb_fail_memory(err, "the matrices of a plan");
    for (size_t i = 0; i < n; i++)
        if (may_be_planned(ckpt, mb_checkpoint_tensor(ckpt, i)))
            MB_TRY(add(planner, mb_checkpoint_tensor(ckpt, i), err));
    qsort(planner->matrices, planner->n_matrices, sizeof *planner->matrices, by_place);
    return MB_OK;
}

/* ---------------------------------------------------------------- what they cost */

struct sampling {
    struct mb_planner *planner;
    int step;
};

static void take_size(void *ctx, const struct mb_compress_matrix *predicted)
{
    const struct sampling *sampling = ctx;
    size_t i = mb_plan_find(sampling->planner, predicted->tensor);
    if (i == sampling->planner->n_matrices)
        return;
    struct mb_plan_matrix *matrix = &sampling->planner->matrices[i];
    matrix->nbytes[sampling->step] = (double)predicted->nbytes;
    matrix->mean_abs = predicted->eps / predicted->bound.value;
}

/* All matrices at one bound. */
static enum mb_status sample(struct mb_planner *planner, int step, struct mb_error *err)
{
    struct sampling sampling = {planner, step};
    struct mb_compress_report report;
    const struct mb_bound bound = {MB_BOUND_MEAN_ABS, grid(step)};
    const struct mb_compress_options options = {.size = sizeof options,
                                                .has_bound = true,
                                                .bound = bound,
                                                .has_dense_bound = true,
                                                .dense_bound = bound,
                                                .dry_run = true,
                                                .dense = true,
                                                .n_threads = planner->options.n_threads,
                                                .progress = planner->options.progress,
                                                .progress_ctx = planner->options.progress_ctx,
                                                .rounder = planner->options.rounder,
                                                .each = take_size,
                                                .each_ctx = &sampling};
    return mb_compress(planner->model_path, "", &options, &report, err);
}

/* How large an error is beside that of plain rounding at the same bound: what feedback leaves (docs/plan.md).
 */
static double fed_amplitude(double rho)
{
    double kl_share = rho < 0.75 ? 1 - 1.8 * (rho - 0.5) : rho < 1 ? 0.55 - 0.84 * (rho - 0.75) : 0.34;
    return sqrt(kl_share) / (2 * rho);
}

static enum mb_status find_amplitudes(struct mb_planner *planner, struct mb_error *err)
{
    const struct mb_rounder *rounder = planner->options.rounder;
    for (size_t i = 0; i < planner->n_matrices && rounder != NULL; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        bool is_taken;
        MB_TRY(rounder->takes(rounder->context, matrix->name, matrix->n_cols, &is_taken, err));
        if (is_taken)
            matrix->amplitude = fed_amplitude(rounder->rho);
    }
    return MB_OK;
}

enum mb_status mb_plan_list(struct mb_planner *planner, struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    MB_TRY(mb_checkpoint_open(planner->model_path, &ckpt, err));
    enum mb_status status = add_all(planner, ckpt, err);
    mb_checkpoint_close(ckpt);
    MB_TRY(status);
    for (int i = 0; i < MB_PLAN_N_GRID; i++)
        MB_TRY(sample(planner, i, err));
    return find_amplitudes(planner, err);
}
