/*
 * policy_frequency.c - looser for experts that are seldom used: bound ~ use^-1/2.  Use says little about what
 * an expert is worth (docs/findings.md).
 */
#include "base/error.h"
#include "planner.h"
#include <moebius/perturb.h>
#include <stdio.h>

static void set_layer(struct mb_planner *planner, const struct mb_profile_layer *layer)
{
    double sum = 0;
    for (size_t e = 0; e < layer->n_experts; e++)
        sum += (double)layer->n[e];
    for (size_t i = 0; i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        int expert = matrix->role.expert;
        if (matrix->role.layer != (int)layer->layer || expert < 0 || (size_t)expert >= layer->n_experts ||
            sum == 0)
            continue;
        double share = (double)layer->n[expert] * (double)layer->n_experts / sum;
        matrix->factor = 1 / sqrt(fmax(share, 0.01));
        snprintf(matrix->reason, sizeof matrix->reason, "used %.3g times the mean", share);
    }
}

static enum mb_status prepare(struct mb_planner *planner, struct mb_error *err)
{
    struct mb_profile *profile;
    if (planner->options.usage == NULL)
        return mb_fail(err, MB_USAGE,
                       "the policy 'frequency' needs a usage profile (moebius eval --profile-out makes one)");
    MB_TRY(mb_profile_load(planner->options.usage, planner->model_hash, &profile, err));
    for (size_t i = 0; i < planner->n_matrices; i++)
        planner->matrices[i].factor = 1;
    for (size_t i = 0; i < mb_profile_n_layers(profile); i++) {
        struct mb_profile_layer layer = mb_profile_layer(profile, i);
        set_layer(planner, &layer);
    }
    mb_profile_close(profile);
    mb_plan_clamp_factors(planner);
    return MB_OK;
}

const struct mb_plan_policy mb_plan_frequency = {"frequency", "looser for experts that are seldom used",
                                                 prepare, NULL};
