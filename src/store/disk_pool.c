/*
 * disk_pool.c - slots, what is in them, and who leaves them.
 *
 * A slot is EMPTY, FILLING while its request is under way (disk_reads.h), and then READY or FAILED.  One lock
 * guards the slots and the reads.
 *
 * Experts of the call that is under way are not evicted for one another: acquired ones are pinned, and others
 * carry the number of the call.
 */
#include "disk_pool.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "disk_reads.h"
#include "slot_sizes.h"
#include <errno.h>
#include <moebius/offload.h>
#include <stdlib.h>

enum { POLICY_NBYTES = 128 }; /* about what a policy keeps of an expert */
/*
 * Of every so many experts of a layer that were read for hints, so many per cent have to be used, or a pause
 * of so many tokens follows.
 */
enum { HINT_WINDOW = 48, HINT_USED_PERCENT = 40, HINT_PAUSE_TOKENS = 2048 };
enum { N_HINTS_MAX = 64, N_HINTS_FILLING_MAX = 2 };
enum { ONCE_SHARE = 8 }; /* of each size one slot in so many is for what is used once */

static const uint32_t NONE = UINT32_MAX;

struct expert {
    struct mb_stored_expert stored;
    uint32_t slot;      /* NONE: it is in none */
    uint64_t wanted_by; /* the last call that wanted it */
    size_t number;      /* as the policy counts experts */
    size_t size;        /* of its slots: their number in slot_sizes */
};

/* How guesses of a layer's experts of one kind went, in the window that is under way. */
struct hint_record {
    uint32_t n_read, n_used;
    uint64_t from_token; /* no guess is taken before it */
};

enum slot_state { EMPTY, FILLING, READY, FAILED };

struct slot {
    struct mb_read_request request; /* is_hint: read because of a hint, and not acquired since */
    enum slot_state state;
    uint32_t expert;
    size_t n_pins;
    struct hint_record *record; /* of the guess that it was read for */
    bool is_filled_for_hint;    /* FILLING: in line as a guess */
    bool is_fresh;              /* not acquired since it was read */
    bool is_once;               /* read for MB_STORE_ONCE, and not acquired otherwise */
};

/* Slots of one size, which follow one another. */
struct slots_of_size {
    size_t first, n;
    size_t n_searched; /* slots from the first on that are not EMPTY */
    size_t n_once;     /* slots that are is_once */
};

struct mb_disk_pool {
    const struct mb_views *views;
    const struct mb_checkpoint *ckpt;
    struct mb_disk_reads *reads;
    struct expert *experts;         /* [n_experts] by mb_bound_expert.id */
    struct mb_stored_piece *pieces; /* of all */
    size_t n_experts, n_pieces_max, n_parts_max;
    struct mb_policy *policy;
    uint32_t
        *by_number;    /* [layers with experts * most experts of one]: of the pool, by the policy's numbers */
    uint64_t n_tokens; /* that went through the layers: passes of generation */
    size_t n_layer_experts;    /* most of a layer */
    size_t last_layer, n_last; /* of the last call, among those with experts, and experts that it left */
    struct slot *slots;
    size_t n_slots;
    struct mb_slot_sizes slot_sizes;
    struct slots_of_size by_size[MB_SLOT_SIZES_MAX];
    uint64_t tables_nbytes, slots_nbytes, arena_nbytes;
    uint8_t *arena, *tables;
    struct mb_blob *blobs;
    struct mb_matrix *matrices;
    uint64_t pool_nbytes, expert_nbytes, held_nbytes;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a slot is READY or FAILED, or may be evicted */
    size_t n_filling;       /* slots FILLING */
    size_t n_failed;        /* slots FAILED */
    uint64_t n_calls;
    /* Guesses that are not in line yet: each takes memory from another only when its turn has come. */
    uint32_t hints[N_HINTS_MAX]; /* experts */
    enum mb_store_hint hint;     /* of which kind they are */
    size_t n_hints, n_hints_begun;
    bool is_short;          /* the last call has found no memory for some experts: guesses take none */
    size_t n_hints_filling; /* slots FILLING that were begun for a guess and are not done */
    struct hint_record *hint_records; /* [layers with experts][MB_N_STORE_HINTS] */
    struct mb_error failure;          /* the last one */
    struct mb_timeline timeline;
    struct mb_store_traffic traffic; /* without what the reads count */
};

/* A call that wants experts. */
struct call {
    const struct mb_bound_layer *layer;
    uint32_t *numbers;
    size_t n, n_max, n_got;
    enum mb_store_use use;
};

static struct expert *expert_of(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                                uint32_t number)
{
    return &pool->experts[layer->experts[number].id];
}

static struct slots_of_size *slots_for(struct mb_disk_pool *pool, const struct expert *expert)
{
    return &pool->by_size[expert->size];
}

static struct hint_record *hint_record_of(const struct mb_disk_pool *pool, const struct expert *expert,
                                          enum mb_store_hint hint)
{
    return &pool->hint_records[expert->number / pool->n_layer_experts * MB_N_STORE_HINTS + hint];
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
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
    sizes->nbytes_max = max_u64(sizes->nbytes_max, expert.nbytes);
    sizes->tables_nbytes_max = max_u64(sizes->tables_nbytes_max, expert.tables_nbytes);
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

struct mb_disk_pool_size mb_disk_pool_size(const struct mb_disk_pool_options *options)
{
    struct sizes sizes = sizes_of(options);
    return (struct mb_disk_pool_size){
        .fixed_nbytes = sizeof(struct mb_disk_pool) +
                        sizes.n_experts * (sizeof(struct expert) + POLICY_NBYTES) +
                        sizes.n_parts * sizeof(struct mb_stored_piece) + 2 * MB_READ_PAGE_NBYTES,
        .slot_nbytes = sizes.nbytes_max + sizes.tables_nbytes_max + sizeof(struct slot) +
                       sizes.n_pieces_max * sizeof(struct mb_blob) +
                       sizes.n_parts_max * sizeof(struct mb_matrix),
        .expert_nbytes = sizes.expert_nbytes,
        .n_experts = sizes.n_experts,
    };
}

/* ---------------------------------------------------------------- slots: with the lock */

/* What has become of a guess. */
static void show_hint(const struct mb_disk_pool *pool, const struct slot *slot, enum mb_timeline_kind kind)
{
    const struct mb_stored_expert *expert = slot->request.expert;
    uint64_t now_ns = pool->timeline.fn != NULL ? mb_now_ns() : 0;
    mb_stored_expert_show(&pool->timeline, expert,
                          (struct mb_timeline_event){
                              .kind = kind, .begun_ns = now_ns, .ended_ns = now_ns, .n = expert->nbytes});
}

static void empty_slot(struct mb_disk_pool *pool, struct slot *slot)
{
    if (slot->state == READY)
        mb_policy_evicted(pool->policy, pool->experts[slot->expert].number);
    if (slot->state == READY && slot->request.is_hint)
        show_hint(pool, slot, MB_TIMELINE_HINT_WASTED);
    pool->n_failed -= slot->state == FAILED;
    struct slots_of_size *slots = slots_for(pool, &pool->experts[slot->expert]);
    pool->experts[slot->expert].slot = NONE;
    slots->n_once -= slot->is_once;
    slots->n_searched = 0;
    slot->is_once = false;
    slot->state = EMPTY;
}

static uint32_t find_empty(struct mb_disk_pool *pool, struct slots_of_size *slots)
{
    while (slots->n_searched < slots->n && pool->slots[slots->first + slots->n_searched].state != EMPTY)
        slots->n_searched++;
    return slots->n_searched < slots->n ? (uint32_t)(slots->first + slots->n_searched) : NONE;
}

/* Of those that nobody waits for. */
static void empty_failed(struct mb_disk_pool *pool)
{
    for (size_t i = 0; i < pool->n_slots && pool->n_failed > 0; i++)
        if (pool->slots[i].state == FAILED && pool->experts[pool->slots[i].expert].wanted_by != pool->n_calls)
            empty_slot(pool, &pool->slots[i]);
}

/* Who needs a slot. */
struct search {
    const struct mb_disk_pool *pool;
    const struct expert *expert;
};

/* An mb_policy_may_evict_fn. */
static bool may_evict(void *ctx, size_t number)
{
    const struct search *search = ctx;
    const struct mb_disk_pool *pool = search->pool;
    const struct expert *expert = &pool->experts[pool->by_number[number]];
    return expert->slot != NONE && expert->size == search->expert->size &&
           pool->slots[expert->slot].state == READY && pool->slots[expert->slot].n_pins == 0 &&
           expert->wanted_by != pool->n_calls;
}

/* The same of those that were read to be used once. */
static bool may_evict_once(void *ctx, size_t number)
{
    const struct mb_disk_pool *pool = ((const struct search *)ctx)->pool;
    return may_evict(ctx, number) && pool->slots[pool->experts[pool->by_number[number]].slot].is_once;
}

/* A slot to read an expert into, EMPTY; NONE: all are in use. */
static uint32_t find_slot(struct mb_disk_pool *pool, const struct expert *expert, enum mb_store_use use)
{
    struct slots_of_size *slots = slots_for(pool, expert);
    struct search search = {pool, expert};
    bool only_once = use == MB_STORE_ONCE && slots->n_once > slots->n / ONCE_SHARE;
    if (pool->n_failed > 0)
        empty_failed(pool);
    uint32_t empty = find_empty(pool, slots);
    if (empty != NONE)
        return empty;
    size_t victim = mb_policy_victim(pool->policy, only_once ? may_evict_once : may_evict, &search);
    if (victim == MB_NO_EXPERT && only_once && pool->n_filling == 0)
        victim = mb_policy_victim(pool->policy, may_evict, &search);
    if (victim == MB_NO_EXPERT)
        return NONE;
    uint32_t found = pool->experts[pool->by_number[victim]].slot;
    empty_slot(pool, &pool->slots[found]);
    return found;
}

/* Puts an expert that is in no slot in line to be read. false: no slot can be had now. */
static bool begin_expert(struct mb_disk_pool *pool, struct expert *expert, enum mb_store_use use,
                         bool is_hint)
{
    uint32_t number = find_slot(pool, expert, use);
    if (number == NONE)
        return false;
    struct slot *slot = &pool->slots[number];
    slot->state = FILLING;
    slot->expert = (uint32_t)(expert - pool->experts);
    slot->is_once = use == MB_STORE_ONCE;
    slots_for(pool, expert)->n_once += slot->is_once;
    pool->n_filling++;
    expert->slot = number;
    slot->request.expert = &expert->stored;
    slot->request.is_hint = slot->is_filled_for_hint = is_hint;
    slot->record = hint_record_of(pool, expert, pool->hint);
    pool->n_hints_filling += is_hint;
    mb_disk_reads_add(pool->reads, &slot->request, is_hint ? MB_READ_HINT : MB_READ_DEMAND);
    return true;
}

static void begin_missing(struct mb_disk_pool *pool, const struct call *call)
{
    bool lacks[MB_SLOT_SIZES_MAX] = {false}; /* slots of that size: others may have some */
    pool->is_short = false;
    for (size_t i = call->n_got; i < call->n; i++) {
        struct expert *expert = expert_of(pool, call->layer, call->numbers[i]);
        bool *lacks_slots = &lacks[expert->size];
        if (expert->slot == NONE && !*lacks_slots)
            *lacks_slots = !begin_expert(pool, expert, call->use, false);
        pool->is_short = pool->is_short || *lacks_slots;
    }
    if (pool->n_filling > 0)
        mb_disk_reads_begin(pool->reads);
}

/* The next guesses, few at a time. */
static void begin_hints(struct mb_disk_pool *pool)
{
    while (!pool->is_short && pool->n_hints_begun < pool->n_hints &&
           pool->n_hints_filling < N_HINTS_FILLING_MAX) {
        struct expert *expert = &pool->experts[pool->hints[pool->n_hints_begun]];
        if (expert->slot == NONE && !begin_expert(pool, expert, MB_STORE_KEEP, true))
            break;
        pool->n_hints_begun++;
    }
    if (pool->n_hints_filling > 0)
        mb_disk_reads_begin(pool->reads);
}

/* An mb_read_done_fn; ctx is the pool. */
static void end_expert(void *ctx, struct mb_read_request *request, enum mb_status status,
                       const struct mb_error *err)
{
    struct mb_disk_pool *pool = ctx;
    struct slot *slot = (struct slot *)request; /* its first member */
    pool->n_filling--;
    slot->record->n_read += request->is_hint;
    pool->n_hints_filling -= slot->is_filled_for_hint;
    slot->is_filled_for_hint = false;
    slot->state = status == MB_OK ? READY : FAILED;
    slot->is_fresh = true;
    if (status == MB_OK) {
        mb_policy_loaded(pool->policy, pool->experts[slot->expert].number);
    } else {
        pool->failure = *err;
        pool->n_failed++;
    }
    begin_hints(pool);
    pthread_cond_broadcast(&pool->changed);
}

/* ---------------------------------------------------------------- acquiring */

static void show(struct mb_disk_pool *pool, const struct expert *expert, const struct slot *slot)
{
    for (size_t i = 0; i < expert->stored.bound->n_parts; i++)
        *mb_stored_view(pool->views, expert->stored.bound->weights[i]) = slot->request.memory.views[i];
}

static void pin(struct mb_disk_pool *pool, const struct expert *expert, enum mb_store_use use)
{
    struct slot *slot = &pool->slots[expert->slot];
    pool->traffic.n_acquired++;
    if (slot->is_fresh) {
        pool->traffic.n_misses++;
        show(pool, expert, slot);
    }
    if (use == MB_STORE_KEEP && slot->is_once) {
        slot->is_once = false;
        slots_for(pool, expert)->n_once--;
    }
    if (slot->request.is_hint)
        show_hint(pool, slot, MB_TIMELINE_HINT_USED);
    slot->record->n_used += slot->request.is_hint;
    pool->traffic.n_hints_used += slot->request.is_hint;
    slot->is_fresh = slot->request.is_hint = false;
    slot->n_pins++;
}

static void take_present(struct mb_disk_pool *pool, struct call *call)
{
    for (size_t i = call->n_got; i < call->n && call->n_got < call->n_max; i++) {
        const struct expert *expert = expert_of(pool, call->layer, call->numbers[i]);
        if (expert->slot == NONE || pool->slots[expert->slot].state != READY)
            continue;
        uint32_t number = call->numbers[i];
        call->numbers[i] = call->numbers[call->n_got];
        call->numbers[call->n_got++] = number;
        pin(pool, expert, call->use);
    }
}

/*
 * Guesses that turn out to be wanted go on before all others; what has not begun of them was no guess.  Those
 * of a layer that was passed are forgotten.
 */
static void settle_hints(struct mb_disk_pool *pool, bool is_new_layer)
{
    if (is_new_layer)
        pool->n_hints = pool->n_hints_begun = 0;
    for (struct mb_read_request *request = mb_disk_reads_take_hints(pool->reads), *next; request != NULL;
         request = next) {
        struct slot *slot = (struct slot *)request;
        bool is_wanted = pool->experts[slot->expert].wanted_by == pool->n_calls;
        next = request->next;
        if (is_wanted) {
            request->is_hint = mb_disk_reads_has_begun(request);
            pool->n_hints_filling--;
            slot->is_filled_for_hint = false;
            mb_disk_reads_put_back(pool->reads, request, MB_READ_DEMAND);
        } else if (!is_new_layer || !mb_disk_reads_may_forget(request)) {
            mb_disk_reads_put_back(pool->reads, request, MB_READ_HINT);
        } else {
            pool->n_filling--;
            pool->n_hints_filling--;
            empty_slot(pool, slot);
        }
    }
}

/* A layer's experts come in several calls: each wants what the one before it has left. */
static bool goes_on(struct mb_disk_pool *pool, const struct call *call, size_t layer)
{
    bool goes = layer == pool->last_layer && call->n == pool->n_last;
    for (size_t i = 0; i < call->n && goes; i++)
        goes = expert_of(pool, call->layer, call->numbers[i])->wanted_by == pool->n_calls;
    return goes;
}

/*
 * What failed before is read again; what fails from now on ends the call.  Tokens pass the layers in order,
 * so that a layer that is not after the last one is the next token's.
 */
static void begin_call(struct mb_disk_pool *pool, const struct call *call)
{
    const size_t number = expert_of(pool, call->layer, call->numbers[0])->number / pool->n_layer_experts;
    const bool is_new_layer = !goes_on(pool, call, number);
    if (is_new_layer && number <= pool->last_layer)
        pool->n_tokens++;
    pool->last_layer = number;
    pool->n_calls++;
    for (size_t i = 0; i < call->n; i++) {
        struct expert *expert = expert_of(pool, call->layer, call->numbers[i]);
        expert->wanted_by = pool->n_calls;
        if (call->use == MB_STORE_KEEP && is_new_layer)
            mb_policy_touch(pool->policy, expert->number, 1, pool->n_tokens);
        if (expert->slot != NONE && pool->slots[expert->slot].state == FAILED)
            empty_slot(pool, &pool->slots[expert->slot]);
    }
    settle_hints(pool, is_new_layer);
}

static bool has_failed(struct mb_disk_pool *pool, const struct call *call)
{
    bool has = false;
    for (size_t i = 0; i < call->n; i++) {
        struct expert *expert = expert_of(pool, call->layer, call->numbers[i]);
        if (expert->slot == NONE || pool->slots[expert->slot].state != FAILED)
            continue;
        empty_slot(pool, &pool->slots[expert->slot]);
        has = true;
    }
    return has;
}

static void wait_for_change(struct mb_disk_pool *pool, const struct call *call)
{
    uint64_t begun_ns = mb_now_ns();
    pthread_cond_wait(&pool->changed, &pool->lock);
    uint64_t ended_ns = mb_now_ns();
    pool->traffic.waited_ns += ended_ns - begun_ns;
    if (pool->timeline.fn == NULL)
        return;
    const struct mb_timeline_event event = {
        .kind = MB_TIMELINE_WAIT,
        .layer = expert_of(pool, call->layer, call->numbers[0])->stored.layer,
        .expert = MB_TIMELINE_NONE,
        .begun_ns = begun_ns,
        .ended_ns = ended_ns,
    };
    pool->timeline.fn(pool->timeline.ctx, &event);
}

static enum mb_status wait_for_some(struct mb_disk_pool *pool, struct call *call, struct mb_error *err)
{
    begin_call(pool, call);
    for (;;) {
        take_present(pool, call);
        begin_missing(pool, call);
        pool->n_last = call->n - call->n_got;
        if (call->n_got > 0)
            return MB_OK;
        if (has_failed(pool, call))
            return mb_pass_on(err, pool->failure.status, &pool->failure);
        if (pool->n_filling == 0)
            return mb_fail(err, MB_NO_MEMORY,
                           "%s: more experts are acquired at once than memory has room for",
                           mb_checkpoint_path(pool->ckpt));
        wait_for_change(pool, call);
    }
}

enum mb_status mb_disk_pool_acquire(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                                    uint32_t *numbers, size_t n, size_t n_max, enum mb_store_use use,
                                    size_t *n_acquired, struct mb_error *err)
{
    struct call call = {.layer = layer, .numbers = numbers, .n = n, .n_max = n_max, .use = use};
    pthread_mutex_lock(&pool->lock);
    enum mb_status status = wait_for_some(pool, &call, err);
    pthread_mutex_unlock(&pool->lock);
    *n_acquired = call.n_got;
    return status;
}

size_t mb_disk_pool_begin(struct mb_disk_pool *pool, const struct mb_bound_layer *layer, uint32_t *numbers,
                          size_t n, enum mb_store_use use)
{
    struct call call = {.layer = layer, .numbers = numbers, .n = n, .use = use};
    pthread_mutex_lock(&pool->lock);
    begin_call(pool, &call);
    begin_missing(pool, &call);
    pool->n_last = n;
    size_t n_present = 0;
    for (size_t i = 0; i < n; i++) {
        const struct expert *expert = expert_of(pool, layer, numbers[i]);
        n_present += expert->slot != NONE && pool->slots[expert->slot].state == READY;
    }
    pthread_mutex_unlock(&pool->lock);
    return n_present;
}

void mb_disk_pool_release(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                          const uint32_t *numbers, size_t n)
{
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < n; i++)
        pool->slots[expert_of(pool, layer, numbers[i])->slot].n_pins--;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

/* Hints that are mostly wrong cost reads and throw out what is worth more: none are taken for a while. */
static bool takes_hints(struct mb_disk_pool *pool, struct hint_record *record)
{
    if (record->n_read >= HINT_WINDOW) {
        bool are_good = 100 * record->n_used >= HINT_USED_PERCENT * record->n_read;
        *record = (struct hint_record){.from_token = are_good ? 0 : pool->n_tokens + HINT_PAUSE_TOKENS};
    }
    return pool->n_tokens >= record->from_token;
}

void mb_disk_pool_prefetch(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                           const uint32_t *numbers, size_t n, enum mb_store_hint hint)
{
    pthread_mutex_lock(&pool->lock);
    if (takes_hints(pool, hint_record_of(pool, expert_of(pool, layer, numbers[0]), hint))) {
        pool->n_hints = pool->n_hints_begun = 0;
        pool->hint = hint;
        for (size_t i = 0; i < n && pool->n_hints < N_HINTS_MAX; i++)
            pool->hints[pool->n_hints++] = (uint32_t)layer->experts[numbers[i]].id;
        begin_hints(pool);
    }
    pthread_mutex_unlock(&pool->lock);
}

/* ---------------------------------------------------------------- making it */

/* Sizes are left out: an expert takes the place of one of about its size. */
static enum mb_status open_policy(struct mb_disk_pool *pool, const struct mb_disk_pool_options *options,
                                  struct mb_error *err)
{
    size_t n_layers = 0, number = 0;
    for (size_t i = 0; i < options->n_layers; i++) {
        n_layers += options->layers[i].n_experts > 0;
        pool->n_layer_experts = max_size(pool->n_layer_experts, options->layers[i].n_experts);
    }
    const struct mb_policy_options policy = {.size = sizeof policy,
                                             .n_layers = n_layers == 0 ? 1 : n_layers,
                                             .n_experts = max_size(pool->n_layer_experts, 1),
                                             .usage = options->usage};
    if (options->usage != NULL && options->n_usage != policy.n_layers * policy.n_experts)
        return mb_fail(err, MB_USAGE, "uses of %zu experts are given; the model has %zu layers of %zu",
                       options->n_usage, policy.n_layers, policy.n_experts);
    pool->by_number = calloc(policy.n_layers * policy.n_experts, sizeof *pool->by_number);
    pool->hint_records = calloc(policy.n_layers * MB_N_STORE_HINTS, sizeof *pool->hint_records);
    if (pool->by_number == NULL || pool->hint_records == NULL)
        return mb_fail_memory(err, "the list of experts");
    for (size_t i = 0; i < options->n_layers; i++) {
        const struct mb_bound_layer *layer = &options->layers[i];
        for (size_t e = 0; e < layer->n_experts; e++) {
            if (layer->experts[e].n_parts == 0)
                continue;
            pool->experts[layer->experts[e].id].number = number + e;
            pool->by_number[number + e] = (uint32_t)layer->experts[e].id;
        }
        number += layer->n_experts > 0 ? pool->n_layer_experts : 0;
    }
    return mb_policy_open(options->policy, &policy, &pool->policy, err);
}

static enum mb_status list_experts(struct mb_disk_pool *pool, const struct mb_disk_pool_options *options,
                                   const struct sizes *sizes, struct mb_error *err)
{
    pool->experts = calloc(sizes->n_experts + 1, sizeof *pool->experts);
    pool->pieces = calloc(sizes->n_parts + 1, sizeof *pool->pieces);
    if (pool->experts == NULL || pool->pieces == NULL)
        return mb_fail_memory(err, "the list of experts");
    struct mb_stored_piece *pieces = pool->pieces;
    for (size_t i = 0; i < options->n_layers; i++)
        for (size_t e = 0; e < options->layers[i].n_experts; e++) {
            const struct mb_bound_expert *bound = &options->layers[i].experts[e];
            if (bound->n_parts == 0)
                continue;
            struct expert *expert = &pool->experts[bound->id];
            *expert = (struct expert){.slot = NONE};
            mb_stored_expert_list(pool->views->index, bound, pieces, &expert->stored);
            expert->stored.layer = (uint32_t)i;
            expert->stored.number = (uint32_t)e;
            pieces += expert->stored.n_pieces;
        }
    return MB_OK;
}

/* Of each size as many experts as it has slots, of its experts' mean size. */
static void count_held(struct mb_disk_pool *pool)
{
    uint64_t nbytes[MB_SLOT_SIZES_MAX] = {0};
    for (size_t i = 0; i < pool->n_experts; i++)
        for (size_t k = 0; k < pool->experts[i].stored.n_pieces; k++)
            nbytes[pool->experts[i].size] += pool->experts[i].stored.pieces[k].tensor->nbytes;
    for (size_t i = 0; i < pool->slot_sizes.n; i++) {
        const struct mb_slot_size *size = &pool->slot_sizes.at[i];
        if (size->n_experts > 0)
            pool->held_nbytes +=
                (uint64_t)((double)nbytes[i] * (double)size->n_slots / (double)size->n_experts);
    }
}

static int from_smallest(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* How many slots of which sizes 'nbytes' give, and which of them each expert goes to. */
static enum mb_status choose_slots(struct mb_disk_pool *pool, uint64_t nbytes,
                                   const struct mb_disk_pool_options *options,
                                   const struct mb_disk_pool_size *size, const struct sizes *sizes,
                                   struct mb_error *err)
{
    uint64_t *expert_nbytes = calloc(pool->n_experts + 1, sizeof *expert_nbytes);
    if (expert_nbytes == NULL)
        return mb_fail_memory(err, "the list of experts");
    for (size_t i = 0; i < pool->n_experts; i++)
        expert_nbytes[i] = pool->experts[i].stored.nbytes;
    qsort(expert_nbytes, pool->n_experts, sizeof *expert_nbytes, from_smallest);
    const struct mb_slot_wish wish = {.nbytes = expert_nbytes,
                                      .n_experts = max_size(pool->n_experts, 1),
                                      .room_nbytes = nbytes,
                                      .extra_nbytes = size->slot_nbytes - sizes->nbytes_max,
                                      .n_min = options->n_min};
    pool->slot_sizes = mb_choose_slot_sizes(&wish);
    free(expert_nbytes);
    for (size_t i = 0; i < pool->slot_sizes.n; i++) {
        const struct mb_slot_size *slots = &pool->slot_sizes.at[i];
        pool->by_size[i] = (struct slots_of_size){.first = pool->n_slots, .n = slots->n_slots};
        pool->n_slots += slots->n_slots;
        pool->slots_nbytes += slots->n_slots * slots->nbytes;
    }
    pool->pool_nbytes = size->fixed_nbytes + pool->slots_nbytes + pool->n_slots * wish.extra_nbytes;
    for (size_t i = 0; i < pool->n_experts; i++)
        pool->experts[i].size = mb_find_slot_size(&pool->slot_sizes, pool->experts[i].stored.nbytes);
    count_held(pool);
    return MB_OK;
}

static enum mb_status make_slots(struct mb_disk_pool *pool, struct mb_error *err)
{
    pool->arena_nbytes = pool->slots_nbytes + MB_READ_PAGE_NBYTES; /* slack after the last */
    pool->arena = mb_pages_alloc(pool->arena_nbytes);
    pool->tables = mb_alloc(pool->n_slots, pool->tables_nbytes);
    pool->slots = calloc(pool->n_slots, sizeof *pool->slots);
    pool->blobs = calloc(pool->n_slots * pool->n_pieces_max, sizeof *pool->blobs);
    pool->matrices = calloc(pool->n_slots * pool->n_parts_max, sizeof *pool->matrices);
    if (pool->arena == NULL || pool->tables == NULL || pool->slots == NULL || pool->blobs == NULL ||
        pool->matrices == NULL)
        return mb_fail_memory(err, "experts");
    uint8_t *bytes = pool->arena;
    for (size_t size = 0, i = 0; size < pool->slot_sizes.n; size++)
        for (size_t k = 0; k < pool->by_size[size].n; k++, i++, bytes += pool->slot_sizes.at[size].nbytes)
            pool->slots[i].request.memory =
                (struct mb_expert_memory){.bytes = bytes,
                                          .tables = pool->tables + i * pool->tables_nbytes,
                                          .blobs = pool->blobs + i * pool->n_pieces_max,
                                          .views = pool->matrices + i * pool->n_parts_max};
    return MB_OK;
}

static enum mb_status fill_pool(struct mb_disk_pool *pool, const struct mb_disk_pool_options *options,
                                struct mb_error *err)
{
    struct sizes sizes = sizes_of(options);
    struct mb_disk_pool_size size = mb_disk_pool_size(options);
    pool->views = options->views;
    pool->ckpt = options->views->index->ckpt;
    pool->timeline = options->timeline;
    pool->n_experts = sizes.n_experts;
    pool->n_parts_max = sizes.n_parts_max;
    pool->n_pieces_max = sizes.n_pieces_max;
    pool->tables_nbytes = sizes.tables_nbytes_max;
    pool->expert_nbytes = sizes.expert_nbytes;
    MB_TRY(list_experts(pool, options, &sizes, err));
    MB_TRY(choose_slots(pool, options->nbytes > size.fixed_nbytes ? options->nbytes - size.fixed_nbytes : 0,
                        options, &size, &sizes, err));
    MB_TRY(open_policy(pool, options, err));
    MB_TRY(make_slots(pool, err));
    const struct mb_disk_reads_options reads = {.ckpt = pool->ckpt,
                                                .reader = options->reader,
                                                .n_threads = options->n_threads,
                                                .link = options->link,
                                                .lock = &pool->lock,
                                                .timeline = options->timeline,
                                                .done = end_expert,
                                                .ctx = pool};
    return mb_disk_reads_open(&reads, &pool->reads, err);
}

/* An expert by the policy's number, and how often it is used. */
struct ranked {
    double usage;
    size_t number;
};

static int from_most_used(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->usage != y->usage)
        return x->usage > y->usage ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

/* Begins to read experts in this order, as many as there are slots for. */
static void begin_ranked(struct mb_disk_pool *pool, const struct ranked *ranked, size_t n)
{
    for (size_t i = 0; i < n && ranked[i].usage > 0; i++) {
        struct expert *expert = &pool->experts[pool->by_number[ranked[i].number]];
        if (expert->number == ranked[i].number && expert->slot == NONE &&
            find_empty(pool, slots_for(pool, expert)) != NONE)
            (void)begin_expert(pool, expert, MB_STORE_KEEP, false);
    }
    mb_disk_reads_begin(pool->reads);
}

/* What was read counts as found in memory from now on. */
static void take_ranked(struct mb_disk_pool *pool)
{
    for (size_t i = 0; i < pool->n_slots; i++) {
        if (pool->slots[i].state != READY)
            continue;
        pool->slots[i].is_fresh = false;
        show(pool, &pool->experts[pool->slots[i].expert], &pool->slots[i]);
    }
}

/* Fills memory with the most used experts. */
static enum mb_status read_most_used(struct mb_disk_pool *pool, const struct mb_disk_pool_options *options,
                                     struct mb_error *err)
{
    struct ranked *ranked = calloc(options->n_usage, sizeof *ranked);
    enum mb_status status = MB_OK;
    if (ranked == NULL)
        return mb_fail_memory(err, "the list of experts");
    for (size_t i = 0; i < options->n_usage; i++)
        ranked[i] = (struct ranked){options->usage[i], i};
    qsort(ranked, options->n_usage, sizeof *ranked, from_most_used);
    pthread_mutex_lock(&pool->lock);
    begin_ranked(pool, ranked, options->n_usage);
    while (pool->n_filling > 0)
        pthread_cond_wait(&pool->changed, &pool->lock);
    if (pool->n_failed > 0)
        status = mb_pass_on(err, pool->failure.status, &pool->failure);
    take_ranked(pool);
    pthread_mutex_unlock(&pool->lock);
    free(ranked);
    return status;
}

enum mb_status mb_disk_pool_create(const struct mb_disk_pool_options *options, struct mb_disk_pool **pool,
                                   struct mb_error *err)
{
    struct mb_disk_pool *made = calloc(1, sizeof *made);
    if (made == NULL)
        return mb_fail_memory(err, "experts");
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->changed, NULL);
    enum mb_status status = fill_pool(made, options, err);
    if (status == MB_OK && options->usage != NULL)
        status = read_most_used(made, options, err);
    if (status != MB_OK) {
        mb_disk_pool_free(made);
        return status;
    }
    *pool = made;
    return MB_OK;
}

void mb_disk_pool_free(struct mb_disk_pool *pool)
{
    if (pool == NULL)
        return;
    mb_disk_reads_close(pool->reads);
    mb_pages_free(pool->arena, pool->arena_nbytes);
    free(pool->tables);
    free(pool->slots);
    free(pool->blobs);
    free(pool->matrices);
    free(pool->experts);
    free(pool->by_number);
    free(pool->hint_records);
    mb_policy_close(pool->policy);
    free(pool->pieces);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static const char *reason_of(int error)
{
    switch (error) {
    case ENOSYS:
        return "the kernel has no io_uring";
    case EPERM:
    case EACCES:
        return "io_uring is forbidden here";
    default:
        return "io_uring cannot be used";
    }
}

void mb_disk_pool_describe(const struct mb_disk_pool *pool, struct mb_store_memory *memory)
{
    int uring_error = mb_disk_reads_uring_error(pool->reads);
    memory->reads = uring_error == 0 ? MB_READS_IO_URING : MB_READS_THREADS;
    memory->reads_reason = uring_error == 0 ? "" : reason_of(uring_error);
    memory->expert_nbytes = pool->expert_nbytes;
    memory->held_nbytes = pool->held_nbytes;
    memory->pool_nbytes = pool->pool_nbytes;
    memory->blob_nbytes += pool->slots_nbytes;
    memory->table_nbytes += pool->pool_nbytes - pool->slots_nbytes;
    memory->n_experts = pool->n_experts;
    memory->n_experts_held = pool->n_slots;
}

struct mb_store_traffic mb_disk_pool_traffic(struct mb_disk_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct mb_store_traffic traffic = pool->traffic;
    mb_disk_reads_traffic(pool->reads, &traffic);
    pthread_mutex_unlock(&pool->lock);
    return traffic;
}
