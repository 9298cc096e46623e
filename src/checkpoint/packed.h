/*
 * packed.h - weights that quantisation tools packed into few bits, known by the names of their tensors.
 */
#ifndef MB_CHECKPOINT_PACKED_H
#define MB_CHECKPOINT_PACKED_H

#include "views.h"

/* A rule (views.h): refuses them (MB_UNSUPPORTED), where config.json did not say that they are packed. */
enum mb_status mb_rule_packed(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                              const struct mb_tensor *stored, bool *is_taken, struct mb_error *err);

#endif
