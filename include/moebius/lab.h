/*
 * lab.h - score a model's answers on tasks, with statistics.
 *
 * Definitions (formats, ICA, PIA, perplexity) are in docs/scoring.md.
 */
#ifndef MOEBIUS_LAB_H
#define MOEBIUS_LAB_H

#include <moebius/engine.h>
#include <moebius/status.h>
#include <moebius/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mb_answer_format { MB_ANSWER_HASH = 0, MB_ANSWER_BOXED = 1, MB_ANSWER_JSON = 2, MB_ANSWER_PLAIN = 3 };

struct mb_task_item {
    const char *question; /* with the request for a format already appended */
    const char *number;   /* what follows #### in the answer, normalised */
    enum mb_answer_format format;
};

struct mb_task {
    struct mb_task_item *items;
    size_t n_items;
};

/* Reads a jsonl file in GSM8K form. Errors name file and line. */
MB_API enum mb_status mb_task_open(const char *path, size_t limit, struct mb_task *task,
                                   struct mb_error *err);
MB_API void mb_task_close(struct mb_task *task);

struct mb_score {
    bool ica; /* right, in the format that the question asks for */
    bool pia; /* right, whatever the format */
};

MB_API struct mb_score mb_score_reply(const struct mb_task_item *item, const char *reply);

/* Wilson score interval of k successes in n at 95 %. */
MB_API void mb_wilson95(uint64_t k, uint64_t n, double *low, double *high);

/* Called for every finished question, in the order of the file. 'reply' is valid UTF-8. */
typedef void (*mb_reply_fn)(void *ctx, size_t index, const struct mb_task_item *item, const char *reply,
                            struct mb_score score, size_t n_tokens);

/* Zeroed means defaults. */
struct mb_eval_options {
    size_t size;       /* sizeof(struct mb_eval_options) */
    size_t n_parallel; /* questions answered at once; 0: 16 */
    size_t n_predict;  /* most tokens in a reply; 0: 256 */
    enum mb_cache_type cache_type;
    mb_reply_fn reply;
    void *reply_ctx;
    mb_progress_fn progress; /* of questions */
    void *progress_ctx;
};

struct mb_eval_report {
    uint64_t n, n_ica, n_pia;
    uint64_t n_prompt_tokens, n_reply_tokens;
    uint64_t n_truncated; /* replies cut at n_predict or at the model's context */
    double seconds;
};

/* 'options' may be NULL. After an error the report holds what was finished. */
MB_API enum mb_status mb_eval_task(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                                   const struct mb_task *task, const struct mb_eval_options *options,
                                   struct mb_eval_report *report, struct mb_error *err);

struct mb_perplexity_report {
    double ppl, ppl_stderr; /* the standard error as llama-perplexity gives it */
    double nll_mean;
    uint64_t n_tokens_scored, n_windows;
    double seconds;
};

/* Zeroed means defaults. */
struct mb_perplexity_options {
    size_t size;          /* sizeof(struct mb_perplexity_options) */
    size_t n_ctx;         /* tokens in a window; 0: the smaller of 512 and the model's context */
    size_t limit_windows; /* 0: all */
    enum mb_cache_type cache_type;
    mb_progress_fn progress; /* of windows */
    void *progress_ctx;
};

/* 'options' may be NULL. MB_BAD_DATA when the text is shorter than one window. */
MB_API enum mb_status mb_eval_perplexity(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                                         const char *text, size_t text_nbytes,
                                         const struct mb_perplexity_options *options,
                                         struct mb_perplexity_report *report, struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
