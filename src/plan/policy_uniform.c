/*
 * policy_uniform.c - the same bound, relative to the mean absolute weight, for all.
 */
#include "planner.h"

static enum mb_status prepare(struct mb_planner *planner, struct mb_error *err)
{
    (void)err;
    for (size_t i = 0; i < planner->n_matrices; i++)
        planner->matrices[i].factor = 1;
    return MB_OK;
}

const struct mb_plan_policy mb_plan_uniform = {"uniform", "the same bound for all", prepare, NULL};
