/*
 * sweep_paper.h - the experiments of arXiv:2509.07727, scaled to a model.
 */
#ifndef MB_LAB_SWEEP_PAPER_H
#define MB_LAB_SWEEP_PAPER_H

#include "sweep_file.h"
#include <moebius/results.h>

/* What the paper's places are in a model. */
struct mb_sweep_shape {
    const int *moe_layers; /* [n_moe_layers], numbers as in tensor names */
    size_t n_moe_layers, n_experts;
};

/* Adds the runs of all its tables to a sweep that has the clean run. */
enum mb_status mb_sweep_paper_add(struct mb_sweep *sweep, const struct mb_sweep_shape *shape,
                                  struct mb_error *err);

/*
 * Its figures beside ours: pooled rows of the results become rows of 'paper', in the order of its tables.
 * *rows is malloc'ed; its texts belong to the call's arguments or are constants, but for 'place', which is
 * freed by mb_sweep_paper_free.
 */
enum mb_status mb_sweep_paper_compare(const struct mb_result_pooled *pooled, size_t n_pooled,
                                      const struct mb_sweep_shape *shape, struct mb_result_paper **rows,
                                      size_t *n_rows, struct mb_error *err);
void mb_sweep_paper_free(struct mb_result_paper *rows, size_t n_rows);

#endif
