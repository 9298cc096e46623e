/*
 * fp8.h - matrices stored as 8-bit floats with a scale for each block, handed out as the values they stand
 * for.
 *
 * X.weight of type F8_E4M3 [R, C] and X.weight_scale_inv [R / rows, C / columns of a block, both rounded up]
 * (F32, F16, BF16, F8_E8M0) become X.weight of type F32: value times scale, in float.  The size of a block is
 * weight_block_size of config.json's quantization_config, 128 x 128 where it is not given; a single scale is
 * that of the whole matrix.  Scales are read with their weights and checked then: finite and positive, or 0
 * where all values of the block are 0.
 */
#ifndef MB_CHECKPOINT_FP8_H
#define MB_CHECKPOINT_FP8_H

#include "views.h"

/*
 * A rule (views.h).  MB_UNSUPPORTED, MB_BAD_DATA: an 8-bit matrix without scales, with scales of another
 * kind, shape or type, or without a quantization_config that says how to read it.
 */
enum mb_status mb_rule_fp8(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                           const struct mb_tensor *stored, bool *is_taken, struct mb_error *err);

#endif
