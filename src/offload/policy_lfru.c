/*
 * policy_lfru.c - the least frequently used leaves, where old uses count less: half after half_life tokens.
 *
 * Counts are not decayed; instead a use counts more from token to token, and all is scaled down when that
 * becomes large.  Powers by square roots and products alone: the same bits on every machine.
 */
#include "policy.h"
#include <math.h>

/* Tokens that pass at once count as at most so many half-lives: 2^-64 of a use is nothing. */
enum { HALF_LIFE = 256, HALF_LIFE_MAX = 1 << 30, N_HALVES_MAX = 64 };

static void open_lfru(struct mb_policy *policy, const struct mb_policy_options *options)
{
    unsigned half_life = options->half_life > 0 ? options->half_life : HALF_LIFE;
    policy->unit = 1;
    policy->growth = 2;
    for (policy->half_life = 1; policy->half_life < half_life && policy->half_life < HALF_LIFE_MAX;
         policy->half_life *= 2)
        policy->growth = sqrt(policy->growth);
}

static void begin_token(struct mb_policy *policy, uint64_t token)
{
    double power = policy->growth;
    uint64_t n = token - policy->token, n_max = (uint64_t)N_HALVES_MAX * policy->half_life;
    for (n = n < n_max ? n : n_max; n > 0; n >>= 1) {
        policy->unit *= (n & 1) != 0 ? power : 1;
        power *= power;
    }
    if (policy->unit > 0x1p200) {
        mb_policy_scale(policy, 0x1p-200);
        policy->unit *= 0x1p-200;
    }
}

static void touch(struct mb_policy *policy, size_t expert, float gate)
{
    struct mb_policy_expert *e = &policy->experts[expert];
    (void)gate;
    e->count += policy->unit;
    mb_policy_set_key(policy, expert, e->count * policy->value[expert]);
}

/*
 * Layers that the present token has not reached yet had one token less to be used by: their uses are compared
 * as if it were still the token before.  So experts that every token uses are equal, and the order of layers
 * decides between them.
 */
static double score(const struct mb_policy *policy, double key, size_t n_ahead)
{
    bool is_passed = n_ahead >= policy->n_layers - policy->layer;
    return is_passed ? key : key * policy->growth;
}

const struct mb_policy_kind mb_policy_lfru = {
    .info = {"lfru", "the least frequently used, where old uses count less"},
    .open = open_lfru,
    .begin_token = begin_token,
    .touch = touch,
    .score = score,
};
