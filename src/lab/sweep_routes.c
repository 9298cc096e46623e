/*
 * sweep_routes.c - what the router did in a run: the load of each expert, and where that of changed ones
 * went.
 */
#include "base/error.h"
#include "base/memory.h"
#include "sweep_work.h"
#include <math.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- load */

static void put_layer(struct mb_sweep_row *row, const struct mb_layer_routing *layer)
{
    row->routing[row->n_routing++] = (struct mb_result_routing){.layer = (int)layer->layer,
                                                                .n_tokens = layer->n_tokens,
                                                                .utilisation = layer->statistics.utilisation,
                                                                .entropy = layer->statistics.entropy,
                                                                .gini = layer->statistics.gini,
                                                                .imbalance = layer->statistics.imbalance,
                                                                .changed = layer->changed,
                                                                .moved = layer->moved};
    for (size_t i = 0; i < layer->n_experts; i++)
        row->loads[row->n_loads++] = (struct mb_result_load){
            .layer = (int)layer->layer,
            .expert = (int)i,
            .n = layer->load[i],
            .gate = layer->load[i] == 0 ? NAN : layer->gate[i] / (double)layer->load[i]};
}

static enum mb_status put_routing(const struct mb_sweep_work *work, struct mb_sweep_row *row,
                                  struct mb_error *err)
{
    size_t n_layers = mb_measure_n_routed(work->measure);
    double changed = 0, n_tokens = 0;
    struct mb_layer_routing layer;
    if (n_layers == 0)
        return MB_OK;
    row->routing = malloc(n_layers * sizeof *row->routing);
    row->loads = malloc(n_layers * mb_model_info(work->model)->n_experts * sizeof *row->loads);
    if (row->routing == NULL || row->loads == NULL)
        return mb_fail_memory(err, "the router's choices");
    for (size_t i = 0; i < n_layers; i++) {
        MB_TRY(mb_measure_routing(work->measure, i, false, &layer, err));
        put_layer(row, &layer);
        changed += layer.changed * (double)layer.n_tokens;
        n_tokens += (double)layer.n_tokens;
    }
    mb_sweep_row_value(row, "route_changed", changed / n_tokens, NAN, NAN, (uint64_t)n_tokens);
    return MB_OK;
}

/* ---------------------------------------------------------------- where load went */

static bool has_changed(const struct mb_sweep_change *change, size_t layer, size_t n_experts)
{
    for (size_t e = 0; e < n_experts; e++)
        if (change->has_expert[layer * n_experts + e])
            return true;
    return false;
}

/* Rows of one layer with changed experts; 'to' has room for its experts. */
static enum mb_status put_flow(const struct mb_sweep_work *work, const struct mb_sweep_change *change,
                               size_t i, size_t layer, size_t n_experts, double *to, struct mb_sweep_row *row,
                               struct mb_error *err)
{
    struct mb_result_flow *rows = row->flows + row->n_flows;
    for (size_t e = 0; e < n_experts; e++) {
        struct mb_result_flow *flow = &rows[e];
        flow->layer = (int)layer;
        flow->expert = (int)e;
        flow->is_changed = change->has_expert[layer * n_experts + e];
        MB_TRY(mb_measure_flow(work->measure, i, e, &flow->n_left, &flow->n_joined, to, err));
        for (size_t k = 0; k < n_experts && flow->is_changed; k++)
            rows[k].n_got += to[k];
    }
    row->n_flows += n_experts;
    return MB_OK;
}

static enum mb_status put_flows(const struct mb_sweep_work *work, const struct mb_sweep_change *change,
                                double *to, struct mb_sweep_row *row, struct mb_error *err)
{
    struct mb_layer_routing layer;
    for (size_t i = 0; i < mb_measure_n_routed(work->measure); i++) {
        MB_TRY(mb_measure_routing(work->measure, i, true, &layer, err));
        if (has_changed(change, layer.layer, layer.n_experts))
            MB_TRY(put_flow(work, change, i, layer.layer, layer.n_experts, to, row, err));
    }
    return MB_OK;
}

enum mb_status mb_sweep_measure_routes(struct mb_sweep_work *work, const struct mb_sweep_change *change,
                                       struct mb_sweep_row *row, struct mb_error *err)
{
    size_t n = mb_model_info(work->model)->n_experts;
    MB_TRY(put_routing(work, row, err));
    if (change->has_expert == NULL)
        return MB_OK;
    row->flows = mb_alloc(mb_measure_n_routed(work->measure) * n, sizeof *row->flows);
    double *to = mb_alloc(n, sizeof *to);
    enum mb_status status = row->flows == NULL || to == NULL ? mb_fail_memory(err, "the router's choices")
                                                             : put_flows(work, change, to, row, err);
    free(to);
    return status;
}
