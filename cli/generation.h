/*
 * generation.h - what "run" and "chat" share: options of sampling, context and templates.
 */
#ifndef MOEBIUS_CLI_GENERATION_H
#define MOEBIUS_CLI_GENERATION_H

#include "cli.h"
#include "expert_profile.h"
#include "memory.h"
#include "timeline.h"
#include <moebius/engine.h>
#include <moebius/tokenizer.h>

enum { CLI_UNSET = -1, CLI_UNLIMITED = -1 };

/* A prompt is read in pieces so that Ctrl-C and the progress bar come in between; pieces change no bit. */
enum { CLI_N_STEP_TOKENS = 256 };

/* The values of the options. CLI_GENERATION_DEFAULTS is what they are when none is given. */
struct cli_generation {
    const char *expert_profile;
    const char *system, *template, *tools, *variables, *cache, *activations, *memory, *timeline;
    int n_predict, n_ctx, n_threads, top_k;
    double temp, top_p, min_p;
    uint64_t seed;
};

#define CLI_NO_SEED UINT64_MAX
#define CLI_GENERATION_DEFAULTS                                                                \
    {                                                                                          \
        .n_predict = CLI_UNLIMITED, .top_k = CLI_UNSET, .temp = CLI_UNSET, .top_p = CLI_UNSET, \
        .min_p = CLI_UNSET, .seed = CLI_NO_SEED                                                \
    }

/* Rows of a command's table; 'g' is its struct cli_generation. */
#define CLI_ROW_SYSTEM(g, implied) \
    CLI_ROW_TEXT(0, "system", "TEXT", (g).system, "the system message, before all others" implied)
#define CLI_ROW_TEMPLATE(g, implied)                                                                     \
    CLI_ROW_TEXT(0, "chat-template", "FILE", (g).template,                                               \
                 "another template (Jinja) instead of the model's, or the word 'plain' for\n\"User: ..." \
                 " Assistant:\"" implied)
#define CLI_ROW_TOOLS(g, implied)               \
    CLI_ROW_TEXT(0, "tools", "FILE", (g).tools, \
                 "what the model may call: a JSON array of functions for the template" implied)
#define CLI_ROW_VARIABLES(g, implied)                              \
    CLI_ROW_TEXT(0, "chat-template-kwargs", "JSON", (g).variables, \
                 "further variables of the template, such as '{\"enable_thinking\": false}'" implied)
#define CLI_ROWS_GENERATION(g, n_predict_help, n_ctx_help)                                                  \
    CLI_ROW_INT('n', "predict", "N", (g).n_predict, -1, 1e9, n_predict_help),                               \
        CLI_ROW_INT('c', "ctx-size", "N", (g).n_ctx, 0, 1e9, n_ctx_help), CLI_ROW_THREADS((g).n_threads),   \
        CLI_ROW_DOUBLE(0, "temp", "T", (g).temp, 0, 1000,                                                   \
                       "sampling temperature; 0: always the likeliest token (default 0, see above)"),       \
        CLI_ROW_INT(0, "top-k", "K", (g).top_k, 0, 1e9, "sample from the K likeliest tokens; 0: all (40)"), \
        CLI_ROW_DOUBLE(0, "top-p", "P", (g).top_p, 0, 1,                                                    \
                       "sample from the likeliest tokens that reach this probability; 1: all (0.95)"),      \
        CLI_ROW_DOUBLE(0, "min-p", "P", (g).min_p, 0, 1,                                                    \
                       "leave out tokens less likely than P times the likeliest; 0: none (0.05)"),          \
        CLI_ROW_UINT64('s', "seed", "N", (g).seed, 0, 0x1p63,                                               \
                       "seed of the sampling: the same seed gives the same text (default: by chance)"),     \
        CLI_ROW_TEXT(0, "cache-type", "TYPE", (g).cache,                                                    \
                     "f16 (default) or f32: what the attention cache holds"),                               \
        CLI_ROW_ACTIVATIONS((g).activations), CLI_ROW_MEMORY((g).memory),                                   \
        CLI_ROW_EXPERT_PROFILE((g).expert_profile), CLI_ROW_TIMELINE((g).timeline)

/* The paragraph of --help that says when tokens are sampled. */
#define CLI_SAMPLING_WORDS                                                                                \
    "Without sampling options the likeliest token is taken every time: the same text from the same\n"     \
    "model, whatever the threads or the instruction set. With any of --temp, --top-k, --top-p, --min-p\n" \
    "and -s tokens are sampled, and those of them that are not given have llama.cpp's values: --temp "    \
    "0.8\n"                                                                                               \
    "--top-k 40 --top-p 0.95 --min-p 0.05."

/* What is wrong with them, or NULL. */
const char *cli_generation_check(const struct cli_generation *g);

/*
 * How the model is to be opened. The words have been checked.  n_prompt: tokens that come before the reply,
 * where they are known, else 0.
 */
struct mb_model_options cli_model_options(const struct cli_generation *g, size_t n_prompt);

enum mb_cache_type cli_cache_type(const struct cli_generation *g);

/* Chooses a seed where tokens are sampled and none was given. */
struct mb_sampler_options cli_sampler_options(const struct cli_generation *g);

/* Most tokens of prompt and reply together: -c, or the model's context. MB_USAGE: -c is more than that. */
enum mb_status cli_context(const struct cli_generation *g, const struct mb_model_info *info, size_t *n_ctx,
                           struct mb_error *err);

/* A whole file as a text without a 0 in it; malloc'ed, NULL after a failure. */
enum mb_status cli_read_words(const char *path, char **text, struct mb_error *err);

/*
 * A chat template that was read once: the model's, a file's, or the plain format.  Zeroed: not open.
 * MB_BAD_DATA: none is given and the model has none.
 */
struct cli_template {
    const struct mb_tokenizer *tokenizer;
    const char *place; /* NULL: the plain format */
    char *text;        /* NULL: the model's own, or the plain format */
    char *tools;       /* JSON, or NULL */
    const char *variables;
    bool is_plain;
};

enum mb_status cli_template_open(struct cli_template *template, const struct cli_generation *g,
                                 const struct mb_tokenizer *tokenizer, struct mb_error *err);
void cli_template_close(struct cli_template *template);

/* *text: the conversation as the model wants to see it, up to where its reply begins. malloc'ed. */
enum mb_status cli_template_render(const struct cli_template *template,
                                   const struct mb_chat_message *messages, size_t n_messages, char **text,
                                   struct mb_error *err);

#endif
