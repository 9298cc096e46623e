/*
 * slot_sizes.c - see slot_sizes.h.
 */
#include "slot_sizes.h"
#include <stdbool.h>

size_t mb_find_slot_size(const struct mb_slot_sizes *sizes, uint64_t nbytes)
{
    size_t i = 0;
    while (i + 1 < sizes->n && sizes->at[i].nbytes < nbytes)
        i++;
    return i;
}

/*
 * Sizes from the largest down: each takes the experts that leave no more than 1 / unused_share of its slots
 * unused. false: they are too many.
 */
static bool cut(const struct mb_slot_wish *wish, uint64_t unused_share, struct mb_slot_sizes *sizes)
{
    struct mb_slot_size found[MB_SLOT_SIZES_MAX];
    size_t n = 0;
    for (size_t i = wish->n_experts; i > 0;) {
        const uint64_t nbytes = wish->nbytes[i - 1], least = nbytes - nbytes / unused_share;
        if (n == MB_SLOT_SIZES_MAX)
            return false;
        found[n] = (struct mb_slot_size){.nbytes = nbytes};
        for (; i > 0 && wish->nbytes[i - 1] >= least; i--)
            found[n].n_experts++;
        n++;
    }
    *sizes = (struct mb_slot_sizes){.n = n};
    for (size_t i = 0; i < n; i++)
        sizes->at[i] = found[n - 1 - i];
    return true;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* As many slots more as are left to give, at most n. Returns what is left of the room. */
static uint64_t add_slots(const struct mb_slot_wish *wish, struct mb_slot_size *size, size_t n, uint64_t left)
{
    const uint64_t slot_nbytes = size->nbytes + wish->extra_nbytes;
    n = smaller(smaller(n, size->n_experts - size->n_slots), (size_t)(left / slot_nbytes));
    size->n_slots += n;
    return left - n * slot_nbytes;
}

/*
 * First the least of each size, then of the room that is left each its share, and what rounding has left to
 * the largest that fit. false: there is not enough for the least.
 */
static bool share_room(const struct mb_slot_wish *wish, struct mb_slot_sizes *sizes)
{
    uint64_t left = wish->room_nbytes;
    double wanted_nbytes = 0;
    bool are_enough = true;
    for (size_t i = 0; i < sizes->n; i++) {
        struct mb_slot_size *size = &sizes->at[i];
        left = add_slots(wish, size, wish->n_min, left);
        are_enough = are_enough && size->n_slots >= smaller(wish->n_min, size->n_experts);
        wanted_nbytes +=
            (double)(size->nbytes + wish->extra_nbytes) * (double)(size->n_experts - size->n_slots);
    }
    const double share = wanted_nbytes > (double)left ? (double)left / wanted_nbytes : 1;
    for (size_t i = 0; i < sizes->n; i++) {
        struct mb_slot_size *size = &sizes->at[i];
        left = add_slots(wish, size, (size_t)(share * (double)(size->n_experts - size->n_slots)), left);
    }
    for (size_t i = sizes->n; i-- > 0;)
        left = add_slots(wish, &sizes->at[i], sizes->at[i].n_experts, left);
    return are_enough;
}

struct mb_slot_sizes mb_choose_slot_sizes(const struct mb_slot_wish *wish)
{
    struct mb_slot_sizes sizes;
    for (uint64_t unused_share = 16; unused_share > 1; unused_share--)
        if (cut(wish, unused_share, &sizes) && share_room(wish, &sizes))
            return sizes;
    sizes = (struct mb_slot_sizes){
        .at = {{.nbytes = wish->nbytes[wish->n_experts - 1], .n_experts = wish->n_experts}}, .n = 1};
    (void)share_room(wish, &sizes);
    sizes.at[0].n_slots += sizes.at[0].n_slots == 0;
    return sizes;
}
