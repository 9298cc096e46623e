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
    size_t id;                             /* its number among all experts of the store, from 0 */
};

struct mb_bound_layer {
    struct mb_bound_expert *experts;
    size_t n_experts;
};

/*
 * Where a kind writes what it says of a matrix.  An overlay (mb_store_overlay) lies over the view that users
 * see, and its original is kept apart: a kind writes the original then, and never touches the overlay.
 */
struct mb_views {
    const struct mb_index *index;
    struct mb_matrix *at;         /* [n_weights] of the index, zeroed until they are made */
    struct mb_matrix **originals; /* [n_weights] what an overlay lies on; NULL: there is none */
};

static inline struct mb_matrix *mb_stored_view(const struct mb_views *views,
                                               const struct mb_weight_info *weight)
{
    size_t i = (size_t)(weight - views->index->weights);
    return views->originals[i] != NULL ? views->originals[i] : &views->at[i];
}

/* Makes the view of a weight. */
typedef enum mb_status (*mb_view_fn)(void *bytes, const struct mb_weight_info *weight, struct mb_matrix *view,
                                     struct mb_error *err);

/*
 * One kind of store.  'bytes' is what mb_ram_store_open and the like return.  acquire, release and prefetch
 * allocate nothing and are called by any threads; numbers[n] are those of bound experts of a layer.
 */
struct mb_store_kind {
    mb_view_fn keep; /* of a weight that is always needed */
    mb_view_fn bind; /* of one that comes and goes with its expert; acquire may fill the view */
    /* All that will be acquired is bound. */
    enum mb_status (*ready)(void *bytes, const struct mb_bound_layer *layers, size_t n_layers,
                            struct mb_error *err);
    /* As mb_store_begin. */
    size_t (*begin)(void *bytes, const struct mb_bound_layer *layer, uint32_t *numbers, size_t n,
                    enum mb_store_use use);
    /* As mb_store_acquire_some. */
    enum mb_status (*acquire)(void *bytes, const struct mb_bound_layer *layer, uint32_t *numbers, size_t n,
                              size_t n_max, enum mb_store_use use, size_t *n_acquired, struct mb_error *err);
    void (*release)(void *bytes, const struct mb_bound_layer *layer, const uint32_t *numbers, size_t n);
    void (*prefetch)(void *bytes, const struct mb_bound_layer *layer, const uint32_t *numbers, size_t n,
                     enum mb_store_hint hint);
    struct mb_store_memory (*memory)(const void *bytes);
    struct mb_store_traffic (*traffic)(void *bytes);
    void (*close)(void *bytes); /* NULL is fine */
};

/* What the options leave to weights and their tables; UINT64_MAX: there is no limit. */
static inline uint64_t mb_store_weight_nbytes(const struct mb_store_options *options)
{
    if (options->memory_nbytes == 0)
        return UINT64_MAX;
    return options->memory_nbytes > options->other_nbytes ? options->memory_nbytes - options->other_nbytes
                                                          : 0;
}

/* ---------------------------------------------------------------- kinds */

/* All weights in memory, or mapped. */
extern const struct mb_store_kind mb_ram_store;
enum mb_status mb_ram_store_open(const struct mb_index *index, const struct mb_store_options *options,
                                 void **bytes, struct mb_error *err);

/* What it would take: of a coded folder blobs and exact tensors as they are stored, with tables. */
uint64_t mb_ram_store_nbytes(const struct mb_index *index);

/* Experts on disk, of which memory holds some (disk_store.c). Of coded folders alone. */
extern const struct mb_store_kind mb_disk_store;
enum mb_status mb_disk_store_open(const struct mb_views *views, const struct mb_store_options *options,
                                  void **bytes, struct mb_error *err);

#endif
