/*
 * policy_belady.c - what is needed again latest leaves (Belady's optimum).  Needs to know the future: of the
 * simulator alone.  With experts of one size no policy reads less.
 */
#include "policy.h"

static void touch(struct mb_policy *policy, size_t expert, float gate)
{
    (void)policy, (void)expert, (void)gate; /* the simulator sets the key */
}

void mb_policy_set_next_use(struct mb_policy *policy, size_t expert, uint64_t next)
{
    mb_policy_set_key(policy, expert, -(double)next);
}

const struct mb_policy_kind mb_policy_belady = {
    .info = {"belady", "what is needed again latest (the optimum, which knows the future)"}, .touch = touch};
