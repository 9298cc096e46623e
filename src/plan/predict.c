/*
 * predict.c - the KL of a plan, before it is measured.
 *
 * Costs of single matrices add up while errors are small, and more than that later (docs/findings.md).  So a
 * plan is compared with uniform bounds of the same sum of costs, of which the results hold measurements: runs
 * that changed all routed experts.
 */
#include "planner.h"

/*
 * How far single predictions may be off: with such runs, where random plans were within 2.1 times
 * (docs/plan.md), and without, which was not measured.
 */
static const double SPREAD = 2.5, SPREAD_ALONE_LOW = 3, SPREAD_ALONE_HIGH = 5;

/*
 * What a policy takes for little sensitivity is partly chance: of a predicted gain over uniform bounds so
 * much is left when it is measured, as a power: with plain rounding, and with feedback.
 */
static const double GAIN_LEFT = 0.9, GAIN_LEFT_FED = 0.7;

/* KL as costs add up: of the plan, or where 'uniform' is not 0 of this fraction for all, and of plain
 * rounding at 1. */
static double cost(const struct mb_planner *planner, double uniform, double *unit)
{
    double sum = 0;
    *unit = 0;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (!matrix->is_planned || isnan(matrix->sensitivity))
            continue;
        double error = matrix->amplitude * matrix->column_share * (uniform != 0 ? uniform : matrix->fraction);
        sum += matrix->sensitivity * error * error;
        *unit += matrix->sensitivity;
    }
    return sum;
}

/* The uniform fraction of about the same size. */
static double mean_fraction(const struct mb_planner *planner)
{
    double sum = 0, n_weights = 0;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (!matrix->is_planned || isnan(matrix->sensitivity))
            continue;
        sum += (double)matrix->n_weights * log(matrix->fraction);
        n_weights += (double)matrix->n_weights;
    }
    return exp(sum / n_weights);
}

/* The fraction of uniform plain rounding that is expected to cost as much. */
static double equal_fraction(const struct mb_planner *planner, double *unit)
{
    double uniform = cost(planner, mean_fraction(planner), unit);
    double gain = cost(planner, 0, unit) / uniform;
    double left = planner->options.rounder == NULL ? GAIN_LEFT : GAIN_LEFT_FED;
    return sqrt(uniform / *unit * (gain < 1 ? pow(gain, left) : gain));
}

static bool is_alike(const struct mb_plan_run *a, const struct mb_plan_run *b)
{
    return a->n == b->n && a->rank <= 1 && a->kl > 0 && a->at[0] == b->at[0] &&
           a->at[a->n - 1] == b->at[b->n - 1];
}

/* Between two runs along logarithms; beyond them KL grows as the square of the error. */
static double interpolated(const struct mb_plan_run *below, const struct mb_plan_run *above, double fraction)
{
    const struct mb_plan_run *one = below != NULL ? below : above;
    if (below == NULL || above == NULL || above->kl <= below->kl)
        return one->kl * (fraction / one->fraction) * (fraction / one->fraction);
    double share = log(fraction / below->fraction) / log(above->fraction / below->fraction);
    return below->kl * pow(above->kl / below->kl, share);
}

double mb_plan_measured(const struct mb_planner *planner, const struct mb_plan_run *like, double fraction)
{
    const struct mb_plan_run *below = NULL, *above = NULL;
    for (size_t i = 0; i < planner->n_runs; i++) {
        const struct mb_plan_run *run = &planner->runs[i];
        if (!is_alike(run, like))
            continue;
        if (run->fraction <= fraction && (below == NULL || run->fraction > below->fraction))
            below = run;
        if (run->fraction > fraction && (above == NULL || run->fraction < above->fraction))
            above = run;
    }
    return below == NULL && above == NULL ? like->kl * pow(fraction / like->fraction, 2)
                                          : interpolated(below, above, fraction);
}

/*
 * A run that changed all routed experts, or all shared ones too, and nothing else, by rounding or errors like
 * it; NULL: there is none.
 */
static const struct mb_plan_run *find_anchor(const struct mb_planner *planner)
{
    const struct mb_plan_run *found = NULL;
    size_t n_routed = 0, n_shared = 0;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_tensor_role *role = &planner->matrices[i].role;
        n_routed += role->role == MB_ROLE_EXPERT && role->projection != MB_PROJECTION_NONE;
        n_shared += role->role == MB_ROLE_SHARED_EXPERT && role->projection != MB_PROJECTION_NONE;
    }
    for (size_t i = 0; i < planner->n_runs; i++) {
        const struct mb_plan_run *run = &planner->runs[i];
        if ((run->n == n_routed || run->n == n_routed + n_shared) && run->rank <= 1 && run->kl > 0 &&
            (found == NULL || run->n > found->n))
            found = run;
    }
    return found;
}

/* What a plan changes beside the experts of the runs, by its share of all sensitivity. */
static double beside(const struct mb_planner *planner, const struct mb_plan_run *anchor, double unit)
{
    double sum = 0;
    for (size_t k = 0; k < anchor->n; k++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[anchor->at[k]];
        sum += matrix->is_planned && !isnan(matrix->sensitivity) ? matrix->sensitivity : 0;
    }
    return sum > 0 ? unit / sum : 1;
}

void mb_plan_predict(const struct mb_planner *planner, double *kl, double *low, double *high)
{
    *kl = *low = *high = NAN;
    double unit, fraction = equal_fraction(planner, &unit);
    if (!planner->is_absolute || !(unit > 0))
        return;
    const struct mb_plan_run *anchor = find_anchor(planner);
    *kl = anchor == NULL ? unit * fraction * fraction
                         : mb_plan_measured(planner, anchor, fraction) * beside(planner, anchor, unit);
    *low = *kl / (anchor == NULL ? SPREAD_ALONE_LOW : SPREAD);
    *high = *kl * (anchor == NULL ? SPREAD_ALONE_HIGH : SPREAD);
}
