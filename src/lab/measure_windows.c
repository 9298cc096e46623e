/*
 * measure_windows.c - the tokens that models read to be compared: windows of a text, replies to questions.
 */
#include "base/error.h"
#include "base/json.h"
#include <moebius/measure.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_CTX_DEFAULT = 512,
    N_CTX_MIN = 4, /* as perplexity has it */
};

static enum mb_status reserve(struct mb_windows *windows, struct mb_error *err)
{
    if (windows->n < windows->cap)
        return MB_OK;
    size_t cap = windows->cap == 0 ? 64 : 2 * windows->cap;
    struct mb_window *at = realloc(windows->at, cap * sizeof *at);
    if (at == NULL)
        return mb_fail_memory(err, "the windows");
    windows->at = at;
    windows->cap = cap;
    return MB_OK;
}

enum mb_status mb_windows_add(struct mb_windows *windows, const int32_t *tokens, size_t n_tokens, size_t from,
                              struct mb_error *err)
{
    if (n_tokens < 2 || from > n_tokens - 2)
        return mb_fail(err, MB_USAGE, "window %zu has no token to score: %zu tokens, scored after token %zu",
                       windows->n, n_tokens, from);
    MB_TRY(reserve(windows, err));
    int32_t *copy = malloc(n_tokens * sizeof *copy);
    if (copy == NULL)
        return mb_fail_memory(err, "the windows");
    memcpy(copy, tokens, n_tokens * sizeof *copy);
    windows->at[windows->n++] = (struct mb_window){copy, n_tokens, from};
    windows->n_tokens += n_tokens;
    windows->n_scored += n_tokens - 1 - from;
    windows->n_longest = n_tokens > windows->n_longest ? n_tokens : windows->n_longest;
    return MB_OK;
}

void mb_windows_free(struct mb_windows *windows)
{
    for (size_t i = 0; i < windows->n; i++)
        free((int32_t *)windows->at[i].tokens);
    free(windows->at);
    *windows = (struct mb_windows){0};
}

/* ---------------------------------------------------------------- a text */

/* ids has room for one more token before those of the text: BOS, where the model has one. */
static enum mb_status add_ids(struct mb_windows *windows, int32_t *ids, size_t n_ids, int32_t bos_id,
                              size_t n_ctx, size_t limit, struct mb_error *err)
{
    if (n_ids < n_ctx)
        return mb_fail(err, MB_BAD_DATA,
                       "the text has %zu tokens, a window needs %zu: give a longer text or a smaller window",
                       n_ids, n_ctx);
    size_t n = limit != 0 && limit < n_ids / n_ctx ? limit : n_ids / n_ctx;
    for (size_t i = 0; i < n; i++) {
        if (bos_id >= 0)
            ids[i * n_ctx] = bos_id;
        MB_TRY(mb_windows_add(windows, ids + i * n_ctx, n_ctx, n_ctx / 2, err));
    }
    return MB_OK;
}

enum mb_status mb_windows_add_text(struct mb_windows *windows, const struct mb_model_info *info,
                                   const struct mb_tokenizer *tokenizer, const char *text, size_t text_nbytes,
                                   size_t n_ctx, size_t limit, struct mb_error *err)
{
    int32_t *ids;
    size_t n, n_before = info->bos_id >= 0 ? 1 : 0;
    if (n_ctx == 0)
        n_ctx = info->n_ctx_train < N_CTX_DEFAULT ? info->n_ctx_train : N_CTX_DEFAULT;
    if (n_ctx < N_CTX_MIN || n_ctx > info->n_ctx_train)
        return mb_fail(err, MB_USAGE, "a window of %zu tokens: give one of %d to %zu, the model's context",
                       n_ctx, N_CTX_MIN, info->n_ctx_train);
    MB_TRY(mb_tokenizer_encode(tokenizer, text, text_nbytes, false, &ids, &n, err));
    int32_t *longer = realloc(ids, (n + 1) * sizeof *ids);
    if (longer == NULL) {
        free(ids);
        return mb_fail_memory(err, "the tokens of the text");
    }
    memmove(longer + n_before, longer, n * sizeof *longer);
    longer[0] = n_before > 0 ? info->bos_id : longer[0];
    enum mb_status status = add_ids(windows, longer, n + n_before, info->bos_id, n_ctx, limit, err);
    free(longer);
    return status;
}

/* ---------------------------------------------------------------- a reply */

/* Tokens of a text, after those of 'ids'. */
static enum mb_status append(const struct mb_tokenizer *tokenizer, const char *text, int32_t **ids, size_t *n,
                             struct mb_error *err)
{
    int32_t *more;
    size_t n_more;
    MB_TRY(mb_tokenizer_encode(tokenizer, text, strlen(text), false, &more, &n_more, err));
    int32_t *longer = realloc(*ids, (*n + n_more + 1) * sizeof *longer);
    if (longer != NULL) {
        memcpy(longer + *n, more, n_more * sizeof *more);
        *ids = longer;
        *n += n_more;
    }
    free(more);
    return longer != NULL ? MB_OK : mb_fail_memory(err, "the tokens of a reply");
}

static enum mb_status add_turn(struct mb_windows *windows, const struct mb_model_info *info,
                               const struct mb_tokenizer *tokenizer, const char *prompt, const char *reply,
                               int32_t **ids, struct mb_error *err)
{
    size_t n = 0;
    MB_TRY(append(tokenizer, prompt, ids, &n, err));
    size_t n_prompt = n;
    MB_TRY(append(tokenizer, reply, ids, &n, err));
    if (info->n_eos_ids > 0)
        (*ids)[n++] = info->eos_ids[0];
    if (n > info->n_ctx_train)
        return mb_fail(err, MB_BAD_DATA,
                       "a question and its reply have %zu tokens, the model's context is %zu", n,
                       info->n_ctx_train);
    if (n_prompt == 0)
        return mb_fail(err, MB_BAD_DATA, "a question without a token: nothing predicts its reply");
    return mb_windows_add(windows, *ids, n, n_prompt - 1, err);
}

enum mb_status mb_windows_add_reply(struct mb_windows *windows, const struct mb_model_info *info,
                                    const struct mb_tokenizer *tokenizer, const char *question,
                                    const char *reply, struct mb_error *err)
{
    struct mb_chat_message message = {"user", question};
    return mb_windows_add_chat(windows, info, tokenizer, &message, 1, reply, err);
}

enum mb_status mb_windows_add_chat(struct mb_windows *windows, const struct mb_model_info *info,
                                   const struct mb_tokenizer *tokenizer,
                                   const struct mb_chat_message *messages, size_t n_messages,
                                   const char *reply, struct mb_error *err)
{
    char *prompt;
    int32_t *ids = NULL;
    MB_TRY(mb_tokenizer_chat(tokenizer, messages, n_messages, true, &prompt, err));
    enum mb_status status = add_turn(windows, info, tokenizer, prompt, reply, &ids, err);
    free(prompt);
    free(ids);
    return status;
}

/* ---------------------------------------------------------------- JSON lines */

static enum mb_status add_object(struct mb_windows *windows, const struct mb_model_info *info,
                                 const struct mb_tokenizer *tokenizer, const json_t *object,
                                 struct mb_error *err)
{
    const char *question = json_string_value(json_object_get(object, "question"));
    const char *reply = json_string_value(json_object_get(object, "reply"));
    if (question == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text 'question'");
    if (reply == NULL)
        reply = json_string_value(json_object_get(object, "answer"));
    if (reply == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text 'reply' or 'answer'");
    return mb_windows_add_reply(windows, info, tokenizer, question, reply, err);
}

static enum mb_status add_line(struct mb_windows *windows, const struct mb_model_info *info,
                               const struct mb_tokenizer *tokenizer, const char *line, size_t nbytes,
                               struct mb_error *err)
{
    json_t *object;
    MB_TRY(mb_json_parse(line, nbytes, 0, &object, err));
    enum mb_status status = add_object(windows, info, tokenizer, object, err);
    json_decref(object);
    return status;
}

static bool is_blank(const char *line, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        if (strchr(" \t\r", line[i]) == NULL || line[i] == '\0')
            return false;
    return true;
}

enum mb_status mb_windows_add_replies(struct mb_windows *windows, const struct mb_model_info *info,
                                      const struct mb_tokenizer *tokenizer, const char *text,
                                      size_t text_nbytes, size_t limit, struct mb_error *err)
{
    size_t n = 0, n_lines = 1;
    for (const char *line = text, *end = text + text_nbytes; line < end; n_lines++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t nbytes = (size_t)((newline == NULL ? end : newline) - line);
        if (limit != 0 && n == limit)
            break;
        if (!is_blank(line, nbytes)) {
            enum mb_status status = add_line(windows, info, tokenizer, line, nbytes, err);
            if (status != MB_OK)
                return mb_fail_in(err, status, "line %zu", n_lines);
            n++;
        }
        line += nbytes + 1;
    }
    return n > 0 ? MB_OK : mb_fail(err, MB_BAD_DATA, "no replies");
}
