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
 * much is left when it is measured, as a power.
 */
static const double GAIN_LEFT = 0.9;

/* Sums over measured matrices. */
struct sums {
    double cost, unit; /* KL as costs add up: of the plan, and of plain rounding at a fraction of 1 */
    double log_error, n_weights;
};

static struct sums add_up(const struct mb_planner *planner)
{
    struct sums sums = {0};
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[i];
        double error = matrix->amplitude * matrix->fraction;
        if (!matrix->is_planned || isnan(matrix->sensitivity))
            continue;
        sums.cost += matrix->sensitivity * error * error;
        sums.unit += matrix->sensitivity;
        sums.log_error += (double)matrix->n_weights * log(error);
        sums.n_weights += (double)matrix->n_weights;
    }
    return sums;
}

/* The fraction of uniform plain rounding that is expected to cost as much. */
static double equal_fraction(const struct sums *sums)
{
    double uniform = exp(sums->log_error / sums->n_weights); /* of about the same size */
    double gain = sums->cost / (sums->unit * uniform * uniform);
    return uniform * sqrt(gain < 1 ? pow(gain, GAIN_LEFT) : gain);
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

/* A run that changed all routed experts and nothing else, by rounding or errors like it; NULL: there is none.
 */
static const struct mb_plan_run *find_anchor(const struct mb_planner *planner)
{
    size_t n = 0;
    for (size_t i = 0; i < planner->n_matrices; i++)
        n += planner->matrices[i].role.role == MB_ROLE_EXPERT &&
             planner->matrices[i].role.projection != MB_PROJECTION_NONE;
    for (size_t i = 0; i < planner->n_runs; i++)
        if (planner->runs[i].n == n && planner->runs[i].rank <= 1 && planner->runs[i].kl > 0)
            return &planner->runs[i];
    return NULL;
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
    struct sums sums = add_up(planner);
    if (!planner->is_absolute || sums.unit <= 0)
        return;
    double fraction = equal_fraction(&sums);
    const struct mb_plan_run *anchor = find_anchor(planner);
    *kl = anchor == NULL ? sums.unit * fraction * fraction
                         : mb_plan_measured(planner, anchor, fraction) * beside(planner, anchor, sums.unit);
    *low = *kl / (anchor == NULL ? SPREAD_ALONE_LOW : SPREAD);
    *high = *kl * (anchor == NULL ? SPREAD_ALONE_HIGH : SPREAD);
}
