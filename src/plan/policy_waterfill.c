/*
 * policy_waterfill.c - reverse water-filling: each weight's error costs the same KL.
 *
 * A matrix of n weights and sensitivity s costs s f^2 at the fraction f, and one bit a weight for each
 * halving of f.  The sum of costs at a size is least where s f^2 / n is the same everywhere.
 */
#include "base/error.h"
#include "planner.h"

static double factor_of(const struct mb_plan_matrix *matrix)
{
    double each = matrix->sensitivity * matrix->amplitude * matrix->amplitude / (double)matrix->n_weights;
    return 1 / sqrt(fmax(each, 1e-30));
}

static enum mb_status prepare(struct mb_planner *planner, struct mb_error *err)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (!matrix->is_planned || isnan(matrix->sensitivity))
            continue;
        sum += log(factor_of(matrix));
        n++;
    }
    if (n == 0)
        return mb_fail(err, MB_USAGE,
                       "the policy 'waterfill' needs sensitivities of experts or other matrices, or moments");
    for (size_t i = 0; i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        matrix->factor = isnan(matrix->sensitivity) ? exp(sum / (double)n) : factor_of(matrix);
    }
    mb_plan_clamp_factors(planner);
    return MB_OK;
}

const struct mb_plan_policy mb_plan_waterfill = {"waterfill", "equal weighted distortion", prepare, NULL};
