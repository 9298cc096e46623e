/*
 * moments_inputs.h - the inputs of a layer, or of the head: which matrices read them, and their sums.
 */
#ifndef MB_CALIBRATE_MOMENTS_INPUTS_H
#define MB_CALIBRATE_MOMENTS_INPUTS_H

#include "moments_sum.h"
#include <moebius/engine.h>

struct mb_layer_input {
    const char **matrices; /* [n_matrices] names; the first one's vectors are summed */
    size_t n_matrices;
    int expert; /* -1: no routed expert's */
    struct mb_moments_sum sum;
};

struct mb_layer_name {
    const char *name; /* the first matrix of an input */
    size_t input;
};

struct mb_layer_inputs {
    struct mb_layer_input *at; /* [n] in the order of the model's matrices */
    size_t n;
    struct mb_layer_name *names; /* [n] by name */
    const char **matrices;       /* of all inputs, one after another */
};

/* layer: n_layers means the head. Begins zeroed; after a failure the caller closes it. */
enum mb_status mb_layer_inputs_open(struct mb_layer_inputs *inputs, const struct mb_model *model,
                                    size_t layer, struct mb_error *err);
void mb_layer_inputs_close(struct mb_layer_inputs *inputs);

/* The input whose first matrix this is; NULL: there is none. */
struct mb_layer_input *mb_layer_inputs_find(const struct mb_layer_inputs *inputs, const char *name);

#endif
