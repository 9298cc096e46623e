/*
 * roles.h - what this part asks about names beside mb_role_of.
 */
#ifndef MB_CHECKPOINT_ROLES_H
#define MB_CHECKPOINT_ROLES_H

#include <moebius/checkpoint.h>

/* A matrix of a linear layer outside of experts: attention, dense MLPs, lm_head. */
bool mb_is_linear_name(const char *name);

bool mb_name_ends_with(const char *name, const char *end);

#endif
