/*
 * parameters.h - how many parameters a model has, and how many of them a token uses.
 *
 * All: every weight that the folder holds, each once (scales of 8-bit floats are no weights).  Not used:
 * those outside of the text model (multi-token prediction, images), and tables of rotary frequencies. Active:
 * what is used, but of the routed experts of a layer only as many as a token is sent to; embedding, lm_head
 * and shared experts are active.
 */
#ifndef CLI_PARAMETERS_H
#define CLI_PARAMETERS_H

#include <jansson.h>
#include <moebius/checkpoint.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cli_moe_layer {
    int layer;
    int n_experts; /* the highest number that was seen, and 1 */
    uint64_t n_weights;
};

struct cli_parameters {
    uint64_t n_all, n_unused;
    uint64_t n_always; /* used by every token */
    struct cli_moe_layer *layers;
    size_t n_layers, cap;
    json_int_t n_experts_used; /* of config.json; -1: it does not say */
};

struct cli_parameters cli_parameters_new(const json_t *config);
void cli_parameters_free(struct cli_parameters *parameters);

/* A tensor, or a coded blob by the name of its first matrix. false: no memory. */
bool cli_parameters_add(struct cli_parameters *parameters, const struct mb_checkpoint *ckpt, const char *name,
                        uint64_t n_weights);

/* false: config.json does not say how many experts a token is sent to. */
bool cli_parameters_active(const struct cli_parameters *parameters, uint64_t *n_active);

#endif
