/*
 * measure_reader.c - see measure_reader.h.
 */
#include "measure_reader.h"
#include "base/error.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

enum {
    BATCH_TOKENS = 4096,          /* the last pass of a batch may be short: it is one of many */
    LOGITS_MAX = 16 * 1024 * 1024 /* floats of logits at once: 64 MB */
};

/* The windows of a batch together have about BATCH_TOKENS, or are one. */
size_t mb_window_reader_batch(const struct mb_window_reader *reader, size_t first)
{
    const struct mb_windows *windows = reader->windows;
    size_t n = 0, n_tokens = 0;
    while (first + n < windows->n && n < MB_WINDOW_READER_WINDOWS) {
        n_tokens += windows->at[first + n].n_tokens;
        if (n > 0 && n_tokens > BATCH_TOKENS)
            break;
        n++;
    }
    return n;
}

static void find_sizes(struct mb_window_reader *reader)
{
    const struct mb_model_info *info = mb_model_info(reader->model);
    const struct mb_windows *windows = reader->windows;
    reader->n_layers = info->n_layers;
    reader->d_model = info->d_model;
    reader->n_vocab = info->n_vocab;
    reader->n_rows = LOGITS_MAX / info->n_vocab;
    reader->n_rows = reader->n_rows > MB_WINDOW_READER_ROWS ? MB_WINDOW_READER_ROWS : reader->n_rows;
    reader->n_rows = reader->n_rows > info->n_ctx_train ? info->n_ctx_train : reader->n_rows;
    reader->n_rows = reader->n_rows == 0 ? 1 : reader->n_rows;
    for (size_t first = 0, n; first < windows->n; first += n) {
        size_t n_tokens = 0;
        n = mb_window_reader_batch(reader, first);
        for (size_t w = first; w < first + n; w++)
            n_tokens += windows->at[w].n_tokens;
        reader->n_sessions = n > reader->n_sessions ? n : reader->n_sessions;
        reader->n_batch_max = n_tokens > reader->n_batch_max ? n_tokens : reader->n_batch_max;
    }
}

static enum mb_status check_windows(const struct mb_window_reader *reader, struct mb_error *err)
{
    size_t n_ctx = mb_model_info(reader->model)->n_ctx_train;
    if (reader->windows->n == 0)
        return mb_fail(err, MB_USAGE, "no windows to read");
    if (reader->windows->n_longest > n_ctx)
        return mb_fail(err, MB_USAGE, "a window of %zu tokens does not fit the model's context of %zu",
                       reader->windows->n_longest, n_ctx);
    return MB_OK;
}

enum mb_status mb_window_reader_open(struct mb_window_reader *reader, struct mb_model *model,
                                     const struct mb_windows *windows, enum mb_cache_type cache_type,
                                     mb_route_fn route, void *const *route_ctx, struct mb_error *err)
{
    reader->model = model;
    reader->windows = windows;
    MB_TRY(check_windows(reader, err));
    find_sizes(reader);
    struct mb_session_options options = {.size = sizeof options, .cache_type = cache_type};
    options.n_ctx = reader->n_rows;
    MB_TRY(mb_session_open(model, &options, &reader->head, err));
    options.n_ctx = windows->n_longest;
    options.route = route;
    for (size_t i = 0; i < reader->n_sessions; i++) {
        options.route_ctx = route_ctx != NULL ? route_ctx[i] : NULL;
        MB_TRY(mb_session_open(model, &options, &reader->sessions[i], err));
    }
    reader->zeros = mb_alloc(reader->n_rows, sizeof *reader->zeros);
    reader->last = mb_alloc(reader->n_batch_max * (uint64_t)reader->d_model, sizeof *reader->last);
    reader->out = mb_alloc(reader->n_sessions * (reader->n_layers + 1), sizeof *reader->out);
    if (reader->zeros == NULL || reader->last == NULL || reader->out == NULL)
        return mb_fail_memory(err, "the hidden states of a batch");
    return MB_OK;
}

void mb_window_reader_close(struct mb_window_reader *reader)
{
    for (size_t i = 0; i < reader->n_sessions; i++)
        mb_session_close(reader->sessions[i]);
    mb_session_close(reader->head);
    free(reader->zeros);
    free(reader->last);
    free(reader->out);
    *reader = (struct mb_window_reader){0};
}

/* Where a window's hidden states go, which begins at 'token_at' of all and 'batch_at' of the batch. */
static void place_out(const struct mb_window_reader *reader, size_t first_layer, float *const *hidden,
                      size_t token_at, size_t batch_at, float **out)
{
    memset(out, 0, reader->n_layers * sizeof *out);
    for (size_t l = first_layer + 1; hidden != NULL && l < reader->n_layers; l++)
        out[l] = hidden[l] == NULL ? NULL : hidden[l] + token_at * reader->d_model;
    out[reader->n_layers] = reader->last + batch_at * reader->d_model;
}

static void copy_scored(const struct mb_window_reader *reader, size_t first, size_t n, float *scored)
{
    const float *last = reader->last;
    size_t d_model = reader->d_model;
    for (size_t w = first; w < first + n; w++) {
        const struct mb_window *window = &reader->windows->at[w];
        size_t n_scored = window->n_tokens - 1 - window->from;
        memcpy(scored, last + window->from * d_model, n_scored * d_model * sizeof *scored);
        scored += n_scored * d_model;
        last += window->n_tokens * d_model;
    }
}

enum mb_status mb_window_reader_read(struct mb_window_reader *reader, size_t first, size_t n,
                                     size_t first_layer, float *const *hidden, bool fills, size_t token_at,
                                     float *scored, struct mb_error *err)
{
    struct mb_batch_item items[MB_WINDOW_READER_WINDOWS] = {{0}};
    struct mb_hidden_states states[MB_WINDOW_READER_WINDOWS];
    for (size_t i = 0, batch_at = 0; i < n; i++) {
        const struct mb_window *window = &reader->windows->at[first + i];
        float **out = reader->out + i * (reader->n_layers + 1);
        place_out(reader, first_layer, fills ? hidden : NULL, token_at, batch_at, out);
        states[i] = (struct mb_hidden_states){.first_layer = first_layer, .out = out};
        if (first_layer > 0)
            states[i].in = hidden[first_layer] + token_at * reader->d_model;
        items[i] = (struct mb_batch_item){.session = reader->sessions[i],
                                          .tokens = window->tokens,
                                          .n_tokens = window->n_tokens,
                                          .hidden = &states[i]};
        mb_session_reset(reader->sessions[i]);
        token_at += window->n_tokens;
        batch_at += window->n_tokens;
    }
    MB_TRY(mb_decode(reader->model, items, n, err));
    copy_scored(reader, first, n, scored);
    return MB_OK;
}

enum mb_status mb_window_reader_logits(struct mb_window_reader *reader, const float *scored, size_t n,
                                       float *logits, struct mb_error *err)
{
    struct mb_hidden_states states = {.first_layer = reader->n_layers, .in = scored};
    struct mb_batch_item item = {.session = reader->head,
                                 .tokens = reader->zeros,
                                 .n_tokens = n,
                                 .logits = logits,
                                 .all_logits = true,
                                 .hidden = &states};
    mb_session_reset(reader->head);
    return mb_decode(reader->model, &item, 1, err);
}
