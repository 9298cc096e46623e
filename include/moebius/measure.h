/*
 * measure.h - what a change does to a model: the clean and the changed one read the same tokens, and their
 * distributions of the next token are compared.  Definitions are in docs/lab.md.
 *
 * One clean pass serves many changes:
 *
 *     mb_measure_open(model, &windows, NULL, &measure, &err);
 *     for each change:
 *         (lay matrices over the model, drop experts)
 *         mb_measure_run(measure, &change, &comparison, &err);
 *         (take them off)
 *     mb_measure_close(measure);
 *
 * Results have the same bits on every instruction set, for every number of threads, and whatever is kept.
 *
 * Threads: one thread at a time uses a measurement, and no other may be in mb_decode with its model
 * meanwhile.
 */
#ifndef MOEBIUS_MEASURE_H
#define MOEBIUS_MEASURE_H

#include <moebius/engine.h>
#include <moebius/status.h>
#include <moebius/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- tokens to read */

/*
 * Tokens that a model reads from an empty cache.  Those after tokens[from] are scored, each by the logits of
 * the token before it: n_tokens - 1 - from of them.
 */
struct mb_window {
    const int32_t *tokens;
    size_t n_tokens, from;
};

/* Begins zeroed. */
struct mb_windows {
    struct mb_window *at; /* [n], with copies of their tokens */
    size_t n, cap;
    size_t n_tokens, n_scored; /* of all windows */
    size_t n_longest;          /* tokens of the longest */
};

/* Adds a copy of a window. MB_USAGE: it has no token to score. */
MB_API enum mb_status mb_windows_add(struct mb_windows *windows, const int32_t *tokens, size_t n_tokens,
                                     size_t from, struct mb_error *err);

/*
 * Adds the windows that perplexity reads (docs/scoring.md): n_ctx tokens of a text each, 0: the smaller of
 * 512 and the model's context; the second half is scored.  limit: the first windows only; 0: all.
 * MB_BAD_DATA: the text is shorter than one window; MB_USAGE: n_ctx is below 4 or more than the model's
 * context.
 */
MB_API enum mb_status mb_windows_add_text(struct mb_windows *windows, const struct mb_model_info *info,
                                          const struct mb_tokenizer *tokenizer, const char *text,
                                          size_t text_nbytes, size_t n_ctx, size_t limit,
                                          struct mb_error *err);

/*
 * Adds a question, as the model's chat template puts it, with a reply to it, and the token that ends a turn
 * where the model has one.  The tokens of the reply and that end are scored.  MB_BAD_DATA: longer than the
 * model's context, or not valid UTF-8.
 */
MB_API enum mb_status mb_windows_add_reply(struct mb_windows *windows, const struct mb_model_info *info,
                                           const struct mb_tokenizer *tokenizer, const char *question,
                                           const char *reply, struct mb_error *err);

/* The same after earlier turns of the chat: the last of the messages is replied to. */
MB_API enum mb_status mb_windows_add_chat(struct mb_windows *windows, const struct mb_model_info *info,
                                          const struct mb_tokenizer *tokenizer,
                                          const struct mb_chat_message *messages, size_t n_messages,
                                          const char *reply, struct mb_error *err);

/*
 * The same for each line of JSON lines: an object with texts "question" and "reply" (as `moebius eval
 * --replies` writes them) or, without a reply, "answer".  Blank lines are skipped; limit: the first lines
 * only, 0: all. MB_BAD_DATA names the line.
 */
MB_API enum mb_status mb_windows_add_replies(struct mb_windows *windows, const struct mb_model_info *info,
                                             const struct mb_tokenizer *tokenizer, const char *text,
                                             size_t text_nbytes, size_t limit, struct mb_error *err);

MB_API void mb_windows_free(struct mb_windows *windows); /* leaves it zeroed */

/* ---------------------------------------------------------------- comparison */

/* A mean over scored tokens. */
struct mb_token_mean {
    double value;
    double stderr_tokens;  /* as if tokens were independent of each other: what llama-perplexity prints */
    double stderr_windows; /* windows are independent, tokens within one are not; NAN with one window */
    double low, high;      /* 95 %: bootstrap by window, percentile interval; NAN with one window */
};

/* Percentiles of scored tokens: between two of them linearly, at (n - 1) p / 100, as in llama-perplexity. */
#define MB_PERCENTS                                         \
    {                                                       \
        0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100 \
    }
enum { MB_N_PERCENTS = 13 };

/*
 * p: the clean model's distribution of a token, q: the changed one's.  Natural logarithms.  With n_not_finite
 * > 0 all figures are NAN.
 */
struct mb_comparison {
    uint64_t n_windows, n_tokens, n_scored; /* n_tokens: that were read */
    uint64_t n_not_finite;                  /* tokens for which the changed model gave NaN or infinity */
    struct mb_token_mean kl;                /* sum of p ln(p / q) */
    struct mb_token_mean tv;                /* total variation: half the sum of |p - q|; 1 - tv is shared */
    struct mb_token_mean same_top;          /* the same likeliest token (the lowest of equals): 0 or 1 */
    struct mb_token_mean nll, nll_clean;    /* -ln q, -ln p of the token that is there */
    struct mb_token_mean ln_ratio;          /* nll - nll_clean: ln(PPL(changed) / PPL(clean)) */
    struct mb_token_mean dp;                /* q - p of the token that is there */
    double ppl, ppl_stderr, ppl_clean, ppl_clean_stderr; /* exp(nll), as llama-perplexity */
    double dp_rms, dp_rms_stderr;                        /* root of the mean of (q - p)^2 */
    double kl_percentiles[MB_N_PERCENTS], dp_percentiles[MB_N_PERCENTS];
    double seconds;
};

/* Sums over the scored tokens of a window: what paired statistics of several runs are made of. */
struct mb_window_sums {
    uint64_t n_scored;
    double kl, tv, same_top, nll, nll_clean, ln_ratio, dp;
};

/* Zeroed means defaults. */
struct mb_measure_options {
    size_t size; /* sizeof(struct mb_measure_options) */
    enum mb_cache_type cache_type;
    uint64_t kept_nbytes_max; /* of what is kept of the clean pass; 0: 1 GiB. See mb_measure_kept */
    bool skips_routes;        /* nothing is kept of the router's choices */
    mb_progress_fn progress;  /* of windows */
    void *progress_ctx;
    struct mb_window_sums *sums; /* [windows->n] mb_measure_models fills it; or NULL */
};

struct mb_measure;

/*
 * The clean pass.  Kept are, as far as kept_nbytes_max allows: what logits are made of (needed: MB_USAGE says
 * how much), logits, hidden states at the inputs of layers, evenly spread where not all have room; and the
 * experts of each token, 2 bytes for each choice, twice.  'windows' has to outlive the measurement. MB_USAGE:
 * no windows, or one is longer than the model's context.
 */
MB_API enum mb_status mb_measure_open(struct mb_model *model, const struct mb_windows *windows,
                                      const struct mb_measure_options *options, struct mb_measure **measure,
                                      struct mb_error *err);
MB_API void mb_measure_close(struct mb_measure *measure); /* NULL is fine */

/* What is kept: a run from layer l begins at the last layer up to l whose hidden states are. */
struct mb_measure_kept {
    uint64_t nbytes;      /* in memory, of everything kept */
    size_t n_layers_kept; /* of layers 1 to n_layers - 1; layer 0 needs nothing */
    bool has_logits;      /* else the clean logits are computed again in each run */
    double seconds;       /* that the clean pass took */
};
MB_API struct mb_measure_kept mb_measure_kept(const struct mb_measure *measure);

/* What has been changed since the clean pass. Zeroed: anything but the head. */
struct mb_measure_change {
    size_t first_layer;   /* layers before it are as they were. n_layers: the head alone is changed */
    bool is_head_changed; /* the head, or the embedding where it is the head too */
};

/*
 * Compares the model as it is now with the clean one.  MB_USAGE: the head is changed, and clean logits had no
 * room.  MB_BAD_DATA: logits of the clean model are not finite.
 */
MB_API enum mb_status mb_measure_run(struct mb_measure *measure, const struct mb_measure_change *change,
                                     struct mb_comparison *comparison, struct mb_error *err);

/* Of the last run, [windows.n]; belong to the measurement. NULL: there was none. */
MB_API const struct mb_window_sums *mb_measure_window_sums(const struct mb_measure *measure);

/*
 * Two models beside each other, in batches of windows: nothing is kept.  They may be one model with two types
 * of cache: the floor below which differences mean nothing.  MB_USAGE: their vocabularies differ in size.
 * options->cache_type is the clean model's.
 */
MB_API enum mb_status mb_measure_models(struct mb_model *clean, struct mb_model *changed,
                                        enum mb_cache_type changed_cache_type,
                                        const struct mb_windows *windows,
                                        const struct mb_measure_options *options,
                                        struct mb_comparison *comparison, struct mb_error *err);

/* ---------------------------------------------------------------- routing */

/*
 * How even a load is.  With n_i tokens for expert i of E, their mean m and p_i = n_i / sum(n):
 *   utilisation  share of experts with n_i > 0
 *   entropy      -sum p_i ln p_i / ln E: Pielou's evenness (J. Theor. Biol. 13, 1966), 1 when even
 *   gini         sum over i and j of |n_i - n_j| / (2 E^2 m): half the relative mean difference, 0 when even
 *   imbalance    max n_i / m: 1 + MaxVio of arXiv:2408.15664
 * Without any load, entropy, gini and imbalance are NAN.
 */
struct mb_load_statistics {
    double utilisation, entropy, gini, imbalance;
};
MB_API enum mb_status mb_load_statistics(const uint64_t *load, size_t n_experts,
                                         struct mb_load_statistics *statistics, struct mb_error *err);

/* Of one layer with experts, over all tokens of the windows. */
struct mb_layer_routing {
    size_t layer, n_experts, n_used;
    uint64_t n_tokens;
    const uint64_t *load; /* [n_experts] tokens that go to each; belongs to the measurement */
    const double *gate;   /* [n_experts] sum of their weights */
    struct mb_load_statistics statistics;
    /* Against the clean pass; 0 for the clean pass itself: */
    double changed; /* share of tokens with another set of experts */
    double moved;   /* share of all choices that went to another expert */
};

/* Layers whose choices were recorded: those with experts; 0 with skips_routes. */
MB_API size_t mb_measure_n_routed(const struct mb_measure *measure);

/* The i-th of them in the clean pass, or in the last run. MB_USAGE: there was none. */
MB_API enum mb_status mb_measure_routing(const struct mb_measure *measure, size_t i, bool is_clean,
                                         struct mb_layer_routing *routing, struct mb_error *err);

/*
 * Where the load of an expert of a routed layer went: n_left tokens went to it in the clean pass and not in
 * the last run; to[n_experts]: what each expert got of them, where a token whose set changed by k experts
 * gives each of its k new ones 1/k.  n_joined: tokens that go to it in the last run alone.
 */
MB_API enum mb_status mb_measure_flow(const struct mb_measure *measure, size_t i, size_t expert,
                                      uint64_t *n_left, uint64_t *n_joined, double *to, struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
