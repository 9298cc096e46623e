/*
 * measure.c - one clean pass, whose hidden states are kept, and any number of runs of the changed model from
 * the first layer that is changed on.
 */
#include "measure.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_NBYTES_DEFAULT ((uint64_t)1 << 30)

/* ---------------------------------------------------------------- scoring */

static void close_scorer(struct mb_scorer *s)
{
    for (int i = 0; s->scratch != NULL && i < mb_pool_n_threads(s->pool); i++)
        free(s->scratch[i]);
    free(s->scratch);
    mb_pool_destroy(s->pool);
    free(s->rows);
    free(s->targets);
    free(s->sums);
    free(s->clean);
    free(s->changed);
}

static void fill_targets(struct mb_scorer *s)
{
    int32_t *to = s->targets;
    for (size_t w = 0; w < s->windows->n; w++) {
        const struct mb_window *window = &s->windows->at[w];
        for (size_t t = window->from + 1; t < window->n_tokens; t++)
            *to++ = window->tokens[t];
    }
}

/* Begins zeroed; after a failure the caller closes it. */
static enum mb_status open_scorer(struct mb_scorer *s, const struct mb_window_reader *reader,
                                  struct mb_error *err)
{
    const struct mb_windows *windows = reader->windows;
    uint64_t n_logits = reader->n_rows * (uint64_t)reader->n_vocab;
    s->windows = windows;
    s->n_vocab = reader->n_vocab;
    MB_TRY(mb_pool_create(mb_model_info(reader->model)->n_threads, &s->pool, err));
    s->scratch = mb_alloc((uint64_t)mb_pool_n_threads(s->pool), sizeof *s->scratch);
    s->rows = mb_alloc(windows->n_scored, sizeof *s->rows);
    s->targets = mb_alloc(windows->n_scored, sizeof *s->targets);
    s->sums = mb_alloc(windows->n, sizeof *s->sums);
    s->clean = mb_alloc(n_logits, sizeof *s->clean);
    s->changed = mb_alloc(n_logits, sizeof *s->changed);
    bool has_all = s->scratch != NULL && s->rows != NULL && s->targets != NULL && s->sums != NULL &&
                   s->clean != NULL && s->changed != NULL;
    for (int i = 0; has_all && i < mb_pool_n_threads(s->pool); i++)
        has_all = (s->scratch[i] = mb_alloc(2 * (uint64_t)s->n_vocab + 2, sizeof **s->scratch)) != NULL;
    if (!has_all)
        return mb_fail_memory(err, "the logits of two models");
    fill_targets(s);
    return MB_OK;
}

struct scoring {
    struct mb_scorer *scorer;
    const float *clean, *changed;
    size_t at; /* of the first row, of all scored tokens */
};

static void score_row(void *ctx, size_t row, int thread)
{
    const struct scoring *w = ctx;
    const struct mb_scorer *s = w->scorer;
    s->rows[w->at + row] = mb_row_compare(w->clean + row * s->n_vocab, w->changed + row * s->n_vocab,
                                          s->n_vocab, s->targets[w->at + row], s->scratch[thread]);
}

static enum mb_status score(struct mb_scorer *s, const float *clean, const float *changed, size_t at,
                            size_t n, struct mb_error *err)
{
    struct scoring scoring = {s, clean, changed, at};
    mb_pool_run(s->pool, n, score_row, &scoring);
    for (size_t i = at; i < at + n; i++)
        if (isnan(s->rows[i].nll_clean))
            return mb_fail(err, MB_BAD_DATA, "the clean model's logits of scored token %zu are not finite",
                           i);
    return MB_OK;
}

static size_t n_scored_of(const struct mb_windows *windows, size_t first, size_t n)
{
    size_t n_scored = 0;
    for (size_t w = first; w < first + n; w++)
        n_scored += windows->at[w].n_tokens - 1 - windows->at[w].from;
    return n_scored;
}

static size_t n_tokens_of(const struct mb_windows *windows, size_t first, size_t n)
{
    size_t n_tokens = 0;
    for (size_t w = first; w < first + n; w++)
        n_tokens += windows->at[w].n_tokens;
    return n_tokens;
}

/* The most scored tokens of a batch. */
static size_t most_scored(const struct mb_window_reader *reader)
{
    size_t most = 0;
    for (size_t first = 0, n; first < reader->windows->n; first += n) {
        n = mb_window_reader_batch(reader, first);
        size_t n_scored = n_scored_of(reader->windows, first, n);
        most = n_scored > most ? n_scored : most;
    }
    return most;
}

/* true: the caller wants to stop. */
static bool shows(const struct mb_measure_options *options, const char *what, size_t done, size_t total)
{
    return options->progress != NULL && options->progress(options->progress_ctx, what, done, total);
}

static enum mb_status show(const struct mb_measure_options *options, const char *what, size_t done,
                           size_t total, struct mb_error *err)
{
    return shows(options, what, done, total)
               ? mb_fail(err, MB_CANCELLED, "stopped after %zu of %zu windows", done, total)
               : MB_OK;
}

/* ---------------------------------------------------------------- what is kept */

static uint64_t state_nbytes(const struct mb_measure *m, size_t n_tokens)
{
    return n_tokens * (uint64_t)m->reader.d_model * sizeof(float);
}

/* Hidden states of 'n' of the layers 1 to n_layers - 1, evenly spread: layer 1 first, since all that is later
 * can begin there. */
static bool is_kept_layer(const struct mb_measure *m, size_t layer, size_t n)
{
    size_t n_all = m->reader.n_layers - 1;
    return n > 0 && ((layer - 1) * n + n_all - 1) / n_all != (layer * n + n_all - 1) / n_all;
}

static enum mb_status alloc_kept(struct mb_measure *m, struct mb_error *err)
{
    uint64_t budget = m->options.kept_nbytes_max, n_scored = m->windows->n_scored;
    uint64_t scored_nbytes = state_nbytes(m, n_scored), layer_nbytes = state_nbytes(m, m->windows->n_tokens);
    uint64_t logits_nbytes = n_scored * m->reader.n_vocab * sizeof(float);
    budget = budget == 0 ? KEPT_NBYTES_DEFAULT : budget;
    if (scored_nbytes > budget)
        return mb_fail(err, MB_USAGE,
                       "%" PRIu64 " scored tokens need %" PRIu64 " MB to be kept, more than the %" PRIu64
                       " MB allowed: measure fewer windows",
                       n_scored, scored_nbytes / 1000000, budget / 1000000);
    uint64_t left = budget - scored_nbytes;
    m->kept.has_logits = logits_nbytes <= left / 2;
    left -= m->kept.has_logits ? logits_nbytes : 0;
    size_t n_most = m->reader.n_layers - 1;
    m->kept.n_layers_kept = left / layer_nbytes < n_most ? (size_t)(left / layer_nbytes) : n_most;
    m->scored = mb_alloc(n_scored * m->reader.d_model, sizeof *m->scored);
    m->hidden = mb_alloc(m->reader.n_layers, sizeof *m->hidden);
    m->logits = m->kept.has_logits ? mb_alloc(n_scored * m->reader.n_vocab, sizeof *m->logits) : NULL;
    m->changed = mb_alloc(most_scored(&m->reader) * (uint64_t)m->reader.d_model, sizeof *m->changed);
    bool has_all = m->scored != NULL && m->hidden != NULL && m->changed != NULL &&
                   (m->logits != NULL || !m->kept.has_logits);
    for (size_t l = 1; has_all && l < m->reader.n_layers; l++)
        if (is_kept_layer(m, l, m->kept.n_layers_kept))
            has_all = (m->hidden[l] = mb_alloc(m->windows->n_tokens * (uint64_t)m->reader.d_model,
                                               sizeof **m->hidden)) != NULL;
    m->kept.nbytes =
        scored_nbytes + (m->kept.has_logits ? logits_nbytes : 0) + m->kept.n_layers_kept * layer_nbytes;
    return has_all ? MB_OK : mb_fail_memory(err, "what is kept of the clean pass");
}

/* ---------------------------------------------------------------- the clean pass */

/* The routes of a batch of windows, the first of which begins at token_at. */
static void place_routes(struct mb_measure *m, size_t first, size_t n, size_t token_at)
{
    for (size_t i = 0; i < n; i++) {
        m->places[i].token_at = token_at;
        token_at += m->windows->at[first + i].n_tokens;
    }
}

static enum mb_status read_clean(struct mb_measure *m, struct mb_error *err)
{
    size_t n, token_at = 0, scored_at = 0;
    for (size_t first = 0; first < m->windows->n; first += n) {
        n = mb_window_reader_batch(&m->reader, first);
        place_routes(m, first, n, token_at);
        MB_TRY(mb_window_reader_read(&m->reader, first, n, 0, m->hidden, true, token_at,
                                     m->scored + scored_at * m->reader.d_model, err));
        token_at += n_tokens_of(m->windows, first, n);
        scored_at += n_scored_of(m->windows, first, n);
        MB_TRY(show(&m->options, "clean", first + n, m->windows->n, err));
    }
    if (m->routes.status != MB_OK)
        return mb_pass_on(err, m->routes.status, &m->routes.err);
    for (size_t at = 0, n_rows; m->logits != NULL && at < m->windows->n_scored; at += n_rows) {
        n_rows = m->windows->n_scored - at < m->reader.n_rows ? m->windows->n_scored - at : m->reader.n_rows;
        MB_TRY(mb_window_reader_logits(&m->reader, m->scored + at * m->reader.d_model, n_rows,
                                       m->logits + at * m->reader.n_vocab, err));
    }
    return MB_OK;
}

/* After a failure the caller closes it. */
static enum mb_status open_parts(struct mb_measure *m, struct mb_model *model,
                                 const struct mb_measure_options *options, struct mb_error *err)
{
    void *ctx[MB_WINDOW_READER_WINDOWS];
    uint64_t begun_ns = mb_now_ns();
    MB_TRY(MB_OPTIONS_TAKE(m->options, options, err));
    for (size_t i = 0; i < MB_WINDOW_READER_WINDOWS; i++) {
        m->places[i].routes = &m->routes;
        ctx[i] = &m->places[i];
    }
    MB_TRY(mb_window_reader_open(&m->reader, model, m->windows, m->options.cache_type,
                                 m->options.skips_routes ? NULL : mb_routes_record, ctx, err));
    MB_TRY(mb_routes_open(&m->routes, mb_model_info(model), m->windows->n_tokens, err));
    MB_TRY(open_scorer(&m->scorer, &m->reader, err));
    MB_TRY(alloc_kept(m, err));
    MB_TRY(read_clean(m, err));
    m->kept.nbytes += mb_routes_nbytes(&m->routes);
    m->kept.seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return MB_OK;
}

enum mb_status mb_measure_open(struct mb_model *model, const struct mb_windows *windows,
                               const struct mb_measure_options *options, struct mb_measure **measure,
                               struct mb_error *err)
{
    struct mb_measure *m = calloc(1, sizeof *m);
    if (m == NULL)
        return mb_fail_memory(err, "a measurement");
    m->windows = windows;
    enum mb_status status = open_parts(m, model, options, err);
    if (status != MB_OK) {
        mb_measure_close(m);
        return status;
    }
    *measure = m;
    return MB_OK;
}

void mb_measure_close(struct mb_measure *m)
{
    if (m == NULL)
        return;
    for (size_t l = 0; m->hidden != NULL && l < m->reader.n_layers; l++)
        free(m->hidden[l]);
    free(m->hidden);
    free(m->scored);
    free(m->logits);
    free(m->changed);
    mb_routes_close(&m->routes);
    close_scorer(&m->scorer);
    mb_window_reader_close(&m->reader);
    free(m);
}

struct mb_measure_kept mb_measure_kept(const struct mb_measure *measure)
{
    return measure->kept;
}

/* ---------------------------------------------------------------- a run */

/* Scored tokens [at, at + n) against the clean pass. changed: their hidden states. */
static enum mb_status compare_kept(struct mb_measure *m, const float *changed, size_t at, size_t n,
                                   struct mb_error *err)
{
    const struct mb_window_reader *r = &m->reader;
    for (size_t i = 0, n_rows; i < n; i += n_rows) {
        const float *clean = m->scorer.clean;
        n_rows = n - i < r->n_rows ? n - i : r->n_rows;
        if (m->logits != NULL)
            clean = m->logits + (at + i) * r->n_vocab;
        else
            MB_TRY(mb_window_reader_logits(&m->reader, m->scored + (at + i) * r->d_model, n_rows,
                                           m->scorer.clean, err));
        MB_TRY(mb_window_reader_logits(&m->reader, changed + i * r->d_model, n_rows, m->scorer.changed, err));
        MB_TRY(score(&m->scorer, clean, m->scorer.changed, at + i, n_rows, err));
    }
    return MB_OK;
}

/* The last layer up to 'layer' where a run can begin. */
static size_t begin_of(const struct mb_measure *m, size_t layer)
{
    while (layer > 0 && m->hidden[layer] == NULL)
        layer--;
    return layer;
}

static enum mb_status run_layers(struct mb_measure *m, size_t first_layer, struct mb_error *err)
{
    size_t n, token_at = 0, scored_at = 0;
    for (size_t first = 0; first < m->windows->n; first += n) {
        n = mb_window_reader_batch(&m->reader, first);
        size_t n_scored = n_scored_of(m->windows, first, n);
        place_routes(m, first, n, token_at);
        MB_TRY(mb_window_reader_read(&m->reader, first, n, first_layer, m->hidden, false, token_at,
                                     m->changed, err));
        MB_TRY(compare_kept(m, m->changed, scored_at, n_scored, err));
        token_at += n_tokens_of(m->windows, first, n);
        scored_at += n_scored;
        MB_TRY(show(&m->options, "changed", first + n, m->windows->n, err));
    }
    return MB_OK;
}

static enum mb_status check_change(const struct mb_measure *m, const struct mb_measure_change *change,
                                   struct mb_error *err)
{
    if (change->first_layer > m->reader.n_layers)
        return mb_fail(err, MB_USAGE, "a change from layer %zu of %zu on", change->first_layer,
                       m->reader.n_layers);
    if (change->is_head_changed && m->logits == NULL)
        return mb_fail(err, MB_USAGE,
                       "the head is changed, and the clean logits had no room: allow %" PRIu64
                       " MB, or measure fewer windows",
                       (2 * m->windows->n_scored * m->reader.n_vocab * sizeof(float) +
                        state_nbytes(m, m->windows->n_scored)) /
                               1000000 +
                           1);
    return MB_OK;
}

enum mb_status mb_measure_run(struct mb_measure *m, const struct mb_measure_change *change,
                              struct mb_comparison *comparison, struct mb_error *err)
{
    uint64_t begun_ns = mb_now_ns();
    MB_TRY(check_change(m, change, err));
    m->has_run = false;
    if (change->first_layer < m->reader.n_layers) {
        size_t first_layer = begin_of(m, change->first_layer);
        mb_routes_begin_run(&m->routes, first_layer);
        MB_TRY(run_layers(m, first_layer, err));
    } else {
        mb_routes_begin_run(&m->routes, m->reader.n_layers);
        MB_TRY(compare_kept(m, m->scored, 0, m->windows->n_scored, err));
    }
    MB_TRY(mb_figures_make(m->windows, m->scorer.rows, m->scorer.sums, comparison, err));
    m->has_run = true;
    comparison->seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return MB_OK;
}

const struct mb_window_sums *mb_measure_window_sums(const struct mb_measure *m)
{
    return m->has_run ? m->scorer.sums : NULL;
}

/* ---------------------------------------------------------------- two models */

struct pair {
    const struct mb_windows *windows;
    struct mb_measure_options options;
    struct mb_window_reader clean, changed;
    struct mb_scorer scorer;
    float *clean_scored, *changed_scored; /* [batch][d_model] of each */
};

static enum mb_status compare_batch(struct pair *p, size_t at, size_t n, struct mb_error *err)
{
    for (size_t i = 0, n_rows; i < n; i += n_rows) {
        n_rows = n - i < p->clean.n_rows ? n - i : p->clean.n_rows;
        n_rows = n_rows < p->changed.n_rows ? n_rows : p->changed.n_rows;
        MB_TRY(mb_window_reader_logits(&p->clean, p->clean_scored + i * p->clean.d_model, n_rows,
                                       p->scorer.clean, err));
        MB_TRY(mb_window_reader_logits(&p->changed, p->changed_scored + i * p->changed.d_model, n_rows,
                                       p->scorer.changed, err));
        MB_TRY(score(&p->scorer, p->scorer.clean, p->scorer.changed, at + i, n_rows, err));
    }
    return MB_OK;
}

static enum mb_status read_pair(struct pair *p, struct mb_error *err)
{
    size_t n, scored_at = 0;
    for (size_t first = 0; first < p->windows->n; first += n) {
        n = mb_window_reader_batch(&p->clean, first);
        MB_TRY(mb_window_reader_read(&p->clean, first, n, 0, NULL, false, 0, p->clean_scored, err));
        MB_TRY(mb_window_reader_read(&p->changed, first, n, 0, NULL, false, 0, p->changed_scored, err));
        MB_TRY(compare_batch(p, scored_at, n_scored_of(p->windows, first, n), err));
        scored_at += n_scored_of(p->windows, first, n);
        MB_TRY(show(&p->options, "reading", first + n, p->windows->n, err));
    }
    return MB_OK;
}

static enum mb_status run_pair(struct pair *p, struct mb_model *clean, struct mb_model *changed,
                               enum mb_cache_type changed_cache_type, struct mb_comparison *comparison,
                               struct mb_error *err)
{
    size_t n_clean = mb_model_info(clean)->n_vocab, n_changed = mb_model_info(changed)->n_vocab;
    if (n_clean != n_changed)
        return mb_fail(err, MB_USAGE, "vocabularies of %zu and %zu tokens cannot be compared", n_clean,
                       n_changed);
    MB_TRY(mb_window_reader_open(&p->clean, clean, p->windows, p->options.cache_type, NULL, NULL, err));
    MB_TRY(mb_window_reader_open(&p->changed, changed, p->windows, changed_cache_type, NULL, NULL, err));
    MB_TRY(open_scorer(&p->scorer, &p->clean, err));
    uint64_t n = most_scored(&p->clean);
    p->clean_scored = mb_alloc(n * p->clean.d_model, sizeof *p->clean_scored);
    p->changed_scored = mb_alloc(n * p->changed.d_model, sizeof *p->changed_scored);
    if (p->clean_scored == NULL || p->changed_scored == NULL)
        return mb_fail_memory(err, "the hidden states of two models");
    MB_TRY(read_pair(p, err));
    MB_TRY(mb_figures_make(p->windows, p->scorer.rows, p->scorer.sums, comparison, err));
    if (p->options.sums != NULL && p->windows->n > 0)
        memcpy(p->options.sums, p->scorer.sums, p->windows->n * sizeof *p->options.sums);
    return MB_OK;
}

enum mb_status mb_measure_models(struct mb_model *clean, struct mb_model *changed,
                                 enum mb_cache_type changed_cache_type, const struct mb_windows *windows,
                                 const struct mb_measure_options *options, struct mb_comparison *comparison,
                                 struct mb_error *err)
{
    uint64_t begun_ns = mb_now_ns();
    struct pair *p = calloc(1, sizeof *p);
    if (p == NULL)
        return mb_fail_memory(err, "a measurement");
    p->windows = windows;
    enum mb_status status = MB_OPTIONS_TAKE(p->options, options, err);
    if (status == MB_OK)
        status = run_pair(p, clean, changed, changed_cache_type, comparison, err);
    close_scorer(&p->scorer);
    mb_window_reader_close(&p->clean);
    mb_window_reader_close(&p->changed);
    free(p->clean_scored);
    free(p->changed_scored);
    free(p);
    comparison->seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return status;
}
