/*
 * sync.c - makes a session hold given tokens, and computes only what it lacks.
 */
#include "base/error.h"
#include "model.h"

/* What mb_decode would refuse is refused before anything is rewound. */
static enum mb_status check_tokens(const struct mb_session *session, const int32_t *tokens, size_t n_tokens,
                                   struct mb_error *err)
{
    if (n_tokens > session->options.n_ctx)
        return mb_fail(err, MB_USAGE, "%zu tokens do not fit a context of %zu", n_tokens,
                       session->options.n_ctx);
    for (size_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= session->model->config.n_vocab)
            return mb_fail(err, MB_USAGE, "token %zu, %d, is not in the vocabulary of %zu", i, (int)tokens[i],
                           session->model->config.n_vocab);
    return MB_OK;
}

enum mb_status mb_session_sync(struct mb_session *session, const int32_t *tokens, size_t n_tokens,
                               enum mb_keep keep, float *logits, size_t *n_kept, struct mb_error *err)
{
    if (n_tokens == 0 && logits != NULL)
        return mb_fail(err, MB_USAGE, "no tokens: nothing to give logits of");
    MB_TRY(check_tokens(session, tokens, n_tokens, err));
    size_t n_most = logits == NULL ? n_tokens : n_tokens - 1; /* logits come from feeding the last one */
    size_t n = mb_session_rewind(session, mb_session_n_common(session, tokens, n_most, keep));
    if (n_kept != NULL)
        *n_kept = n;
    struct mb_batch_item item = {
        .session = session, .tokens = tokens + n, .n_tokens = n_tokens - n, .logits = logits};
    return n == n_tokens ? MB_OK : mb_decode(session->model, &item, 1, err);
}
