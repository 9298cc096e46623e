/*
 * request.c - checks and copies requests, and calls their event functions.
 */
#include "request.h"
#include "base/error.h"
#include "base/options.h"
#include <stdlib.h>
#include <string.h>

static enum mb_status check_ids(const char *what, const int32_t *ids, size_t n, size_t n_vocab,
                                struct mb_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= n_vocab)
            return mb_fail(err, MB_USAGE, "%s: token %zu, %d, is not in the vocabulary of %zu", what, i,
                           (int)ids[i], n_vocab);
    return MB_OK;
}

static enum mb_status check(const struct mb_request *asked, const struct mb_model_info *info, size_t n_ctx,
                            struct mb_error *err)
{
    if (asked->event == NULL)
        return mb_fail(err, MB_USAGE, "the request has no event function");
    if (asked->n_prompt == 0)
        return mb_fail(err, MB_USAGE, "the prompt is empty");
    if (asked->n_prompt > n_ctx)
        return mb_fail(err, MB_USAGE, "a prompt of %zu tokens does not fit a context of %zu", asked->n_prompt,
                       n_ctx);
    MB_TRY(check_ids("prompt", asked->prompt, asked->n_prompt, info->n_vocab, err));
    return check_ids("stop ids", asked->stop_ids, asked->n_stop_ids, info->n_vocab, err);
}

enum mb_status mb_request_create(const struct mb_request *given, const struct mb_model_info *info,
                                 size_t n_ctx, struct mb_queued **request, struct mb_error *err)
{
    struct mb_request asked;
    struct mb_sampler sampler;
    struct mb_queued *r = NULL;
    size_t n_ids, nbytes = 0;
    MB_TRY(MB_OPTIONS_TAKE(asked, given, err));
    MB_TRY(check(&asked, info, n_ctx, err));
    MB_TRY(mb_sampler_init(&sampler, asked.sampler, err));
    if (!__builtin_add_overflow(asked.n_prompt, asked.n_stop_ids, &n_ids) &&
        !__builtin_mul_overflow(n_ids, sizeof *r->ids, &nbytes) &&
        !__builtin_add_overflow(nbytes, sizeof *r, &nbytes))
        r = malloc(nbytes);
    if (r == NULL)
        return mb_fail_memory(err, "the request");
    *r = (struct mb_queued){.asked = asked, .sampler = sampler};
    memcpy(r->ids, asked.prompt, asked.n_prompt * sizeof *r->ids);
    if (asked.n_stop_ids > 0)
        memcpy(r->ids + asked.n_prompt, asked.stop_ids, asked.n_stop_ids * sizeof *r->ids);
    r->asked.prompt = r->ids;
    r->asked.stop_ids = r->ids + asked.n_prompt;
    r->asked.sampler = NULL; /* the caller's */
    *request = r;
    return MB_OK;
}

static bool has_id(const int32_t *ids, size_t n, int32_t id)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

bool mb_request_is_end(const struct mb_queued *request, const struct mb_model_info *info, int32_t token)
{
    return has_id(request->asked.stop_ids, request->asked.n_stop_ids, token) ||
           (!request->asked.ignore_eos && has_id(info->eos_ids, info->n_eos_ids, token));
}

/* ---------------------------------------------------------------- events */

static struct mb_event event_of(const struct mb_queued *request, enum mb_event_kind kind)
{
    return (struct mb_event){
        .kind = kind,
        .id = request->id,
        .n_prompt = request->asked.n_prompt,
        .n_prompt_done = request->n_prompt_done,
        .n_prompt_kept = request->n_prompt_kept,
        .n_tokens = request->n_tokens,
        .token = -1,
        .message = "",
    };
}

bool mb_request_tell_prompt(const struct mb_queued *request)
{
    struct mb_event event = event_of(request, MB_EVENT_PROMPT);
    return request->asked.event(request->asked.ctx, &event);
}

bool mb_request_tell_token(const struct mb_queued *request, int32_t token, const float *logits)
{
    struct mb_event event = event_of(request, MB_EVENT_TOKEN);
    event.token = token;
    event.logits = logits;
    return request->asked.event(request->asked.ctx, &event);
}

void mb_request_end(struct mb_queued *request, enum mb_finish finish, int32_t token,
                    const struct mb_error *err)
{
    struct mb_event event = event_of(request, MB_EVENT_DONE);
    event.token = token;
    event.finish = finish;
    if (finish == MB_FINISH_ERROR) {
        event.status = err->status;
        event.message = err->msg;
    }
    request->asked.event(request->asked.ctx, &event);
    free(request);
}
