/*
 * carry_rows.h - rows of the carry form (carry_avx2.h, stripes_avx2.h), for kernels of other instruction
 * sets.
 */
#ifndef MB_CODEC_CARRY_ROWS_H
#define MB_CODEC_CARRY_ROWS_H

#include "kernels.h"

struct mb_group_walk mb_carry_rows_seek(const struct mb_coded_matrix *w, uint64_t row);
void mb_carry_rows_next(struct mb_group_walk *walk, struct mb_group_view *view);

/* All indices of a view that is not raw, rows without gaps; 'q' has MB_DECODED_SLACK bytes after them. */
void mb_carry_rows_indices(const struct mb_coded_matrix *w, const struct mb_group_view *view, int8_t *q);

/* Fills the columns of an activation of n values, in the memory 'wide' that it was given. */
void mb_carry_add_columns_avx2(size_t n, void *wide, struct mb_activation *x);

extern const struct mb_resident_form mb_carry_form_avx2;

#endif
