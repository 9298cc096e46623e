/*
 * store.h - the seam: what a store does that hands out bytes, whatever it keeps them in.
 */
#ifndef MB_STORE_STORE_H
#define MB_STORE_STORE_H

#include "index.h"

/* An expert as it was bound. */
struct mb_bound_expert {
    const struct mb_weight_info **weights; /* [n_parts] */
    const struct mb_matrix **matrices;     /* [n_parts] what is handed out: views of the store */
    size_t n_parts;                        /* 0: not bound */
};

/* Makes the view of a weight. */
typedef enum mb_status (*mb_view_fn)(void *bytes, const struct mb_weight_info *weight, struct mb_matrix *view,
                                     struct mb_error *err);

/*
 * One kind of store.  'bytes' is what mb_ram_store_open and the like return.  acquire, release and prefetch
 * allocate nothing and are called by any threads; numbers[n] are those of bound experts.
 */
struct mb_store_kind {
    mb_view_fn keep; /* of a weight that is always needed */
    mb_view_fn bind; /* of one that comes and goes with its expert; acquire may fill the view */
    enum mb_status (*acquire)(void *bytes, const struct mb_bound_expert *experts, const uint32_t *numbers,
                              size_t n, struct mb_error *err);
    void (*release)(void *bytes, const struct mb_bound_expert *experts, const uint32_t *numbers, size_t n);
    void (*prefetch)(void *bytes, const struct mb_bound_expert *experts, const uint32_t *numbers, size_t n);
    struct mb_store_memory (*memory)(const void *bytes);
    void (*close)(void *bytes); /* NULL is fine */
};

/* ---------------------------------------------------------------- kinds */

/* All weights in memory, or mapped. */
extern const struct mb_store_kind mb_ram_store;
enum mb_status mb_ram_store_open(const struct mb_index *index, const struct mb_store_options *options,
                                 void **bytes, struct mb_error *err);

#endif
