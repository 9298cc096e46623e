/*
 * measure_reader.h - a model reads windows, many in a batch, and gives what its logits are made of; and
 * logits.
 *
 * Hidden states and logits are separate steps: those of a batch of windows are small, its logits may not be.
 */
#ifndef MB_LAB_MEASURE_READER_H
#define MB_LAB_MEASURE_READER_H

#include <moebius/measure.h>

enum { MB_WINDOW_READER_WINDOWS = 64, MB_WINDOW_READER_ROWS = 512 };

struct mb_window_reader {
    struct mb_model *model;
    const struct mb_windows *windows;
    size_t n_layers, d_model, n_vocab;
    size_t n_rows;      /* of logits at once */
    size_t n_sessions;  /* windows of a batch, at most */
    size_t n_batch_max; /* tokens of a batch, at most */
    struct mb_session *sessions[MB_WINDOW_READER_WINDOWS];
    struct mb_session *head; /* makes logits */
    int32_t *zeros;          /* [n_rows] tokens that nothing looks at */
    float *last;             /* [n_batch_max][d_model] after the last layer */
    float **out;             /* [n_sessions][n_layers + 1] */
};

/* The reader begins zeroed; after a failure the caller closes it. route: NULL, or [MB_WINDOW_READER_WINDOWS]
 * contexts. */
enum mb_status mb_window_reader_open(struct mb_window_reader *reader, struct mb_model *model,
                                     const struct mb_windows *windows, enum mb_cache_type cache_type,
                                     mb_route_fn route, void *const *route_ctx, struct mb_error *err);
void mb_window_reader_close(struct mb_window_reader *reader);

/* How many windows from 'first' on are read together. */
size_t mb_window_reader_batch(const struct mb_window_reader *reader, size_t first);

/*
 * Reads windows [first, first + n), a batch, from first_layer on.  hidden: [n_layers] of NULL or the hidden
 * states of all windows' tokens at the input of each layer, [windows.n_tokens][d_model]: that of first_layer
 * > 0 is read, those after it are filled; NULL: there are none, and first_layer is 0.  token_at: tokens of
 * all windows before. scored: filled with hidden states of the scored tokens of the batch, [..][d_model].
 */
enum mb_status mb_window_reader_read(struct mb_window_reader *reader, size_t first, size_t n,
                                     size_t first_layer, float *const *hidden, bool fills, size_t token_at,
                                     float *scored, struct mb_error *err);

/* Logits of n <= n_rows hidden states [n][d_model]: [n][n_vocab]. */
enum mb_status mb_window_reader_logits(struct mb_window_reader *reader, const float *scored, size_t n,
                                       float *logits, struct mb_error *err);

#endif
