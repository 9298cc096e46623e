/*
 * bench_routing.c - the option --routing of "bench".
 *
 * Random weights route evenly, and a model of fewer layers routes as no real one.  So the tokens of a trace,
 * which has the statistics that are wanted, say which experts are read and multiplied; when the trace ends it
 * begins again.  Guesses are right by chance, token by token the same in each run; a wrong one is what
 * another token of the trace uses there, as in "simulate --lookahead".
 */
#include "bench_routing.h"
#include "base/error.h"
#include "base/splitmix.h"
#include <math.h>
#include <moebius/offload.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_routing {
    struct mb_trace *trace;
    size_t *place; /* [layers of the model] where a layer is in the trace; SIZE_MAX: it has no experts */
    double right;
};

static uint64_t mix(uint64_t x)
{
    return mb_splitmix_next(&x);
}

static const uint16_t *used_by(const struct bench_routing *routing, uint64_t token, size_t place)
{
    const size_t n_used = mb_trace_shape(routing->trace)->n_used;
    token %= mb_trace_n_tokens(routing->trace);
    return mb_trace_token(routing->trace, (size_t)token).experts + place * n_used;
}

static bool is_among(int32_t expert, const int32_t *experts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (experts[i] == expert)
            return true;
    return false;
}

/* Those of a token that are not among the first 'n' ones come after them, in order. */
static void add_from(const uint16_t *used, int32_t *experts, size_t *n, size_t n_wanted, size_t n_used)
{
    for (size_t k = 0; k < n_used && *n < n_wanted; k++)
        if (!is_among(used[k], experts, *n))
            experts[(*n)++] = used[k];
}

/* An mb_impose_fn. */
static void impose(void *ctx, uint64_t token, size_t layer, bool is_guess, int32_t *experts, size_t n)
{
    const struct bench_routing *routing = ctx;
    const size_t place = routing->place[layer];
    const uint16_t *used = used_by(routing, token, place);
    size_t n_put = 0;
    for (size_t k = 0; k < n; k++) {
        const uint64_t chance = mix(mix(token) + place * MB_TRACE_USED_MAX + k);
        if (!is_guess || (double)(chance >> 11) * 0x1p-53 < routing->right)
            experts[n_put++] = used[k];
    }
    for (uint64_t other = mix(token + place); n_put < n; other++)
        add_from(used_by(routing, other, place), experts, &n_put, n_put + 1, n);
}

/* ---------------------------------------------------------------- making it */

/* The layers of a model that have routed experts, in order. Returns how many they are. */
static size_t list_layers(const struct mb_model *model, uint32_t *layers)
{
    size_t n, n_layers = 0;
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
    for (size_t i = 0; i < n; i++)
        if (matrices[i].expert >= 0 && (n_layers == 0 || layers[n_layers - 1] != (uint32_t)matrices[i].layer))
            layers[n_layers++] = (uint32_t)matrices[i].layer;
    return n_layers;
}

static enum mb_status make_trace(const char *text, const struct mb_trace_shape *shape,
                                 struct mb_trace **trace, struct mb_error *err)
{
    struct mb_trace_random random;
    MB_TRY(mb_trace_random_parse(text, &random, err));
    if (random.shape.n_layers + random.shape.n_experts + random.shape.n_used > 0)
        return mb_fail(err, MB_USAGE, "--routing '%s': layers, experts and used are the model's", text);
    random.shape = *shape;
    return mb_trace_make(&random, trace, err);
}

static enum mb_status check_trace(const char *path, const struct mb_trace *trace,
                                  const struct mb_trace_shape *shape, const uint32_t *layers,
                                  struct mb_error *err)
{
    const struct mb_trace_shape *own = mb_trace_shape(trace);
    const uint16_t *end;
    if (own->n_layers != shape->n_layers || own->n_experts != shape->n_experts ||
        own->n_used != shape->n_used ||
        memcmp(mb_trace_layers(trace), layers, shape->n_layers * sizeof *layers) != 0)
        return mb_fail(err, MB_USAGE,
                       "%s: %zu layers with %zu of %zu experts; the model has %zu with %zu of %zu, or others",
                       path, own->n_layers, own->n_used, own->n_experts, shape->n_layers, shape->n_used,
                       shape->n_experts);
    if (mb_trace_n_tokens(trace) == 0)
        return mb_fail(err, MB_USAGE, "%s: no tokens", path);
    for (size_t t = 0; t < mb_trace_n_tokens(trace); t++) {
        const uint16_t *used = mb_trace_token(trace, t).experts;
        for (end = used + own->n_layers * own->n_used; used < end; used++)
            if (*used == MB_TRACE_NONE)
                return mb_fail(err, MB_USAGE, "%s: token %zu lacks a layer", path, t);
    }
    return MB_OK;
}

static enum mb_status fill(const char *text, struct mb_model *model, struct bench_routing *routing,
                           uint32_t *layers, struct mb_error *err)
{
    const struct mb_model_info *info = mb_model_info(model);
    const struct mb_trace_shape shape = {list_layers(model, layers), info->n_experts, info->n_experts_used};
    if (shape.n_layers == 0)
        return mb_fail(err, MB_USAGE, "--routing: the model has no routed experts");
    for (size_t i = 0; i < info->n_layers; i++)
        routing->place[i] = SIZE_MAX;
    for (size_t i = 0; i < shape.n_layers; i++)
        routing->place[layers[i]] = i;
    if (strchr(text, '=') != NULL)
        return make_trace(text, &shape, &routing->trace, err);
    MB_TRY(mb_trace_load(text, &routing->trace, err));
    return check_trace(text, routing->trace, &shape, layers, err);
}

enum mb_status bench_routing_open(const char *text, double right, struct mb_model *model,
                                  struct bench_routing **routing, struct mb_error *err)
{
    *routing = NULL;
    if (text == NULL)
        return MB_OK;
    const size_t n_layers = mb_model_info(model)->n_layers;
    struct bench_routing *made = cli_check_memory(calloc(1, sizeof *made));
    uint32_t *layers = cli_check_memory(calloc(n_layers, sizeof *layers));
    made->place = cli_check_memory(calloc(n_layers, sizeof *made->place));
    made->right = right;
    enum mb_status status = fill(text, model, made, layers, err);
    free(layers);
    if (status != MB_OK) {
        bench_routing_close(made);
        return status;
    }
    mb_model_impose_routing(model, impose, made);
    *routing = made;
    return MB_OK;
}

void bench_routing_close(struct bench_routing *routing)
{
    if (routing == NULL)
        return;
    mb_trace_close(routing->trace);
    free(routing->place);
    free(routing);
}

void bench_routing_print(const struct bench_routing *routing)
{
    struct mb_trace_statistics s;
    if (routing == NULL || mb_trace_statistics(routing->trace, &s, NULL) != MB_OK)
        return;
    fprintf(
        stderr,
        "moebius: routing is imposed, and results are no model's: the 8 most used experts of a layer have "
        "%.1f %% of the uses, ",
        100 * s.top_share);
    if (!isnan(s.overlap))
        fprintf(stderr, "%.1f %% were used by the token before, ", 100 * s.overlap);
    fprintf(stderr, "%.1f %% of guesses are right\n", 100 * routing->right);
}
