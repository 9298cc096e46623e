/*
 * policy_hobbit.c - HOBBIT's mixed score (arXiv:2411.01433): when an expert was last used, how often, with
 * how much weight, and how soon its layer is reached, all about one sequence and in equal parts.
 *
 * HOBBIT counts uses in high precision, which it chooses by gates, where there is one precision here: the
 * sum of gates takes that place.  It tunes the four weights for each model; here all are one quarter.
 */
#include "policy.h"

static void touch(struct mb_policy *policy, size_t expert, float gate)
{
    struct mb_policy_expert *e = &policy->experts[expert];
    (void)gate;
    e->count++;
    mb_policy_set_key(policy, expert, (double)(e->last_token - policy->first_token + 1) + e->count + e->gate);
}

static double score(const struct mb_policy *policy, double key, size_t n_ahead)
{
    double n_tokens = (double)(policy->token - policy->first_token + 1);
    return 0.25 * key / n_tokens + 0.25 * (1 - (double)n_ahead / (double)policy->n_layers);
}

const struct mb_policy_kind mb_policy_hobbit = {
    .info = {"hobbit", "a mixture of last use, uses, gates and layer in this sequence (HOBBIT's score)"},
    .touch = touch,
    .score = score,
    .is_of_sequence = true,
};
