/*
 * index.h - the index as the store sees it: weights have numbers.
 */
#ifndef MB_STORE_INDEX_H
#define MB_STORE_INDEX_H

#include <moebius/weights.h>

struct mb_index {
    const struct mb_checkpoint *ckpt;
    struct mb_weight_info *weights; /* by name */
    size_t n_weights, n_weights_max;
    uint64_t *tables_nbytes; /* [n_tensors] of the checkpoint: what an open blob needs; 0: it is no blob */
};

/* Memory of the index itself. */
uint64_t mb_index_nbytes(const struct mb_index *index);

/* There is no weight of that name. */
enum mb_status mb_index_fail_missing(const struct mb_index *index, const char *name, struct mb_error *err);

#endif
