/*
 * eval.h - the kinds of measurement of the verb "eval".
 */
#ifndef MOEBIUS_CLI_EVAL_H
#define MOEBIUS_CLI_EVAL_H

#include "cli.h"
#include <moebius/engine.h>
#include <moebius/tokenizer.h>

/* The values of its options. Which of the first three is given says what is measured. */
struct eval_args {
    const char *task, *examples, *perplexity, *tokens, *logits, *replies, *against, *cache, *original,
        *activations, *memory;
    const char *profile, *profile_out, *expert_profile, *timeline;
    struct cli_strings perturb;
    uint64_t seed;
    int limit, n_ctx, n_threads, n_predict, n_parallel, n_examples;
    bool is_strict;
    enum cli_format format;
};

struct eval {
    const struct eval_args *args;
    const char *model_path;
    struct mb_model *model;
    const struct mb_tokenizer *tokenizer; /* NULL with --tokens */
    enum mb_cache_type cache_type;
    enum mb_activation_form activations;
    struct eval_perturb *perturb; /* eval_perturb.c */
};

enum mb_status eval_task(const struct eval *eval, struct mb_error *err);       /* --task */
enum mb_status eval_perplexity(const struct eval *eval, struct mb_error *err); /* --perplexity */
enum mb_status eval_kl(const struct eval *eval, struct mb_error *err);         /* --kl-divergence */
enum mb_status eval_logits(const struct eval *eval, struct mb_error *err);     /* --tokens and --logits */

/* Caches that the measurement will open, for the limit of memory. */
void eval_expect_sessions(const struct eval_args *args, struct mb_model_options *model_options);

#endif
