/*
 * trace.h - what a trace is inside.
 */
#ifndef MB_OFFLOAD_TRACE_H
#define MB_OFFLOAD_TRACE_H

#include <moebius/offload.h>

struct mb_trace {
    struct mb_trace_shape shape;
    uint32_t *layers; /* [n_layers] */
    size_t n_tokens;
    uint32_t *sequences; /* [n_tokens], as what follows, each with its own capacity */
    bool *generated;
    uint16_t *experts; /* [n_tokens][n_layers][n_used] */
    float *gates;      /* [n_tokens][n_layers][n_used] */
    size_t sequences_cap, generated_cap, experts_cap, gates_cap;
};

/* Uses of a token in all layers. */
static inline size_t mb_trace_row(const struct mb_trace *trace)
{
    return trace->shape.n_layers * trace->shape.n_used;
}

/* The place of a layer by its number in tensor names; SIZE_MAX: there is none. */
size_t mb_trace_find_layer(const struct mb_trace *trace, size_t layer);

#endif
