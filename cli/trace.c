/*
 * trace.c - the verb "trace": which experts each token uses while a model reads prompts and answers them.
 */
#include "base/error.h"
#include "cli.h"
#include "generation.h"
#include "memory.h"
#include "model_trace.h"
#include "output_file.h"
#include "report.h"
#include <moebius/lab.h>
#include <moebius/offload.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *output, *prompt, *prompt_file, *task, *activations;
    int n_predict, n_ctx, n_threads, limit;
    bool chat;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT('o', "output", "FILE", args.output,
                 "where the trace goes: FILE.csv is CSV, else lines of JSON"),
    CLI_ROW_TEXT('p', "prompt", "TEXT", args.prompt, "the text to go on from"),
    CLI_ROW_TEXT('f', "file", "FILE", args.prompt_file, "read the prompt from FILE"),
    CLI_ROW_FLAG(0, "chat", args.chat,
                 "the prompt is a user's message: put it into the model's chat template"),
    CLI_ROW_TEXT(0, "task", "FILE", args.task,
                 "prompts are the questions of a task, as 'eval --task' asks them"),
    CLI_ROW_INT(0, "limit", "N", args.limit, 0, 1e9, "of the task the first N questions (default: all)"),
    CLI_ROW_INT('n', "predict", "N", args.n_predict, 0, 1e9,
                "generate at most N tokens after each prompt (default 256; fewer where the model ends)"),
    CLI_ROW_INT('c', "ctx-size", "N", args.n_ctx, 0, 1e9, "tokens of context (default: the model's)"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW_ACTIVATIONS(args.activations),
};

static const struct cli_command command = {
    .name = "trace",
    .args = "MODEL -o FILE (-p PROMPT | -f FILE | --task FILE) [options]",
    .summary = "Record which experts each token uses, for 'moebius simulate'.",
    .details =
        "Each token that is fed gets a row for each layer with experts: sequence (prompt or question), "
        "token,\nprompt or generated, layer, experts in the order of the router's choice, their gates. "
        "Tokens are\nalways the likeliest ones. docs/offload.md has the format.\n\n"
        "  moebius trace models/reference --task models/reference/eval.jsonl --limit 20 -o trace.jsonl\n"
        "  moebius trace MODEL -p 'Once upon a time' -n 200 -o trace.csv",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

struct tracer {
    struct mb_tokenizer *tokenizer;
    struct mb_model *model;
    const struct mb_model_info *info;
    struct mb_session *session;
    struct mb_sampler sampler;
    struct mb_trace *trace;
    size_t first_token; /* of the sequence, in the trace */
    size_t n_ctx;
    float *logits;         /* [n_vocab] */
    void *scratch;         /* of the sampler */
    enum mb_status status; /* of what the router's hook had to do */
    struct mb_error err;
    struct cli_progress progress;
};

static void release(struct tracer *t)
{
    mb_trace_close(t->trace);
    mb_session_close(t->session);
    mb_model_close(t->model);
    mb_tokenizer_close(t->tokenizer);
    free(t->logits);
    free(t->scratch);
}

/* ---------------------------------------------------------------- recording */

/* An mb_route_fn. */
static void record(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                   size_t n_experts, float margin)
{
    struct tracer *t = ctx;
    (void)margin;
    if (t->status == MB_OK)
        t->status =
            mb_trace_route(t->trace, t->first_token + pos, layer, experts, weights, n_experts, &t->err);
}

/* logits NULL: no token follows. */
static enum mb_status feed(struct tracer *t, uint32_t sequence, const int32_t *tokens, size_t n,
                           bool is_generated, float *logits, struct mb_error *err)
{
    for (size_t i = 0; i < n; i++)
        MB_TRY(mb_trace_add(t->trace, sequence, is_generated, err));
    struct mb_batch_item item = {.session = t->session,
                                 .tokens = tokens,
                                 .n_tokens = n,
                                 .is_generated = is_generated,
                                 .logits = logits};
    MB_TRY(mb_decode(t->model, &item, 1, err));
    if (t->status != MB_OK)
        return mb_fail(err, t->status, "%s", t->err.msg);
    return cli_interrupted() ? mb_fail(err, MB_CANCELLED, "trace: interrupted, nothing written") : MB_OK;
}

static bool is_end(const struct tracer *t, int32_t token)
{
    for (size_t i = 0; i < t->info->n_eos_ids; i++)
        if (t->info->eos_ids[i] == token)
            return true;
    return false;
}

static enum mb_status run_tokens(struct tracer *t, uint32_t sequence, const int32_t *prompt, size_t n_prompt,
                                 struct mb_error *err)
{
    if (n_prompt == 0 || n_prompt > t->n_ctx)
        return mb_fail(err, MB_USAGE, "prompt %u has %zu tokens; the context has %zu", (unsigned)sequence + 1,
                       n_prompt, t->n_ctx);
    mb_session_reset(t->session);
    t->first_token = mb_trace_n_tokens(t->trace);
    MB_TRY(feed(t, sequence, prompt, n_prompt, false, t->logits, err));
    for (size_t i = 0; i < (size_t)args.n_predict && n_prompt + i < t->n_ctx; i++) {
        int32_t token;
        MB_TRY(mb_sampler_pick(&t->sampler, t->logits, t->info->n_vocab, t->scratch, &token, err));
        if (is_end(t, token))
            break;
        MB_TRY(feed(t, sequence, &token, 1, true, t->logits, err));
    }
    return MB_OK;
}

static enum mb_status run_text(struct tracer *t, uint32_t sequence, const char *text, bool is_raw,
                               struct mb_error *err)
{
    int32_t *ids;
    size_t n;
    MB_TRY(mb_tokenizer_encode(t->tokenizer, text, strlen(text), is_raw, &ids, &n, err));
    enum mb_status status = run_tokens(t, sequence, ids, n, err);
    free(ids);
    return status;
}

static enum mb_status run_prompt(struct tracer *t, uint32_t sequence, const char *prompt, bool is_message,
                                 struct mb_error *err)
{
    if (!is_message)
        return run_text(t, sequence, prompt, true, err);
    struct mb_chat_message message = {"user", prompt};
    char *text;
    MB_TRY(mb_tokenizer_chat(t->tokenizer, &message, 1, true, &text, err));
    enum mb_status status = run_text(t, sequence, text, false, err);
    free(text);
    return status;
}

static enum mb_status run_items(struct tracer *t, const struct mb_task *task, struct mb_error *err)
{
    if (task->n_items == 0)
        return mb_fail(err, MB_UNSUPPORTED, "%s: multiple choice, which generates nothing to trace",
                       args.task);
    cli_progress_begin(&t->progress, "questions");
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < task->n_items && status == MB_OK; i++) {
        status = run_prompt(t, (uint32_t)i, task->items[i].question, true, err);
        if (cli_progress_show(&t->progress, "tracing", i + 1, task->n_items) && status == MB_OK)
            status = mb_fail(err, MB_CANCELLED, "trace: interrupted, nothing written");
    }
    cli_progress_end(&t->progress);
    return status;
}

static enum mb_status run_task(struct tracer *t, struct mb_error *err)
{
    struct mb_task task;
    struct mb_task_options task_options = {.size = sizeof task_options, .limit = (size_t)args.limit};
    MB_TRY(mb_task_open(args.task, &task_options, &task, err));
    enum mb_status status = run_items(t, &task, err);
    mb_task_close(&task);
    return status;
}

static enum mb_status run_one(struct tracer *t, struct mb_error *err)
{
    char *text = NULL;
    if (args.prompt == NULL)
        MB_TRY(cli_read_words(args.prompt_file, &text, err));
    enum mb_status status = run_prompt(t, 0, args.prompt != NULL ? args.prompt : text, args.chat, err);
    free(text);
    return status;
}

/* ---------------------------------------------------------------- the verb */

static enum mb_status open_all(struct tracer *t, const char *path, struct mb_error *err)
{
    struct mb_model_options model_options = {.size = sizeof model_options, .n_threads = args.n_threads};
    cli_activations(args.activations, &model_options.activations);
    MB_TRY(mb_checkpoint_look(path, err));
    MB_TRY(cli_output_check(args.output, path, err));
    MB_TRY(mb_tokenizer_open(path, &t->tokenizer, err));
    MB_TRY(mb_model_open(path, &model_options, &t->model, err));
    t->info = mb_model_info(t->model);
    cli_print_notes(t->info->notes);
    cli_stop_at_interrupts(t->model);
    MB_TRY(cli_model_trace_open(t->model, &t->trace, err));
    struct mb_session_options session_options = {
        .size = sizeof session_options, .n_ctx = (size_t)args.n_ctx, .route = record, .route_ctx = t};
    t->n_ctx = args.n_ctx > 0 ? (size_t)args.n_ctx : t->info->n_ctx_train;
    MB_TRY(mb_session_open(t->model, &session_options, &t->session, err));
    t->logits = cli_check_memory(malloc(t->info->n_vocab * sizeof *t->logits));
    t->scratch = cli_check_memory(malloc(t->info->n_vocab * 8));
    return mb_sampler_init(&t->sampler, NULL, err);
}

static void print_summary(const struct tracer *t)
{
    const struct mb_trace_shape *shape = mb_trace_shape(t->trace);
    size_t n = mb_trace_n_tokens(t->trace), n_generated = 0;
    for (size_t i = 0; i < n; i++)
        n_generated += mb_trace_token(t->trace, i).is_generated ? 1 : 0;
    fprintf(stderr,
            "moebius: %s: %zu prompt tokens and %zu generated ones, %zu layers of %zu experts, %zu used\n",
            args.output, n - n_generated, n_generated, shape->n_layers, shape->n_experts, shape->n_used);
}

static enum mb_status trace(struct tracer *t, const char *path, struct mb_error *err)
{
    MB_TRY(open_all(t, path, err));
    MB_TRY(args.task != NULL ? run_task(t, err) : run_one(t, err));
    MB_TRY(cli_model_trace_save(t->trace, args.output, err));
    print_summary(t);
    return MB_OK;
}

static const char *wrong_usage(void)
{
    enum mb_activation_form form;
    if (args.output == NULL)
        return "give -o FILE";
    if ((args.prompt != NULL) + (args.prompt_file != NULL) + (args.task != NULL) != 1)
        return "give one of -p PROMPT, -f FILE and --task FILE";
    if (!cli_activations(args.activations, &form))
        return CLI_ACTIVATIONS_WORDS;
    return NULL;
}

int cli_trace(int argc, char **argv)
{
    const char *names[CLI_ARGS_MAX];
    size_t n_names;
    int exit_status;
    args.n_predict = 256;
    if (!cli_parse(&command, argc, argv, names, &n_names, &exit_status))
        return exit_status;
    const char *wrong = wrong_usage();
    if (wrong != NULL)
        return cli_usage_error(&command, "%s", wrong);
    struct tracer tracer = {0};
    struct mb_error err;
    cli_catch_interrupts();
    enum mb_status status = trace(&tracer, names[0], &err);
    release(&tracer);
    return status == MB_OK ? 0 : cli_fail(&err);
}
