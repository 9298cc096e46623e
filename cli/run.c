/*
 * run.c - the verb "run": a prompt's continuation, or the answer to a message, while it is made.
 *
 * stdout gets the text alone, stderr the times and the memory in use.
 */
#include "base/clock.h"
#include "base/error.h"
#include "cli.h"
#include "generation.h"
#include "machine.h"
#include "reply_screen.h"
#include "report.h"
#include <moebius/codec.h>
#include <moebius/engine.h>
#include <moebius/scheduler.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *prompt, *prompt_file;
    bool chat;
    struct cli_generation generation;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT('p', "prompt", "TEXT", args.prompt, "the text to go on from; - reads it from stdin"),
    CLI_ROW_TEXT('f', "file", "FILE", args.prompt_file, "read the prompt from FILE"),
    CLI_ROW_FLAG(0, "chat", args.chat,
                 "the prompt is a user's message: put it into the model's chat template"),
    CLI_ROW_SYSTEM(args.generation, "; implies --chat"),
    CLI_ROW_TEMPLATE(args.generation, "; implies --chat"),
    CLI_ROW_TOOLS(args.generation, "; implies --chat"),
    CLI_ROW_VARIABLES(args.generation, "; implies --chat"),
    CLI_ROWS_GENERATION(args.generation,
                        "generate at most N tokens (default -1: until the model ends or its context is full)",
                        "tokens of context (default 0: as many as are needed, at most the model's)"),
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON,
                   "text as it is made (default), or JSON at the end: text, token ids, times,\nmemory"),
};

static const struct cli_command command = {
    .name = "run",
    .args = "MODEL -p PROMPT [options]",
    .summary = "Continue a text, or answer a message (--chat), from a plain or coded model.",
    .details = CLI_SAMPLING_WORDS
    " The text goes to stdout, all else to stderr. Ctrl-C ends "
    "it.\n\n"
    "  moebius run models/reference --chat -p 'Ali has 92 pears. A friend gives Ali 43 pears. How many "
    "pears does Ali have now?'\n"
    "  moebius run models/reference -p 'Once upon a time' -n 40 --temp 0.7 -s 1\n"
    "  moebius run models/reference --chat -f question.txt -o json",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

/* ---------------------------------------------------------------- what is going on */

enum finish { AT_EOS, AT_N_PREDICT, AT_CONTEXT, AT_INTERRUPT };

struct generation {
    struct mb_tokenizer *tokenizer;
    struct mb_model *model;
    struct mb_scheduler *scheduler;
    struct mb_detokenizer *detokenizer;
    const struct mb_model_info *info;
    size_t n_ctx; /* prompt and reply together, at most */
    int32_t *prompt, *reply;
    size_t n_prompt, n_reply;
    struct mb_sampler_options sampler;
    FILE *out;  /* where the text goes: stdout, or 'text' for JSON */
    char *text; /* terminated once 'out' is flushed */
    size_t text_nbytes;
    bool is_line_open;              /* the text so far does not end in a line end */
    char *prompt_text;              /* of --chat, or NULL: whether the reply begins with thinking */
    struct cli_reply_screen screen; /* of a terminal: it gets no control characters */
    bool is_terminal;
    struct cli_progress progress;
    uint64_t begun_ns; /* reading the prompt, then the reply */
    enum finish finish;
    double load_seconds, prompt_seconds, reply_seconds;
    struct mb_store_traffic begun_traffic, prompt_traffic; /* before the prompt, and up to its end */
    enum mb_status status;                                 /* of what failed in an event, and how */
    struct mb_error err;
};

static void release(struct generation *g)
{
    mb_scheduler_close(g->scheduler);
    mb_detokenizer_close(g->detokenizer);
    mb_model_close(g->model);
    mb_tokenizer_close(g->tokenizer);
    if (g->out != NULL && g->out != stdout)
        fclose(g->out);
    free(g->text);
    free(g->prompt_text);
    free(g->prompt);
    free(g->reply);
}

/* ---------------------------------------------------------------- the prompt */

/* A prompt file's last line end is left out, as llama.cpp does it. */
static enum mb_status read_prompt(char **text, struct mb_error *err)
{
    bool is_stdin = args.prompt != NULL && strcmp(args.prompt, "-") == 0;
    if (args.prompt != NULL && !is_stdin) {
        *text = strdup(args.prompt);
        return *text == NULL ? mb_fail_memory(err, "the prompt") : MB_OK;
    }
    MB_TRY(cli_read_words(is_stdin ? "-" : args.prompt_file, text, err));
    size_t n = strlen(*text);
    if (n > 0 && (*text)[n - 1] == '\n')
        (*text)[n - 1] = '\0';
    return MB_OK;
}

/* *text: the message, after the system message, as the model wants to see it. */
static enum mb_status put_into_template(const struct generation *g, const char *prompt, char **text,
                                        struct mb_error *err)
{
    const struct mb_chat_message messages[] = {{"system", args.generation.system}, {"user", prompt}};
    size_t begin = args.generation.system == NULL;
    struct cli_template template = {0};
    enum mb_status status = cli_template_open(&template, &args.generation, g->tokenizer, err);
    if (status == MB_OK)
        status = cli_template_render(&template, messages + begin, 2 - begin, text, err);
    cli_template_close(&template);
    return status;
}

static enum mb_status encode_text(struct generation *g, const char *text, struct mb_error *err)
{
    return mb_tokenizer_encode(g->tokenizer, text, strlen(text), !args.chat, &g->prompt, &g->n_prompt, err);
}

static enum mb_status encode_message(struct generation *g, const char *prompt, struct mb_error *err)
{
    MB_TRY(put_into_template(g, prompt, &g->prompt_text, err));
    return encode_text(g, g->prompt_text, err);
}

static enum mb_status encode_prompt(struct generation *g, struct mb_error *err)
{
    char *prompt;
    MB_TRY(read_prompt(&prompt, err));
    enum mb_status status = args.chat ? encode_message(g, prompt, err) : encode_text(g, prompt, err);
    free(prompt);
    if (status == MB_OK && g->n_prompt == 0)
        return mb_fail(err, MB_USAGE, "prompt: empty; give some text with -p or -f");
    return status;
}

/* ---------------------------------------------------------------- sizes */

/* As many tokens as will be used at most. */
static enum mb_status choose_context(struct generation *g, struct mb_error *err)
{
    size_t n_most;
    MB_TRY(cli_context(&args.generation, g->info, &n_most, err));
    if (g->n_prompt > n_most)
        return n_most < g->info->n_ctx_train
                   ? mb_fail(err, MB_USAGE,
                             "the prompt has %zu tokens, the context has %zu: shorten the prompt or give a "
                             "larger -c (at most %zu)",
                             g->n_prompt, n_most, g->info->n_ctx_train)
                   : mb_fail(err, MB_USAGE,
                             "the prompt has %zu tokens, the model's context has %zu: shorten the prompt",
                             g->n_prompt, n_most);
    g->n_ctx = n_most;
    if (args.generation.n_predict != CLI_UNLIMITED &&
        (size_t)args.generation.n_predict < n_most - g->n_prompt)
        g->n_ctx = g->n_prompt + (size_t)args.generation.n_predict;
    for (size_t i = 0; i < g->n_prompt; i++)
        if ((size_t)g->prompt[i] >= g->info->n_vocab)
            return mb_fail(err, MB_BAD_DATA,
                           "the tokenizer: token %d of the prompt is not in the model's vocabulary of %zu",
                           (int)g->prompt[i], g->info->n_vocab);
    return MB_OK;
}

static enum mb_status open_scheduler(struct generation *g, struct mb_error *err)
{
    struct mb_scheduler_options scheduler_options = {
        .size = sizeof scheduler_options,
        .n_slots = 1,
        .n_ctx = g->n_ctx,
        .n_step_tokens = CLI_N_STEP_TOKENS,
        .cache_type = cli_cache_type(&args.generation),
    };
    g->reply = malloc((g->n_ctx - g->n_prompt + 1) * sizeof *g->reply); /* the last one is not fed */
    g->out = args.format == CLI_JSON ? open_memstream(&g->text, &g->text_nbytes) : stdout;
    if (g->reply == NULL || g->out == NULL)
        return mb_fail_memory(err, "the reply");
    MB_TRY(mb_detokenizer_open(g->tokenizer, true, &g->detokenizer, err));
    return mb_scheduler_open(g->model, &scheduler_options, &g->scheduler, err);
}

static enum mb_status open_all(struct generation *g, const char *path, struct mb_error *err)
{
    struct mb_model_options model_options;
    uint64_t begun_ns = mb_now_ns();
    MB_TRY(mb_checkpoint_look(path, err)); /* first: it says more about what is no model */
    MB_TRY(mb_tokenizer_open(path, &g->tokenizer, err));
    MB_TRY(encode_prompt(g, err));
    model_options = cli_model_options(&args.generation, g->n_prompt);
    MB_TRY(cli_open_model(path, args.generation.expert_profile, &model_options, &g->model, err));
    g->begun_traffic = mb_model_traffic(g->model); /* a profile's experts are there already */
    g->info = mb_model_info(g->model);
    cli_print_notes(g->info->notes);
    cli_print_mode(g->info, args.generation.memory != NULL);
    MB_TRY(choose_context(g, err));
    MB_TRY(open_scheduler(g, err));
    g->load_seconds = cli_seconds_since(begun_ns);
    return MB_OK;
}

/* ---------------------------------------------------------------- tokens */

/* Text goes out as soon as its characters are whole. */
static enum mb_status print_text(struct generation *g, const char *text, size_t n, struct mb_error *err)
{
    if (g->is_terminal) {
        cli_reply_screen_add(&g->screen, text, n);
        return g->screen.has_failed ? mb_fail_errno(err, "standard output", "write") : MB_OK;
    }
    if (fwrite(text, 1, n, g->out) != n || fflush(g->out) != 0)
        return g->out == stdout ? mb_fail_errno(err, "standard output", "write")
                                : mb_fail_memory(err, "the text");
    if (n > 0)
        g->is_line_open = text[n - 1] != '\n';
    return MB_OK;
}

static enum mb_status print_token(struct generation *g, int32_t token, struct mb_error *err)
{
    const char *text;
    size_t n;
    MB_TRY(mb_detokenizer_add(g->detokenizer, &token, 1, &text, &n, err));
    return print_text(g, text, n, err);
}

static enum mb_status print_rest(struct generation *g, struct mb_error *err)
{
    const char *text;
    size_t n;
    MB_TRY(mb_detokenizer_flush(g->detokenizer, &text, &n, err));
    return print_text(g, text, n, err);
}

/* A piece of the prompt was read. true: go no further. */
static bool take_piece(struct generation *g, const struct mb_event *event)
{
    if (event->n_prompt_done == event->n_prompt) {
        cli_progress_end(&g->progress);
        g->prompt_seconds = cli_seconds_since(g->begun_ns);
        g->prompt_traffic = mb_model_traffic(g->model);
        g->begun_ns = mb_now_ns();
        return args.generation.n_predict == 0;
    }
    if (cli_progress_show(&g->progress, "reading the prompt", event->n_prompt_done, event->n_prompt))
        g->status = mb_fail(&g->err, MB_CANCELLED, "run: interrupted while reading the prompt");
    return g->status != MB_OK;
}

static void take_end(struct generation *g, const struct mb_event *event)
{
    static const enum finish finishes[] = {
        [MB_FINISH_STOP] = AT_EOS, [MB_FINISH_LENGTH] = AT_N_PREDICT, [MB_FINISH_CONTEXT] = AT_CONTEXT};
    if (event->finish == MB_FINISH_CANCELLED && g->prompt_seconds == 0)
        g->status = mb_fail(&g->err, MB_CANCELLED, "run: interrupted while reading the prompt");
    else if (event->finish == MB_FINISH_CANCELLED)
        g->finish = args.generation.n_predict == 0 ? AT_N_PREDICT : AT_INTERRUPT;
    else if (event->finish == MB_FINISH_ERROR)
        g->status = mb_fail(&g->err, event->status, "%s", event->message);
    else
        g->finish = finishes[event->finish];
}

/* An mb_event_fn; ctx is a struct generation. */
static bool take_event(void *ctx, const struct mb_event *event)
{
    struct generation *g = ctx;
    switch (event->kind) {
    case MB_EVENT_PROMPT:
        return take_piece(g, event);
    case MB_EVENT_TOKEN:
        g->reply[g->n_reply++] = event->token;
        g->status = print_token(g, event->token, &g->err);
        return g->status != MB_OK || cli_interrupted();
    default:
        take_end(g, event);
        return false;
    }
}

static enum mb_status run_request(struct generation *g, struct mb_error *err)
{
    struct mb_request request = {
        .size = sizeof request,
        .prompt = g->prompt,
        .n_prompt = g->n_prompt,
        .n_predict = args.generation.n_predict == CLI_UNLIMITED ? 0 : (size_t)args.generation.n_predict,
        .sampler = &g->sampler,
        .event = take_event,
        .ctx = g};
    MB_TRY(mb_scheduler_submit(g->scheduler, &request, NULL, err));
    while (mb_scheduler_n_requests(g->scheduler) > 0) {
        enum mb_status status = mb_scheduler_step(g->scheduler, err);
        if (status != MB_OK && status != MB_CANCELLED) /* that is an end like others */
            return status;
    }
    if (g->status != MB_OK)
        return mb_fail(err, g->status, "%s", g->err.msg);
    return print_rest(g, err);
}

/* Prompt and reply. A text that was begun gets its line end even where it fails. */
static enum mb_status generate(struct generation *g, struct mb_error *err)
{
    g->sampler = cli_sampler_options(&args.generation);
    g->begun_ns = mb_now_ns();
    g->is_terminal = g->out == stdout && isatty(STDOUT_FILENO) == 1;
    cli_progress_begin(&g->progress, "tokens");
    if (g->is_terminal)
        cli_reply_screen_begin(&g->screen, g->prompt_text == NULL ? "" : g->prompt_text);
    enum mb_status status = run_request(g, err);
    cli_progress_end(&g->progress);
    g->reply_seconds = cli_seconds_since(g->begun_ns);
    if (g->is_terminal)
        cli_reply_screen_end(&g->screen);
    else if (g->out == stdout && g->is_line_open)
        putchar('\n');
    return status;
}

/* ---------------------------------------------------------------- the end */

static const char *const finishes[] = {"eos", "length", "context", "interrupt"};

static double rate_of(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static struct mb_store_traffic reply_traffic(const struct generation *g)
{
    struct mb_store_traffic now = mb_model_traffic(g->model);
    return cli_traffic_since(&now, &g->prompt_traffic);
}

static void print_traffic(const struct generation *g)
{
    struct mb_store_traffic reply = reply_traffic(g);
    struct mb_store_traffic prompt = cli_traffic_since(&g->prompt_traffic, &g->begun_traffic);
    char prompt_text[CLI_TRAFFIC_NBYTES], reply_text[CLI_TRAFFIC_NBYTES];
    fprintf(stderr, "\nstreaming:  prompt: %s\n            generation: %s",
            cli_traffic(prompt_text, &prompt, g->n_prompt, g->prompt_seconds),
            cli_traffic(reply_text, &reply, g->n_reply, g->reply_seconds));
}

static void print_words(const struct generation *g)
{
    static const char *const ends[] = {"the model ended", "-n reached", "the context is full", "interrupted"};
    const struct mb_store_memory *w = &g->info->memory;
    struct cli_memory in_use = cli_memory_in_use();
    uint64_t nbytes = w->blob_nbytes + w->table_nbytes + w->exact_nbytes + w->mapped_nbytes;
    char a[32], b[32], c[32], threads[64], form[CLI_FORM_NBYTES];
    fflush(stdout);
    fprintf(stderr, "\nload:       %s, %s weights of %s, %s, %s\n", cli_seconds(a, g->load_seconds),
            g->info->is_coded ? "coded" : "plain", cli_bytes(b, nbytes), mb_kernels()->isa,
            cli_threads(threads, g->info->n_threads));
    if (g->info->is_coded)
        fprintf(stderr, "weights:    %s\n", cli_memory_form(form, w));
    fprintf(stderr, "prompt:     %zu tokens, %.1f tokens/s\n", g->n_prompt,
            rate_of(g->n_prompt, g->prompt_seconds));
    fprintf(stderr, "generation: %zu tokens, %.1f tokens/s; %s", g->n_reply,
            rate_of(g->n_reply, g->reply_seconds), ends[g->finish]);
    if (g->finish == AT_CONTEXT)
        fprintf(stderr, " (%zu tokens)", g->n_ctx);
    if (g->sampler.temperature > 0)
        fprintf(stderr, "; seed %llu", (unsigned long long)g->sampler.seed);
    if (w->reads != MB_READS_NONE)
        print_traffic(g);
    fprintf(stderr, "\nmemory:     %s anonymous, %s of files; %s at most\n", cli_bytes(a, in_use.anon_nbytes),
            cli_bytes(b, in_use.file_nbytes), cli_bytes(c, in_use.peak_nbytes));
}

static json_t *ids_json(const int32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return array;
}

static json_t *streaming_json(const struct generation *g)
{
    const struct mb_store_memory *w = &g->info->memory;
    const struct mb_store_traffic t = reply_traffic(g);
    return json_pack(
        "{s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:f, s:f, s:f}", "limit_nbytes",
        (json_int_t)g->info->memory_nbytes, "n_experts", (json_int_t)w->n_experts, "n_experts_held",
        (json_int_t)w->n_experts_held, "reads", w->reads == MB_READS_IO_URING ? "io_uring" : "threads",
        "n_acquired", (json_int_t)t.n_acquired, "n_misses", (json_int_t)t.n_misses, "read_nbytes",
        (json_int_t)t.read_nbytes, "waited_seconds", (double)t.waited_ns * 1e-9, "disk_busy_seconds",
        (double)t.busy_ns * 1e-9, "check_seconds", (double)t.checked_ns * 1e-9);
}

static int print_json(const struct generation *g, const char *path)
{
    const struct mb_store_memory *w = &g->info->memory;
    struct cli_memory in_use = cli_memory_in_use();
    bool is_sampled = g->sampler.temperature > 0;
    uint64_t anon_nbytes = w->blob_nbytes + w->table_nbytes + w->exact_nbytes;
    json_t *memory = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "anonymous_nbytes",
                               (json_int_t)in_use.anon_nbytes, "file_nbytes", (json_int_t)in_use.file_nbytes,
                               "peak_nbytes", (json_int_t)in_use.peak_nbytes, "weights_anonymous_nbytes",
                               (json_int_t)anon_nbytes, "weights_file_nbytes", (json_int_t)w->mapped_nbytes,
                               "cache_nbytes", (json_int_t)mb_scheduler_nbytes(g->scheduler));
    json_t *json = json_pack(
        "{s:o, s:b, s:s, s:i, s:s, s:s, s:o, s:o, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o}", "model",
        cli_json_path(path), "coded", (int)g->info->is_coded, "isa", mb_kernels()->isa, "n_threads",
        g->info->n_threads, "text", g->text, "finish", finishes[g->finish], "prompt_tokens",
        ids_json(g->prompt, g->n_prompt), "tokens", ids_json(g->reply, g->n_reply), "n_prompt_tokens",
        (json_int_t)g->n_prompt, "n_tokens", (json_int_t)g->n_reply, "load_seconds", g->load_seconds,
        "prompt_seconds", g->prompt_seconds, "seconds", g->reply_seconds, "prompt_tokens_per_s",
        rate_of(g->n_prompt, g->prompt_seconds), "tokens_per_s", rate_of(g->n_reply, g->reply_seconds),
        "temperature", (double)g->sampler.temperature, "seed",
        is_sampled ? json_integer((json_int_t)g->sampler.seed) : json_null(), "memory", memory);
    if (w->reads != MB_READS_NONE)
        json_object_set_new(json, "streaming", streaming_json(g));
    return cli_print_json(json);
}

static int run(const char *path)
{
    struct generation g = {0};
    struct mb_error err;
    enum mb_status status = cli_timeline_begin(args.generation.timeline, path, &err);
    if (status == MB_OK)
        status = open_all(&g, path, &err);
    if (status == MB_OK) {
        cli_catch_interrupts(); /* only now: while the model loads nothing looks at the flag */
        cli_stop_at_interrupts(g.model);
        status = generate(&g, &err);
    }
    int exit_status = status == MB_OK ? 0 : cli_fail(&err);
    if (status == MB_OK && args.format == CLI_JSON)
        exit_status = print_json(&g, path);
    else if (status == MB_OK)
        print_words(&g);
    if (status == MB_OK && g.finish == AT_INTERRUPT)
        exit_status = mb_status_exit_code(MB_CANCELLED);
    cli_print_reads(g.model);
    release(&g);
    return cli_timeline_end(exit_status);
}

static const char *find_contradiction(void)
{
    if ((args.prompt != NULL) + (args.prompt_file != NULL) != 1)
        return "give either -p or -f";
    return cli_generation_check(&args.generation);
}

int cli_run(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    args.format = CLI_MD;
    args.generation = (struct cli_generation)CLI_GENERATION_DEFAULTS;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    const char *contradiction = find_contradiction();
    if (contradiction != NULL)
        return cli_usage_error(&command, "%s", contradiction);
    const struct cli_generation *g = &args.generation;
    args.chat =
        args.chat || g->template != NULL || g->system != NULL || g->tools != NULL || g->variables != NULL;
    return run(positional[0]);
}
