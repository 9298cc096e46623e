/*
 * sensitivity.c - what an error in each matrix costs, from all sources together.
 *
 * Each matrix takes the run that changed the fewest others with it, and of these the one whose error is
 * nearest to what plans do.  A run's KL is shared out by weights: Fisher traces, else *effects*: what an
 * error adds to outputs by second moments of the inputs, else by the weights' squares and the router's use.
 */
#include "base/error.h"
#include "planner.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double USUAL_FRACTION = 0.5;
static const double KL_MIN = 1e-12; /* of a run: what is measured as 0 or less is not free */

/* ---------------------------------------------------------------- effects */

static enum mb_status set_effects(struct mb_planner *planner, struct mb_error *err)
{
    for (size_t i = 0; i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        matrix->effect = (double)matrix->n_weights * matrix->mean_abs * matrix->mean_abs;
    }
    if (planner->options.moments == NULL)
        return MB_OK;
    planner->has_gates = true;
    return mb_plan_read_moments(planner, err);
}

static bool is_alike(const struct mb_plan_matrix *a, const struct mb_plan_matrix *b)
{
    return a->role.projection == b->role.projection && a->role.projection != MB_PROJECTION_NONE &&
           a->role.layer == b->role.layer;
}

/*
 * Sensitivity for each unit of effect of matrices that have one, of the same layer and projection; NAN: there
 * are none.  What is only estimated ('~') does not count.
 */
static double rate_like(const struct mb_planner *planner, const struct mb_plan_matrix *matrix)
{
    double sensitivity = 0, effect = 0;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_plan_matrix *other = &planner->matrices[i];
        if (isnan(other->sensitivity) || other->reason[0] == '~' || !is_alike(matrix, other))
            continue;
        sensitivity += other->sensitivity;
        effect += other->effect;
    }
    return effect > 0 ? sensitivity / effect : NAN;
}

/* A run's KL is shared out by Fisher traces, and by effects in the same unit where there is none. */
static void set_weights(struct mb_planner *planner)
{
    double sensitivity = 0, effect = 0;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[i];
        sensitivity += isnan(matrix->sensitivity) ? 0 : matrix->sensitivity;
        effect += isnan(matrix->sensitivity) ? 0 : matrix->effect;
    }
    for (size_t i = 0; i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (!isnan(matrix->sensitivity)) {
            matrix->weight = matrix->sensitivity;
            continue;
        }
        double rate = planner->has_fisher ? rate_like(planner, matrix) : 1;
        if (isnan(rate))
            rate = effect > 0 ? sensitivity / effect : 1;
        matrix->weight = rate * matrix->effect;
    }
}

/* ---------------------------------------------------------------- runs */

static bool is_better(const struct mb_plan_run *a, const struct mb_plan_run *b)
{
    if (a->n != b->n)
        return a->n < b->n;
    double x = fabs(log(a->fraction / USUAL_FRACTION)), y = fabs(log(b->fraction / USUAL_FRACTION));
    if (fabs(x - y) > 0.05)
        return x < y;
    return a->rank < b->rank;
}

static bool is_equal(const struct mb_plan_run *a, const struct mb_plan_run *b)
{
    return !is_better(a, b) && !is_better(b, a);
}

static double weight_of(const struct mb_planner *planner, const struct mb_plan_run *run)
{
    double sum = 0;
    for (size_t k = 0; k < run->n; k++)
        sum += planner->matrices[run->at[k]].weight;
    return sum;
}

/* best[i]: the run that matrix i takes; others that equal it are further seeds. */
static void find_best(const struct mb_planner *planner, const struct mb_plan_run **best)
{
    for (size_t r = 0; r < planner->n_runs; r++)
        for (size_t k = 0; k < planner->runs[r].n; k++) {
            const struct mb_plan_run **at = &best[planner->runs[r].at[k]];
            if (*at == NULL || is_better(&planner->runs[r], *at))
                *at = &planner->runs[r];
        }
}

static void add_run(struct mb_planner *planner, const struct mb_plan_run *run,
                    const struct mb_plan_run *const *best, double *sums, size_t *n)
{
    const double weight = weight_of(planner, run);
    for (size_t k = 0; k < run->n; k++) {
        size_t i = run->at[k];
        if (!is_equal(run, best[i]))
            continue;
        double share = weight > 0 ? planner->matrices[i].weight / weight : 1 / (double)run->n;
        double kl = fmax(run->kl, KL_MIN) * share;
        sums[i] += kl / (run->fraction * run->fraction);
        n[i]++;
    }
}

static enum mb_status use_runs(struct mb_planner *planner, struct mb_error *err)
{
    size_t n_all = planner->n_matrices + 1;
    const struct mb_plan_run **best = calloc(n_all, sizeof(struct mb_plan_run *));
    double *sums = calloc(n_all, sizeof *sums);
    size_t *n = calloc(n_all, sizeof *n);
    enum mb_status status = MB_OK;
    if (best == NULL || sums == NULL || n == NULL)
        status = mb_fail_memory(err, "the sensitivities");
    else
        find_best(planner, best);
    for (size_t r = 0; r < planner->n_runs && status == MB_OK; r++)
        add_run(planner, &planner->runs[r], best, sums, n);
    for (size_t i = 0; i < planner->n_matrices && status == MB_OK; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (best[i] == NULL)
            continue;
        matrix->sensitivity = sums[i] / (double)n[i];
        matrix->run = (size_t)(best[i] - planner->runs);
        matrix->is_planned = true;
        planner->is_absolute = true;
        snprintf(matrix->reason, sizeof matrix->reason, "sweep, run %lld, %zu matrices",
                 (long long)best[i]->id, best[i]->n);
    }
    free(best);
    free(sums);
    free(n);
    return status;
}

/* ---------------------------------------------------------------- what was not measured, by effects */

/*
 * Effects compare experts of a layer with each other, the shared one too. With nothing measured, layers and
 * projections count alike.
 */
static void use_effects(struct mb_planner *planner)
{
    for (size_t i = 0; i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (!isnan(matrix->sensitivity) || matrix->role.projection == MB_PROJECTION_NONE)
            continue;
        double rate = rate_like(planner, matrix);
        if (isnan(rate) && planner->is_absolute)
            continue;
        if (isnan(rate)) {
            double n_weights = 0, effect = 0;
            for (size_t k = 0; k < planner->n_matrices; k++)
                if (is_alike(matrix, &planner->matrices[k])) {
                    n_weights += (double)planner->matrices[k].n_weights;
                    effect += planner->matrices[k].effect;
                }
            rate = effect > 0 ? n_weights / effect : 0;
        }
        matrix->sensitivity = rate * matrix->effect;
        snprintf(matrix->reason, sizeof matrix->reason, "~%s",
                 planner->options.moments != NULL ? "moments of its inputs" : "use of others in its layer");
    }
}

static void end_reasons(struct mb_planner *planner)
{
    for (size_t i = 0; i < planner->n_matrices; i++) {
        char *reason = planner->matrices[i].reason;
        if (reason[0] == '~')
            memmove(reason, reason + 1, strlen(reason));
        if (isnan(planner->matrices[i].sensitivity) && planner->matrices[i].is_planned)
            snprintf(reason, sizeof planner->matrices[i].reason, "not measured");
    }
}

/* ---------------------------------------------------------------- all of it */

static enum mb_status read_source(struct mb_planner *planner, const char *path, struct mb_error *err)
{
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".json") == 0 ? mb_plan_read_fisher(planner, path, err)
                                                       : mb_plan_read_sweep(planner, path, err);
}

enum mb_status mb_plan_sensitivities(struct mb_planner *planner, struct mb_error *err)
{
    MB_TRY(set_effects(planner, err));
    for (size_t i = 0; i < planner->options.n_sensitivities; i++)
        MB_TRY(read_source(planner, planner->options.sensitivities[i], err));
    if (planner->options.n_sensitivities == 0 && planner->options.moments == NULL)
        return MB_OK;
    set_weights(planner);
    MB_TRY(use_runs(planner, err));
    if (planner->has_gates)
        use_effects(planner);
    end_reasons(planner);
    return MB_OK;
}
