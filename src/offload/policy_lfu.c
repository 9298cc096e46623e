/*
 * policy_lfu.c - the least frequently used leaves, all uses counting alike.
 */
#include "policy.h"

static void touch(struct mb_policy *policy, size_t expert, float gate)
{
    struct mb_policy_expert *e = &policy->experts[expert];
    (void)gate;
    e->count++;
    mb_policy_set_key(policy, expert, e->count * policy->value[expert]);
}

const struct mb_policy_kind mb_policy_lfu = {.info = {"lfu", "the least frequently used"}, .touch = touch};
