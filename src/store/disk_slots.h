/*
 * disk_slots.h - slots of memory for experts: how many of which sizes, what is in them, and who leaves them.
 *
 * A slot is EMPTY, FILLING while its request is under way (disk_reads.h), and then READY or FAILED.  All of
 * it belongs to a pool (disk_pool.h), which calls these functions with its lock.
 */
#ifndef MB_STORE_DISK_SLOTS_H
#define MB_STORE_DISK_SLOTS_H

#include "disk_pool.h"
#include "disk_reads.h"
#include "slot_sizes.h"
#include <moebius/offload.h>

#define MB_NO_SLOT UINT32_MAX

struct mb_pool_expert {
    struct mb_stored_expert stored;
    uint32_t slot;      /* MB_NO_SLOT: it is in none */
    uint64_t wanted_by; /* the last call that wanted it */
    size_t number;      /* as the policy counts experts */
    size_t size;        /* of its slots: their number in slot_sizes */
};

/* How guesses of a layer's experts of one kind went, in the window that is under way. */
struct mb_hint_record {
    uint32_t n_read, n_used;
    uint64_t from_token; /* no guess is taken before it */
};

enum mb_slot_state { MB_SLOT_EMPTY, MB_SLOT_FILLING, MB_SLOT_READY, MB_SLOT_FAILED };

struct mb_slot {
    struct mb_read_request request; /* is_hint: read because of a hint, and not acquired since */
    enum mb_slot_state state;
    uint32_t expert;
    size_t n_pins;
    struct mb_hint_record *record; /* of the guess that it was read for */
    bool is_filled_for_hint;       /* MB_SLOT_FILLING: in line as a guess */
    bool is_fresh;                 /* not acquired since it was read */
    bool is_once;                  /* read for MB_STORE_ONCE, and not acquired otherwise */
};

/* Slots of one size, which follow one another. */
struct mb_slots_of_size {
    size_t first, n;
    size_t n_searched; /* slots from the first on that are not MB_SLOT_EMPTY */
    size_t n_once;     /* slots that are is_once */
};

struct mb_disk_slots {
    struct mb_pool_expert *experts; /* [n_experts] by mb_bound_expert.id */
    struct mb_stored_piece *pieces; /* of all */
    size_t n_experts, n_pieces_max, n_parts_max;
    struct mb_policy *policy;
    uint32_t *by_number;              /* [n_layers * n_layer_experts]: of the pool, by the policy's numbers */
    size_t n_layers, n_layer_experts; /* with experts; most of a layer */
    struct mb_slot *at;
    size_t n_slots;
    struct mb_slot_sizes slot_sizes;
    struct mb_slots_of_size by_size[MB_SLOT_SIZES_MAX];
    uint64_t tables_nbytes, slots_nbytes, arena_nbytes;
    uint8_t *arena, *tables;
    struct mb_blob *blobs;
    struct mb_matrix *matrices;
    uint64_t pool_nbytes, expert_nbytes, held_nbytes;
    size_t n_filling; /* slots FILLING */
    size_t n_failed;  /* slots FAILED */
    uint64_t n_calls; /* what the last one wants is not evicted */
    struct mb_timeline timeline;
};

/* As mb_disk_pool_size, without the pool itself. */
struct mb_disk_pool_size mb_disk_slots_size(const struct mb_disk_pool_options *options);

/* As many slots as fit into 'nbytes', all that mb_disk_slots_size counts included.  *s is zeroed before. */
enum mb_status mb_disk_slots_make(struct mb_disk_slots *s, uint64_t nbytes,
                                  const struct mb_disk_pool_options *options, struct mb_error *err);
void mb_disk_slots_free(struct mb_disk_slots *s);

static inline struct mb_slots_of_size *mb_slots_for(struct mb_disk_slots *s,
                                                    const struct mb_pool_expert *expert)
{
    return &s->by_size[expert->size];
}

/* A slot to read an expert into, EMPTY; MB_NO_SLOT: all are in use. */
uint32_t mb_slot_find(struct mb_disk_slots *s, const struct mb_pool_expert *expert, enum mb_store_use use);

/* The same without evicting any. */
uint32_t mb_slot_find_empty(struct mb_disk_slots *s, struct mb_slots_of_size *slots);

/* What is in it leaves memory. */
void mb_slot_empty(struct mb_disk_slots *s, struct mb_slot *slot);

/* Tells the timeline what has become of a guess. */
void mb_slot_show_hint(const struct mb_disk_slots *s, const struct mb_slot *slot, enum mb_timeline_kind kind);

#endif
