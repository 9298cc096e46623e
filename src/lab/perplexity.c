/*
 * perplexity.c - perplexity of a text in windows, as llama-perplexity counts it (docs/scoring.md).
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/options.h"
#include <math.h>
#include <moebius/lab.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_CTX_DEFAULT = 512,
    N_CTX_MIN = 4,                /* smaller windows score nothing, or one token */
    LOGITS_MAX = 16 * 1024 * 1024 /* floats of logits at once: 64 MB */
};

/* Sums over the scored tokens. */
struct sums {
    double nll, nll_squared;
    uint64_t n;
};

struct reading {
    struct mb_model *model;
    const struct mb_model_info *info;
    struct mb_perplexity_options options;
    struct mb_session *session;
    size_t n_vocab, n_ctx, n_piece; /* n_piece: tokens whose logits are held at once */
    float *logits;                  /* [n_piece][n_vocab] */
};

static double nll_of(const float *logits, size_t n_vocab, int32_t token)
{
    float max = logits[0];
    for (size_t i = 1; i < n_vocab; i++)
        max = logits[i] > max ? logits[i] : max;
    double sum = 0;
    for (size_t i = 0; i < n_vocab; i++)
        sum += exp((double)(logits[i] - max));
    return log(sum) - (double)(logits[token] - max);
}

/* Feeds tokens [from, to) of a window, the logits of all of them into r->logits when 'scored'. */
static enum mb_status feed(const struct reading *r, const int32_t *window, size_t from, size_t to,
                           bool scored, struct mb_error *err)
{
    struct mb_batch_item item = {.session = r->session,
                                 .tokens = window + from,
                                 .n_tokens = to - from,
                                 .logits = scored ? r->logits : NULL,
                                 .all_logits = scored};
    return mb_decode(r->model, &item, 1, err);
}

/* Tokens n_ctx / 2 + 1 to n_ctx - 1 are scored, each by the logits of the token before it. */
static enum mb_status read_window(const struct reading *r, const int32_t *window, struct sums *sums,
                                  struct mb_error *err)
{
    size_t first = r->n_ctx / 2, last = r->n_ctx - 1;
    mb_session_reset(r->session);
    MB_TRY(feed(r, window, 0, first, false, err));
    for (size_t from = first; from < last; from += r->n_piece) {
        size_t to = last - from < r->n_piece ? last : from + r->n_piece;
        MB_TRY(feed(r, window, from, to, true, err));
        for (size_t i = from; i < to; i++) {
            double nll = nll_of(r->logits + (i - from) * r->n_vocab, r->n_vocab, window[i + 1]);
            if (!isfinite(nll))
                return mb_fail(err, MB_BAD_DATA, "the logits of token %zu of a window are not finite", i);
            sums->nll += nll;
            sums->nll_squared += nll * nll;
            sums->n++;
        }
    }
    return MB_OK;
}

static enum mb_status read_windows(const struct reading *r, int32_t *ids, size_t n_windows, struct sums *sums,
                                   struct mb_error *err)
{
    for (size_t i = 0; i < n_windows; i++) {
        int32_t *window = ids + i * r->n_ctx;
        if (r->info->bos_id >= 0)
            window[0] = r->info->bos_id;
        MB_TRY(read_window(r, window, sums, err));
        if (r->options.progress != NULL &&
            r->options.progress(r->options.progress_ctx, "reading", i + 1, n_windows))
            return mb_fail(err, MB_CANCELLED, "stopped after %zu of %zu windows", i + 1, n_windows);
    }
    return MB_OK;
}

/* The text's tokens, BOS before them where the model has one. */
static enum mb_status encode_text(const struct mb_tokenizer *tokenizer, const char *text, size_t text_nbytes,
                                  int32_t bos_id, int32_t **ids, size_t *n_ids, struct mb_error *err)
{
    int32_t *plain;
    size_t n;
    MB_TRY(mb_tokenizer_encode(tokenizer, text, text_nbytes, false, &plain, &n, err));
    size_t n_before = bos_id >= 0 ? 1 : 0;
    *n_ids = n + n_before;
    *ids = malloc((*n_ids + 1) * sizeof **ids);
    if (*ids != NULL) {
        (*ids)[0] = bos_id;
        if (n > 0)
            memcpy(*ids + n_before, plain, n * sizeof **ids);
    }
    free(plain);
    return *ids != NULL ? MB_OK : mb_fail_memory(err, "the tokens of the text");
}

static enum mb_status open_reading(struct reading *r, struct mb_error *err)
{
    struct mb_session_options options = {
        .size = sizeof options, .n_ctx = r->n_ctx, .cache_type = r->options.cache_type};
    r->n_vocab = r->info->n_vocab;
    r->n_piece = LOGITS_MAX / r->n_vocab;
    if (r->n_piece > r->n_ctx)
        r->n_piece = r->n_ctx;
    if (r->n_piece == 0)
        r->n_piece = 1;
    r->logits = malloc(r->n_piece * r->n_vocab * sizeof *r->logits);
    if (r->logits == NULL)
        return mb_fail_memory(err, "the logits");
    return mb_session_open(r->model, &options, &r->session, err);
}

static void write_report(const struct sums *sums, struct mb_perplexity_report *report)
{
    double n = (double)sums->n, mean = sums->nll / n;
    double variance = sums->nll_squared / n - mean * mean;
    report->n_tokens_scored = sums->n;
    report->nll_mean = mean;
    report->ppl = exp(mean);
    /* By the delta method, as llama-perplexity does: d exp(x) = exp(x) dx. */
    report->ppl_stderr = variance > 0 && sums->n > 1 ? report->ppl * sqrt(variance / (n - 1)) : 0;
}

static enum mb_status choose_n_ctx(struct reading *r, struct mb_error *err)
{
    size_t n_ctx_train = r->info->n_ctx_train;
    r->n_ctx = r->options.n_ctx;
    if (r->n_ctx == 0)
        r->n_ctx = n_ctx_train < N_CTX_DEFAULT ? n_ctx_train : N_CTX_DEFAULT;
    if (r->n_ctx >= N_CTX_MIN && r->n_ctx <= n_ctx_train)
        return MB_OK;
    return mb_fail(err, MB_USAGE, "a window of %zu tokens: give one of %d to %zu, the model's context",
                   r->n_ctx, N_CTX_MIN, n_ctx_train);
}

static enum mb_status read_ids(struct reading *r, int32_t *ids, size_t n_ids,
                               struct mb_perplexity_report *report, struct mb_error *err)
{
    struct sums sums = {0};
    if (n_ids < r->n_ctx)
        return mb_fail(err, MB_BAD_DATA,
                       "the text has %zu tokens, a window needs %zu: give a longer text or a smaller window",
                       n_ids, r->n_ctx);
    report->n_windows = n_ids / r->n_ctx;
    if (r->options.limit_windows != 0 && r->options.limit_windows < report->n_windows)
        report->n_windows = r->options.limit_windows;
    MB_TRY(open_reading(r, err));
    MB_TRY(read_windows(r, ids, report->n_windows, &sums, err));
    write_report(&sums, report);
    return MB_OK;
}

static enum mb_status read_text(struct reading *r, const struct mb_tokenizer *tokenizer, const char *text,
                                size_t text_nbytes, struct mb_perplexity_report *report, struct mb_error *err)
{
    int32_t *ids;
    size_t n_ids;
    MB_TRY(choose_n_ctx(r, err));
    MB_TRY(encode_text(tokenizer, text, text_nbytes, r->info->bos_id, &ids, &n_ids, err));
    enum mb_status status = read_ids(r, ids, n_ids, report, err);
    free(ids);
    return status;
}

enum mb_status mb_eval_perplexity(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                                  const char *text, size_t text_nbytes,
                                  const struct mb_perplexity_options *options,
                                  struct mb_perplexity_report *report, struct mb_error *err)
{
    uint64_t begun_ns = mb_now_ns();
    struct reading reading = {.model = model, .info = mb_model_info(model)};
    *report = (struct mb_perplexity_report){0};
    MB_TRY(MB_OPTIONS_TAKE(reading.options, options, err));
    enum mb_status status = read_text(&reading, tokenizer, text, text_nbytes, report, err);
    mb_session_close(reading.session);
    free(reading.logits);
    report->seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return status;
}
