/*
 * measure_routes.c - records the router's choices, and says how even they are and where they moved.
 */
#include "measure_routes.h"
#include "base/error.h"
#include "base/memory.h"
#include "measure.h"
#include "measure_rows.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- recording */

enum mb_status mb_routes_open(struct mb_routes *routes, const struct mb_model_info *info, size_t n_tokens,
                              struct mb_error *err)
{
    routes->n_tokens = n_tokens;
    routes->n_experts = info->n_experts;
    routes->n_layers = info->n_layers;
    routes->layers = mb_alloc(info->n_layers, sizeof *routes->layers);
    routes->routed = mb_alloc(info->n_layers, sizeof *routes->routed);
    return routes->layers != NULL && routes->routed != NULL ? MB_OK : mb_fail_memory(err, "the routes");
}

void mb_routes_close(struct mb_routes *routes)
{
    for (size_t l = 0; routes->layers != NULL && l < routes->n_layers; l++)
        for (int which = 0; which < 2; which++) {
            free(routes->layers[l].chosen[which]);
            free(routes->layers[l].load[which]);
            free(routes->layers[l].gate[which]);
        }
    free(routes->layers);
    free(routes->routed);
    *routes = (struct mb_routes){0};
}

uint64_t mb_routes_nbytes(const struct mb_routes *routes)
{
    uint64_t n = 0;
    for (size_t l = 0; l < routes->n_layers; l++)
        n += 2 * sizeof(uint16_t) * routes->layers[l].n_used * routes->n_tokens;
    return n;
}

/* The first choice of a layer says that it has experts. */
static enum mb_status add_layer(struct mb_routes *routes, size_t layer, size_t n_used, struct mb_error *err)
{
    struct mb_routed_layer *at = &routes->layers[layer];
    at->layer = layer;
    at->n_used = n_used;
    routes->routed[routes->n_routed++] = layer;
    for (int which = 0; which < 2; which++) {
        at->chosen[which] = mb_alloc(routes->n_tokens * (uint64_t)n_used, sizeof *at->chosen[which]);
        at->load[which] = mb_alloc(routes->n_experts, sizeof *at->load[which]);
        at->gate[which] = mb_alloc(routes->n_experts, sizeof *at->gate[which]);
        if (at->chosen[which] == NULL || at->load[which] == NULL || at->gate[which] == NULL)
            return mb_fail_memory(err, "the routes");
    }
    return MB_OK;
}

static enum mb_status record(struct mb_routes *routes, size_t token, size_t layer, const int32_t *experts,
                             const float *weights, size_t n, struct mb_error *err)
{
    struct mb_routed_layer *at = &routes->layers[layer];
    if (at->n_used == 0)
        MB_TRY(add_layer(routes, layer, n, err));
    uint16_t *chosen = at->chosen[routes->which] + token * n;
    for (size_t k = 0; k < n; k++) {
        size_t e = (size_t)experts[k];
        if (e >= routes->n_experts)
            return mb_fail(err, MB_UNSUPPORTED, "layer %zu has more experts than others: no routes of it",
                           layer);
        chosen[k] = (uint16_t)e;
        at->load[routes->which][e]++;
        at->gate[routes->which][e] += (double)weights[k];
    }
    return MB_OK;
}

void mb_routes_record(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                      size_t n_experts, float margin)
{
    const struct mb_route_place *place = ctx;
    struct mb_routes *routes = place->routes;
    (void)margin;
    if (routes->status == MB_OK)
        routes->status =
            record(routes, place->token_at + pos, layer, experts, weights, n_experts, &routes->err);
}

void mb_routes_begin_run(struct mb_routes *routes, size_t first_layer)
{
    routes->which = 1;
    for (size_t i = 0; i < routes->n_routed; i++) {
        struct mb_routed_layer *at = &routes->layers[routes->routed[i]];
        size_t n = routes->n_experts;
        if (at->layer < first_layer) { /* does not run: as in the clean pass */
            memcpy(at->chosen[1], at->chosen[0], routes->n_tokens * at->n_used * sizeof *at->chosen[1]);
            memcpy(at->load[1], at->load[0], n * sizeof *at->load[1]);
            memcpy(at->gate[1], at->gate[0], n * sizeof *at->gate[1]);
        } else {
            memset(at->load[1], 0, n * sizeof *at->load[1]);
            memset(at->gate[1], 0, n * sizeof *at->gate[1]);
        }
    }
}

/* ---------------------------------------------------------------- how even */

static int compare_counts(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* sum of |n_i - n_j| over i and j, of sorted counts: 2 sum (2i + 1 - E) n_i. */
static double gini(const uint64_t *sorted, size_t n, double total)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)(2 * i + 1) - (double)n) * (double)sorted[i];
    return sum / ((double)n * total);
}

enum mb_status mb_load_statistics(const uint64_t *load, size_t n_experts, struct mb_load_statistics *s,
                                  struct mb_error *err)
{
    *s = (struct mb_load_statistics){0, NAN, NAN, NAN};
    uint64_t *sorted = mb_alloc(n_experts, sizeof *sorted);
    if (sorted == NULL)
        return mb_fail_memory(err, "the load of experts");
    double total = 0, sum = 0, n = (double)n_experts;
    for (size_t i = 0; i < n_experts; i++) {
        sorted[i] = load[i];
        total += (double)load[i];
        s->utilisation += load[i] > 0 ? 1 / n : 0;
    }
    qsort(sorted, n_experts, sizeof *sorted, compare_counts);
    for (size_t i = 0; total > 0 && i < n_experts; i++)
        if (load[i] > 0)
            sum += (double)load[i] / total * mb_lab_ln((double)load[i] / total);
    if (total > 0) {
        s->entropy = n_experts > 1 ? -sum / mb_lab_ln(n) : 1;
        s->gini = gini(sorted, n_experts, total);
        s->imbalance = (double)sorted[n_experts - 1] * n / total;
    }
    free(sorted);
    return MB_OK;
}

/* ---------------------------------------------------------------- what moved */

static bool has(const uint16_t *set, size_t n, size_t expert)
{
    for (size_t k = 0; k < n; k++)
        if (set[k] == expert)
            return true;
    return false;
}

/* How many of a are not in b. */
static size_t count_new(const uint16_t *a, const uint16_t *b, size_t n)
{
    size_t n_new = 0;
    for (size_t k = 0; k < n; k++)
        n_new += has(b, n, a[k]) ? 0 : 1;
    return n_new;
}

static void add_shift(const struct mb_routes *routes, const struct mb_routed_layer *at,
                      struct mb_layer_routing *routing)
{
    size_t n_changed = 0, n_moved = 0, n = at->n_used;
    for (size_t t = 0; t < routes->n_tokens; t++) {
        size_t n_new = count_new(at->chosen[1] + t * n, at->chosen[0] + t * n, n);
        n_changed += n_new > 0 ? 1 : 0;
        n_moved += n_new;
    }
    routing->changed = (double)n_changed / (double)routes->n_tokens;
    routing->moved = (double)n_moved / (double)(routes->n_tokens * n);
}

static enum mb_status find_layer(const struct mb_measure *measure, size_t i, bool is_clean,
                                 const struct mb_routed_layer **at, struct mb_error *err)
{
    const struct mb_routes *routes = &measure->routes;
    if (i >= routes->n_routed)
        return mb_fail(err, MB_USAGE, "no routed layer %zu: %zu are recorded", i, routes->n_routed);
    if (!is_clean && !measure->has_run)
        return mb_fail(err, MB_USAGE, "no run has been measured");
    *at = &routes->layers[routes->routed[i]];
    return MB_OK;
}

size_t mb_measure_n_routed(const struct mb_measure *measure)
{
    return measure->routes.n_routed;
}

enum mb_status mb_measure_routing(const struct mb_measure *measure, size_t i, bool is_clean,
                                  struct mb_layer_routing *routing, struct mb_error *err)
{
    const struct mb_routed_layer *at;
    MB_TRY(find_layer(measure, i, is_clean, &at, err));
    int which = is_clean ? 0 : 1;
    *routing = (struct mb_layer_routing){.layer = at->layer,
                                         .n_experts = measure->routes.n_experts,
                                         .n_used = at->n_used,
                                         .n_tokens = measure->routes.n_tokens,
                                         .load = at->load[which],
                                         .gate = at->gate[which]};
    MB_TRY(mb_load_statistics(at->load[which], measure->routes.n_experts, &routing->statistics, err));
    if (!is_clean)
        add_shift(&measure->routes, at, routing);
    return MB_OK;
}

enum mb_status mb_measure_flow(const struct mb_measure *measure, size_t i, size_t expert, uint64_t *n_left,
                               uint64_t *n_joined, double *to, struct mb_error *err)
{
    const struct mb_routed_layer *at;
    MB_TRY(find_layer(measure, i, false, &at, err));
    if (expert >= measure->routes.n_experts)
        return mb_fail(err, MB_USAGE, "no expert %zu in layer %zu: it has %zu", expert, at->layer,
                       measure->routes.n_experts);
    *n_left = *n_joined = 0;
    memset(to, 0, measure->routes.n_experts * sizeof *to);
    for (size_t t = 0, n = at->n_used; t < measure->routes.n_tokens; t++) {
        const uint16_t *before = at->chosen[0] + t * n, *after = at->chosen[1] + t * n;
        bool was_there = has(before, n, expert), is_there = has(after, n, expert);
        *n_joined += is_there && !was_there ? 1 : 0;
        if (!was_there || is_there)
            continue;
        (*n_left)++;
        double share = 1 / (double)count_new(after, before, n);
        for (size_t k = 0; k < n; k++)
            to[after[k]] += has(before, n, after[k]) ? 0 : share;
    }
    return MB_OK;
}
