/*
 * disk_slots.c - see disk_slots.h.
 *
 * Experts of the call that is under way are not evicted for one another: acquired ones are pinned, and others
 * carry the number of the call.
 */
#include "disk_slots.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/max.h"
#include "base/memory.h"
#include <stdlib.h>

enum { POLICY_NBYTES = 128 }; /* about what a policy keeps of an expert */
enum { ONCE_SHARE = 8 };      /* of each size one slot in so many is for what is used once */

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---------------------------------------------------------------- sizes */

/* Sizes of all experts together. */
struct sizes {
    size_t n_experts, n_parts, n_parts_max, n_pieces_max;
    uint64_t nbytes_max, tables_nbytes_max, expert_nbytes;
};

static void add_sizes(const struct mb_index *index, const struct mb_bound_expert *bound, struct sizes *sizes)
{
    struct mb_stored_piece pieces[MB_EXPERT_PARTS_MAX];
    struct mb_stored_expert expert;
    mb_stored_expert_list(index, bound, pieces, &expert);
    sizes->n_experts++;
    sizes->n_parts += bound->n_parts;
    sizes->n_parts_max = max_size(sizes->n_parts_max, bound->n_parts);
    sizes->n_pieces_max = max_size(sizes->n_pieces_max, expert.n_pieces);
    sizes->nbytes_max = mb_max_u64(sizes->nbytes_max, expert.nbytes);
    sizes->tables_nbytes_max = mb_max_u64(sizes->tables_nbytes_max, expert.tables_nbytes);
    for (size_t i = 0; i < expert.n_pieces; i++)
        sizes->expert_nbytes += pieces[i].tensor->nbytes;
}

static struct sizes sizes_of(const struct mb_disk_pool_options *options)
{
    struct sizes sizes = {0};
    for (size_t i = 0; i < options->n_layers; i++)
        for (size_t e = 0; e < options->layers[i].n_experts; e++)
            if (options->layers[i].experts[e].n_parts > 0)
                add_sizes(options->views->index, &options->layers[i].experts[e], &sizes);
    return sizes;
}

struct mb_disk_pool_size mb_disk_slots_size(const struct mb_disk_pool_options *options)
{
    struct sizes sizes = sizes_of(options);
    return (struct mb_disk_pool_size){
        .fixed_nbytes = sizes.n_experts * (sizeof(struct mb_pool_expert) + POLICY_NBYTES) +
                        sizes.n_parts * sizeof(struct mb_stored_piece) + 2 * MB_READ_PAGE_NBYTES,
        .slot_nbytes = sizes.nbytes_max + sizes.tables_nbytes_max + sizeof(struct mb_slot) +
                       sizes.n_pieces_max * sizeof(struct mb_blob) +
                       sizes.n_parts_max * sizeof(struct mb_matrix),
        .expert_nbytes = sizes.expert_nbytes,
        .n_experts = sizes.n_experts,
    };
}

/* ---------------------------------------------------------------- who leaves */

void mb_slot_show_hint(const struct mb_disk_slots *s, const struct mb_slot *slot, enum mb_timeline_kind kind)
{
    const struct mb_stored_expert *expert = slot->request.expert;
    uint64_t now_ns = s->timeline.fn != NULL ? mb_now_ns() : 0;
    mb_stored_expert_show(&s->timeline, expert,
                          (struct mb_timeline_event){
                              .kind = kind, .begun_ns = now_ns, .ended_ns = now_ns, .n = expert->nbytes});
}

void mb_slot_empty(struct mb_disk_slots *s, struct mb_slot *slot)
{
    if (slot->state == MB_SLOT_READY)
        mb_policy_evicted(s->policy, s->experts[slot->expert].number);
    if (slot->state == MB_SLOT_READY && slot->request.is_hint)
        mb_slot_show_hint(s, slot, MB_TIMELINE_HINT_WASTED);
    s->n_failed -= slot->state == MB_SLOT_FAILED;
    struct mb_slots_of_size *slots = mb_slots_for(s, &s->experts[slot->expert]);
    s->experts[slot->expert].slot = MB_NO_SLOT;
    slots->n_once -= slot->is_once;
    slots->n_searched = 0;
    slot->is_once = false;
    slot->state = MB_SLOT_EMPTY;
}

uint32_t mb_slot_find_empty(struct mb_disk_slots *s, struct mb_slots_of_size *slots)
{
    while (slots->n_searched < slots->n && s->at[slots->first + slots->n_searched].state != MB_SLOT_EMPTY)
        slots->n_searched++;
    return slots->n_searched < slots->n ? (uint32_t)(slots->first + slots->n_searched) : MB_NO_SLOT;
}

/* Of those that nobody waits for. */
static void empty_failed(struct mb_disk_slots *s)
{
    for (size_t i = 0; i < s->n_slots && s->n_failed > 0; i++)
        if (s->at[i].state == MB_SLOT_FAILED && s->experts[s->at[i].expert].wanted_by != s->n_calls)
            mb_slot_empty(s, &s->at[i]);
}

/* Who needs a slot. */
struct search {
    const struct mb_disk_slots *s;
    const struct mb_pool_expert *expert;
};

/* An mb_policy_may_evict_fn. */
static bool may_evict(void *ctx, size_t number)
{
    const struct search *search = ctx;
    const struct mb_disk_slots *s = search->s;
    const struct mb_pool_expert *expert = &s->experts[s->by_number[number]];
    return expert->slot != MB_NO_SLOT && expert->size == search->expert->size &&
           s->at[expert->slot].state == MB_SLOT_READY && s->at[expert->slot].n_pins == 0 &&
           expert->wanted_by != s->n_calls;
}

/* The same of those that were read to be used once. */
static bool may_evict_once(void *ctx, size_t number)
{
    const struct mb_disk_slots *s = ((const struct search *)ctx)->s;
    return may_evict(ctx, number) && s->at[s->experts[s->by_number[number]].slot].is_once;
}

uint32_t mb_slot_find(struct mb_disk_slots *s, const struct mb_pool_expert *expert, enum mb_store_use use)
{
    struct mb_slots_of_size *slots = mb_slots_for(s, expert);
    struct search search = {s, expert};
    bool only_once = use == MB_STORE_ONCE && slots->n_once > slots->n / ONCE_SHARE;
    if (s->n_failed > 0)
        empty_failed(s);
    uint32_t empty = mb_slot_find_empty(s, slots);
    if (empty != MB_NO_SLOT)
        return empty;
    size_t victim = mb_policy_victim(s->policy, only_once ? may_evict_once : may_evict, &search);
    if (victim == MB_NO_EXPERT && only_once && s->n_filling == 0)
        victim = mb_policy_victim(s->policy, may_evict, &search);
    if (victim == MB_NO_EXPERT)
        return MB_NO_SLOT;
    uint32_t found = s->experts[s->by_number[victim]].slot;
    mb_slot_empty(s, &s->at[found]);
    return found;
}

/* ---------------------------------------------------------------- making them */

/* Sizes are left out: an expert takes the place of one of about its size. */
static enum mb_status open_policy(struct mb_disk_slots *s, const struct mb_disk_pool_options *options,
                                  struct mb_error *err)
{
    size_t n_layers = 0, number = 0;
    for (size_t i = 0; i < options->n_layers; i++) {
        n_layers += options->layers[i].n_experts > 0;
        s->n_layer_experts = max_size(s->n_layer_experts, options->layers[i].n_experts);
    }
    const struct mb_policy_options policy = {.size = sizeof policy,
                                             .n_layers = n_layers == 0 ? 1 : n_layers,
                                             .n_experts = max_size(s->n_layer_experts, 1),
                                             .usage = options->usage};
    if (options->usage != NULL && options->n_usage != policy.n_layers * policy.n_experts)
        return mb_fail(err, MB_USAGE, "uses of %zu experts are given; the model has %zu layers of %zu",
                       options->n_usage, policy.n_layers, policy.n_experts);
    s->n_layers = policy.n_layers;
    s->by_number = calloc(policy.n_layers * policy.n_experts, sizeof *s->by_number);
    if (s->by_number == NULL)
        return mb_fail_memory(err, "the list of experts");
    for (size_t i = 0; i < options->n_layers; i++) {
        const struct mb_bound_layer *layer = &options->layers[i];
        for (size_t e = 0; e < layer->n_experts; e++) {
            if (layer->experts[e].n_parts == 0)
                continue;
            s->experts[layer->experts[e].id].number = number + e;
            s->by_number[number + e] = (uint32_t)layer->experts[e].id;
        }
        number += layer->n_experts > 0 ? s->n_layer_experts : 0;
    }
    return mb_policy_open(options->policy, &policy, &s->policy, err);
}

static enum mb_status list_experts(struct mb_disk_slots *s, const struct mb_disk_pool_options *options,
                                   const struct sizes *sizes, struct mb_error *err)
{
    s->experts = calloc(sizes->n_experts + 1, sizeof *s->experts);
    s->pieces = calloc(sizes->n_parts + 1, sizeof *s->pieces);
    if (s->experts == NULL || s->pieces == NULL)
        return mb_fail_memory(err, "the list of experts");
    struct mb_stored_piece *pieces = s->pieces;
    for (size_t i = 0; i < options->n_layers; i++)
        for (size_t e = 0; e < options->layers[i].n_experts; e++) {
            const struct mb_bound_expert *bound = &options->layers[i].experts[e];
            if (bound->n_parts == 0)
                continue;
            struct mb_pool_expert *expert = &s->experts[bound->id];
            *expert = (struct mb_pool_expert){.slot = MB_NO_SLOT};
            mb_stored_expert_list(options->views->index, bound, pieces, &expert->stored);
            expert->stored.layer = (uint32_t)i;
            expert->stored.number = (uint32_t)e;
            pieces += expert->stored.n_pieces;
        }
    return MB_OK;
}

/* Of each size as many experts as it has slots, of its experts' mean size. */
static void count_held(struct mb_disk_slots *s)
{
    uint64_t nbytes[MB_SLOT_SIZES_MAX] = {0};
    for (size_t i = 0; i < s->n_experts; i++)
        for (size_t k = 0; k < s->experts[i].stored.n_pieces; k++)
            nbytes[s->experts[i].size] += s->experts[i].stored.pieces[k].tensor->nbytes;
    for (size_t i = 0; i < s->slot_sizes.n; i++) {
        const struct mb_slot_size *size = &s->slot_sizes.at[i];
        if (size->n_experts > 0)
            s->held_nbytes += (uint64_t)((double)nbytes[i] * (double)size->n_slots / (double)size->n_experts);
    }
}

static int from_smallest(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* How many slots of which sizes 'nbytes' give, and which of them each expert goes to. */
static enum mb_status choose_slots(struct mb_disk_slots *s, uint64_t nbytes,
                                   const struct mb_disk_pool_options *options,
                                   const struct mb_disk_pool_size *size, const struct sizes *sizes,
                                   struct mb_error *err)
{
    uint64_t *expert_nbytes = calloc(s->n_experts + 1, sizeof *expert_nbytes);
    if (expert_nbytes == NULL)
        return mb_fail_memory(err, "the list of experts");
    for (size_t i = 0; i < s->n_experts; i++)
        expert_nbytes[i] = s->experts[i].stored.nbytes;
    qsort(expert_nbytes, s->n_experts, sizeof *expert_nbytes, from_smallest);
    const struct mb_slot_wish wish = {.nbytes = expert_nbytes,
                                      .n_experts = max_size(s->n_experts, 1),
                                      .room_nbytes = nbytes,
                                      .extra_nbytes = size->slot_nbytes - sizes->nbytes_max,
                                      .n_min = options->n_min};
    s->slot_sizes = mb_choose_slot_sizes(&wish);
    free(expert_nbytes);
    for (size_t i = 0; i < s->slot_sizes.n; i++) {
        const struct mb_slot_size *slots = &s->slot_sizes.at[i];
        s->by_size[i] = (struct mb_slots_of_size){.first = s->n_slots, .n = slots->n_slots};
        s->n_slots += slots->n_slots;
        s->slots_nbytes += slots->n_slots * slots->nbytes;
    }
    s->pool_nbytes = size->fixed_nbytes + s->slots_nbytes + s->n_slots * wish.extra_nbytes;
    for (size_t i = 0; i < s->n_experts; i++)
        s->experts[i].size = mb_find_slot_size(&s->slot_sizes, s->experts[i].stored.nbytes);
    count_held(s);
    return MB_OK;
}

static enum mb_status make_slots(struct mb_disk_slots *s, struct mb_error *err)
{
    s->arena_nbytes = s->slots_nbytes + MB_READ_PAGE_NBYTES; /* slack after the last */
    s->arena = mb_pages_alloc(s->arena_nbytes);
    s->tables = mb_alloc(s->n_slots, s->tables_nbytes);
    s->at = calloc(s->n_slots, sizeof *s->at);
    s->blobs = calloc(s->n_slots * s->n_pieces_max, sizeof *s->blobs);
    s->matrices = calloc(s->n_slots * s->n_parts_max, sizeof *s->matrices);
    if (s->arena == NULL || s->tables == NULL || s->at == NULL || s->blobs == NULL || s->matrices == NULL)
        return mb_fail_memory(err, "experts");
    uint8_t *bytes = s->arena;
    for (size_t size = 0, i = 0; size < s->slot_sizes.n; size++)
        for (size_t k = 0; k < s->by_size[size].n; k++, i++, bytes += s->slot_sizes.at[size].nbytes)
            s->at[i].request.memory = (struct mb_expert_memory){.bytes = bytes,
                                                                .tables = s->tables + i * s->tables_nbytes,
                                                                .blobs = s->blobs + i * s->n_pieces_max,
                                                                .views = s->matrices + i * s->n_parts_max};
    return MB_OK;
}

enum mb_status mb_disk_slots_make(struct mb_disk_slots *s, uint64_t nbytes,
                                  const struct mb_disk_pool_options *options, struct mb_error *err)
{
    struct sizes sizes = sizes_of(options);
    struct mb_disk_pool_size size = mb_disk_slots_size(options);
    s->timeline = options->timeline;
    s->n_experts = sizes.n_experts;
    s->n_parts_max = sizes.n_parts_max;
    s->n_pieces_max = sizes.n_pieces_max;
    s->tables_nbytes = sizes.tables_nbytes_max;
    s->expert_nbytes = sizes.expert_nbytes;
    MB_TRY(list_experts(s, options, &sizes, err));
    MB_TRY(choose_slots(s, nbytes > size.fixed_nbytes ? nbytes - size.fixed_nbytes : 0, options, &size,
                        &sizes, err));
    MB_TRY(open_policy(s, options, err));
    return make_slots(s, err);
}

void mb_disk_slots_free(struct mb_disk_slots *s)
{
    mb_pages_free(s->arena, s->arena_nbytes);
    free(s->tables);
    free(s->at);
    free(s->blobs);
    free(s->matrices);
    free(s->experts);
    free(s->by_number);
    mb_policy_close(s->policy);
    free(s->pieces);
}
