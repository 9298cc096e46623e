/*
 * session.c - one conversation: its cache of latents.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "model.h"
#include <stdlib.h>

static enum mb_status cache_size(const struct mb_session *session, uint64_t *nbytes, struct mb_error *err)
{
    const struct mb_config *c = &session->model->config;
    uint64_t row = (c->kv_rank + c->d_rope) * mb_dtype_nbytes(session->cache_dtype);
    if (mb_mul_u64(row, session->options.n_ctx, nbytes) && mb_mul_u64(*nbytes, c->n_layers, nbytes) &&
        mb_add_u64(*nbytes, MB_SLACK_NBYTES, nbytes))
        return MB_OK;
    return mb_fail(err, MB_USAGE, "a context of %zu tokens is too large", session->options.n_ctx);
}

enum mb_status mb_session_open(struct mb_model *model, const struct mb_session_options *options,
                               struct mb_session **session, struct mb_error *err)
{
    struct mb_session *s = calloc(1, sizeof *s);
    if (s == NULL)
        return mb_fail_memory(err, sizeof *s);
    s->model = model;
    if (options != NULL)
        s->options = *options;
    if (s->options.n_ctx == 0)
        s->options.n_ctx = model->config.n_ctx;
    s->cache_dtype = s->options.cache_type == MB_CACHE_F32 ? MB_F32 : MB_F16;
    enum mb_status status = MB_OK;
    if (s->options.n_ctx > model->config.n_ctx)
        status = mb_fail(err, MB_USAGE, "a context of %zu tokens: the model has %zu", s->options.n_ctx,
                         model->config.n_ctx);
    if (status == MB_OK)
        status = cache_size(s, &s->cache_nbytes, err);
    if (status == MB_OK && (s->cache = mb_sparse_alloc(s->cache_nbytes)) == NULL)
        status = mb_fail_memory(err, s->cache_nbytes);
    if (status != MB_OK) {
        free(s);
        return status;
    }
    *session = s;
    return MB_OK;
}

void mb_session_close(struct mb_session *session)
{
    if (session == NULL)
        return;
    mb_pages_free(session->cache, session->cache_nbytes);
    free(session);
}

void mb_session_reset(struct mb_session *session)
{
    session->n_past = 0;
}

size_t mb_session_n_past(const struct mb_session *session)
{
    return session->n_past;
}

uint64_t mb_session_nbytes(const struct mb_session *session)
{
    return session->cache_nbytes;
}
