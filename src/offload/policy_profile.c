/*
 * policy_profile.c - lfru that knows beforehand which experts are used often.
 *
 * It begins as if the profile's uses had gone on for ever: an expert that every token uses with chance p then
 * has a count of p / (1 - 2^(-1/half_life)).  What really happens takes their place, by half each half-life.
 */
#include "policy.h"

static void open_profile(struct mb_policy *policy, const struct mb_policy_options *options)
{
    mb_policy_lfru.open(policy, options);
    double n_uses = 1 / (1 - 1 / policy->growth);
    for (size_t e = 0; e < policy->n_layers * policy->n_experts; e++) {
        policy->experts[e].count = options->usage[e] * n_uses;
        policy->experts[e].key = policy->experts[e].count * policy->value[e];
    }
}

static void begin_token(struct mb_policy *policy, uint64_t token)
{
    mb_policy_lfru.begin_token(policy, token);
}

static void touch(struct mb_policy *policy, size_t expert, float gate)
{
    mb_policy_lfru.touch(policy, expert, gate);
}

static double score(const struct mb_policy *policy, double key, size_t n_ahead)
{
    return mb_policy_lfru.score(policy, key, n_ahead);
}

const struct mb_policy_kind mb_policy_profile = {
    .info = {"profile", "as lfru, beginning with the uses of a usage profile"},
    .open = open_profile,
    .begin_token = begin_token,
    .touch = touch,
    .score = score,
    .needs_usage = true,
};
