/*
 * policy_edgemoe.c - what is rarely used and needed latest leaves: EdgeMoE's score (arXiv:2308.14352), uses
 * over the number of layers until the expert's own is reached.
 *
 * Its frequencies are measured beforehand; here they are those since the policy was opened.
 */
#include "policy.h"

static void touch(struct mb_policy *policy, size_t expert, float gate)
{
    (void)gate;
    mb_policy_set_key(policy, expert, ++policy->experts[expert].count);
}

static double score(const struct mb_policy *policy, double key, size_t n_ahead)
{
    (void)policy;
    return key / (double)n_ahead;
}

const struct mb_policy_kind mb_policy_edgemoe = {
    .info = {"edgemoe", "few uses, and a layer that is reached late (EdgeMoE's score)"},
    .touch = touch,
    .score = score,
};
