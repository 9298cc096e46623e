/*
 * calibration.c - a calibration text becomes windows of tokens.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/utf8.h"
#include <moebius/calibrate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    TEXT_NBYTES_MAX = 1 << 30,
    N_CTX_DEFAULT = 512,
    WINDOW_MIN = 4, /* tokens */
};

/* Whether a token is unknown, or a part of a character. */
enum { NOT_LOOKED_AT = 0, ORDINARY, STRANGE };

struct reading {
    const struct mb_model_info *info;
    const struct mb_tokenizer *tokenizer;
    struct mb_calibration *to;
    size_t n_ctx;
    uint64_t n_tokens_max;
    uint8_t *kinds; /* [n_vocab] of tokens */
    size_t n_vocab;
    int32_t unknown_ids[2];
    uint64_t most_strange;
};

/* ---------------------------------------------------------------- tokens that say little */

/* What is not UTF-8 by itself, or came out as U+FFFD, is a part of a character. */
static enum mb_status look_at(struct reading *r, int32_t id, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    MB_TRY(mb_tokenizer_decode(r->tokenizer, &id, 1, false, &text, &nbytes, err));
    bool is_strange = id == r->unknown_ids[0] || id == r->unknown_ids[1] ||
                      mb_utf8_valid_prefix(text, nbytes) < nbytes || strstr(text, "\xef\xbf\xbd") != NULL;
    r->kinds[id] = is_strange ? STRANGE : ORDINARY;
    free(text);
    return MB_OK;
}

static enum mb_status count_strange(struct reading *r, const char *text, size_t nbytes, size_t line,
                                    struct mb_error *err)
{
    int32_t *ids;
    size_t n;
    uint64_t n_strange = 0;
    MB_TRY(mb_tokenizer_encode(r->tokenizer, text, nbytes, false, &ids, &n, err));
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < n && status == MB_OK; i++) {
        if ((size_t)ids[i] >= r->n_vocab)
            continue;
        if (r->kinds[ids[i]] == NOT_LOOKED_AT)
            status = look_at(r, ids[i], err);
        n_strange += r->kinds[ids[i]] == STRANGE;
    }
    free(ids);
    r->to->n_read += n;
    r->to->n_strange += n_strange;
    if (n_strange > r->most_strange) {
        r->most_strange = n_strange;
        r->to->strange_line = line;
    }
    return status;
}

/* ---------------------------------------------------------------- windows */

static bool is_enough(const struct reading *r)
{
    return r->n_tokens_max != 0 && r->to->windows.n_tokens >= r->n_tokens_max;
}

/* Cuts a text into windows, each with BOS where the model has one; a short rest goes to the last one. */
static enum mb_status cut(struct reading *r, int32_t *ids, size_t n, struct mb_error *err)
{
    size_t n_before = r->info->bos_id >= 0 ? 1 : 0, n_most = r->n_ctx - n_before;
    int32_t *window = malloc(r->n_ctx * sizeof *window);
    enum mb_status status = window == NULL ? mb_fail_memory(err, "the windows") : MB_OK;
    for (size_t at = 0, n_now; at < n && status == MB_OK && !is_enough(r); at += n_now) {
        n_now = n - at < n_most ? n - at : n_most;
        if (at > 0 && n_now + n_before < WINDOW_MIN)
            break;
        window[0] = r->info->bos_id;
        memcpy(window + n_before, ids + at, n_now * sizeof *window);
        status =
            n_now + n_before < 2 ? MB_OK : mb_windows_add(&r->to->windows, window, n_now + n_before, 0, err);
    }
    free(window);
    return status;
}

static enum mb_status add_text(struct reading *r, const char *text, size_t nbytes, struct mb_error *err)
{
    int32_t *ids;
    size_t n;
    MB_TRY(mb_tokenizer_encode(r->tokenizer, text, nbytes, false, &ids, &n, err));
    enum mb_status status = n == 0 ? mb_fail(err, MB_BAD_DATA, "'text' is empty") : cut(r, ids, n, err);
    free(ids);
    return status;
}

/* A model without a chat template reads a question and its reply as a text. */
static enum mb_status add_reply(struct reading *r, const char *question, const char *reply,
                                struct mb_error *err)
{
    struct mb_bytes text = {0};
    if (mb_tokenizer_has_chat(r->tokenizer))
        return mb_windows_add_reply(&r->to->windows, r->info, r->tokenizer, question, reply, err);
    bool has_room = mb_bytes_put(&text, question, strlen(question)) && mb_bytes_put(&text, "\n", 1) &&
                    mb_bytes_put(&text, reply, strlen(reply));
    enum mb_status status =
        has_room ? add_text(r, text.p, text.n, err) : mb_fail_memory(err, "a question and its reply");
    free(text.p);
    return status;
}

/* ---------------------------------------------------------------- JSON lines */

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static enum mb_status add_object(struct reading *r, const json_t *object, size_t line, struct mb_error *err)
{
    const char *text = text_of(object, "text"), *question = text_of(object, "question");
    const char *reply =
        text_of(object, "reply") != NULL ? text_of(object, "reply") : text_of(object, "answer");
    if (text != NULL) {
        MB_TRY(count_strange(r, text, strlen(text), line, err));
        return add_text(r, text, strlen(text), err);
    }
    if (question == NULL || reply == NULL)
        return mb_fail(err, MB_BAD_DATA, "no text 'text', nor 'question' with 'reply' or 'answer'");
    MB_TRY(count_strange(r, question, strlen(question), line, err));
    MB_TRY(count_strange(r, reply, strlen(reply), line, err));
    return add_reply(r, question, reply, err);
}

static enum mb_status add_line(struct reading *r, const char *line, size_t nbytes, size_t number,
                               struct mb_error *err)
{
    json_t *object;
    if (strspn(line, " \t\r") >= nbytes)
        return MB_OK;
    enum mb_status status = mb_json_parse(line, nbytes, 0, &object, err);
    if (status == MB_OK) {
        status = add_object(r, object, number, err);
        json_decref(object);
    }
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "line %zu", number);
}

/* 'text' is terminated. */
static enum mb_status add_lines(struct reading *r, const char *text, size_t nbytes, struct mb_error *err)
{
    size_t number = 1;
    for (const char *line = text, *end = text + nbytes; line < end && !is_enough(r); number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((newline == NULL ? end : newline) - line);
        MB_TRY(add_line(r, line, n, number, err));
        line += n + 1;
    }
    return r->to->windows.n > 0 ? MB_OK : mb_fail(err, MB_BAD_DATA, "no text");
}

/* ---------------------------------------------------------------- plain text */

/* Line by line, so that the strangest can be named. */
static enum mb_status count_lines(struct reading *r, const char *text, size_t nbytes, struct mb_error *err)
{
    size_t number = 1;
    for (const char *line = text, *end = text + nbytes; line < end; number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((newline == NULL ? end : newline) - line);
        MB_TRY(count_strange(r, line, n, number, err));
        line += n + 1;
    }
    return MB_OK;
}

static enum mb_status add_plain(struct reading *r, const char *text, size_t nbytes, struct mb_error *err)
{
    size_t limit = r->n_tokens_max == 0 ? 0 : (size_t)((r->n_tokens_max + r->n_ctx - 1) / r->n_ctx);
    MB_TRY(mb_windows_add_text(&r->to->windows, r->info, r->tokenizer, text, nbytes, r->n_ctx, limit, err));
    return count_lines(r, text, nbytes, err);
}

/* ---------------------------------------------------------------- the whole */

static enum mb_status check_text(const char *text, size_t nbytes, struct mb_error *err)
{
    size_t valid = mb_utf8_valid_prefix(text, nbytes), line = 1;
    if (strspn(text, " \t\r\n") == nbytes)
        return mb_fail(err, MB_BAD_DATA, "the calibration text is empty");
    for (size_t i = 0; i < valid; i++)
        line += text[i] == '\n';
    if (valid < nbytes)
        return mb_fail(err, MB_BAD_DATA, "line %zu: byte %zu of the file: not UTF-8", line, valid);
    if (strlen(text) < nbytes)
        return mb_fail(err, MB_BAD_DATA, "byte %zu: a zero: no text", strlen(text));
    return MB_OK;
}

static bool is_lines(const char *path)
{
    const char *dot = path == NULL ? ".jsonl" : strrchr(path, '.');
    return dot != NULL && (strcmp(dot, ".jsonl") == 0 || strcmp(dot, ".json") == 0);
}

static enum mb_status read_text(struct reading *r, const char *path, const char *text, size_t nbytes,
                                struct mb_error *err)
{
    mb_hash_write(XXH3_128bits(text, nbytes), r->to->text_hash);
    r->to->text_nbytes = nbytes;
    MB_TRY(check_text(text, nbytes, err));
    return is_lines(path) ? add_lines(r, text, nbytes, err) : add_plain(r, text, nbytes, err);
}

static enum mb_status read_file(struct reading *r, const char *path, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    if (path == NULL) {
        const char *own = mb_calibration_default(&nbytes);
        return read_text(r, NULL, own, nbytes, err);
    }
    MB_TRY(mb_read_file(path, TEXT_NBYTES_MAX, &text, &nbytes, err));
    enum mb_status status = read_text(r, path, text, nbytes, err);
    free(text);
    return status == MB_OK || status == MB_NO_MEMORY ? status : mb_fail_in(err, status, "%s", path);
}

static enum mb_status open_reading(struct reading *r, const struct mb_calibration_options *options,
                                   struct mb_error *err)
{
    size_t n_ctx = r->info->n_ctx_train;
    r->n_ctx = options->n_ctx != 0 ? options->n_ctx : n_ctx < N_CTX_DEFAULT ? n_ctx : N_CTX_DEFAULT;
    r->n_tokens_max = options->n_tokens_max;
    if (r->n_ctx < WINDOW_MIN || r->n_ctx > n_ctx)
        return mb_fail(err, MB_USAGE, "a window of %zu tokens: give one of %d to %zu, the model's context",
                       r->n_ctx, WINDOW_MIN, n_ctx);
    r->n_vocab = mb_tokenizer_n_vocab(r->tokenizer);
    r->unknown_ids[0] = mb_tokenizer_id(r->tokenizer, "<unk>");
    r->unknown_ids[1] = mb_tokenizer_id(r->tokenizer, "[UNK]");
    r->kinds = mb_alloc(r->n_vocab, sizeof *r->kinds);
    return r->kinds == NULL ? mb_fail_memory(err, "the kinds of tokens") : MB_OK;
}

enum mb_status mb_calibration_read(const char *path, const struct mb_model_info *info,
                                   const struct mb_tokenizer *tokenizer,
                                   const struct mb_calibration_options *options,
                                   struct mb_calibration *calibration, struct mb_error *err)
{
    struct mb_calibration_options taken;
    struct reading r = {.info = info, .tokenizer = tokenizer, .to = calibration};
    *calibration = (struct mb_calibration){0};
    MB_TRY(MB_OPTIONS_TAKE(taken, options, err));
    enum mb_status status = open_reading(&r, &taken, err);
    if (status == MB_OK)
        status = read_file(&r, path, err);
    free(r.kinds);
    if (status != MB_OK)
        mb_calibration_free(calibration);
    return status;
}

void mb_calibration_free(struct mb_calibration *calibration)
{
    mb_windows_free(&calibration->windows);
    *calibration = (struct mb_calibration){0};
}
