/*
 * session.c - one conversation: its cache, and which tokens the cache holds.
 */
#include "attention.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "model.h"
#include <stdlib.h>
#include <string.h>

bool mb_cache_nbytes(const struct mb_config *config, size_t n_ctx, enum mb_dtype dtype, uint64_t *cache_at,
                     uint64_t *nbytes)
{
    uint64_t at = 0, layer_nbytes;
    for (size_t i = 0; i < config->n_layers; i++) {
        const struct mb_attention_config *a = &config->attentions[config->attention_of[i]];
        if (cache_at != NULL)
            cache_at[i] = at;
        if (!a->kind->cache_nbytes(a, n_ctx, dtype, &layer_nbytes) || !mb_add_u64(at, layer_nbytes, &at))
            return false;
    }
    return mb_add_u64(at, MB_SLACK_NBYTES, nbytes);
}

/* The caches of all sessions stay within what the model expected when it was opened with a limit. */
static enum mb_status take_cache(struct mb_session *s, struct mb_error *err)
{
    struct mb_model *model = s->model;
    uint64_t nbytes = atomic_fetch_add(&model->cache_nbytes, s->cache_nbytes) + s->cache_nbytes;
    if (nbytes > model->cache_nbytes_max)
        return mb_fail(err, MB_NO_MEMORY,
                       "a context of %zu tokens: the limit of memory leaves %" PRIu64
                       " MiB to attention caches, and %" PRIu64 " are needed",
                       s->options.n_ctx, model->cache_nbytes_max >> 20, (nbytes >> 20) + 1);
    return MB_OK;
}

/* Fills in a zeroed session; after a failure the caller closes it. */
static enum mb_status fill_session(struct mb_session *s, const struct mb_session_options *options,
                                   struct mb_error *err)
{
    MB_TRY(MB_OPTIONS_TAKE(s->options, options, err));
    if (s->options.n_ctx == 0)
        s->options.n_ctx = s->model->config.n_ctx;
    s->cache_dtype = s->options.cache_type == MB_CACHE_F32 ? MB_F32 : MB_F16;
    size_t n_ctx = s->options.n_ctx, n_layers = s->model->config.n_layers;
    if (n_ctx > s->model->config.n_ctx)
        return mb_fail(err, MB_USAGE, "a context of %zu tokens is more than the model's %zu", n_ctx,
                       s->model->config.n_ctx);
    s->cache_at = mb_alloc(n_layers, sizeof *s->cache_at);
    if (s->cache_at == NULL)
        return mb_fail_memory(err, "the cache of a session");
    if (!mb_cache_nbytes(&s->model->config, n_ctx, s->cache_dtype, s->cache_at, &s->cache_nbytes)) {
        s->cache_nbytes = 0;
        return mb_fail(err, MB_USAGE, "a context of %zu tokens is too large", n_ctx);
    }
    MB_TRY(take_cache(s, err));
    if ((s->cache = mb_sparse_alloc(s->cache_nbytes)) == NULL)
        return mb_fail_memory(err, "the cache of a session");
    s->tokens = malloc(n_ctx * sizeof *s->tokens);
    if (s->tokens == NULL)
        return mb_fail_memory(err, "the tokens of a session");
    return MB_OK;
}

enum mb_status mb_session_open(struct mb_model *model, const struct mb_session_options *options,
                               struct mb_session **session, struct mb_error *err)
{
    struct mb_session *s = calloc(1, sizeof *s);
    if (s == NULL)
        return mb_fail_memory(err, "a session");
    s->model = model;
    enum mb_status status = fill_session(s, options, err);
    if (status != MB_OK) {
        mb_session_close(s);
        return status;
    }
    *session = s;
    return MB_OK;
}

void mb_session_close(struct mb_session *session)
{
    if (session == NULL)
        return;
    atomic_fetch_sub(&session->model->cache_nbytes, session->cache_nbytes);
    if (session->cache != NULL)
        mb_pages_free(session->cache, session->cache_nbytes);
    free(session->cache_at);
    free(session->tokens);
    free(session);
}

/* ---------------------------------------------------------------- what a session holds */

void mb_session_record(struct mb_session *session, const int32_t *tokens, size_t n, bool is_generated)
{
    memmove(session->tokens + session->n_past, tokens,
            n * sizeof *tokens); /* its own, if they are fed again */
    bool is_as_prompt = !is_generated || !session->model->has_two_forms;
    if (is_as_prompt && session->n_prompt == session->n_past)
        session->n_prompt += n;
    session->n_past += n;
    session->n_high = session->n_past > session->n_high ? session->n_past : session->n_high;
}

/*
 * Later rows are overwritten when their positions are fed again, and no token reads a row after its own.  But
 * rows of a sliding window are used for several positions, and a sequence that is no longer long has other
 * rows.
 */
bool mb_session_can_rewind(const struct mb_session *session, size_t n_past)
{
    const struct mb_config *c = &session->model->config;
    if (session->is_long && n_past <= c->n_ctx_short)
        return false;
    for (size_t i = 0; i < c->n_attentions; i++) {
        const struct mb_attention_kind *kind = c->attentions[i].kind;
        if (kind->n_past_min != NULL &&
            n_past < kind->n_past_min(&c->attentions[i], session->options.n_ctx, session->n_high))
            return false;
    }
    return true;
}

size_t mb_session_rewind(struct mb_session *session, size_t n_past)
{
    if (n_past >= session->n_past)
        return session->n_past;
    session->n_past = mb_session_can_rewind(session, n_past) ? n_past : 0;
    if (session->n_past == 0) {
        session->n_high = session->first_layer = 0;
        session->is_stale = false;
    }
    if (session->n_past < session->n_prompt)
        session->n_prompt = session->n_past;
    return session->n_past;
}

void mb_session_reset(struct mb_session *session)
{
    mb_session_rewind(session, 0);
}

size_t mb_session_n_common(const struct mb_session *session, const int32_t *tokens, size_t n_tokens,
                           enum mb_keep keep)
{
    size_t n = keep == MB_KEEP_ALL ? session->n_past : session->n_prompt, i = 0;
    n = n < n_tokens ? n : n_tokens;
    if (session->first_layer > 0) /* earlier layers hold nothing */
        return 0;
    while (i < n && session->tokens[i] == tokens[i])
        i++;
    return i;
}

size_t mb_session_n_past(const struct mb_session *session)
{
    return session->n_past;
}

uint64_t mb_session_nbytes(const struct mb_session *session)
{
    return session->cache_nbytes;
}
