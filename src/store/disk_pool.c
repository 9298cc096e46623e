/*
 * disk_pool.c - slots, what is in them, and the threads that fill them.
 *
 * A slot is EMPTY, then QUEUED, READING, ARRIVED and READY in turn, or FAILED.  One lock guards all; reads
 * and checks are done without it.  With io_uring, who wants an expert gives its reads to the kernel; one
 * worker at a time waits for reads that are done, and all of them check what has arrived.  Without it,
 * workers read. A read that fails or ends early is done again by pread, which either succeeds or says what is
 * wrong.
 *
 * Experts of the call that is under way are not evicted for one another: acquired ones are pinned, and others
 * carry the number of the call.
 */
#include "disk_pool.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/error.h"
#include "base/memory.h"
#include "check.h"
#include "uring.h"
#include <errno.h>
#include <moebius/offload.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { N_HINTS_MAX = 2, N_READING_MAX = 8, WORKERS_MAX = 16, N_READERS_MIN = 4, N_DONE = 64 };
enum { POLICY_NBYTES = 128 }; /* about what a policy keeps of an expert */
/* Of every so many experts that were read for hints, so many per cent have to be used, or a pause follows. */
enum { HINT_WINDOW = 128, HINT_USED_PERCENT = 60, HINT_PAUSE_CALLS = 8192 };
enum { ONCE_SHARE = 8 }; /* one slot in so many is for what is used once */

static const uint32_t NONE = UINT32_MAX;

/* A stored tensor of an expert, and its place in a slot. */
struct piece {
    const struct mb_tensor *tensor;
    bool is_blob;
    uint64_t file_pos, read_nbytes; /* what is read: in whole pages */
    uint64_t read_at, at;           /* in the slot: of the read, and of the tensor in it */
    uint64_t tables_at, tables_nbytes;
};

struct expert {
    const struct mb_bound_expert *bound;
    struct piece *pieces;
    size_t n_pieces;
    uint64_t nbytes, tables_nbytes; /* of a slot that holds it */
    uint32_t slot;                  /* NONE: it is in none */
    uint64_t wanted_by;             /* the last call that wanted it */
    size_t number;                  /* as the policy counts experts */
};

enum slot_state { EMPTY, QUEUED, READING, ARRIVED, READY, FAILED };

struct slot {
    enum slot_state state;
    uint32_t expert;
    uint32_t next; /* in a list */
    size_t n_pins;
    size_t n_reading; /* pieces */
    bool is_bad;      /* a read has failed */
    bool is_fresh;    /* not acquired since it was read */
    bool is_hint;     /* read because of a hint, and not acquired since */
    bool is_once;     /* read for MB_STORE_ONCE, and not acquired otherwise */
    uint8_t *bytes, *tables;
    struct mb_blob *blobs;   /* [n_pieces_max] */
    struct mb_matrix *views; /* [n_parts_max] */
};

/* Slots in order, linked by 'next'. */
struct list {
    uint32_t first, last;
};

struct mb_disk_pool {
    const struct mb_views *views;
    const struct mb_checkpoint *ckpt;
    const struct mb_reader *reader;
    struct mb_uring *uring; /* NULL: workers read */
    int uring_error;
    struct expert *experts; /* [n_experts] by mb_bound_expert.id */
    struct piece *pieces;   /* of all */
    size_t n_experts, n_pieces_max, n_parts_max;
    struct mb_policy *policy;
    uint32_t
        *by_number;    /* [layers with experts * most experts of one]: of the pool, by the policy's numbers */
    uint64_t n_tokens; /* that went through the layers: passes of generation */
    size_t n_layer_experts, last_layer; /* most experts of a layer; that of the last call, among those */
    struct slot *slots;
    size_t n_slots;
    uint64_t slot_nbytes, tables_nbytes, arena_nbytes;
    uint8_t *arena, *tables;
    struct mb_blob *blobs;
    struct mb_matrix *matrices;
    uint64_t pool_nbytes, expert_nbytes;

    pthread_mutex_t lock;
    pthread_cond_t work;               /* for workers */
    pthread_cond_t changed;            /* a slot is READY or FAILED, or may be evicted */
    struct list queue, hints, arrived; /* to be read, to be read when nothing else is, to be checked */
    size_t n_filling;                  /* slots QUEUED to ARRIVED */
    size_t n_reading;                  /* slots that are read, by the kernel or by a worker */
    size_t n_in_uring;                 /* those of them that io_uring has */
    size_t n_once;                     /* slots that are is_once */
    size_t n_failed;                   /* slots FAILED */
    size_t n_searched;                 /* slots before it are not EMPTY */
    bool has_reaper;                   /* a worker waits for io_uring */
    bool is_ending;
    uint64_t n_calls;
    uint64_t hints_from;             /* the call before which hints are not taken */
    uint64_t n_hinted, n_hints_used; /* up to the last look at them */
    struct mb_error failure;         /* the last one */
    struct mb_store_traffic traffic;
    uint64_t busy_since_ns;
    pthread_t workers[WORKERS_MAX];
    size_t n_workers;
};

/* ---------------------------------------------------------------- lists */

static void append(struct mb_disk_pool *pool, struct list *list, uint32_t slot)
{
    pool->slots[slot].next = NONE;
    if (list->first == NONE)
        list->first = slot;
    else
        pool->slots[list->last].next = slot;
    list->last = slot;
}

static uint32_t take_first(struct mb_disk_pool *pool, struct list *list)
{
    uint32_t slot = list->first;
    if (slot != NONE)
        list->first = pool->slots[slot].next;
    return slot;
}

/* ---------------------------------------------------------------- experts and their pieces */

static struct expert *expert_of(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                                uint32_t number)
{
    return &pool->experts[layer->experts[number].id];
}

static size_t find_piece(const struct expert *expert, const struct mb_tensor *tensor)
{
    size_t i = 0;
    while (i < expert->n_pieces && expert->pieces[i].tensor != tensor)
        i++;
    return i;
}

/* Blobs begin and end at pages; exact tensors do not: the pages that they lie in are read. */
static void add_piece(const struct mb_index *index, struct expert *expert, const struct mb_tensor *tensor)
{
    struct piece *piece = &expert->pieces[expert->n_pieces++];
    uint64_t before = tensor->file_pos % MB_READ_PAGE_NBYTES;
    *piece = (struct piece){
        .tensor = tensor,
        .is_blob = mb_tensor_is_blob(index->ckpt, tensor),
        .file_pos = tensor->file_pos - before,
        .read_nbytes = mb_round_up(before + tensor->nbytes, MB_READ_PAGE_NBYTES),
        .read_at = expert->nbytes,
        .at = expert->nbytes + before,
        .tables_at = expert->tables_nbytes,
        .tables_nbytes = mb_round_up(index->tables_nbytes[tensor->number], 64),
    };
    expert->nbytes += piece->read_nbytes;
    expert->tables_nbytes += piece->tables_nbytes;
}

static void list_pieces(const struct mb_index *index, struct expert *expert)
{
    for (size_t i = 0; i < expert->bound->n_parts; i++) {
        const struct mb_tensor *tensor = expert->bound->weights[i]->tensor;
        if (find_piece(expert, tensor) == expert->n_pieces)
            add_piece(index, expert, tensor);
    }
}

/* Sizes of all experts together. */
struct sizes {
    size_t n_experts, n_parts, n_parts_max, n_pieces_max;
    uint64_t nbytes_max, tables_nbytes_max, expert_nbytes;
};

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void add_sizes(const struct mb_index *index, const struct mb_bound_expert *bound, struct sizes *sizes)
{
    struct piece pieces[MB_EXPERT_PARTS_MAX];
    struct expert expert = {.bound = bound, .pieces = pieces};
    list_pieces(index, &expert);
    sizes->n_experts++;
    sizes->n_parts += bound->n_parts;
    sizes->n_parts_max = max_size(sizes->n_parts_max, bound->n_parts);
    sizes->n_pieces_max = max_size(sizes->n_pieces_max, expert.n_pieces);
    sizes->nbytes_max = expert.nbytes > sizes->nbytes_max ? expert.nbytes : sizes->nbytes_max;
    if (expert.tables_nbytes > sizes->tables_nbytes_max)
        sizes->tables_nbytes_max = expert.tables_nbytes;
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
                        sizes.n_parts * sizeof(struct piece) + 2 * MB_READ_PAGE_NBYTES,
        .slot_nbytes = sizes.nbytes_max + sizes.tables_nbytes_max + sizeof(struct slot) +
                       sizes.n_pieces_max * sizeof(struct mb_blob) +
                       sizes.n_parts_max * sizeof(struct mb_matrix),
        .expert_nbytes = sizes.expert_nbytes,
        .n_experts = sizes.n_experts,
    };
}

/* ---------------------------------------------------------------- reading: under the lock */

static void begin_busy(struct mb_disk_pool *pool)
{
    if (pool->n_reading++ == 0)
        pool->busy_since_ns = mb_now_ns();
}

static void end_busy(struct mb_disk_pool *pool)
{
    if (--pool->n_reading == 0)
        pool->traffic.busy_ns += mb_now_ns() - pool->busy_since_ns;
}

static uint64_t tag_of(uint32_t slot, size_t piece)
{
    return (uint64_t)slot << 32 | piece;
}

/* One read has ended. */
static void end_read(struct mb_disk_pool *pool, uint64_t tag, int64_t n)
{
    uint32_t number = (uint32_t)(tag >> 32);
    struct slot *slot = &pool->slots[number];
    const struct piece *piece = &pool->experts[slot->expert].pieces[(uint32_t)tag];
    if (n < 0 || (uint64_t)n < piece->at - piece->read_at + piece->tensor->nbytes)
        slot->is_bad = true;
    if (--slot->n_reading > 0)
        return;
    end_busy(pool);
    pool->n_in_uring--;
    slot->state = ARRIVED;
    append(pool, &pool->arrived, number);
}

/* Gives a slot's reads to the kernel. What it does not take counts as failed, and is done by pread. */
static void begin_reads(struct mb_disk_pool *pool, uint32_t number)
{
    struct slot *slot = &pool->slots[number];
    const struct expert *expert = &pool->experts[slot->expert];
    size_t n = 0;
    begin_busy(pool);
    pool->n_in_uring++;
    slot->state = READING;
    slot->n_reading = expert->n_pieces;
    while (n < expert->n_pieces) {
        const struct piece *piece = &expert->pieces[n];
        int fd = mb_reader_fd(pool->reader, piece->tensor->shard);
        if (fd < 0 || piece->read_nbytes > 1U << 30 ||
            !mb_uring_read(pool->uring, fd, piece->file_pos, slot->bytes + piece->read_at, piece->read_nbytes,
                           tag_of(number, n)))
            break;
        n++;
    }
    for (; n < expert->n_pieces; n++)
        end_read(pool, tag_of(number, n), -1);
}

static void begin_queued(struct mb_disk_pool *pool)
{
    if (pool->uring == NULL || (pool->queue.first == NONE && pool->hints.first == NONE))
        return;
    while (pool->n_in_uring < N_READING_MAX && pool->queue.first != NONE)
        begin_reads(pool, take_first(pool, &pool->queue));
    while (pool->n_in_uring < N_HINTS_MAX && pool->hints.first != NONE)
        begin_reads(pool, take_first(pool, &pool->hints));
    mb_uring_submit(pool->uring); /* what it does not take now, the reaper gives to it again */
}

/* ---------------------------------------------------------------- workers: without the lock */

/* Readers name the file and the position; the tensor comes in between. */
static enum mb_status fail_read(const struct mb_disk_pool *pool, const struct mb_tensor *tensor,
                                const struct mb_error *found, struct mb_error *err)
{
    const char *path = mb_tensor_path(pool->ckpt, tensor), *words = found->msg;
    size_t n = strlen(path);
    if (strncmp(words, path, n) == 0 && strncmp(words + n, ": ", 2) == 0)
        words += n + 2;
    return mb_fail(err, found->status, "%s: tensor %s: %s", path, tensor->name, words);
}

static enum mb_status read_pieces(const struct mb_disk_pool *pool, const struct slot *slot,
                                  struct mb_error *err)
{
    const struct expert *expert = &pool->experts[slot->expert];
    struct mb_error found;
    for (size_t i = 0; i < expert->n_pieces; i++) {
        const struct piece *piece = &expert->pieces[i];
        if (mb_reader_read(pool->reader, piece->tensor, 0, slot->bytes + piece->at, piece->tensor->nbytes,
                           &found) != MB_OK)
            return fail_read(pool, piece->tensor, &found, err);
    }
    return MB_OK;
}

static enum mb_status check_piece(const struct mb_disk_pool *pool, const struct slot *slot, size_t i,
                                  struct mb_error *err)
{
    const struct piece *piece = &pool->experts[slot->expert].pieces[i];
    const uint8_t *bytes = slot->bytes + piece->at;
    enum mb_status status = piece->is_blob
                                ? mb_check_blob(piece->tensor, bytes, slot->tables + piece->tables_at,
                                                piece->tables_nbytes, &slot->blobs[i], err)
                                : mb_check_exact(pool->ckpt, piece->tensor, bytes, err);
    return status == MB_OK ? MB_OK
                           : mb_fail_in(err, status, "%s: tensor %s",
                                        mb_tensor_path(pool->ckpt, piece->tensor), piece->tensor->name);
}

static enum mb_status check_slot(const struct mb_disk_pool *pool, const struct slot *slot,
                                 struct mb_error *err)
{
    const struct expert *expert = &pool->experts[slot->expert];
    for (size_t i = 0; i < expert->n_pieces; i++)
        MB_TRY(check_piece(pool, slot, i, err));
    for (size_t i = 0; i < expert->bound->n_parts; i++) {
        const struct mb_weight_info *weight = expert->bound->weights[i];
        size_t k = find_piece(expert, weight->tensor);
        if (weight->is_coded)
            MB_TRY(mb_view_coded(pool->ckpt, weight, &slot->blobs[k], &slot->views[i], err));
        else
            mb_view_exact(weight, slot->bytes + expert->pieces[k].at, &slot->views[i]);
    }
    return MB_OK;
}

/* Reads by pread. Lets the lock go meanwhile. */
static enum mb_status read_slot(struct mb_disk_pool *pool, const struct slot *slot, struct mb_error *err)
{
    begin_busy(pool);
    pthread_mutex_unlock(&pool->lock);
    enum mb_status status = read_pieces(pool, slot, err);
    pthread_mutex_lock(&pool->lock);
    end_busy(pool);
    return status;
}

/* Checks what was read, if it was. Lets the lock go meanwhile. */
static void finish_slot(struct mb_disk_pool *pool, struct slot *slot, enum mb_status status,
                        struct mb_error *err)
{
    pthread_mutex_unlock(&pool->lock);
    uint64_t begun_ns = mb_now_ns();
    if (status == MB_OK)
        status = check_slot(pool, slot, err);
    uint64_t ended_ns = mb_now_ns();
    pthread_mutex_lock(&pool->lock);
    pool->traffic.checked_ns += ended_ns - begun_ns;
    pool->traffic.n_read++;
    pool->traffic.n_hinted += slot->is_hint;
    pool->traffic.read_nbytes += pool->experts[slot->expert].nbytes;
    pool->n_filling--;
    slot->state = status == MB_OK ? READY : FAILED;
    slot->is_fresh = true;
    if (status == MB_OK) {
        mb_policy_loaded(pool->policy, pool->experts[slot->expert].number);
    } else {
        pool->failure = *err;
        pool->n_failed++;
    }
    pthread_cond_broadcast(&pool->changed);
}

static void finish_arrived(struct mb_disk_pool *pool)
{
    struct slot *slot = &pool->slots[take_first(pool, &pool->arrived)];
    struct mb_error err;
    enum mb_status status = slot->is_bad ? read_slot(pool, slot, &err) : MB_OK;
    finish_slot(pool, slot, status, &err);
}

static void read_queued(struct mb_disk_pool *pool)
{
    struct list *list = pool->queue.first != NONE ? &pool->queue : &pool->hints;
    struct slot *slot = &pool->slots[take_first(pool, list)];
    struct mb_error err;
    slot->state = READING;
    enum mb_status status = read_slot(pool, slot, &err);
    finish_slot(pool, slot, status, &err);
}

static void reap(struct mb_disk_pool *pool)
{
    struct mb_uring_done done[N_DONE];
    size_t n = 0;
    pool->has_reaper = true;
    bool is_submitted = mb_uring_submit(pool->uring);
    pthread_mutex_unlock(&pool->lock);
    if (is_submitted)
        n = mb_uring_wait(pool->uring, done, N_DONE);
    else
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* the kernel is short of something */
    pthread_mutex_lock(&pool->lock);
    pool->has_reaper = false;
    for (size_t i = 0; i < n; i++)
        end_read(pool, done[i].tag, done[i].n);
    begin_queued(pool);
    pthread_cond_broadcast(&pool->work); /* this worker checks what has arrived, others may wait for more */
}

static void *worker_main(void *ctx)
{
    struct mb_disk_pool *pool = ctx;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        if (pool->arrived.first != NONE)
            finish_arrived(pool);
        else if (pool->uring == NULL && !pool->is_ending &&
                 (pool->queue.first != NONE || pool->hints.first != NONE))
            read_queued(pool);
        else if (pool->uring != NULL && pool->n_in_uring > 0 && !pool->has_reaper)
            reap(pool);
        else if (pool->is_ending)
            break;
        else
            pthread_cond_wait(&pool->work, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* ---------------------------------------------------------------- slots: under the lock */

static void empty_slot(struct mb_disk_pool *pool, struct slot *slot)
{
    if (slot->state == READY)
        mb_policy_evicted(pool->policy, pool->experts[slot->expert].number);
    pool->n_failed -= slot->state == FAILED;
    pool->experts[slot->expert].slot = NONE;
    pool->n_once -= slot->is_once;
    slot->is_once = false;
    slot->state = EMPTY;
    pool->n_searched = 0;
}

static uint32_t find_empty(struct mb_disk_pool *pool)
{
    while (pool->n_searched < pool->n_slots && pool->slots[pool->n_searched].state != EMPTY)
        pool->n_searched++;
    return pool->n_searched < pool->n_slots ? (uint32_t)pool->n_searched : NONE;
}

/* Of those that nobody waits for. */
static void empty_failed(struct mb_disk_pool *pool)
{
    for (size_t i = 0; i < pool->n_slots && pool->n_failed > 0; i++)
        if (pool->slots[i].state == FAILED && pool->experts[pool->slots[i].expert].wanted_by != pool->n_calls)
            empty_slot(pool, &pool->slots[i]);
}

/* An mb_policy_may_evict_fn. */
static bool may_evict(void *ctx, size_t number)
{
    const struct mb_disk_pool *pool = ctx;
    const struct expert *expert = &pool->experts[pool->by_number[number]];
    return expert->slot != NONE && pool->slots[expert->slot].state == READY &&
           pool->slots[expert->slot].n_pins == 0 && expert->wanted_by != pool->n_calls;
}

/* The same of those that were read to be used once. */
static bool may_evict_once(void *ctx, size_t number)
{
    const struct mb_disk_pool *pool = ctx;
    return may_evict(ctx, number) && pool->slots[pool->experts[pool->by_number[number]].slot].is_once;
}

/* A slot to read into, EMPTY; NONE: all are in use. */
static uint32_t find_slot(struct mb_disk_pool *pool, enum mb_store_use use)
{
    bool only_once = use == MB_STORE_ONCE && pool->n_once > pool->n_slots / ONCE_SHARE;
    if (pool->n_failed > 0)
        empty_failed(pool);
    uint32_t empty = find_empty(pool);
    if (empty != NONE)
        return empty;
    size_t victim = mb_policy_victim(pool->policy, only_once ? may_evict_once : may_evict, pool);
    if (victim == MB_NO_EXPERT && only_once && pool->n_filling == 0)
        victim = mb_policy_victim(pool->policy, may_evict, pool);
    if (victim == MB_NO_EXPERT)
        return NONE;
    uint32_t found = pool->experts[pool->by_number[victim]].slot;
    empty_slot(pool, &pool->slots[found]);
    return found;
}

/* Begins to read an expert that is in no slot. false: no slot can be had now. */
static bool begin_expert(struct mb_disk_pool *pool, struct expert *expert, enum mb_store_use use,
                         struct list *list)
{
    uint32_t number = find_slot(pool, use);
    if (number == NONE)
        return false;
    struct slot *slot = &pool->slots[number];
    slot->state = QUEUED;
    slot->expert = (uint32_t)(expert - pool->experts);
    slot->is_bad = false;
    slot->is_hint = list == &pool->hints;
    slot->is_once = use == MB_STORE_ONCE;
    pool->n_once += slot->is_once;
    pool->n_filling++;
    expert->slot = number;
    append(pool, list, number);
    return true;
}

static void begin_missing(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                          const uint32_t *numbers, size_t n, enum mb_store_use use, struct list *list)
{
    for (size_t i = 0; i < n; i++) {
        struct expert *expert = expert_of(pool, layer, numbers[i]);
        if (expert->slot == NONE && !begin_expert(pool, expert, use, list))
            break;
    }
    begin_queued(pool);
    if (pool->n_filling > 0)
        pthread_cond_broadcast(&pool->work);
}

/* ---------------------------------------------------------------- acquiring */

/* A call that wants experts. */
struct call {
    const struct mb_bound_layer *layer;
    uint32_t *numbers;
    size_t n, n_max, n_got;
    enum mb_store_use use;
};

static void show(struct mb_disk_pool *pool, const struct expert *expert, const struct slot *slot)
{
    for (size_t i = 0; i < expert->bound->n_parts; i++)
        *mb_stored_view(pool->views, expert->bound->weights[i]) = slot->views[i];
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
        pool->n_once--;
    }
    pool->traffic.n_hints_used += slot->is_hint;
    slot->is_fresh = slot->is_hint = false;
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

/* Hints that turn out to be wanted are no hints any more; those of a layer that was passed are forgotten. */
static void settle_hints(struct mb_disk_pool *pool, bool is_new_layer)
{
    struct list hints = pool->hints;
    pool->hints = (struct list){NONE, NONE};
    for (uint32_t number; (number = take_first(pool, &hints)) != NONE;) {
        struct slot *slot = &pool->slots[number];
        bool is_wanted = pool->experts[slot->expert].wanted_by == pool->n_calls;
        if (is_wanted || !is_new_layer) {
            slot->is_hint = !is_wanted;
            append(pool, is_wanted ? &pool->queue : &pool->hints, number);
            continue;
        }
        pool->n_filling--;
        empty_slot(pool, slot);
    }
}

/*
 * What failed before is read again; what fails from now on ends the call.  Tokens pass the layers in order,
 * so that a layer that is not after the last one is the next token's.  A layer's experts come in several
 * calls.
 */
static void begin_call(struct mb_disk_pool *pool, const struct call *call)
{
    const size_t number = expert_of(pool, call->layer, call->numbers[0])->number / pool->n_layer_experts;
    const bool is_new_layer = number != pool->last_layer;
    if (number < pool->last_layer)
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

static enum mb_status wait_for_some(struct mb_disk_pool *pool, struct call *call, struct mb_error *err)
{
    begin_call(pool, call);
    for (;;) {
        take_present(pool, call);
        begin_missing(pool, call->layer, call->numbers + call->n_got, call->n - call->n_got, call->use,
                      &pool->queue);
        if (call->n_got > 0)
            return MB_OK;
        if (has_failed(pool, call))
            return mb_pass_on(err, pool->failure.status, &pool->failure);
        if (pool->n_filling == 0)
            return mb_fail(err, MB_NO_MEMORY,
                           "%s: more experts are acquired at once than memory has room for",
                           mb_checkpoint_path(pool->ckpt));
        uint64_t begun_ns = mb_now_ns();
        pthread_cond_wait(&pool->changed, &pool->lock);
        pool->traffic.waited_ns += mb_now_ns() - begun_ns;
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
static bool takes_hints(struct mb_disk_pool *pool)
{
    const struct mb_store_traffic *t = &pool->traffic;
    uint64_t n = t->n_hinted - pool->n_hinted, n_used = t->n_hints_used - pool->n_hints_used;
    if (n >= HINT_WINDOW) {
        if (100 * n_used < HINT_USED_PERCENT * n)
            pool->hints_from = pool->n_calls + HINT_PAUSE_CALLS;
        pool->n_hinted = t->n_hinted;
        pool->n_hints_used = t->n_hints_used;
    }
    return pool->n_calls >= pool->hints_from;
}

void mb_disk_pool_prefetch(struct mb_disk_pool *pool, const struct mb_bound_layer *layer,
                           const uint32_t *numbers, size_t n)
{
    pthread_mutex_lock(&pool->lock);
    if (takes_hints(pool))
        begin_missing(pool, layer, numbers, n, MB_STORE_KEEP, &pool->hints);
    pthread_mutex_unlock(&pool->lock);
}

/* ---------------------------------------------------------------- making it */

/* Sizes are left out: all slots are alike. */
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
                                             .n_experts = max_size(pool->n_layer_experts, 1)};
    pool->by_number = calloc(policy.n_layers * policy.n_experts, sizeof *pool->by_number);
    if (pool->by_number == NULL)
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
    struct piece *pieces = pool->pieces;
    for (size_t i = 0; i < options->n_layers; i++)
        for (size_t e = 0; e < options->layers[i].n_experts; e++) {
            const struct mb_bound_expert *bound = &options->layers[i].experts[e];
            if (bound->n_parts == 0)
                continue;
            struct expert *expert = &pool->experts[bound->id];
            *expert = (struct expert){.bound = bound, .pieces = pieces, .slot = NONE};
            list_pieces(pool->views->index, expert);
            pieces += expert->n_pieces;
        }
    return MB_OK;
}

static enum mb_status make_slots(struct mb_disk_pool *pool, struct mb_error *err)
{
    pool->arena_nbytes = pool->n_slots * pool->slot_nbytes + MB_READ_PAGE_NBYTES; /* slack after the last */
    pool->arena = mb_pages_alloc(pool->arena_nbytes);
    pool->tables = mb_alloc(pool->n_slots, pool->tables_nbytes);
    pool->slots = calloc(pool->n_slots, sizeof *pool->slots);
    pool->blobs = calloc(pool->n_slots * pool->n_pieces_max, sizeof *pool->blobs);
    pool->matrices = calloc(pool->n_slots * pool->n_parts_max, sizeof *pool->matrices);
    if (pool->arena == NULL || pool->tables == NULL || pool->slots == NULL || pool->blobs == NULL ||
        pool->matrices == NULL)
        return mb_fail_memory(err, "experts");
    for (size_t i = 0; i < pool->n_slots; i++)
        pool->slots[i] = (struct slot){.bytes = pool->arena + i * pool->slot_nbytes,
                                       .tables = pool->tables + i * pool->tables_nbytes,
                                       .blobs = pool->blobs + i * pool->n_pieces_max,
                                       .views = pool->matrices + i * pool->n_parts_max};
    return MB_OK;
}

static enum mb_status start_workers(struct mb_disk_pool *pool, int n_threads, struct mb_error *err)
{
    if (n_threads == 0) {
        struct mb_cpu_share share = mb_cpu_share();
        n_threads = mb_cpu_share_threads(&share);
    }
    int n = pool->uring == NULL && n_threads < N_READERS_MIN ? N_READERS_MIN : n_threads;
    n = n < 1 ? 1 : n < WORKERS_MAX ? n : WORKERS_MAX;
    for (; pool->n_workers < (size_t)n; pool->n_workers++)
        if (pthread_create(&pool->workers[pool->n_workers], NULL, worker_main, pool) != 0)
            return mb_fail(err, MB_NO_MEMORY, "a thread that reads experts cannot be started");
    return MB_OK;
}

static enum mb_status fill_pool(struct mb_disk_pool *pool, const struct mb_disk_pool_options *options,
                                struct mb_error *err)
{
    struct sizes sizes = sizes_of(options);
    struct mb_disk_pool_size size = mb_disk_pool_size(options);
    uint64_t n_slots =
        options->nbytes > size.fixed_nbytes ? (options->nbytes - size.fixed_nbytes) / size.slot_nbytes : 0;
    pool->views = options->views;
    pool->ckpt = options->views->index->ckpt;
    pool->reader = options->reader;
    pool->n_experts = sizes.n_experts;
    pool->n_parts_max = sizes.n_parts_max;
    pool->n_pieces_max = sizes.n_pieces_max;
    pool->slot_nbytes = sizes.nbytes_max;
    pool->tables_nbytes = sizes.tables_nbytes_max;
    pool->expert_nbytes = sizes.expert_nbytes;
    pool->n_slots = n_slots < 1 ? 1 : n_slots < sizes.n_experts ? (size_t)n_slots : sizes.n_experts;
    pool->pool_nbytes = size.fixed_nbytes + pool->n_slots * size.slot_nbytes;
    MB_TRY(list_experts(pool, options, &sizes, err));
    MB_TRY(open_policy(pool, options, err));
    MB_TRY(make_slots(pool, err));
    pool->uring = mb_uring_open((unsigned)(N_READING_MAX * pool->n_pieces_max), &pool->uring_error);
    return start_workers(pool, options->n_threads, err);
}

enum mb_status mb_disk_pool_create(const struct mb_disk_pool_options *options, struct mb_disk_pool **pool,
                                   struct mb_error *err)
{
    struct mb_disk_pool *made = calloc(1, sizeof *made);
    if (made == NULL)
        return mb_fail_memory(err, "experts");
    made->queue = made->hints = made->arrived = (struct list){NONE, NONE};
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->work, NULL);
    pthread_cond_init(&made->changed, NULL);
    enum mb_status status = fill_pool(made, options, err);
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
    pthread_mutex_lock(&pool->lock);
    pool->is_ending = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->n_workers; i++)
        pthread_join(pool->workers[i], NULL);
    mb_uring_close(pool->uring);
    mb_pages_free(pool->arena, pool->arena_nbytes);
    free(pool->tables);
    free(pool->slots);
    free(pool->blobs);
    free(pool->matrices);
    free(pool->experts);
    free(pool->by_number);
    mb_policy_close(pool->policy);
    free(pool->pieces);
    pthread_cond_destroy(&pool->changed);
    pthread_cond_destroy(&pool->work);
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
    uint64_t arena_nbytes = pool->n_slots * pool->slot_nbytes;
    memory->reads = pool->uring != NULL ? MB_READS_IO_URING : MB_READS_THREADS;
    memory->reads_reason = pool->uring != NULL ? "" : reason_of(pool->uring_error);
    memory->expert_nbytes = pool->expert_nbytes;
    memory->pool_nbytes = pool->pool_nbytes;
    memory->blob_nbytes += arena_nbytes;
    memory->table_nbytes += pool->pool_nbytes - arena_nbytes;
    memory->n_experts = pool->n_experts;
    memory->n_experts_held = pool->n_slots;
}

struct mb_store_traffic mb_disk_pool_traffic(struct mb_disk_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct mb_store_traffic traffic = pool->traffic;
    if (pool->n_reading > 0)
        traffic.busy_ns += mb_now_ns() - pool->busy_since_ns;
    pthread_mutex_unlock(&pool->lock);
    return traffic;
}
