/*
 * mlp.h - kinds of MLP: dense, or a router with experts.
 */
#ifndef MB_MODEL_MLP_H
#define MB_MODEL_MLP_H

#include "layer_weights.h"
#include "workspace.h"

struct mb_model;
struct mb_layer;

struct mb_mlp_kind {
    const char *name;
    bool has_experts; /* config->router is meant */

    /* Adds the kind's weights to a layer's list. */
    void (*list)(const struct mb_mlp_config *mlp, size_t d_model, struct mb_weight_list *list);

    /* As in attention.h. */
    size_t part_nbytes;
    void (*place)(const struct mb_mlp_config *mlp, size_t d_model, size_t n_pass_tokens, struct mb_placing *p,
                  void *part);

    /* A layer's MLP for all tokens of the pass, from work.normed to work.y; takes its own time.
     * Fails only where the store does. */
    enum mb_status (*run)(struct mb_model *model, const struct mb_layer *layer, struct mb_error *err);
};

/* The router's weights of the tokens that an expert gets in the pass, in order; while somebody watches
 * inputs. */
const float *mb_expert_weights(const struct mb_model *model, const struct mb_layer *layer, size_t expert);

extern const struct mb_mlp_kind mb_mlp_dense, mb_mlp_experts;

#endif
