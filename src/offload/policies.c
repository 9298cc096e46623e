/*
 * policies.c - the list of policies, and how one is opened.
 */
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "policy.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The default first; the list ends with NULL. */
static const struct mb_policy_kind *const kinds[] = {
    &mb_policy_blend,   &mb_policy_lfru,   &mb_policy_lru,     &mb_policy_lfu,
    &mb_policy_edgemoe, &mb_policy_hobbit, &mb_policy_profile, NULL,
};

enum { NAMES_NBYTES = 256 };

const struct mb_policy_info *mb_policy_info(size_t i)
{
    for (size_t k = 0; kinds[k] != NULL; k++)
        if (k == i)
            return &kinds[k]->info;
    return NULL;
}

static enum mb_status find_kind(const char *name, const struct mb_policy_kind **kind, struct mb_error *err)
{
    char names[NAMES_NBYTES] = "";
    for (size_t i = 0; kinds[i] != NULL; i++) {
        *kind = kinds[i];
        if (name == NULL || strcmp(name, kinds[i]->info.name) == 0)
            return MB_OK;
        size_t n = strlen(names);
        (void)snprintf(names + n, sizeof names - n, "%s%s", i == 0 ? "" : ", ", kinds[i]->info.name);
    }
    return mb_fail(err, MB_USAGE, "no policy \"%.32s\"; there are: %s", name, names);
}

static enum mb_status check(const struct mb_policy_kind *kind, const struct mb_policy_options *options,
                            struct mb_error *err)
{
    size_t n_layers = options->n_layers, n_experts = options->n_experts;
    if (n_layers == 0 || n_experts == 0 || n_experts > MB_POLICY_EXPERTS_MAX / n_layers)
        return mb_fail(err, MB_USAGE, "a policy for %zu layers of %zu experts: 1 to %d experts together",
                       n_layers, n_experts, MB_POLICY_EXPERTS_MAX);
    if (kind->needs_usage && options->usage == NULL)
        return mb_fail(err, MB_USAGE, "the policy \"%s\" needs a usage profile", kind->info.name);
    for (size_t e = 0; options->usage != NULL && e < n_layers * n_experts; e++)
        if (!(options->usage[e] >= 0 && options->usage[e] <= 1))
            return mb_fail(err, MB_USAGE, "layer %zu: expert %zu: usage has to be from 0 to 1", e / n_experts,
                           e % n_experts);
    return MB_OK;
}

static enum mb_status allocate(struct mb_policy *policy, const struct mb_policy_options *options,
                               struct mb_error *err)
{
    size_t n = options->n_layers * options->n_experts;
    policy->n_layers = options->n_layers;
    policy->n_experts = options->n_experts;
    policy->experts = mb_alloc(n, sizeof *policy->experts);
    policy->value = mb_alloc(n, sizeof *policy->value);
    policy->n_loaded = mb_alloc(policy->n_layers, sizeof *policy->n_loaded);
    policy->lowest = mb_alloc(policy->n_layers, sizeof *policy->lowest);
    policy->layer_token = mb_alloc(policy->n_layers, sizeof *policy->layer_token);
    if (policy->experts == NULL || policy->value == NULL || policy->n_loaded == NULL ||
        policy->lowest == NULL || policy->layer_token == NULL)
        return mb_fail_memory(err, "a policy");
    for (size_t l = 0; l < policy->n_layers; l++)
        policy->lowest[l] = MB_LOWEST_UNKNOWN;
    for (size_t e = 0; e < n; e++)
        policy->value[e] = options->nbytes == NULL || options->nbytes[e] == 0
                               ? 1
                               : 1 + (double)options->request_nbytes / (double)options->nbytes[e];
    return MB_OK;
}

enum mb_status mb_policy_open_kind(const struct mb_policy_kind *kind, const struct mb_policy_options *options,
                                   struct mb_policy **policy, struct mb_error *err)
{
    MB_TRY(check(kind, options, err));
    *policy = calloc(1, sizeof **policy);
    if (*policy == NULL)
        return mb_fail_memory(err, "a policy");
    (*policy)->kind = kind;
    enum mb_status status = allocate(*policy, options, err);
    if (status == MB_OK && kind->open != NULL)
        kind->open(*policy, options);
    if (status != MB_OK) {
        mb_policy_close(*policy);
        *policy = NULL;
    }
    return status;
}

enum mb_status mb_policy_open(const char *name, const struct mb_policy_options *given,
                              struct mb_policy **policy, struct mb_error *err)
{
    struct mb_policy_options options;
    const struct mb_policy_kind *kind;
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    MB_TRY(find_kind(name, &kind, err));
    return mb_policy_open_kind(kind, &options, policy, err);
}

void mb_policy_close(struct mb_policy *policy)
{
    if (policy == NULL)
        return;
    free(policy->experts);
    free(policy->value);
    free(policy->n_loaded);
    free(policy->lowest);
    free(policy->layer_token);
    free(policy);
}
