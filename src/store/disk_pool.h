/*
 * disk_pool.h - memory for some of the experts, and threads that read the others into it when they are
 * wanted.
 *
 * A *slot* is memory for one expert; slots have one of a few sizes (slot_sizes.h) and are made once.  An
 * expert is read whole and checked before it can be acquired.
 */
#ifndef MB_STORE_DISK_POOL_H
#define MB_STORE_DISK_POOL_H

#include "read.h"
#include "store.h"

struct mb_disk_pool;

struct mb_disk_pool_options {
    const struct mb_views *views;
    const struct mb_bound_layer *layers; /* stay where they are */
    size_t n_layers;
    const struct mb_reader *reader; /* outlives the pool */
    int n_threads;
    const char *policy;                 /* of eviction (offload.h); NULL: the default */
    const struct mb_link_options *link; /* that experts come over (offload.h), or NULL */
    const double *usage;                /* [n_usage] as mb_store_options.expert_usage */
    size_t n_usage;
    uint64_t nbytes; /* that the pool may take */
    size_t n_min; /* experts of one size that can be acquired together, at least, where there are more sizes
                     than one */
    struct mb_timeline timeline;
};

/* What the pool would take with so many slots for the largest experts, tables included. */
struct mb_disk_pool_size {
    uint64_t fixed_nbytes, slot_nbytes;
    uint64_t expert_nbytes; /* of all experts, as they are stored */
    size_t n_experts;
};
struct mb_disk_pool_size mb_disk_pool_size(const struct mb_disk_pool_options *options);

/* Has as many slots as its bytes allow, at least one. */
enum mb_status mb_disk_pool_create(const struct mb_disk_pool_options *options, struct mb_disk_pool **pool,
                                   struct mb_error *err);
void mb_disk_pool_free(struct mb_disk_pool *pool); /* NULL is fine */

/* As the functions of a kind (store.h). */
enum mb_status mb_disk_pool_acquire(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                                    uint32_t *numbers, size_t n, size_t n_max, enum mb_store_use use,
                                    size_t *n_acquired, struct mb_error *err);
size_t mb_disk_pool_begin(struct mb_disk_pool *pool, const struct mb_bound_layer *layer, uint32_t *numbers,
                          size_t n, enum mb_store_use use);
void mb_disk_pool_release(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                          const uint32_t *numbers, size_t n);
void mb_disk_pool_prefetch(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                           const uint32_t *numbers, size_t n, enum mb_store_hint hint);

void mb_disk_pool_describe(const struct mb_disk_pool *pool, struct mb_store_memory *memory);
struct mb_store_traffic mb_disk_pool_traffic(struct mb_disk_pool *pool);

#endif
