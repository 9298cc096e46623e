/*
 * dropped.c - experts that the router of a layer passes over.
 */
#include "base/error.h"
#include "base/memory.h"
#include "mlp.h"
#include "model.h"
#include <stdlib.h>

static size_t count_left(const bool *dropped, size_t first, size_t n)
{
    size_t n_left = 0;
    for (size_t e = first; e < first + n; e++)
        n_left += dropped[e] ? 0 : 1;
    return n_left;
}

static int compare_sizes(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* The experts that a token can choose from, whichever groups are the best: those of the emptiest groups. */
static size_t count_choosable(const struct mb_router_config *r, const bool *dropped)
{
    size_t n_left[MB_EXPERTS_MAX], n_groups = r->n_groups > 1 ? r->n_groups : 1, n = 0;
    for (size_t g = 0; g < n_groups; g++)
        n_left[g] = count_left(dropped, g * (r->n_experts / n_groups), r->n_experts / n_groups);
    qsort(n_left, n_groups, sizeof *n_left, compare_sizes);
    for (size_t g = 0; g < (n_groups > 1 ? r->n_groups_used : 1); g++)
        n += n_left[g];
    return n;
}

static enum mb_status drop(struct mb_layer *layer, size_t expert, struct mb_error *err)
{
    const struct mb_router_config *r = &layer->mlp->router;
    if (layer->dropped == NULL && (layer->dropped = mb_alloc(r->n_experts, sizeof *layer->dropped)) == NULL)
        return mb_fail_memory(err, "the list of dropped experts");
    if (layer->dropped[expert])
        return MB_OK;
    layer->dropped[expert] = true;
    size_t n = count_choosable(r, layer->dropped);
    if (n >= r->n_used)
        return MB_OK;
    layer->dropped[expert] = false;
    return mb_fail(err, MB_USAGE,
                   "expert %zu of layer %zu cannot be dropped: a token goes to %zu experts, and may find %zu",
                   expert, layer->index, r->n_used, n);
}

/* Without the list, routing costs nothing again. */
static void take_back(struct mb_layer *layer, size_t expert)
{
    if (layer->dropped == NULL)
        return;
    layer->dropped[expert] = false;
    size_t n_experts = layer->mlp->router.n_experts;
    if (count_left(layer->dropped, 0, n_experts) < n_experts)
        return;
    free(layer->dropped);
    layer->dropped = NULL;
}

enum mb_status mb_model_drop_expert(struct mb_model *model, size_t layer, size_t expert, bool is_dropped,
                                    struct mb_error *err)
{
    if (layer >= model->config.n_layers)
        return mb_fail(err, MB_USAGE, "no layer %zu: the model has %zu", layer, model->config.n_layers);
    struct mb_layer *at = &model->layers[layer];
    if (!at->mlp->kind->has_experts)
        return mb_fail(err, MB_USAGE, "layer %zu has no experts", layer);
    if (expert >= at->mlp->router.n_experts)
        return mb_fail(err, MB_USAGE, "no expert %zu in layer %zu: it has %zu", expert, layer,
                       at->mlp->router.n_experts);
    if (is_dropped)
        return drop(at, expert, err);
    take_back(at, expert);
    return MB_OK;
}
