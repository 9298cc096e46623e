/*
 * factors.c - relative bounds of policies, kept within limits.
 */
#include "planner.h"

/* The mean of their logarithms over weights. */
static double mean_log(const struct mb_planner *planner)
{
    double sum = 0, n = 0;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        const struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (!matrix->is_planned)
            continue;
        sum += (double)matrix->n_weights * log(matrix->factor);
        n += (double)matrix->n_weights;
    }
    return n > 0 ? sum / n : 0;
}

/* What is cut off moves the mean, so it is done until that is where it was. */
void mb_plan_clamp_factors(struct mb_planner *planner)
{
    for (int round = 0; round < 20; round++) {
        double mean = exp(mean_log(planner));
        for (size_t i = 0; i < planner->n_matrices; i++) {
            struct mb_plan_matrix *matrix = &planner->matrices[i];
            matrix->factor = fmin(fmax(matrix->factor / mean, MB_PLAN_FACTOR_MIN), MB_PLAN_FACTOR_MAX);
        }
    }
}
