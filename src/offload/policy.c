/*
 * policy.c - what all policies have in common: who is in memory, and which of them is worth the least.
 */
#include "policy.h"

static size_t layer_of(const struct mb_policy *policy, size_t expert)
{
    return expert / policy->n_experts;
}

/* How far the pass has to go until it is in this layer again: the present one comes last. */
static size_t n_ahead(const struct mb_policy *policy, size_t layer)
{
    size_t n = (layer + policy->n_layers - policy->layer) % policy->n_layers;
    return n == 0 ? policy->n_layers : n;
}

static double score_of(const struct mb_policy *policy, size_t expert)
{
    double key = policy->experts[expert].key;
    return policy->kind->score == NULL
               ? key
               : policy->kind->score(policy, key, n_ahead(policy, layer_of(policy, expert)));
}

/* Within a layer: by key, then who was used before the other, then by number. */
static bool is_lower_in_layer(const struct mb_policy *policy, size_t a, size_t b)
{
    const struct mb_policy_expert *x = &policy->experts[a], *y = &policy->experts[b];
    if (x->key != y->key)
        return x->key < y->key;
    return x->at != y->at ? x->at < y->at : a < b;
}

/*
 * Between layers: by score; among equals the one whose layer is furthest ahead leaves first.  A token passes
 * all layers in a circle, so what has just been used is needed last: this keeps a part of a circle that does
 * not fit, where the least recently used would throw out each expert just before it is needed.
 */
static bool is_lower(const struct mb_policy *policy, size_t a, size_t b)
{
    size_t layer_a = layer_of(policy, a), layer_b = layer_of(policy, b);
    if (layer_a == layer_b)
        return is_lower_in_layer(policy, a, b);
    double x = score_of(policy, a), y = score_of(policy, b);
    return x != y ? x < y : n_ahead(policy, layer_a) > n_ahead(policy, layer_b);
}

/* The lowest expert in memory of a layer that may leave; MB_NO_EXPERT: none may. */
static size_t find_lowest(const struct mb_policy *policy, size_t layer, mb_policy_may_evict_fn may_evict,
                          void *ctx)
{
    size_t lowest = MB_NO_EXPERT, first = layer * policy->n_experts;
    for (size_t e = first; e < first + policy->n_experts; e++)
        if (policy->experts[e].is_loaded &&
            (lowest == MB_NO_EXPERT || is_lower_in_layer(policy, e, lowest)) &&
            (may_evict == NULL || may_evict(ctx, e)))
            lowest = e;
    return lowest;
}

/* Of a layer that has some in memory. */
static size_t lowest_of(struct mb_policy *policy, size_t layer)
{
    size_t first = layer * policy->n_experts;
    if (policy->lowest[layer] == MB_LOWEST_UNKNOWN)
        policy->lowest[layer] = (int32_t)(find_lowest(policy, layer, NULL, NULL) - first);
    return first + (size_t)policy->lowest[layer];
}

size_t mb_policy_victim(struct mb_policy *policy, mb_policy_may_evict_fn may_evict, void *ctx)
{
    size_t victim = MB_NO_EXPERT;
    for (size_t layer = 0; layer < policy->n_layers; layer++) {
        if (policy->n_loaded[layer] == 0)
            continue;
        size_t e = lowest_of(policy, layer);
        if (victim != MB_NO_EXPERT && !is_lower(policy, e, victim))
            continue;
        if (may_evict != NULL && !may_evict(ctx, e))
            e = find_lowest(policy, layer, may_evict, ctx);
        if (e != MB_NO_EXPERT && (victim == MB_NO_EXPERT || is_lower(policy, e, victim)))
            victim = e;
    }
    return victim;
}

bool mb_policy_prefers(const struct mb_policy *policy, size_t expert, size_t other)
{
    return expert != other && is_lower(policy, other, expert);
}

/* ---------------------------------------------------------------- what happens */

/* An expert became worth less (or came in) or more. */
static void update_lowest(struct mb_policy *policy, size_t expert)
{
    size_t layer = layer_of(policy, expert);
    int32_t *lowest = &policy->lowest[layer], at = (int32_t)(expert - layer * policy->n_experts);
    if (!policy->experts[expert].is_loaded || *lowest == MB_LOWEST_UNKNOWN)
        return;
    if (*lowest == at)
        *lowest = MB_LOWEST_UNKNOWN;
    else if (is_lower_in_layer(policy, expert, layer * policy->n_experts + (size_t)*lowest))
        *lowest = at;
}

void mb_policy_set_key(struct mb_policy *policy, size_t expert, double key)
{
    policy->experts[expert].key = key;
    update_lowest(policy, expert);
}

void mb_policy_scale(struct mb_policy *policy, double factor)
{
    for (size_t e = 0; e < policy->n_layers * policy->n_experts; e++) {
        policy->experts[e].count *= factor;
        policy->experts[e].key *= factor;
    }
    for (size_t l = 0; l < policy->n_layers; l++)
        policy->lowest[l] = MB_LOWEST_UNKNOWN; /* what became 0 is ordered by other things */
}

void mb_policy_touch(struct mb_policy *policy, size_t expert, float gate, uint64_t token)
{
    struct mb_policy_expert *e = &policy->experts[expert];
    if (policy->n_touches == 0)
        policy->token = policy->first_token = token;
    if (token > policy->token) {
        if (policy->kind->begin_token != NULL)
            policy->kind->begin_token(policy, token);
        policy->token = token;
    }
    policy->layer = layer_of(policy, expert);
    e->at = ++policy->n_touches;
    e->last_token = policy->token;
    if (gate > 0 && gate < 0x1p20F)
        e->gate += (double)gate;
    policy->kind->touch(policy, expert, gate);
}

void mb_policy_loaded(struct mb_policy *policy, size_t expert)
{
    struct mb_policy_expert *e = &policy->experts[expert];
    if (e->is_loaded)
        return;
    e->is_loaded = true;
    if (policy->n_loaded[layer_of(policy, expert)]++ == 0)
        policy->lowest[layer_of(policy, expert)] = MB_LOWEST_UNKNOWN;
    else
        update_lowest(policy, expert);
}

void mb_policy_evicted(struct mb_policy *policy, size_t expert)
{
    struct mb_policy_expert *e = &policy->experts[expert];
    if (!e->is_loaded)
        return;
    e->is_loaded = false;
    policy->n_loaded[layer_of(policy, expert)]--;
    policy->lowest[layer_of(policy, expert)] = MB_LOWEST_UNKNOWN;
}

void mb_policy_begin_sequence(struct mb_policy *policy)
{
    if (!policy->kind->is_of_sequence)
        return;
    for (size_t i = 0; i < policy->n_layers * policy->n_experts; i++) {
        struct mb_policy_expert *e = &policy->experts[i];
        e->key = e->count = e->gate = 0;
        e->last_token = 0;
    }
    policy->first_token = policy->token + 1;
    for (size_t l = 0; l < policy->n_layers; l++)
        policy->lowest[l] = MB_LOWEST_UNKNOWN;
}
