/*
 * policy_lru.c - the least recently used leaves.
 *
 * For comparison: where memory has room for less than one token's experts of all layers, each expert leaves
 * just before it is needed again, and nothing is ever found in memory.
 */
#include "policy.h"

static void touch(struct mb_policy *policy, size_t expert, float gate)
{
    (void)gate;
    mb_policy_set_key(policy, expert, (double)policy->n_touches);
}

const struct mb_policy_kind mb_policy_lru = {.info = {"lru", "the least recently used"}, .touch = touch};
