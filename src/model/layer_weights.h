/*
 * layer_weights.h - the one list of what weights a layer has: it drives loading, the sizes of scratch memory,
 * counting and freeing.
 *
 * Kinds of attention and MLP add what they are made of; families give the names.
 */
#ifndef MB_MODEL_LAYER_WEIGHTS_H
#define MB_MODEL_LAYER_WEIGHTS_H

#include "config.h"

enum mb_weight_id {
    /* Matrices of a layer. */
    MB_W_Q,
    MB_W_Q_A,
    MB_W_Q_B,
    MB_W_KV_A,
    MB_W_KV_B,
    MB_W_K,
    MB_W_V,
    MB_W_O,
    MB_W_GATE,
    MB_W_UP,
    MB_W_DOWN,
    MB_W_ROUTER,
    MB_W_SHARED_GATE,
    MB_W_SHARED_UP,
    MB_W_SHARED_DOWN,
    MB_W_SHARED_SCORE, /* one row */
    MB_N_LAYER_MATRICES,
    /* Matrices that each expert of a layer has. */
    MB_W_EXPERT_GATE = MB_N_LAYER_MATRICES,
    MB_W_EXPERT_UP,
    MB_W_EXPERT_DOWN,
    MB_N_EXPERT_END,
    /* Vectors of a layer. */
    MB_W_INPUT_NORM = MB_N_EXPERT_END,
    MB_W_INPUT_NORM_BIAS,
    MB_W_POST_NORM,
    MB_W_POST_NORM_BIAS,
    MB_W_Q_A_NORM,
    MB_W_KV_A_NORM,
    MB_W_Q_NORM,
    MB_W_K_NORM,
    MB_W_ROUTER_BIAS,
    MB_N_VECTOR_END,
    /* Of the model. */
    MB_W_EMBEDDING = MB_N_VECTOR_END,
    MB_W_FINAL_NORM,
    MB_W_FINAL_NORM_BIAS,
    MB_W_HEAD,
    MB_N_WEIGHTS,
};

enum {
    MB_N_EXPERT_MATRICES = MB_N_EXPERT_END - MB_N_LAYER_MATRICES,
    MB_N_LAYER_VECTORS = MB_N_VECTOR_END - MB_N_EXPERT_END,
    MB_LAYER_WEIGHTS_MAX = 32,
    MB_NAME_NBYTES_MAX = 256,
};

static inline bool mb_is_expert_matrix(enum mb_weight_id id)
{
    return id >= MB_N_LAYER_MATRICES && id < MB_N_EXPERT_END;
}

/* Matrices that a product reads together with their up half. */
static inline bool mb_is_gate(enum mb_weight_id id)
{
    return id == MB_W_GATE || id == MB_W_SHARED_GATE || id == MB_W_EXPERT_GATE;
}

/* A weight of a layer. A vector has no columns. */
struct mb_weight {
    enum mb_weight_id id;
    size_t n_rows, n_cols;
    bool has_bias;      /* a vector of n_rows, by the matrix's name with "bias" at its end */
    bool is_transposed; /* some product goes through it by columns */
};

struct mb_weight_list {
    struct mb_weight at[MB_LAYER_WEIGHTS_MAX];
    size_t n;
};

/* Kinds add theirs. */
void mb_list_matrix(struct mb_weight_list *list, enum mb_weight_id id, size_t n_rows, size_t n_cols,
                    bool has_bias);
void mb_list_vector(struct mb_weight_list *list, enum mb_weight_id id, size_t n);

/* Everything that layer 'layer' has. */
void mb_list_layer(const struct mb_config *config, size_t layer, struct mb_weight_list *list);

/*
 * The name of a weight, of an expert's where it has some: the family's spelling, or that of most published
 * checkpoints.
 */
void mb_weight_name(const struct mb_config *config, enum mb_weight_id id, size_t layer, size_t expert,
                    char name[MB_NAME_NBYTES_MAX]);

#endif
