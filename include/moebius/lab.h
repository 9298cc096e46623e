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

/* ---------------------------------------------------------------- tasks */

enum mb_answer_format {
    MB_ANSWER_HASH = 0,
    MB_ANSWER_BOXED = 1,
    MB_ANSWER_JSON = 2,
    MB_ANSWER_PLAIN = 3,
    MB_ANSWER_MATH = 4, /* the last \boxed{}, equal by the rules of the MATH data set */
};

/* How an answer is compared. */
enum mb_answer_kind { MB_ANSWER_NUMBER = 0, MB_ANSWER_TEXT = 1, MB_ANSWER_LATEX = 2 };

/* A question that is answered in words. */
struct mb_task_item {
    const char *question; /* with the request for a format already appended */
    const char *answer;   /* a number in its one form, a text, or LaTeX as it was in the box */
    enum mb_answer_format format;
    enum mb_answer_kind kind;
    size_t line; /* of the file, from 1; of a JSON array: the element */
    const char
        *reply; /* what the file has for an answer, ending in the asked format: as an example shows it */
};

/* A question whose likeliest choice counts: choice i is P(continuations[i] | contexts[i]). */
struct mb_choice_item {
    char **contexts, **continuations; /* [n_choices] each; a space begins a continuation */
    size_t n_choices, right;
    size_t line;     /* as above */
    size_t n_header; /* bytes of each context that stand before all examples (MMLU's subject) */
};

/* A question and its right reply, shown before every question of a task that is answered in words. */
struct mb_task_example {
    const char *question, *reply;
};

/* All questions of a task are of one kind: the other list is empty. */
struct mb_task {
    struct mb_task_item *items;
    size_t n_items;
    struct mb_choice_item *choices;
    size_t n_choices;
    size_t n_malformed;               /* lines left out */
    struct mb_task_example *examples; /* earlier turns of the chat; those of choices are in their contexts */
    size_t n_examples;
    size_t n_shown; /* questions left out because they are examples */
};

/* 'message' names file, line and what is wrong with it. */
typedef void (*mb_malformed_fn)(void *ctx, const char *message);

/* Zeroed means defaults. */
struct mb_task_options {
    size_t size;               /* sizeof(struct mb_task_options) */
    size_t limit;              /* questions; 0: all */
    bool skips_malformed;      /* leave malformed lines out, count them; otherwise they are an error */
    mb_malformed_fn malformed; /* called for each that is left out; may be NULL */
    void *malformed_ctx;
    size_t n_examples;    /* before every question; 0: none */
    const char *examples; /* the file that they are the first questions of; NULL: the task's own */
};

/*
 * Reads a file of questions: JSON lines, or one JSON array, in a form of docs/scoring.md.  Errors name file
 * and line.  'options' may be NULL.  MB_BAD_DATA, too: no question is left, or there are too few examples.
 * A question that is itself one of the examples is not asked; 'limit' counts those that are.
 */
MB_API enum mb_status mb_task_open(const char *path, const struct mb_task_options *options,
                                   struct mb_task *task, struct mb_error *err);
MB_API void mb_task_close(struct mb_task *task);

/* ---------------------------------------------------------------- replies */

/* Why a reply is of no use. */
enum mb_dead {
    MB_ALIVE = 0,
    MB_DEAD_EMPTY = 1,   /* nothing but white space */
    MB_DEAD_REPEATS = 2, /* it ends with one piece of text over and over */
    MB_DEAD_CUT = 3,     /* cut at the limit, without a sign of an answer */
    MB_DEAD_NO_ROOM = 4, /* the question does not fit in the model's context */
};

struct mb_score {
    bool ica; /* right, in the format that the question asks for */
    bool pia; /* right, whatever the format */
    enum mb_dead dead;
};

/* is_cut: the reply did not end by itself. */
MB_API struct mb_score mb_score_reply(const struct mb_task_item *item, const char *reply, bool is_cut);

/* Whether two answers are equal by the rules of the MATH data set (Hendrycks et al. 2021). */
MB_API bool mb_math_equal(const char *a, const char *b);

/* "hash", "boxed", "json", "plain", "math"; "alive", "empty", "repeats", "cut", "no room". */
MB_API const char *mb_answer_format_name(enum mb_answer_format format);
MB_API const char *mb_dead_name(enum mb_dead dead);

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
    uint64_t n_dead, n_no_room; /* replies of no use, and of these: questions longer than the context */
};

/* 'options' may be NULL. Multiple choice is mb_eval_choices'. After an error the report holds what was
 * finished. */
MB_API enum mb_status mb_eval_task(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                                   const struct mb_task *task, const struct mb_eval_options *options,
                                   struct mb_eval_report *report, struct mb_error *err);

/* ---------------------------------------------------------------- multiple choice */

/* Which choice is the likeliest by three measures; the first of equals. */
struct mb_choice_score {
    const double *log_likelihoods; /* [n_choices], natural logarithms; NULL: no room */
    size_t chosen, chosen_norm, chosen_bytes;
    bool acc;       /* by log-likelihood */
    bool acc_norm;  /* by log-likelihood a character, as lm-evaluation-harness's acc_norm */
    bool acc_bytes; /* by log-likelihood a byte */
    bool has_room;  /* false: longer than the model's context, and wrong */
};

/* Called for every finished question, in the order of the file. */
typedef void (*mb_choice_fn)(void *ctx, size_t index, const struct mb_choice_item *item,
                             const struct mb_choice_score *score);

/* Zeroed means defaults. */
struct mb_choices_options {
    size_t size;       /* sizeof(struct mb_choices_options) */
    size_t n_parallel; /* questions computed at once; 0: 16. Results do not depend on it */
    enum mb_cache_type cache_type;
    mb_choice_fn choice;
    void *choice_ctx;
    mb_progress_fn progress; /* of questions */
    void *progress_ctx;
};

struct mb_choices_report {
    uint64_t n, n_acc, n_acc_norm, n_acc_bytes;
    uint64_t n_no_room;         /* questions longer than the model's context */
    uint64_t n_tokens_computed; /* what choices and questions have in common counts once */
    double seconds;
};

/*
 * Multiple choice by log-likelihood, with the arithmetic of lm-evaluation-harness (docs/scoring.md).
 * 'options' may be NULL.  After an error the report holds what was finished.
 */
MB_API enum mb_status mb_eval_choices(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                                      const struct mb_task *task, const struct mb_choices_options *options,
                                      struct mb_choices_report *report, struct mb_error *err);

/* ---------------------------------------------------------------- perplexity */

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

/* ---------------------------------------------------------------- statistics (docs/scoring.md) */

/* Wilson score interval of k successes in n at 95 %. */
MB_API void mb_wilson95(uint64_t k, uint64_t n, double *low, double *high);

struct mb_estimate {
    double value, low, high; /* low to high: a 95 % interval */
};

/* Zeroed means defaults. */
struct mb_bootstrap_options {
    size_t size;        /* sizeof(struct mb_bootstrap_options) */
    size_t n_resamples; /* 0: 10000 */
    uint64_t seed;      /* the same seed and values give the same interval, bit for bit */
};

/*
 * The mean of values[n] with its percentile bootstrap interval: values, one a question, are drawn again with
 * replacement.  The same for the mean of a[i] - b[i], question by question.  'options' may be NULL.
 * MB_USAGE: n is 0, or a value is not finite.
 */
MB_API enum mb_status mb_bootstrap_mean95(const double *values, size_t n,
                                          const struct mb_bootstrap_options *options,
                                          struct mb_estimate *estimate, struct mb_error *err);
MB_API enum mb_status mb_bootstrap_difference95(const double *a, const double *b, size_t n,
                                                const struct mb_bootstrap_options *options,
                                                struct mb_estimate *estimate, struct mb_error *err);

/*
 * McNemar's test of two runs on the same questions, of which n_better are right in the second one alone and
 * n_worse in the first one alone.  Both p-values are two-sided, from the binomial distribution.
 */
struct mb_mcnemar {
    double p_exact; /* never more than the stated share of false alarms */
    double p_mid;   /* mid-p: close to it on average, so that it sees more */
};
MB_API struct mb_mcnemar mb_mcnemar(uint64_t n_better, uint64_t n_worse);

enum mb_verdict { MB_NO_DIFFERENCE_SEEN = 0, MB_BETTER = 1, MB_WORSE = 2 };

/* 'p' (corrected where many were compared) below alpha: MB_BETTER or MB_WORSE by the difference's sign. */
MB_API enum mb_verdict mb_verdict_of(double difference, double p, double alpha);

/* "better", "worse", or "no difference seen (n = 1000)". Returns text. */
MB_API const char *mb_verdict_text(enum mb_verdict verdict, uint64_t n, char text[64]);

/* Two runs on the same questions: rights[i] says whether question i was answered rightly. */
struct mb_paired {
    uint64_t n, n_better, n_worse; /* n_better + n_worse: the flips */
    struct mb_estimate difference; /* share right in 'run' less that in 'base'; paired bootstrap */
    struct mb_mcnemar mcnemar;
    enum mb_verdict verdict; /* by p_exact at 5 % */
    double detectable;       /* mb_detectable_difference of n and these flips, 5 %, power 80 % */
};

/* 'options' may be NULL. MB_USAGE: n is 0. */
MB_API enum mb_status mb_compare_paired(const bool *base, const bool *run, size_t n,
                                        const struct mb_bootstrap_options *options, struct mb_paired *paired,
                                        struct mb_error *err);

/*
 * The smallest difference of two shares that McNemar's test on n questions, of which the share 'discordance'
 * flips, shows at level alpha (two-sided) with this power (Connor 1987).  Many comparisons: divide alpha by
 * their number.  INFINITY: none can be, even if all flips go one way.
 */
MB_API double mb_detectable_difference(uint64_t n, double discordance, double alpha, double power);

/* How many questions it takes to show 'difference' so; 0: no number is enough (difference > discordance). */
MB_API uint64_t mb_questions_needed(double difference, double discordance, double alpha, double power);

/*
 * Several seeds on the same questions, the sampling of either kept apart: value [seed][question] = mean +
 * seed + question + rest, all three random (two-way analysis of variance).
 */
struct mb_two_level {
    double mean;
    double se_questions; /* standard error if only the questions had been drawn */
    double se_seeds;     /* if only the seeds had been drawn; 0 with one seed, which shows nothing of it */
    double se;           /* both */
    double var_seeds, var_questions, var_rest; /* components of variance, >= 0 */
    double df;                                 /* degrees of freedom of 'se' (Satterthwaite) */
    double low, high; /* 95 % interval by Student's t with df; with one seed: of this seed alone */
    double p;         /* two-sided, of mean = 0: for differences from a clean run */
};

/* values: [n_seeds][n_questions], n_questions >= 2. MB_USAGE: fewer, no seed, or a value is not finite. */
MB_API enum mb_status mb_two_level(const double *values, size_t n_seeds, size_t n_questions,
                                   struct mb_two_level *result, struct mb_error *err);

/*
 * Corrects n p-values for their number, in their order: Holm's keeps the chance of any false alarm, Benjamini
 * and Hochberg's the expected share of false ones among the alarms.  'adjusted' may be 'p'.  MB_USAGE: a
 * value is not in 0 to 1.
 */
MB_API enum mb_status mb_adjust_holm(const double *p, size_t n, double *adjusted, struct mb_error *err);
MB_API enum mb_status mb_adjust_benjamini_hochberg(const double *p, size_t n, double *adjusted,
                                                   struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
