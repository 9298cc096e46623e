/*
 * generation.c - sampling, context and chat templates as the options ask for them.
 */
#include "generation.h"
#include "base/error.h"
#include "base/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* llama.cpp's values, for those of the sampling options that are not given when another one is. */
static const float llama_temp = 0.8F, llama_top_p = 0.95F, llama_min_p = 0.05F;
enum { LLAMA_TOP_K = 40 };

const char *cli_generation_check(const struct cli_generation *g)
{
    if (g->cache != NULL && strcmp(g->cache, "f16") != 0 && strcmp(g->cache, "f32") != 0)
        return "--cache-type is f16 or f32";
    enum mb_activation_form activations;
    if (!cli_activations(g->activations, &activations))
        return CLI_ACTIVATIONS_WORDS;
    uint64_t memory_nbytes;
    return cli_memory(g->memory, &memory_nbytes) ? NULL : CLI_MEMORY_WORDS;
}

bool cli_activations(const char *text, enum mb_activation_form *form)
{
    static const char *const words[] = {"auto", "exact", "fast"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (text == NULL || strcmp(text, words[i]) == 0) {
            *form = (enum mb_activation_form)i;
            return true;
        }
    return false;
}

enum mb_cache_type cli_cache_type(const struct cli_generation *g)
{
    return g->cache != NULL && strcmp(g->cache, "f32") == 0 ? MB_CACHE_F32 : MB_CACHE_F16;
}

/* Tokens of the context as cli_context and "run" will choose it: SIZE_MAX is the model's. */
static size_t expected_context(const struct cli_generation *g, size_t n_prompt)
{
    size_t n_ctx = g->n_ctx > 0 ? (size_t)g->n_ctx : g->memory != NULL ? SIZE_MAX : 0;
    if (n_prompt == 0 || g->n_predict == CLI_UNLIMITED)
        return n_ctx;
    size_t n_most = n_prompt + (size_t)g->n_predict;
    return n_ctx == 0 || n_most < n_ctx ? n_most : n_ctx;
}

struct mb_model_options cli_model_options(const struct cli_generation *g, size_t n_prompt)
{
    struct mb_model_options options = {.size = sizeof options,
                                       .n_threads = g->n_threads,
                                       .n_ctx = expected_context(g, n_prompt),
                                       .n_step_tokens = CLI_N_STEP_TOKENS,
                                       .cache_type = cli_cache_type(g),
                                       .timeline = cli_timeline_hook()};
    cli_activations(g->activations, &options.activations);
    cli_memory(g->memory, &options.memory_nbytes);
    return options;
}

struct mb_sampler_options cli_sampler_options(const struct cli_generation *g)
{
    bool is_greedy = g->temp == CLI_UNSET && g->top_k == CLI_UNSET && g->top_p == CLI_UNSET &&
                     g->min_p == CLI_UNSET && g->seed == CLI_NO_SEED;
    struct mb_sampler_options o = {
        .size = sizeof o,
        .temperature = is_greedy              ? 0
                       : g->temp == CLI_UNSET ? llama_temp
                                              : (float)g->temp,
        .top_k = g->top_k == CLI_UNSET ? LLAMA_TOP_K : g->top_k,
        .top_p = g->top_p == CLI_UNSET ? llama_top_p : (float)g->top_p,
        .min_p = g->min_p == CLI_UNSET ? llama_min_p : (float)g->min_p,
        .seed = g->seed,
    };
    if (o.temperature > 0 && g->seed == CLI_NO_SEED) {
        uint32_t seed = 0;
        if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
            seed = (uint32_t)time(NULL);
        o.seed = seed; /* short enough to type again */
    }
    return o;
}

enum mb_status cli_context(const struct cli_generation *g, const struct mb_model_info *info, size_t *n_ctx,
                           struct mb_error *err)
{
    if (g->n_ctx > 0 && (size_t)g->n_ctx > info->n_ctx_train)
        return mb_fail(err, MB_USAGE, "-c: the model's context has %zu tokens; give no more",
                       info->n_ctx_train);
    *n_ctx = g->n_ctx > 0 ? (size_t)g->n_ctx : info->n_ctx_train;
    return MB_OK;
}

enum mb_status cli_read_words(const char *path, char **text, struct mb_error *err)
{
    size_t nbytes;
    MB_TRY(cli_read_text(path, text, &nbytes, err));
    if (strlen(*text) == nbytes)
        return MB_OK;
    free(*text);
    *text = NULL;
    return mb_fail(err, MB_BAD_DATA, "%s: not a text: it has a zero byte", path);
}

/* ---------------------------------------------------------------- templates */

/* Says early, and by the names that the user knows, that a JSON text is none. */
static enum mb_status check_json(const char *text, const char *place, enum mb_status status, bool is_object,
                                 struct mb_error *err)
{
    struct mb_error inner = {0};
    json_t *json = NULL;
    if (mb_json_parse(text, strlen(text), 0, &json, &inner) != MB_OK)
        return mb_fail(err, status, "%s: %s", place, inner.msg);
    bool is_right = is_object ? json_is_object(json) : json_is_array(json);
    json_decref(json);
    return is_right ? MB_OK
                    : mb_fail(err, status, "%s: not a JSON %s", place,
                              is_object ? "object, such as {\"enable_thinking\": false}" : "array of tools");
}

static enum mb_status read_json_options(struct cli_template *template, const struct cli_generation *g,
                                        struct mb_error *err)
{
    template->variables = g->variables;
    if (template->is_plain && (g->variables != NULL || g->tools != NULL))
        return mb_fail(err, MB_USAGE, "the plain format has no --tools and no --chat-template-kwargs");
    if (g->variables != NULL)
        MB_TRY(check_json(g->variables, "--chat-template-kwargs", MB_USAGE, true, err));
    if (g->tools == NULL)
        return MB_OK;
    MB_TRY(cli_read_words(g->tools, &template->tools, err));
    return check_json(template->tools, g->tools, MB_BAD_DATA, false, err);
}

/* Where a folder has several templates: which one it is. */
static void note_template(const struct mb_tokenizer *tokenizer, const struct cli_generation *g)
{
    size_t n_templates;
    const char *place = mb_tokenizer_chat_place(tokenizer, g->tools != NULL, &n_templates);
    if (g->template == NULL && place != NULL && n_templates > 1)
        fprintf(stderr, "moebius: of %zu chat templates this is used: %s\n", n_templates, place);
}

enum mb_status cli_template_open(struct cli_template *template, const struct cli_generation *g,
                                 const struct mb_tokenizer *tokenizer, struct mb_error *err)
{
    template->tokenizer = tokenizer;
    if (g->template == NULL && !mb_tokenizer_has_chat(tokenizer))
        return mb_fail(err, MB_BAD_DATA,
                       "the model has no chat template (give --chat-template FILE, or plain)");
    note_template(tokenizer, g);
    template->is_plain = g->template != NULL &&strcmp(g->template, "plain") == 0;
    MB_TRY(read_json_options(template, g, err));
    if (g->template == NULL)
        return MB_OK;
    template->place = template->is_plain ? NULL : g->template;
    return template->is_plain ? MB_OK : cli_read_words(g->template, &template->text, err);
}

void cli_template_close(struct cli_template *template)
{
    free(template->text);
    free(template->tools);
}

enum mb_status cli_template_render(const struct cli_template *template,
                                   const struct mb_chat_message *messages, size_t n_messages, char **text,
                                   struct mb_error *err)
{
    const struct mb_chat_options options = {.size = sizeof options,
                                            .template_text = template->text,
                                            .place = template->place,
                                            .is_plain = template->is_plain,
                                            .add_generation_prompt = true,
                                            .tools = template->tools,
                                            .variables = template->variables};
    return mb_tokenizer_chat_text(template->tokenizer, messages, n_messages, &options, text, err);
}
