/*
 * fused.h - tensors that hold several matrices: of three dimensions those of all experts of a layer, of two
 * dimensions gate and up of a shared expert.
 *
 * Each becomes the tensors that a family with a tensor for each expert has:
 *
 *   model.layers.0.mlp.experts.gate_up_proj               model.layers.0.mlp.experts.7.gate_proj.weight,
 * ...up_proj... model.layers.0.mlp.experts.down_proj model.layers.0.mlp.experts.7.down_proj.weight
 *   model.layers.0.block_sparse_moe.input_linear.weight
 * model.layers.0.block_sparse_moe.experts.7.gate_proj.weight, ...
 *   model.layers.0.block_sparse_moe.output_linear.weight
 * model.layers.0.block_sparse_moe.experts.7.down_proj.weight (Mixtral, Phi-3.5-MoE)
 * model.layers.0.block_sparse_moe.experts.7.w1.weight, w3, w2
 *   model.layers.0.shared_mlp.input_linear.weight (Granite-MoE-Shared)
 * model.layers.0.block_sparse_moe.shared_experts.gate_proj.weight, up_proj
 *
 * How rows and columns lie is told by model_type, and its sizes by config.json; what does not fit is refused.
 */
#ifndef MB_CHECKPOINT_FUSED_H
#define MB_CHECKPOINT_FUSED_H

#include "views.h"

enum { MB_FUSED_EXPERTS_MAX = 1 << 14 };

/* How the matrices of an expert, [n_rows, n_cols] each, lie in the expert's part of a fused tensor. */
struct mb_fused_layout {
    size_t n_parts;          /* 2: gate and up, 1: down */
    uint64_t n_rows, n_cols; /* of one part */
    bool is_transposed;      /* [n_cols, n_parts * n_rows], not [n_parts * n_rows, n_cols] */
    bool is_interleaved;     /* rows take turns: gate, up, gate, up; else gate's come first */
};

struct mb_fused {
    struct mb_tensor tensor; /* as stored; the name is owned */
    char *stem;              /* "model.layers.0.mlp.experts": expert (of three dimensions) and part follow */
    const char *parts[2];    /* "gate_proj.weight" */
    struct mb_fused_layout layout;
};

/* Where element [0][0] of a part of an expert is, and how far apart rows and columns are. */
struct mb_strides {
    uint64_t first, row, col;
};
struct mb_strides mb_fused_strides(const struct mb_fused_layout *layout, size_t expert, size_t part);

/* 1 for two dimensions. */
size_t mb_fused_n_experts(const struct mb_fused *fused);

/* "model.layers.0.mlp.experts.7.gate_proj.weight": malloc'ed, NULL when there is no memory. */
char *mb_fused_part_name(const struct mb_fused *fused, size_t expert, size_t part);

/* A rule (views.h): notes the tensor in list->fused, and adds its matrices. */
enum mb_status mb_rule_fused(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                             const struct mb_tensor *stored, bool *is_taken, struct mb_error *err);

void mb_free_fused(struct mb_fused *fused, size_t n);

#endif
