/*
 * policy_blend.c - what is likely to be used soon stays: uses in the long run and uses of the last tokens,
 * over the number of layers until the expert's own is reached.
 *
 * Popularity alone loses where an expert is used again at once, recency alone where memory is smaller than
 * what one token needs, and both where they do not know that layers come in a circle.  'count' is the share
 * of tokens that use an expert, where a token counts half after half_life more; 'recent' is 1 for a use by
 * this token, 1/2 by the one before, and so on.  The weights of both were chosen on traces of two trained
 * models and on routing by chance (docs/offload.md).
 *
 * Each layer has its own clock, which a token's first use in it moves on: so layers that a token has not
 * reached yet are not older than those that it has passed.
 */
#include "policy.h"
#include <math.h>

/* Tokens that pass at once count as at most so many: 2^-1000 of a use is nothing. */
enum { HALF_LIFE = 256, HALF_LIFE_MAX = 1 << 20, N_HALVES_MAX = 64 };
static const double recent_weight = 1.0 / 16;

static void set_key(struct mb_policy *policy, size_t expert)
{
    const struct mb_policy_expert *e = &policy->experts[expert];
    mb_policy_set_key(policy, expert, (e->count + recent_weight * e->recent) * policy->value[expert]);
}

/* What a profile says is what was so far. */
static void open_blend(struct mb_policy *policy, const struct mb_policy_options *options)
{
    unsigned half_life = options->half_life > 0 ? options->half_life : HALF_LIFE;
    policy->growth = 0.5;
    for (policy->half_life = 1; policy->half_life < half_life && policy->half_life < HALF_LIFE_MAX;
         policy->half_life *= 2)
        policy->growth = sqrt(policy->growth);
    for (size_t e = 0; options->usage != NULL && e < policy->n_layers * policy->n_experts; e++) {
        policy->experts[e].count = options->usage[e];
        set_key(policy, e);
    }
}

/* Products alone: the same bits on every machine. */
static double power(double x, uint64_t n)
{
    double product = 1;
    for (; n > 0; n >>= 1) {
        product *= (n & 1) != 0 ? x : 1;
        x *= x;
    }
    return product;
}

static void move_clock(struct mb_policy *policy, size_t layer)
{
    uint64_t n = policy->token - policy->layer_token[layer],
             n_max = (uint64_t)N_HALVES_MAX * policy->half_life;
    double slow = power(policy->growth, n < n_max ? n : n_max), fast = power(0.5, n < 1000 ? n : 1000);
    policy->layer_token[layer] = policy->token;
    for (size_t e = layer * policy->n_experts; e < (layer + 1) * policy->n_experts; e++) {
        policy->experts[e].count *= slow;
        policy->experts[e].recent *= fast;
        set_key(policy, e);
    }
}

static void touch(struct mb_policy *policy, size_t expert, float gate)
{
    (void)gate;
    if (policy->layer_token[policy->layer] != policy->token)
        move_clock(policy, policy->layer);
    policy->experts[expert].count += 1 - policy->growth;
    policy->experts[expert].recent += 1;
    set_key(policy, expert);
}

static double score(const struct mb_policy *policy, double key, size_t n_ahead)
{
    (void)policy;
    return key / (double)n_ahead;
}

const struct mb_policy_kind mb_policy_blend = {
    .info = {"blend", "few uses lately and in the long run, and a layer that is reached late"},
    .open = open_blend,
    .touch = touch,
    .score = score,
};

const struct mb_policy_kind mb_policy_profile = {
    .info = {"profile", "as blend, beginning with the uses of a usage profile"},
    .open = open_blend,
    .touch = touch,
    .score = score,
    .needs_usage = true,
};
