/*
 * request.h - a request that the scheduler has taken over, and its events.
 */
#ifndef MB_SERVE_REQUEST_H
#define MB_SERVE_REQUEST_H

#include <moebius/scheduler.h>
#include <stdatomic.h>

/* One allocation, made by the submitting thread; from then on the stepping thread's but for is_cancelled. */
struct mb_queued {
    struct mb_queued *next;  /* in the queue */
    struct mb_request asked; /* prompt and stop_ids are its own copies */
    uint64_t id;
    atomic_bool is_cancelled;
    struct mb_sampler sampler;
    size_t n_prompt_done, n_prompt_kept, n_tokens;
    int32_t ids[]; /* prompt, then stop ids */
};

/* A copy of what the caller asked for, checked for a context of n_ctx tokens. */
enum mb_status mb_request_create(const struct mb_request *given, const struct mb_model_info *info,
                                 size_t n_ctx, struct mb_queued **request, struct mb_error *err);

/* Whether a token ends the reply. */
bool mb_request_is_end(const struct mb_queued *request, const struct mb_model_info *info, int32_t token);

/* Each calls the event function once. true: the request has to end. */
bool mb_request_tell_prompt(const struct mb_queued *request);
bool mb_request_tell_token(const struct mb_queued *request, int32_t token, const float *logits);

/* The last event; frees the request. 'token' -1: none. 'err' is read for MB_FINISH_ERROR only. */
void mb_request_end(struct mb_queued *request, enum mb_finish finish, int32_t token,
                    const struct mb_error *err);

#endif
