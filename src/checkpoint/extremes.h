/*
 * extremes.h - weights so much larger than all others that they are damaged, or that a bound relative to
 * their matrix is relative to them.
 */
#ifndef MB_CHECKPOINT_EXTREMES_H
#define MB_CHECKPOINT_EXTREMES_H

#include "layout.h"

/*
 * Whether the statistics of a unit leave room for such weights.  Always false where one weight is at most 256
 * times the mean: then all of them together can be looked at only in vain.
 */
bool mb_may_have_extremes(const struct mb_weight_stats *stats);

/*
 * Reads items that share a bound (n of them, floats) once more and adds the extreme weights that they have.
 * 'buffer': MB_CHUNK_NBYTES.
 */
enum mb_status mb_find_extremes(const struct mb_checkpoint *ckpt, const struct mb_layout_item *items,
                                size_t n, const struct mb_bound *bound, uint8_t *buffer,
                                struct mb_extremes *extremes, struct mb_error *err);

void mb_extremes_add(struct mb_extremes *to, const struct mb_extremes *from);

/* For the note about unfinished work. NULL: no memory. */
json_t *mb_extremes_to_json(const struct mb_extremes *extremes);
void mb_extremes_add_json(struct mb_extremes *to, const json_t *from);

#endif
