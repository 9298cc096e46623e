/*
 * disk_pool.c - calls that want experts, guesses, and what is read for them; memory is disk_slots.c's.
 *
 * One lock guards the slots and the reads.
 */
#include "disk_pool.h"
#include "base/clock.h"
#include "base/error.h"
#include "disk_reads.h"
#include "disk_slots.h"
#include <errno.h>
#include <moebius/offload.h>
#include <stdlib.h>

enum { N_HINTS_MAX = 64, N_HINTS_FILLING_MAX = 2 };

struct mb_disk_pool {
    const struct mb_views *views;
    const struct mb_checkpoint *ckpt;
    struct mb_disk_reads *reads;
    struct mb_disk_slots s;
    pthread_mutex_t lock;
    pthread_cond_t changed;    /* a slot is MB_SLOT_READY or MB_SLOT_FAILED, or may be evicted */
    uint64_t n_tokens;         /* that went through the layers: passes of generation */
    size_t last_layer, n_last; /* of the last call, among those with experts, and experts that it left */
    /* Guesses that are not in line yet: each takes memory from another only when its turn has come. */
    uint32_t hints[N_HINTS_MAX]; /* experts */
    enum mb_store_hint hint;     /* of which kind they are */
    size_t n_hints, n_hints_begun;
    bool is_short;          /* the last call has found no memory for some experts: guesses take none */
    size_t n_hints_filling; /* slots MB_SLOT_FILLING that were begun for a guess and are not done */
    struct mb_hint_record *hint_records; /* [layers with experts][MB_N_STORE_HINTS] */
    struct mb_error failure;             /* the last one */
    struct mb_store_traffic traffic;     /* without what the reads count */
};

/* A call that wants experts. */
struct call {
    const struct mb_bound_layer *layer;
    uint32_t *numbers;
    size_t n, n_max, n_got;
    enum mb_store_use use;
};

static struct mb_pool_expert *expert_of(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                                        uint32_t number)
{
    return &pool->s.experts[layer->experts[number].id];
}

static struct mb_hint_record *hint_record_of(const struct mb_disk_pool *pool,
                                             const struct mb_pool_expert *expert, enum mb_store_hint hint)
{
    return &pool->hint_records[expert->number / pool->s.n_layer_experts * MB_N_STORE_HINTS + hint];
}

struct mb_disk_pool_size mb_disk_pool_size(const struct mb_disk_pool_options *options)
{
    struct mb_disk_pool_size size = mb_disk_slots_size(options);
    size.fixed_nbytes += sizeof(struct mb_disk_pool);
    return size;
}

/* ---------------------------------------------------------------- reading: with the lock */

/* Puts an expert that is in no slot in line to be read. false: no slot can be had now. */
static bool begin_expert(struct mb_disk_pool *pool, struct mb_pool_expert *expert, enum mb_store_use use,
                         bool is_hint)
{
    uint32_t number = mb_slot_find(&pool->s, expert, use);
    if (number == MB_NO_SLOT)
        return false;
    struct mb_slot *slot = &pool->s.at[number];
    slot->state = MB_SLOT_FILLING;
    slot->expert = (uint32_t)(expert - pool->s.experts);
    slot->is_once = use == MB_STORE_ONCE;
    mb_slots_for(&pool->s, expert)->n_once += slot->is_once;
    pool->s.n_filling++;
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
        struct mb_pool_expert *expert = expert_of(pool, call->layer, call->numbers[i]);
        bool *lacks_slots = &lacks[expert->size];
        if (expert->slot == MB_NO_SLOT && !*lacks_slots)
            *lacks_slots = !begin_expert(pool, expert, call->use, false);
        pool->is_short = pool->is_short || *lacks_slots;
    }
    if (pool->s.n_filling > 0)
        mb_disk_reads_begin(pool->reads);
}

/* The next guesses, few at a time. */
static void begin_hints(struct mb_disk_pool *pool)
{
    while (!pool->is_short && pool->n_hints_begun < pool->n_hints &&
           pool->n_hints_filling < N_HINTS_FILLING_MAX) {
        struct mb_pool_expert *expert = &pool->s.experts[pool->hints[pool->n_hints_begun]];
        if (expert->slot == MB_NO_SLOT && !begin_expert(pool, expert, MB_STORE_KEEP, true))
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
    struct mb_slot *slot = (struct mb_slot *)request; /* its first member */
    pool->s.n_filling--;
    slot->record->n_read += request->is_hint;
    pool->n_hints_filling -= slot->is_filled_for_hint;
    slot->is_filled_for_hint = false;
    slot->state = status == MB_OK ? MB_SLOT_READY : MB_SLOT_FAILED;
    slot->is_fresh = true;
    if (status == MB_OK) {
        mb_policy_loaded(pool->s.policy, pool->s.experts[slot->expert].number);
    } else {
        pool->failure = *err;
        pool->s.n_failed++;
    }
    begin_hints(pool);
    pthread_cond_broadcast(&pool->changed);
}

/* ---------------------------------------------------------------- acquiring */

static void show(struct mb_disk_pool *pool, const struct mb_pool_expert *expert, const struct mb_slot *slot)
{
    for (size_t i = 0; i < expert->stored.bound->n_parts; i++)
        *mb_stored_view(pool->views, expert->stored.bound->weights[i]) = slot->request.memory.views[i];
}

static void pin(struct mb_disk_pool *pool, const struct mb_pool_expert *expert, enum mb_store_use use)
{
    struct mb_slot *slot = &pool->s.at[expert->slot];
    pool->traffic.n_acquired++;
    if (slot->is_fresh) {
        pool->traffic.n_misses++;
        show(pool, expert, slot);
    }
    if (use == MB_STORE_KEEP && slot->is_once) {
        slot->is_once = false;
        mb_slots_for(&pool->s, expert)->n_once--;
    }
    if (slot->request.is_hint)
        mb_slot_show_hint(&pool->s, slot, MB_TIMELINE_HINT_USED);
    slot->record->n_used += slot->request.is_hint;
    pool->traffic.n_hints_used += slot->request.is_hint;
    slot->is_fresh = slot->request.is_hint = false;
    slot->n_pins++;
}

static void take_present(struct mb_disk_pool *pool, struct call *call)
{
    for (size_t i = call->n_got; i < call->n && call->n_got < call->n_max; i++) {
        const struct mb_pool_expert *expert = expert_of(pool, call->layer, call->numbers[i]);
        if (expert->slot == MB_NO_SLOT || pool->s.at[expert->slot].state != MB_SLOT_READY)
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
        struct mb_slot *slot = (struct mb_slot *)request;
        bool is_wanted = pool->s.experts[slot->expert].wanted_by == pool->s.n_calls;
        next = request->next;
        if (is_wanted) {
            request->is_hint = mb_disk_reads_has_begun(request);
            pool->n_hints_filling--;
            slot->is_filled_for_hint = false;
            mb_disk_reads_put_back(pool->reads, request, MB_READ_DEMAND);
        } else if (!is_new_layer || !mb_disk_reads_forget(request)) {
            mb_disk_reads_put_back(pool->reads, request, MB_READ_HINT);
        } else {
            pool->s.n_filling--;
            pool->n_hints_filling--;
            mb_slot_empty(&pool->s, slot);
        }
    }
}

/* A layer's experts come in several calls: each wants what the one before it has left. */
static bool goes_on(struct mb_disk_pool *pool, const struct call *call, size_t layer)
{
    bool goes = layer == pool->last_layer && call->n == pool->n_last;
    for (size_t i = 0; i < call->n && goes; i++)
        goes = expert_of(pool, call->layer, call->numbers[i])->wanted_by == pool->s.n_calls;
    return goes;
}

/*
 * What failed before is read again; what fails from now on ends the call.  Tokens pass the layers in order,
 * so that a layer that is not after the last one is the next token's.
 */
static void begin_call(struct mb_disk_pool *pool, const struct call *call)
{
    const size_t number = expert_of(pool, call->layer, call->numbers[0])->number / pool->s.n_layer_experts;
    const bool is_new_layer = !goes_on(pool, call, number);
    if (is_new_layer && number <= pool->last_layer)
        pool->n_tokens++;
    pool->last_layer = number;
    pool->s.n_calls++;
    for (size_t i = 0; i < call->n; i++) {
        struct mb_pool_expert *expert = expert_of(pool, call->layer, call->numbers[i]);
        expert->wanted_by = pool->s.n_calls;
        if (call->use == MB_STORE_KEEP && is_new_layer)
            mb_policy_touch(pool->s.policy, expert->number, 1, pool->n_tokens);
        if (expert->slot != MB_NO_SLOT && pool->s.at[expert->slot].state == MB_SLOT_FAILED)
            mb_slot_empty(&pool->s, &pool->s.at[expert->slot]);
    }
    settle_hints(pool, is_new_layer);
}

static bool has_failed(struct mb_disk_pool *pool, const struct call *call)
{
    bool has = false;
    for (size_t i = 0; i < call->n; i++) {
        struct mb_pool_expert *expert = expert_of(pool, call->layer, call->numbers[i]);
        if (expert->slot == MB_NO_SLOT || pool->s.at[expert->slot].state != MB_SLOT_FAILED)
            continue;
        mb_slot_empty(&pool->s, &pool->s.at[expert->slot]);
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
    if (pool->s.timeline.fn == NULL)
        return;
    const struct mb_timeline_event event = {
        .kind = MB_TIMELINE_WAIT,
        .layer = expert_of(pool, call->layer, call->numbers[0])->stored.layer,
        .expert = MB_TIMELINE_NONE,
        .begun_ns = begun_ns,
        .ended_ns = ended_ns,
    };
    pool->s.timeline.fn(pool->s.timeline.ctx, &event);
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
        if (pool->s.n_filling == 0)
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
        const struct mb_pool_expert *expert = expert_of(pool, layer, numbers[i]);
        n_present += expert->slot != MB_NO_SLOT && pool->s.at[expert->slot].state == MB_SLOT_READY;
    }
    pthread_mutex_unlock(&pool->lock);
    return n_present;
}

void mb_disk_pool_release(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                          const uint32_t *numbers, size_t n)
{
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < n; i++)
        pool->s.at[expert_of(pool, layer, numbers[i])->slot].n_pins--;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

/* Hints that are mostly wrong cost reads and throw out what is worth more: none are taken for a while. */
static bool takes_hints(struct mb_disk_pool *pool, struct mb_hint_record *record)
{
    if (record->n_read >= MB_GUESS_WINDOW) {
        bool are_good = 100 * record->n_used >= MB_GUESS_USED_PERCENT * record->n_read;
        *record =
            (struct mb_hint_record){.from_token = are_good ? 0 : pool->n_tokens + MB_GUESS_PAUSE_TOKENS};
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

static enum mb_status fill_pool(struct mb_disk_pool *pool, const struct mb_disk_pool_options *options,
                                struct mb_error *err)
{
    const uint64_t own_nbytes = sizeof *pool;
    pool->views = options->views;
    pool->ckpt = options->views->index->ckpt;
    MB_TRY(mb_disk_slots_make(&pool->s, options->nbytes > own_nbytes ? options->nbytes - own_nbytes : 0,
                              options, err));
    pool->s.pool_nbytes += own_nbytes;
    pool->hint_records = calloc(pool->s.n_layers * MB_N_STORE_HINTS, sizeof *pool->hint_records);
    if (pool->hint_records == NULL)
        return mb_fail_memory(err, "the list of experts");
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
        struct mb_pool_expert *expert = &pool->s.experts[pool->s.by_number[ranked[i].number]];
        if (expert->number == ranked[i].number && expert->slot == MB_NO_SLOT &&
            mb_slot_find_empty(&pool->s, mb_slots_for(&pool->s, expert)) != MB_NO_SLOT)
            (void)begin_expert(pool, expert, MB_STORE_KEEP, false);
    }
    mb_disk_reads_begin(pool->reads);
}

/* What was read counts as found in memory from now on. */
static void take_ranked(struct mb_disk_pool *pool)
{
    for (size_t i = 0; i < pool->s.n_slots; i++) {
        if (pool->s.at[i].state != MB_SLOT_READY)
            continue;
        pool->s.at[i].is_fresh = false;
        show(pool, &pool->s.experts[pool->s.at[i].expert], &pool->s.at[i]);
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
    while (pool->s.n_filling > 0)
        pthread_cond_wait(&pool->changed, &pool->lock);
    if (pool->s.n_failed > 0)
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
    mb_disk_slots_free(&pool->s);
    free(pool->hint_records);
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
    memory->expert_nbytes = pool->s.expert_nbytes;
    memory->held_nbytes = pool->s.held_nbytes;
    memory->pool_nbytes = pool->s.pool_nbytes;
    memory->blob_nbytes += pool->s.slots_nbytes;
    memory->table_nbytes += pool->s.pool_nbytes - pool->s.slots_nbytes;
    memory->n_experts = pool->s.n_experts;
    memory->n_experts_held = pool->s.n_slots;
}

struct mb_store_traffic mb_disk_pool_traffic(struct mb_disk_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct mb_store_traffic traffic = pool->traffic;
    mb_disk_reads_traffic(pool->reads, &traffic);
    pthread_mutex_unlock(&pool->lock);
    return traffic;
}
