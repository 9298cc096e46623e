/*
 * scheduler.h - many requests on one model: continuous batches in a fixed number of slots.
 *
 *     mb_scheduler_open(model, NULL, &scheduler, &err);
 *     mb_scheduler_submit(scheduler, &request, &id, &err);     any thread, any time
 *     while (mb_scheduler_n_requests(scheduler) > 0)           one thread
 *         mb_scheduler_step(scheduler, &err);                  calls request.event
 *     mb_scheduler_close(scheduler);
 *
 * Policy, fixed: waiting requests take free slots in the order they were submitted.  A step computes one
 * token of each request that generates, and beside them prompts, oldest request first, in pieces of what is
 * left of the step's tokens.  A slot's session keeps the tokens of its last request: a request takes the slot
 * that has most of its prompt already, and computes the rest.
 *
 * Results do not depend on any of this.  A request's tokens are what it would get alone on a fresh session;
 * only one that sets keep = MB_KEEP_ALL may see, in rounding, which slot it got (engine.h).
 *
 * Memory: the sessions of all slots are opened with the scheduler and reused, so attention caches never grow.
 * A waiting request costs its prompt.  Steps allocate nothing, whether they compute prompts or tokens.
 *
 * Threads: one thread at a time calls mb_scheduler_step, and nothing else uses the model's mb_decode
 * meanwhile.  mb_scheduler_submit, _cancel, _n_requests, _wait and _wake may be called by any thread.
 */
#ifndef MOEBIUS_SCHEDULER_H
#define MOEBIUS_SCHEDULER_H

#include <moebius/engine.h>
#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mb_scheduler;

/* Zeroed means defaults. */
struct mb_scheduler_options {
    size_t size;          /* sizeof(struct mb_scheduler_options) */
    size_t n_slots;       /* requests computed at once; 0: 16 */
    size_t n_ctx;         /* tokens of a request, prompt and reply together; 0: the model's context */
    size_t n_waiting_max; /* requests that wait for a slot; 0: 256 */
    /*
     * Most tokens a step computes; 0: 512, one pass of the model.  It bounds how long a request that
     * generates waits for others' prompts.  Each request that generates gets its token anyway, and prompts
     * one token.
     */
    size_t n_step_tokens;
    enum mb_cache_type cache_type;
};

/* The model has to stay open longer than the scheduler. */
MB_API enum mb_status mb_scheduler_open(struct mb_model *model, const struct mb_scheduler_options *options,
                                        struct mb_scheduler **scheduler, struct mb_error *err);

/*
 * Requests that are left end as MB_FINISH_CANCELLED; the calling thread calls their event functions.  No
 * other thread may be using the scheduler.  NULL: nothing to do.
 */
MB_API void mb_scheduler_close(struct mb_scheduler *scheduler);

MB_API uint64_t mb_scheduler_nbytes(const struct mb_scheduler *scheduler); /* of all slots' caches */

/* ---------------------------------------------------------------- events */

enum mb_event_kind {
    MB_EVENT_PROMPT = 0, /* a piece of the prompt was read: n_prompt_done of n_prompt tokens */
    MB_EVENT_TOKEN = 1,  /* one more token of the reply */
    MB_EVENT_DONE = 2,   /* the last event of every request, once */
};

enum mb_finish {
    MB_FINISH_STOP = 0,    /* the model's end of text, or a stop id: event.token, not part of the reply */
    MB_FINISH_LENGTH = 1,  /* n_predict tokens */
    MB_FINISH_CONTEXT = 2, /* the context is full */
    MB_FINISH_CANCELLED =
        3,               /* mb_scheduler_cancel, the event function said so, or the scheduler was closed */
    MB_FINISH_ERROR = 4, /* event.status and event.message say what happened; other requests go on */
};

/* What it points to lives as long as the call. */
struct mb_event {
    enum mb_event_kind kind;
    uint64_t id;          /* of the request */
    size_t n_prompt;      /* tokens */
    size_t n_prompt_done; /* that the slot holds */
    size_t n_prompt_kept; /* of these, that an earlier request had left there */
    size_t n_tokens;      /* of the reply so far, this one included */
    int32_t token;        /* TOKEN: the token; DONE, MB_FINISH_STOP: what ended the reply; else -1 */
    const float *logits;  /* TOKEN: [n_vocab] that the token was picked from; else NULL */
    enum mb_finish finish;
    enum mb_status status; /* of MB_FINISH_ERROR */
    const char *message;   /* of MB_FINISH_ERROR; else "" */
};

/*
 * Called by the thread in mb_scheduler_step (or _close), which holds no lock meanwhile: it may submit and
 * cancel, and must not step or close.  true: end the request, as MB_FINISH_CANCELLED; ignored at DONE.
 */
typedef bool (*mb_event_fn)(void *ctx, const struct mb_event *event);

/* ---------------------------------------------------------------- requests */

/* Zeroed means defaults: greedy, until the model ends or the context is full. */
struct mb_request {
    size_t size;                              /* sizeof(struct mb_request) */
    const int32_t *prompt;                    /* copied */
    size_t n_prompt;                          /* at least 1 */
    size_t n_predict;                         /* most tokens of the reply; 0: as many as the context holds */
    const struct mb_sampler_options *sampler; /* copied; NULL: greedy */
    const int32_t *stop_ids;                  /* end the reply as the model's own eos ids do; copied */
    size_t n_stop_ids;
    bool ignore_eos;   /* only stop_ids end it */
    enum mb_keep keep; /* of what an earlier request left in the slot */
    mb_event_fn event; /* must be set */
    void *ctx;
};

/*
 * Queues a request; *id (never 0; may be NULL) names it in mb_scheduler_cancel.  Its events come from
 * mb_scheduler_step, perhaps before this call returns where another thread steps.
 * MB_USAGE: an empty prompt, one longer than the context, a token outside the vocabulary, no event function,
 * wrong sampler options.
 * MB_NO_SPACE: n_waiting_max requests wait already; try again after a step.  MB_CANCELLED: from an event of
 * mb_scheduler_close.
 * After an error no event comes.
 */
MB_API enum mb_status mb_scheduler_submit(struct mb_scheduler *scheduler, const struct mb_request *request,
                                          uint64_t *id, struct mb_error *err);

/*
 * Asks a request to end; its DONE comes from the step under way or the next one, after at most one more
 * event.  false: there is no such request, or its DONE is just being delivered.
 */
MB_API bool mb_scheduler_cancel(struct mb_scheduler *scheduler, uint64_t id);

/* Requests whose DONE has not come: in slots and waiting. */
MB_API size_t mb_scheduler_n_requests(const struct mb_scheduler *scheduler);

/*
 * Computes once over all active requests and calls their event functions.  Without requests it does nothing.
 * An error is the model's (mb_decode): the requests that were computed have ended with it as
 * MB_FINISH_ERROR, and further steps go on with those that waited.
 */
MB_API enum mb_status mb_scheduler_step(struct mb_scheduler *scheduler, struct mb_error *err);

/*
 * Blocks until there are requests, mb_scheduler_wake is called, or the time is over.  true: there are
 * requests.  A wake that nobody waited for ends the next wait.
 */
MB_API bool mb_scheduler_wait(struct mb_scheduler *scheduler, uint32_t timeout_ms);
MB_API void mb_scheduler_wake(struct mb_scheduler *scheduler);

#ifdef __cplusplus
}
#endif

#endif
