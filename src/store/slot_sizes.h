/*
 * slot_sizes.h - how large the slots of a pool are, where experts differ in size: a few sizes, so that little
 * of each slot is unused.
 */
#ifndef MB_STORE_SLOT_SIZES_H
#define MB_STORE_SLOT_SIZES_H

#include <stddef.h>
#include <stdint.h>

enum { MB_SLOT_SIZES_MAX = 16 };

/* Slots of one size, for experts that are larger than the size before and no larger than this one. */
struct mb_slot_size {
    uint64_t nbytes;
    size_t n_experts, n_slots;
};

struct mb_slot_sizes {
    struct mb_slot_size at[MB_SLOT_SIZES_MAX]; /* from the smallest */
    size_t n;
};

struct mb_slot_wish {
    const uint64_t *nbytes; /* [n_experts] of each expert, from the smallest; one at least */
    size_t n_experts;
    uint64_t room_nbytes, extra_nbytes; /* for all slots; that each takes beside its expert */
    size_t n_min;                       /* slots of each size, unless fewer experts have it */
};

/*
 * Sizes that leave at most a sixteenth of each slot unused, or a larger part where these would be too many or
 * memory would not have n_min slots of each.  Beyond these, each size gets the same share of its experts.  In
 * the end there is one size, with one slot at least.
 */
struct mb_slot_sizes mb_choose_slot_sizes(const struct mb_slot_wish *wish);

/* Which size an expert goes to; it is no larger than the largest. */
size_t mb_find_slot_size(const struct mb_slot_sizes *sizes, uint64_t nbytes);

#endif
