/*
 * policy_depth.c - by thirds of the depth, as arXiv:2509.07727 advises: strict in the middle, loose
 * elsewhere.
 */
#include "base/error.h"
#include "planner.h"
#include <stdio.h>

static const double USUAL[3] = {1.4, 0.6, 1.4};

static enum mb_status prepare(struct mb_planner *planner, struct mb_error *err)
{
    static const char *const names[3] = {"shallow", "middle", "deep"};
    const double *given = planner->options.depth;
    bool is_given = given[0] != 0 || given[1] != 0 || given[2] != 0;
    for (int i = 0; i < 3 && is_given; i++)
        if (!(given[i] >= MB_PLAN_FRACTION_MIN && given[i] <= MB_PLAN_FRACTION_MAX))
            return mb_fail(err, MB_USAGE, "depth: the bound of %s layers is not between 1 %% and 512 %%",
                           names[i]);
    for (size_t i = 0; i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        int third = matrix->role.layer < 0 ? 2 : (6 * matrix->role.layer + 3) / (2 * planner->n_layers);
        matrix->factor = (is_given ? given : USUAL)[third];
        snprintf(matrix->reason, sizeof matrix->reason, "%s layer", names[third]);
    }
    return MB_OK;
}

const struct mb_plan_policy mb_plan_depth = {"depth", "strict in the middle of the depth, loose elsewhere",
                                             prepare, NULL};
