/*
 * carry_rows_avx2.c - see carry_rows.h.
 */
#include "carry_avx2.h"
#include "carry_rows.h"

struct mb_group_walk mb_carry_rows_seek(const struct mb_coded_matrix *w, uint64_t row)
{
    return mb_seek_avx2(w, row);
}

void mb_carry_rows_next(struct mb_group_walk *walk, struct mb_group_view *view)
{
    mb_next_avx2(walk, view);
}

void mb_carry_rows_indices(const struct mb_coded_matrix *w, const struct mb_group_view *view, int8_t *q)
{
    mb_indices_avx2(w, view, q);
}
