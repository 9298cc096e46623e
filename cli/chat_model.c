/*
 * chat_model.c - from a conversation to tokens, and from tokens to a reply.
 *
 * The cache holds the tokens of the conversation so far, the replies' as the model chose them.  Encoding the
 * conversation's text anew may give other tokens for the same reply.  So where the new text begins with the
 * old one, the old tokens stay and only the rest is encoded.
 */
#include "chat_model.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- open and close */

static enum mb_status open_scheduler(struct cli_chat_model *m, const struct cli_generation *g,
                                     struct mb_error *err)
{
    struct mb_scheduler_options options = {.size = sizeof options,
                                           .n_slots = 1,
                                           .n_ctx = m->n_ctx,
                                           .n_step_tokens = CLI_N_STEP_TOKENS,
                                           .cache_type = cli_cache_type(g)};
    return mb_scheduler_open(m->model, &options, &m->scheduler, err);
}

enum mb_status cli_chat_model_open(struct cli_chat_model *m, const char *path, const struct cli_generation *g,
                                   struct mb_error *err)
{
    struct mb_model_options options = cli_model_options(g, 0);
    uint64_t begun_ns = mb_now_ns();
    m->sampler = cli_sampler_options(g);
    m->n_predict = g->n_predict == CLI_UNLIMITED ? 0 : (size_t)g->n_predict;
    MB_TRY(mb_checkpoint_look(path, err)); /* first: it says more about what is no model */
    MB_TRY(mb_tokenizer_open(path, &m->tokenizer, err));
    MB_TRY(cli_template_open(&m->template, g, m->tokenizer, err));
    MB_TRY(mb_detokenizer_open(m->tokenizer, true, &m->detokenizer, err));
    MB_TRY(cli_open_model(path, g->expert_profile, &options, &m->model, err));
    m->info = mb_model_info(m->model);
    cli_print_mode(m->info, g->memory != NULL);
    cli_stop_at_interrupts(m->model);
    MB_TRY(cli_context(g, m->info, &m->n_ctx, err));
    MB_TRY(open_scheduler(m, g, err));
    m->load_seconds = cli_seconds_since(begun_ns);
    return MB_OK;
}

void cli_chat_model_close(struct cli_chat_model *m)
{
    mb_scheduler_close(m->scheduler);
    mb_detokenizer_close(m->detokenizer);
    mb_model_close(m->model);
    cli_template_close(&m->template);
    mb_tokenizer_close(m->tokenizer);
    free(m->held.p);
    free(m->held_text.p);
}

/* ---------------------------------------------------------------- the prompt */

static enum mb_status same_text(const struct cli_chat_model *m, const struct mb_ids *a,
                                const struct mb_ids *b, bool *is_same, struct mb_error *err)
{
    char *text_a, *text_b;
    size_t n_a, n_b;
    MB_TRY(mb_tokenizer_decode(m->tokenizer, a->p, a->n, false, &text_a, &n_a, err));
    enum mb_status status = mb_tokenizer_decode(m->tokenizer, b->p, b->n, false, &text_b, &n_b, err);
    if (status == MB_OK) {
        *is_same = n_a == n_b && memcmp(text_a, text_b, n_a) == 0;
        free(text_b);
    }
    free(text_a);
    return status;
}

static enum mb_status encode(const struct cli_chat_model *m, const char *text, struct mb_ids *ids,
                             struct mb_error *err)
{
    MB_TRY(mb_tokenizer_encode(m->tokenizer, text, strlen(text), false, &ids->p, &ids->n, err));
    ids->cap = ids->n;
    return MB_OK;
}

/*
 * Puts what the cache holds in place of the tokens that encode the same text.  A tokenizer that treats the
 * beginning of a text in a way of its own would give another text for the two parts: then nothing changes.
 */
static enum mb_status reuse_held(const struct cli_chat_model *m, const char *text, struct mb_ids *ids,
                                 struct mb_error *err)
{
    struct mb_ids joined = {0}, rest = {0};
    bool is_same = false;
    size_t n = m->held_text.n;
    if (n == 0 || strlen(text) <= n || memcmp(text, m->held_text.p, n) != 0)
        return MB_OK;
    MB_TRY(encode(m, text + n, &rest, err));
    enum mb_status status = mb_ids_put(&joined, m->held.p, m->held.n) && mb_ids_put(&joined, rest.p, rest.n)
                                ? same_text(m, &joined, ids, &is_same, err)
                                : mb_fail_memory(err, "the conversation");
    free(rest.p);
    if (status == MB_OK && is_same) {
        free(ids->p);
        *ids = joined;
    } else {
        free(joined.p);
    }
    return status;
}

/* *ids is the caller's to free, also after an error. */
static enum mb_status make_prompt(const struct cli_chat_model *m, const char *text, struct mb_ids *ids,
                                  struct mb_error *err)
{
    MB_TRY(encode(m, text, ids, err));
    if (ids->n == 0)
        return mb_fail(err, MB_BAD_DATA, "the chat template makes no text of this conversation");
    MB_TRY(reuse_held(m, text, ids, err));
    if (ids->n < m->n_ctx)
        return MB_OK;
    return mb_fail(
        err, MB_USAGE,
        "the context is full: this conversation has %zu tokens, the context %zu and needs one for "
        "the reply. The message was not sent. /undo takes the last turn back, /reset forgets all%s",
        ids->n, m->n_ctx, m->n_ctx < m->info->n_ctx_train ? "; a larger -c holds more" : "");
}

/* ---------------------------------------------------------------- the reply */

struct turn {
    struct cli_chat_model *m;
    struct cli_reply *reply;
    struct cli_reply_screen screen;
    struct cli_progress progress;
    uint64_t begun_ns;
    enum mb_status status; /* of what failed in an event, and how */
    struct mb_error err;
};

static enum mb_status add_text(struct turn *turn, const char *text, size_t n)
{
    struct mb_bytes *reply = &turn->reply->text;
    if (!mb_bytes_put(reply, text, n))
        return turn->status = mb_fail_memory(&turn->err, "the reply");
    if (n > 0)
        mb_utf8_clean(reply->p + reply->n - n, n); /* a zero byte */
    cli_reply_screen_add(&turn->screen, text, n);
    if (turn->screen.has_failed)
        turn->status = mb_fail_errno(&turn->err, "standard output", "write");
    return turn->status;
}

static enum mb_status add_held_text(struct turn *turn)
{
    const char *text;
    size_t n;
    turn->status = mb_detokenizer_flush(turn->m->detokenizer, &text, &n, &turn->err);
    return turn->status == MB_OK ? add_text(turn, text, n) : turn->status;
}

/* The text of a token that marks thinking, which may be a special token and then has no other; or NULL. */
static const char *mark_of(const struct cli_chat_model *m, int32_t token)
{
    for (size_t i = 0; i < CLI_N_MARKS; i++) {
        if (token == mb_tokenizer_id(m->tokenizer, cli_marks[i].open))
            return cli_marks[i].open;
        if (token == mb_tokenizer_id(m->tokenizer, cli_marks[i].close))
            return cli_marks[i].close;
    }
    return NULL;
}

static enum mb_status add_token(struct turn *turn, int32_t token)
{
    const char *text, *mark = mark_of(turn->m, token);
    size_t n;
    turn->reply->n_tokens++;
    if (!mb_ids_put(&turn->m->held, &token, 1))
        return turn->status = mb_fail_memory(&turn->err, "the conversation");
    if (mark != NULL)
        return add_held_text(turn) == MB_OK ? add_text(turn, mark, strlen(mark)) : turn->status;
    turn->status = mb_detokenizer_add(turn->m->detokenizer, &token, 1, &text, &n, &turn->err);
    return turn->status == MB_OK ? add_text(turn, text, n) : turn->status;
}

/* A piece of the prompt was read. true: go no further. */
static bool take_piece(struct turn *turn, const struct mb_event *event)
{
    if (event->n_prompt_done < event->n_prompt)
        return cli_progress_show(&turn->progress, "reading the conversation", event->n_prompt_done,
                                 event->n_prompt);
    cli_progress_end(&turn->progress);
    turn->reply->prompt_seconds = cli_seconds_since(turn->begun_ns);
    turn->begun_ns = mb_now_ns();
    return cli_interrupted();
}

/* An mb_event_fn; ctx is a struct turn. */
static bool take_event(void *ctx, const struct mb_event *event)
{
    struct turn *turn = ctx;
    turn->reply->n_kept = event->n_prompt_kept;
    if (event->kind == MB_EVENT_PROMPT)
        return take_piece(turn, event);
    if (event->kind == MB_EVENT_TOKEN)
        return add_token(turn, event->token) != MB_OK || cli_interrupted();
    turn->reply->finish = event->finish;
    if (event->finish == MB_FINISH_ERROR)
        turn->status = mb_fail(&turn->err, event->status, "%s", event->message);
    return false;
}

static enum mb_status run_request(struct turn *turn, struct mb_error *err)
{
    struct cli_chat_model *m = turn->m;
    struct mb_request request = {.size = sizeof request,
                                 .prompt = m->held.p,
                                 .n_prompt = m->held.n,
                                 .n_predict = m->n_predict,
                                 .sampler = &m->sampler,
                                 .keep = MB_KEEP_ALL,
                                 .event = take_event,
                                 .ctx = turn};
    MB_TRY(mb_scheduler_submit(m->scheduler, &request, NULL, err));
    while (mb_scheduler_n_requests(m->scheduler) > 0) {
        enum mb_status status = mb_scheduler_step(m->scheduler, err);
        if (status != MB_OK && status != MB_CANCELLED) /* that is an end like others */
            return status;
    }
    if (turn->status == MB_OK)
        add_held_text(turn);
    return mb_pass_on(err, turn->status, &turn->err);
}

static enum mb_status run_turn(struct turn *turn, const char *text, struct mb_error *err)
{
    turn->begun_ns = mb_now_ns();
    mb_detokenizer_reset(turn->m->detokenizer);
    cli_progress_begin(&turn->progress, "tokens");
    cli_reply_screen_begin(&turn->screen, text);
    enum mb_status status = run_request(turn, err);
    cli_progress_end(&turn->progress);
    cli_reply_screen_end(&turn->screen);
    turn->reply->seconds = cli_seconds_since(turn->begun_ns);
    turn->m->sampler.seed++;
    if (status == MB_OK && turn->screen.has_failed)
        status = mb_fail_errno(err, "standard output", "write");
    return status;
}

/* The cache holds what it was fed, whether the turn succeeded or not. */
static enum mb_status hold_text(struct cli_chat_model *m, const char *prompt, const struct cli_reply *reply,
                                struct mb_error *err)
{
    m->held_text.n = 0;
    bool ok = mb_bytes_put(&m->held_text, prompt, strlen(prompt)) &&
              mb_bytes_put(&m->held_text, reply->text.p, reply->text.n);
    return ok ? MB_OK : mb_fail_memory(err, "the conversation");
}

static enum mb_status reply_to_text(struct cli_chat_model *m, const char *text, struct cli_reply *reply,
                                    struct mb_error *err)
{
    struct turn turn = {.m = m, .reply = reply};
    struct mb_ids ids = {0};
    enum mb_status status = make_prompt(m, text, &ids, err);
    if (status != MB_OK) {
        free(ids.p);
        return status;
    }
    free(m->held.p);
    m->held = ids;
    m->held_text.n = 0;
    reply->n_prompt = ids.n;
    MB_TRY(run_turn(&turn, text, err));
    return hold_text(m, text, reply, err);
}

enum mb_status cli_chat_model_reply(struct cli_chat_model *m, const struct mb_chat_message *messages,
                                    size_t n_messages, struct cli_reply *reply, struct mb_error *err)
{
    char *text;
    *reply = (struct cli_reply){0};
    MB_TRY(cli_template_render(&m->template, messages, n_messages, &text, err));
    enum mb_status status = reply_to_text(m, text, reply, err);
    free(text);
    if (!mb_bytes_put(&reply->text, "", 1))
        return mb_fail_memory(err, "the reply");
    reply->text.n--;
    return status;
}
