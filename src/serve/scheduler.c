/*
 * scheduler.c - slots, the queue, and steps.
 *
 * The lock guards the queue, the ids, the counts, and which request is in which slot; only the stepping
 * thread changes the latter, so it reads its slots without.  Sessions, logits and the requests in slots are
 * the stepping thread's alone.  Event functions are called without
 * the lock.
 */
#include "base/error.h"
#include "base/options.h"
#include "request.h"
#include <moebius/scheduler.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { N_SLOTS_DEFAULT = 16, N_WAITING_DEFAULT = 256, N_STEP_TOKENS_DEFAULT = 512 };

struct slot {
    struct mb_session *session;
    struct mb_queued *request; /* NULL: free */
    uint64_t last_used;        /* the id of its last request */
    int32_t token;             /* picked, and not fed yet */
    size_t n_now;              /* tokens of this step; 0: none */
    float *logits;             /* [n_vocab] */
};

struct mb_scheduler {
    struct mb_model *model;
    const struct mb_model_info *info;
    struct mb_scheduler_options options; /* defaults filled in */
    struct slot *slots;                  /* [n_slots] */
    struct mb_batch_item *items;         /* [n_slots] */
    size_t *by_age;                      /* [n_slots] slots that read prompts, oldest request first */
    float *logits;                       /* [n_slots][n_vocab] */
    void *scratch;                       /* of the samplers: [n_vocab] entries of 8 bytes */
    bool has_lock;
    pthread_mutex_t lock;
    pthread_cond_t changed;         /* requests came, or a wake */
    struct mb_queued *first, **end; /* the queue, oldest first; 'end' is where the next one is put */
    size_t n_waiting, n_requests;
    uint64_t last_id;
    bool is_woken, is_closing;
};

/* ---------------------------------------------------------------- open and close */

static enum mb_status open_lock(struct mb_scheduler *s, struct mb_error *err)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0)
        return mb_fail_memory(err, "the scheduler's lock");
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    bool is_there = pthread_cond_init(&s->changed, &attributes) == 0;
    pthread_condattr_destroy(&attributes);
    if (is_there && pthread_mutex_init(&s->lock, NULL) == 0) {
        s->has_lock = true;
        return MB_OK;
    }
    if (is_there)
        pthread_cond_destroy(&s->changed);
    return mb_fail_memory(err, "the scheduler's lock");
}

static enum mb_status open_slots(struct mb_scheduler *s, struct mb_error *err)
{
    struct mb_session_options options = {
        .size = sizeof options, .n_ctx = s->options.n_ctx, .cache_type = s->options.cache_type};
    for (size_t i = 0; i < s->options.n_slots; i++) {
        s->slots[i].logits = s->logits + i * s->info->n_vocab;
        MB_TRY(mb_session_open(s->model, &options, &s->slots[i].session, err));
    }
    return MB_OK;
}

static void fill_defaults(struct mb_scheduler *s)
{
    struct mb_scheduler_options *o = &s->options;
    o->n_slots = o->n_slots == 0 ? N_SLOTS_DEFAULT : o->n_slots;
    o->n_ctx = o->n_ctx == 0 ? s->info->n_ctx_train : o->n_ctx;
    o->n_waiting_max = o->n_waiting_max == 0 ? N_WAITING_DEFAULT : o->n_waiting_max;
    o->n_step_tokens = o->n_step_tokens == 0 ? N_STEP_TOKENS_DEFAULT : o->n_step_tokens;
}

/* Fills in what open has zeroed; after a failure it is closed. */
static enum mb_status fill(struct mb_scheduler *s, const struct mb_scheduler_options *options,
                           struct mb_error *err)
{
    MB_TRY(MB_OPTIONS_TAKE(s->options, options, err));
    fill_defaults(s);
    size_t n_slots = s->options.n_slots, n_vocab = s->info->n_vocab, n_logits;
    if (__builtin_mul_overflow(n_slots, n_vocab, &n_logits))
        return mb_fail(err, MB_USAGE, "%zu slots are too many", n_slots);
    s->slots = calloc(n_slots, sizeof *s->slots);
    s->items = calloc(n_slots, sizeof *s->items);
    s->by_age = calloc(n_slots, sizeof *s->by_age);
    s->logits = calloc(n_logits, sizeof *s->logits);
    s->scratch = calloc(n_vocab, 8);
    if (s->slots == NULL || s->items == NULL || s->by_age == NULL || s->logits == NULL || s->scratch == NULL)
        return mb_fail_memory(err, "the slots of the scheduler");
    MB_TRY(open_lock(s, err));
    return open_slots(s, err);
}

enum mb_status mb_scheduler_open(struct mb_model *model, const struct mb_scheduler_options *options,
                                 struct mb_scheduler **scheduler, struct mb_error *err)
{
    struct mb_scheduler *s = calloc(1, sizeof *s);
    if (s == NULL)
        return mb_fail_memory(err, "the scheduler");
    s->model = model;
    s->info = mb_model_info(model);
    s->end = &s->first;
    enum mb_status status = fill(s, options, err);
    if (status != MB_OK) {
        mb_scheduler_close(s);
        return status;
    }
    *scheduler = s;
    return MB_OK;
}

static void end_all(struct mb_scheduler *s);

void mb_scheduler_close(struct mb_scheduler *s)
{
    if (s == NULL)
        return;
    if (s->has_lock)
        end_all(s);
    for (size_t i = 0; s->slots != NULL && i < s->options.n_slots; i++)
        mb_session_close(s->slots[i].session);
    if (s->has_lock) {
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
    }
    free(s->slots);
    free(s->items);
    free(s->by_age);
    free(s->logits);
    free(s->scratch);
    free(s);
}

uint64_t mb_scheduler_nbytes(const struct mb_scheduler *s)
{
    return s->options.n_slots * mb_session_nbytes(s->slots[0].session);
}

/* ---------------------------------------------------------------- from any thread */

enum mb_status mb_scheduler_submit(struct mb_scheduler *s, const struct mb_request *asked, uint64_t *id,
                                   struct mb_error *err)
{
    struct mb_queued *request;
    MB_TRY(mb_request_create(asked, s->info, s->options.n_ctx, &request, err));
    pthread_mutex_lock(&s->lock);
    bool is_closing = s->is_closing, has_room = !is_closing && s->n_waiting < s->options.n_waiting_max;
    if (has_room) {
        request->id = ++s->last_id;
        if (id != NULL)
            *id = request->id;
        *s->end = request;
        s->end = &request->next;
        s->n_waiting++;
        s->n_requests++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    if (has_room)
        return MB_OK;
    free(request);
    if (is_closing)
        return mb_fail(err, MB_CANCELLED, "the scheduler is closing");
    return mb_fail(err, MB_NO_SPACE, "%zu requests wait already: try again later", s->options.n_waiting_max);
}

/* With the lock held. */
static struct mb_queued *find(const struct mb_scheduler *s, uint64_t id)
{
    for (size_t i = 0; i < s->options.n_slots; i++)
        if (s->slots[i].request != NULL && s->slots[i].request->id == id)
            return s->slots[i].request;
    for (struct mb_queued *request = s->first; request != NULL; request = request->next)
        if (request->id == id)
            return request;
    return NULL;
}

bool mb_scheduler_cancel(struct mb_scheduler *s, uint64_t id)
{
    pthread_mutex_lock(&s->lock);
    struct mb_queued *request = find(s, id);
    if (request != NULL)
        atomic_store(&request->is_cancelled, true);
    pthread_mutex_unlock(&s->lock);
    return request != NULL;
}

size_t mb_scheduler_n_requests(const struct mb_scheduler *scheduler)
{
    struct mb_scheduler *s = (struct mb_scheduler *)scheduler; /* the lock changes, nothing else */
    pthread_mutex_lock(&s->lock);
    size_t n = s->n_requests;
    pthread_mutex_unlock(&s->lock);
    return n;
}

bool mb_scheduler_wait(struct mb_scheduler *s, uint32_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)timeout_ms * 1000000U;
    until.tv_sec += (time_t)(ns / 1000000000U);
    until.tv_nsec = (long)(ns % 1000000000U);
    pthread_mutex_lock(&s->lock);
    while (s->n_requests == 0 && !s->is_woken)
        if (pthread_cond_timedwait(&s->changed, &s->lock, &until) != 0)
            break;
    s->is_woken = false;
    bool has_requests = s->n_requests > 0;
    pthread_mutex_unlock(&s->lock);
    return has_requests;
}

void mb_scheduler_wake(struct mb_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_woken = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* ---------------------------------------------------------------- requests leave */

static void count_one_less(struct mb_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->n_requests--;
    pthread_mutex_unlock(&s->lock);
}

/* The slot is free before the event function is called: it may submit. */
static void end_slot(struct mb_scheduler *s, struct slot *slot, enum mb_finish finish, int32_t token,
                     const struct mb_error *err)
{
    struct mb_queued *request = slot->request;
    pthread_mutex_lock(&s->lock);
    slot->request = NULL;
    pthread_mutex_unlock(&s->lock);
    mb_request_end(request, finish, token, err);
    count_one_less(s);
}

/* The oldest waiting request that was cancelled, or all are when it closes, out of the queue; NULL: none. */
static struct mb_queued *take_cancelled(struct mb_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    struct mb_queued **at = &s->first;
    while (*at != NULL && !s->is_closing && !atomic_load(&(*at)->is_cancelled))
        at = &(*at)->next;
    struct mb_queued *request = *at;
    if (request != NULL) {
        *at = request->next;
        s->end = request->next == NULL ? at : s->end;
        s->n_waiting--;
    }
    pthread_mutex_unlock(&s->lock);
    return request;
}

static void end_cancelled(struct mb_scheduler *s)
{
    for (struct mb_queued *request; (request = take_cancelled(s)) != NULL;) {
        mb_request_end(request, MB_FINISH_CANCELLED, -1, NULL);
        count_one_less(s);
    }
    for (size_t i = 0; i < s->options.n_slots; i++)
        if (s->slots[i].request != NULL && (s->is_closing || atomic_load(&s->slots[i].request->is_cancelled)))
            end_slot(s, &s->slots[i], MB_FINISH_CANCELLED, -1, NULL);
}

static void end_all(struct mb_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_closing = true;
    pthread_mutex_unlock(&s->lock);
    end_cancelled(s);
}

/* ---------------------------------------------------------------- requests enter */

/* How much of a request's prompt a slot has; the last token is always computed, for its logits. */
static size_t n_common(const struct slot *slot, const struct mb_request *asked)
{
    return mb_session_n_common(slot->session, asked->prompt, asked->n_prompt - 1, asked->keep);
}

/* The free slot that has most of the prompt; among equals the one that was used longest ago. NULL: none. */
static struct slot *choose_slot(struct mb_scheduler *s, const struct mb_request *asked)
{
    struct slot *best = NULL;
    size_t n_best = 0;
    for (size_t i = 0; i < s->options.n_slots; i++) {
        struct slot *slot = &s->slots[i];
        if (slot->request != NULL)
            continue;
        size_t n = n_common(slot, asked);
        if (best == NULL || n > n_best || (n == n_best && slot->last_used < best->last_used)) {
            best = slot;
            n_best = n;
        }
    }
    return best;
}

/* Only the stepping thread takes from the queue, so its first request stays while the lock is let go. */
static struct mb_queued *first_waiting(struct mb_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    struct mb_queued *first = s->first;
    pthread_mutex_unlock(&s->lock);
    return first;
}

static void enter(struct mb_scheduler *s, struct slot *slot, struct mb_queued *request)
{
    pthread_mutex_lock(&s->lock);
    s->first = request->next;
    s->end = s->first == NULL ? &s->first : s->end;
    s->n_waiting--;
    slot->request = request;
    pthread_mutex_unlock(&s->lock);
    slot->last_used = request->id;
    request->n_prompt_kept = mb_session_rewind(slot->session, n_common(slot, &request->asked));
    request->n_prompt_done = request->n_prompt_kept;
}

static void admit(struct mb_scheduler *s)
{
    for (struct mb_queued *request; (request = first_waiting(s)) != NULL;) {
        struct slot *slot = choose_slot(s, &request->asked);
        if (slot == NULL)
            return;
        enter(s, slot, request);
    }
}

/* ---------------------------------------------------------------- a step */

static bool is_reading(const struct slot *slot)
{
    return slot->request != NULL && slot->request->n_prompt_done < slot->request->asked.n_prompt;
}

/* Slots that read prompts, oldest request first. */
static size_t sort_by_age(struct mb_scheduler *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->options.n_slots; i++) {
        if (!is_reading(&s->slots[i]))
            continue;
        size_t at = n++;
        for (; at > 0 && s->slots[s->by_age[at - 1]].last_used > s->slots[i].last_used; at--)
            s->by_age[at] = s->by_age[at - 1];
        s->by_age[at] = i;
    }
    return n;
}

static size_t add_generating(struct mb_scheduler *s)
{
    size_t n_items = 0;
    for (size_t i = 0; i < s->options.n_slots; i++) {
        struct slot *slot = &s->slots[i];
        slot->n_now = 0;
        if (slot->request == NULL || is_reading(slot))
            continue;
        slot->n_now = 1;
        s->items[n_items++] = (struct mb_batch_item){.session = slot->session,
                                                     .tokens = &slot->token,
                                                     .n_tokens = 1,
                                                     .is_generated = true,
                                                     .logits = slot->logits};
    }
    return n_items;
}

/* The next batch. Returns its items; their slots have n_now > 0. */
static size_t gather(struct mb_scheduler *s)
{
    size_t n_items = add_generating(s), n_prompts = sort_by_age(s);
    size_t n_left = s->options.n_step_tokens > n_items ? s->options.n_step_tokens - n_items : 1;
    for (size_t i = 0; i < n_prompts && n_left > 0; i++) {
        struct slot *slot = &s->slots[s->by_age[i]];
        const struct mb_queued *request = slot->request;
        size_t n = request->asked.n_prompt - request->n_prompt_done;
        bool is_whole = n <= n_left;
        slot->n_now = is_whole ? n : n_left;
        n_left -= slot->n_now;
        s->items[n_items++] = (struct mb_batch_item){.session = slot->session,
                                                     .tokens = request->asked.prompt + request->n_prompt_done,
                                                     .n_tokens = slot->n_now,
                                                     .logits = is_whole ? slot->logits : NULL};
    }
    return n_items;
}

/* A session that a failed batch had may hold part of it. */
static void fail_batch(struct mb_scheduler *s, const struct mb_error *err)
{
    for (size_t i = 0; i < s->options.n_slots; i++) {
        if (s->slots[i].request == NULL || s->slots[i].n_now == 0)
            continue;
        mb_session_reset(s->slots[i].session);
        if (err->status == MB_CANCELLED)
            end_slot(s, &s->slots[i], MB_FINISH_CANCELLED, -1, NULL);
        else
            end_slot(s, &s->slots[i], MB_FINISH_ERROR, -1, err);
    }
}

/* The next token of a slot's request, from its logits. */
static void make_token(struct mb_scheduler *s, struct slot *slot)
{
    struct mb_queued *request = slot->request;
    struct mb_error err;
    int32_t token;
    if (mb_sampler_pick(&request->sampler, slot->logits, s->info->n_vocab, s->scratch, &token, &err) !=
        MB_OK) {
        end_slot(s, slot, MB_FINISH_ERROR, -1, &err);
        return;
    }
    if (mb_request_is_end(request, s->info, token)) {
        end_slot(s, slot, MB_FINISH_STOP, token, NULL);
        return;
    }
    slot->token = token;
    request->n_tokens++;
    bool is_cancelled = mb_request_tell_token(request, token, slot->logits);
    if (request->n_tokens == request->asked.n_predict)
        end_slot(s, slot, MB_FINISH_LENGTH, -1, NULL);
    else if (is_cancelled)
        end_slot(s, slot, MB_FINISH_CANCELLED, -1, NULL);
    else if (mb_session_n_past(slot->session) == s->options.n_ctx)
        end_slot(s, slot, MB_FINISH_CONTEXT, -1, NULL);
}

static void take_results(struct mb_scheduler *s, struct slot *slot)
{
    struct mb_queued *request = slot->request;
    bool is_cancelled = atomic_load(&request->is_cancelled);
    if (!is_cancelled && is_reading(slot)) {
        request->n_prompt_done += slot->n_now;
        is_cancelled = mb_request_tell_prompt(request) || atomic_load(&request->is_cancelled);
    }
    if (is_cancelled)
        end_slot(s, slot, MB_FINISH_CANCELLED, -1, NULL);
    else if (!is_reading(slot))
        make_token(s, slot);
}

enum mb_status mb_scheduler_step(struct mb_scheduler *s, struct mb_error *err)
{
    struct mb_error failure;
    end_cancelled(s);
    admit(s);
    size_t n_items = gather(s);
    if (n_items == 0)
        return MB_OK;
    enum mb_status status = mb_decode(s->model, s->items, n_items, &failure);
    if (status != MB_OK) {
        fail_batch(s, &failure);
        if (err != NULL)
            *err = failure;
        return status;
    }
    for (size_t i = 0; i < s->options.n_slots; i++)
        if (s->slots[i].request != NULL && s->slots[i].n_now > 0)
            take_results(s, &s->slots[i]);
    return MB_OK;
}
