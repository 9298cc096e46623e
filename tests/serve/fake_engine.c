/*
 * fake_engine.c - see fake_engine.h.
 */
#include "fake_engine.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mb_model {
    struct mb_model_info info;
};

struct mb_session {
    size_t n_past, n_prompt;
    int32_t tokens[FAKE_N_CTX];
};

struct fake_batch fake_batch;
bool fake_fails;

static const int32_t eos = FAKE_EOS;
static struct mb_model model = {
    {.n_vocab = FAKE_N_VOCAB, .n_ctx_train = FAKE_N_CTX, .eos_ids = &eos, .n_eos_ids = 1}};

struct mb_model *fake_model(void)
{
    return &model;
}

const struct mb_model_info *mb_model_info(const struct mb_model *m)
{
    return &m->info;
}

enum mb_status mb_session_open(struct mb_model *m, const struct mb_session_options *options,
                               struct mb_session **session, struct mb_error *err)
{
    (void)m, (void)options, (void)err;
    *session = calloc(1, sizeof **session);
    return *session == NULL ? MB_NO_MEMORY : MB_OK;
}

void mb_session_close(struct mb_session *session)
{
    free(session);
}

void mb_session_reset(struct mb_session *session)
{
    mb_session_rewind(session, 0);
}

size_t mb_session_n_past(const struct mb_session *session)
{
    return session->n_past;
}

uint64_t mb_session_nbytes(const struct mb_session *session)
{
    return sizeof *session;
}

size_t mb_session_rewind(struct mb_session *session, size_t n_past)
{
    session->n_past = n_past < session->n_past ? n_past : session->n_past;
    session->n_prompt = session->n_prompt < session->n_past ? session->n_prompt : session->n_past;
    return session->n_past;
}

size_t mb_session_n_common(const struct mb_session *session, const int32_t *tokens, size_t n_tokens,
                           enum mb_keep keep)
{
    size_t n = keep == MB_KEEP_ALL ? session->n_past : session->n_prompt, i = 0;
    while (i < n && i < n_tokens && session->tokens[i] == tokens[i])
        i++;
    return i;
}

static void feed(const struct mb_batch_item *item)
{
    struct mb_session *s = item->session;
    memcpy(s->tokens + s->n_past, item->tokens, item->n_tokens * sizeof *item->tokens);
    if (!item->is_generated && s->n_prompt == s->n_past)
        s->n_prompt += item->n_tokens;
    s->n_past += item->n_tokens;
    if (item->logits == NULL)
        return;
    int32_t last = item->tokens[item->n_tokens - 1];
    memset(item->logits, 0, FAKE_N_VOCAB * sizeof *item->logits);
    item->logits[(last + 1) % FAKE_N_VOCAB] = last == FAKE_NAN_TOKEN ? NAN : 1;
}

enum mb_status mb_decode(struct mb_model *m, const struct mb_batch_item *items, size_t n_items,
                         struct mb_error *err)
{
    (void)m;
    fake_batch.n_calls++;
    fake_batch.n_items = n_items;
    for (size_t i = 0; i < n_items; i++) {
        fake_batch.items[i].first = items[i].tokens[0];
        fake_batch.items[i].n_tokens = items[i].n_tokens;
        fake_batch.items[i].n_past = items[i].session->n_past;
        fake_batch.items[i].is_generated = items[i].is_generated;
    }
    for (size_t i = 0; i < (fake_fails ? n_items / 2 : n_items); i++)
        feed(&items[i]);
    if (!fake_fails)
        return MB_OK;
    fake_fails = false;
    *err = (struct mb_error){.status = MB_IO, .msg = "the disk is gone"};
    return MB_IO;
}

enum mb_status mb_sampler_init(struct mb_sampler *sampler, const struct mb_sampler_options *options,
                               struct mb_error *err)
{
    (void)options, (void)err;
    *sampler = (struct mb_sampler){0};
    return MB_OK;
}

enum mb_status mb_sampler_pick(struct mb_sampler *sampler, const float *logits, size_t n_vocab, void *scratch,
                               int32_t *token, struct mb_error *err)
{
    (void)sampler, (void)scratch;
    *token = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        if (isnan(logits[i])) {
            *err = (struct mb_error){.status = MB_BAD_DATA, .msg = "a logit is NaN"};
            return MB_BAD_DATA;
        }
        *token = logits[i] > logits[*token] ? (int32_t)i : *token;
    }
    return MB_OK;
}
