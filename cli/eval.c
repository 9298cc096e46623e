/*
 * eval.c - the verb "eval": answers to a task, perplexity of a text, or the logits of given tokens.
 */
#include "cli.h"
#include "report.h"
#include <errno.h>
#include <jansson.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_NBYTES_MAX = 4096, N_LOGIT_TOKENS = 64 };

static struct {
    const char *task, *perplexity, *tokens, *logits, *replies, *cache;
    int limit, n_ctx, n_threads, n_predict, n_parallel;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT(0, "task", "FILE.jsonl", args.task, "answer the questions of FILE and score the replies"),
    CLI_ROW_TEXT(0, "perplexity", "FILE", args.perplexity, "perplexity of the text in FILE"),
    CLI_ROW_TEXT(0, "tokens", "FILE", args.tokens,
                 "feed these tokens: decimal ids, white space between; needs --logits"),
    CLI_ROW_TEXT(0, "logits", "OUT.npy", args.logits,
                 "where --tokens puts its logits: float32 [tokens, vocabulary]"),
    CLI_ROW_INT(0, "limit", "N", args.limit, 1, 1e9, "only the first N questions, or windows of text"),
    CLI_ROW_INT('c', "ctx-size", "N", args.n_ctx, 4, 1e9,
                "tokens in a window of text (default: 512, or the model's context)"),
    CLI_ROW_INT('n', "predict", "N", args.n_predict, 1, 1e6, "most tokens in a reply (default 256)"),
    CLI_ROW_INT(0, "parallel", "N", args.n_parallel, 1, 4096,
                "questions answered at once (default 16); replies do not depend on it"),
    CLI_ROW_TEXT(0, "cache-type", "TYPE", args.cache, "f16 (default) or f32: what the attention cache holds"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW_TEXT(0, "replies", "FILE.jsonl", args.replies, "write every reply and its score, one a line"),
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON, "table (default) or JSON"),
};

static const struct cli_command command = {
    .name = "eval",
    .args = "MODEL --task FILE.jsonl | --perplexity FILE | --tokens FILE --logits OUT.npy",
    .summary = "Measure a model: right answers with 95 % intervals, perplexity, or raw logits.",
    .details =
        "A task is JSON lines with 'question', 'answer' (ending with #### N) and perhaps 'format'. Replies "
        "are\n"
        "greedy. ICA counts right answers in the asked format, PIA right ones in any (docs/scoring.md).\n\n"
        "  moebius eval models/reference --task models/reference/eval.jsonl --limit 200\n"
        "  moebius eval models/reference --perplexity book.txt -c 256",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

/* ---------------------------------------------------------------- output files */

/* A file that appears under its name when it is complete, or not at all. A device or a pipe is written to as
 * it is. */
struct output {
    const char *path;
    char partial[PATH_NBYTES_MAX]; /* empty: none */
    FILE *file;
};

static bool is_same_file(const struct stat *a, const char *path)
{
    struct stat b;
    return stat(path, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

/* 'input' is read for what is written: it must not be replaced. */
static enum mb_status output_open(struct output *output, const char *path, const char *input,
                                  struct mb_error *err)
{
    struct stat there;
    bool is_there = stat(path, &there) == 0;
    if (is_there && is_same_file(&there, input))
        return cli_error(err, MB_USAGE, path, "is the input");
    if (is_there && S_ISDIR(there.st_mode))
        return cli_error(err, MB_BAD_DATA, path, strerror(EISDIR));
    output->path = path;
    bool is_direct = is_there && !S_ISREG(there.st_mode); /* a rename would take its place */
    int n = is_direct ? 0 : snprintf(output->partial, sizeof output->partial, "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof output->partial)
        return cli_error(err, MB_USAGE, path, "name too long");
    output->file = fopen(is_direct ? path : output->partial, "wb");
    return output->file == NULL ? cli_system_error(err, output->path) : MB_OK;
}

static bool flush(const struct output *output)
{
    return fflush(output->file) == 0 && (output->partial[0] == '\0' || fsync(fileno(output->file)) == 0);
}

/* 'status' is how the work ended: after an error the partial file goes. Returns it, or how writing ended. */
static enum mb_status output_close(struct output *output, enum mb_status status, struct mb_error *err)
{
    if (output->file == NULL)
        return status;
    if (status == MB_OK && !flush(output))
        status = cli_system_error(err, output->path);
    if (fclose(output->file) != 0 && status == MB_OK)
        status = cli_system_error(err, output->path);
    if (output->partial[0] == '\0')
        return status;
    if (status == MB_OK && rename(output->partial, output->path) != 0)
        status = cli_system_error(err, output->path);
    if (status != MB_OK)
        unlink(output->partial);
    return status;
}

/* ---------------------------------------------------------------- --task */

struct task_work {
    struct cli_progress progress;
    struct output replies;
    bool has_write_error;
};

static bool show_questions(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct task_work *work = ctx;
    return cli_progress_show(&work->progress, what, done, total) || work->has_write_error;
}

static void write_reply(void *ctx, size_t index, const struct mb_task_item *item, const char *reply,
                        struct mb_score score, size_t n_tokens)
{
    static const char *const formats[] = {"hash", "boxed", "json", "plain"};
    struct task_work *work = ctx;
    if (work->replies.file == NULL)
        return;
    json_t *line =
        json_pack("{s:I, s:s, s:s, s:s, s:s, s:I, s:b, s:b}", "index", (json_int_t)index, "question",
                  item->question, "reply", reply, "number", item->number, "format", formats[item->format],
                  "n_tokens", (json_int_t)n_tokens, "ica", (int)score.ica, "pia", (int)score.pia);
    if (line == NULL || json_dumpf(line, work->replies.file, JSON_COMPACT) != 0 ||
        fputc('\n', work->replies.file) == EOF)
        work->has_write_error = true;
    json_decref(line);
}

static json_t *share_json(uint64_t k, uint64_t n)
{
    double low, high;
    mb_wilson95(k, n, &low, &high);
    return json_pack("{s:I, s:f, s:[f, f]}", "n", (json_int_t)k, "share", (double)k / (double)n, "wilson95",
                     low, high);
}

static void print_share(struct cli_table *table, const char *what, uint64_t k, uint64_t n)
{
    double low, high;
    mb_wilson95(k, n, &low, &high);
    cli_table_cell(table, "%s", what);
    cli_table_cell(table, "%llu", (unsigned long long)k);
    cli_table_cell(table, "%llu", (unsigned long long)n);
    cli_table_cell(table, "%.2f %%", 100 * (double)k / (double)n);
    cli_table_cell(table, "%.2f to %.2f %%", 100 * low, 100 * high);
}

static int print_task(const char *model_path, const struct mb_model_info *info,
                      const struct mb_eval_report *r)
{
    double tokens_per_s = (double)(r->n_prompt_tokens + r->n_reply_tokens) / r->seconds;
    if (args.format == CLI_JSON) {
        return cli_print_json(json_pack(
            "{s:o, s:b, s:o, s:I, s:o, s:o, s:I, s:I, s:I, s:f, s:f}", "model", cli_json_path(model_path),
            "coded", (int)info->is_coded, "task", cli_json_path(args.task), "n", (json_int_t)r->n, "ica",
            share_json(r->n_ica, r->n), "pia", share_json(r->n_pia, r->n), "n_prompt_tokens",
            (json_int_t)r->n_prompt_tokens, "n_reply_tokens", (json_int_t)r->n_reply_tokens, "n_truncated",
            (json_int_t)r->n_truncated, "seconds", r->seconds, "tokens_per_s", tokens_per_s));
    }
    static const char *const heads[] = {"", "right", "of", "share", "95 % interval"};
    struct cli_table *table = cli_table_new("lrrrr", heads);
    print_share(table, "ICA (in the asked format)", r->n_ica, r->n);
    print_share(table, "PIA (in any format)", r->n_pia, r->n);
    cli_table_print(table);
    char seconds[32];
    printf("\n%llu prompt and %llu reply tokens in %s, %.0f tokens/s; %llu replies cut\n",
           (unsigned long long)r->n_prompt_tokens, (unsigned long long)r->n_reply_tokens,
           cli_seconds(seconds, r->seconds), tokens_per_s, (unsigned long long)r->n_truncated);
    return 0;
}

static enum mb_status eval_task(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                                const struct mb_task *task, enum mb_cache_type cache_type,
                                struct mb_eval_report *report, struct mb_error *err)
{
    struct task_work work = {0};
    struct mb_eval_options eval_options = {
        .size = sizeof eval_options,
        .n_parallel = (size_t)args.n_parallel,
        .n_predict = (size_t)args.n_predict,
        .cache_type = cache_type,
        .reply = write_reply,
        .reply_ctx = &work,
        .progress = show_questions,
        .progress_ctx = &work,
    };
    enum mb_status status =
        args.replies == NULL ? MB_OK : output_open(&work.replies, args.replies, args.task, err);
    if (status != MB_OK)
        return status;
    cli_progress_begin(&work.progress, "questions");
    status = mb_eval_task(model, tokenizer, task, &eval_options, report, err);
    cli_progress_end(&work.progress);
    if (work.has_write_error)
        status = cli_error(err, MB_IO, args.replies, "cannot write");
    return output_close(&work.replies, status, err);
}

static enum mb_status run_task(const char *model_path, struct mb_model *model,
                               const struct mb_tokenizer *tokenizer, enum mb_cache_type cache_type,
                               struct mb_error *err)
{
    struct mb_task task;
    struct mb_eval_report report;
    enum mb_status status = mb_task_open(args.task, (size_t)args.limit, &task, err);
    if (status != MB_OK)
        return status;
    status = eval_task(model, tokenizer, &task, cache_type, &report, err);
    mb_task_close(&task);
    if (status == MB_OK && print_task(model_path, mb_model_info(model), &report) != 0)
        status = cli_error(err, MB_NO_MEMORY, model_path, "no memory for the report");
    return status;
}

/* ---------------------------------------------------------------- --perplexity */

static int print_perplexity(const char *model_path, const struct mb_model_info *info,
                            const struct mb_perplexity_report *r)
{
    if (args.format == CLI_JSON) {
        return cli_print_json(
            json_pack("{s:o, s:b, s:o, s:o, s:o, s:o, s:I, s:I, s:f}", "model", cli_json_path(model_path),
                      "coded", (int)info->is_coded, "text", cli_json_path(args.perplexity), "ppl",
                      cli_json_real(r->ppl), "ppl_stderr", cli_json_real(r->ppl_stderr), "nll_mean",
                      cli_json_real(r->nll_mean), "n_tokens_scored", (json_int_t)r->n_tokens_scored,
                      "n_windows", (json_int_t)r->n_windows, "seconds", r->seconds));
    }
    char seconds[32];
    printf("PPL = %.4f +/- %.4f\n\n%llu tokens scored in %llu windows, %s\n", r->ppl, r->ppl_stderr,
           (unsigned long long)r->n_tokens_scored, (unsigned long long)r->n_windows,
           cli_seconds(seconds, r->seconds));
    return 0;
}

static enum mb_status run_perplexity(const char *model_path, struct mb_model *model,
                                     const struct mb_tokenizer *tokenizer, enum mb_cache_type cache_type,
                                     struct mb_error *err)
{
    char *text = NULL;
    size_t nbytes = 0;
    struct cli_progress progress;
    struct mb_perplexity_report report;
    struct mb_perplexity_options ppl_options = {
        .size = sizeof ppl_options,
        .n_ctx = (size_t)args.n_ctx,
        .limit_windows = (size_t)args.limit,
        .cache_type = cache_type,
        .progress = cli_progress_show,
        .progress_ctx = &progress,
    };
    enum mb_status status = cli_read_text(args.perplexity, &text, &nbytes, err);
    if (status != MB_OK)
        return status;
    cli_progress_begin(&progress, "windows");
    status = mb_eval_perplexity(model, tokenizer, text, nbytes, &ppl_options, &report, err);
    cli_progress_end(&progress);
    free(text);
    if (status == MB_OK && print_perplexity(model_path, mb_model_info(model), &report) != 0)
        status = cli_error(err, MB_NO_MEMORY, model_path, "no memory for the report");
    return status;
}

/* ---------------------------------------------------------------- --tokens */

/* 'ids' has room for as many as the text can hold. The text is cut into words. */
static enum mb_status parse_ids(const char *path, char *text, int32_t *ids, size_t *n_ids,
                                struct mb_error *err)
{
    *n_ids = 0;
    for (char *word, *rest = text; (word = strtok_r(rest, " \t\r\n", &rest)) != NULL;) {
        char *end;
        long id = strtol(word, &end, 10);
        if (*end != '\0' || id < 0 || id > INT32_MAX) {
            char what[96];
            snprintf(what, sizeof what, "token %zu, '%.32s', is not a token id", *n_ids + 1, word);
            return cli_error(err, MB_BAD_DATA, path, what);
        }
        ids[(*n_ids)++] = (int32_t)id;
    }
    return *n_ids == 0 ? cli_error(err, MB_BAD_DATA, path, "no token ids") : MB_OK;
}

/* Decimal ids with white space between; malloc'ed. */
static enum mb_status read_ids(const char *path, int32_t **ids, size_t *n_ids, struct mb_error *err)
{
    char *text = NULL;
    size_t nbytes = 0;
    enum mb_status status = cli_read_text(path, &text, &nbytes, err);
    if (status != MB_OK)
        return status;
    *ids = malloc((nbytes / 2 + 1) * sizeof **ids);
    if (*ids == NULL)
        status = cli_error(err, MB_NO_MEMORY, path, "no memory for this file");
    else if (strlen(text) != nbytes)
        status = cli_error(err, MB_BAD_DATA, path, "not a text of token ids");
    else
        status = parse_ids(path, text, *ids, n_ids, err);
    free(text);
    if (status != MB_OK)
        free(*ids);
    return status;
}

/* Version 1.0: magic, length, then a Python literal padded so that the data begins at a multiple of 64. */
static bool write_npy_header(FILE *file, size_t n_rows, size_t n_cols)
{
    unsigned char head[10] = "\x93NUMPY\x01\x00";
    char text[118 + 1];
    int n = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                     n_rows, n_cols);
    memset(text + n, ' ', sizeof text - 2 - (size_t)n);
    text[sizeof text - 2] = '\n';
    head[8] = sizeof text - 1;
    return fwrite(head, 1, sizeof head, file) == sizeof head &&
           fwrite(text, 1, sizeof text - 1, file) == sizeof text - 1;
}

/* Feeds the tokens as a prompt, in pieces whose logits fit in little memory; how they are cut changes no bit.
 */
static enum mb_status write_logits(struct mb_model *model, struct mb_session *session, const int32_t *ids,
                                   size_t n_ids, FILE *file, struct mb_error *err)
{
    size_t n_vocab = mb_model_info(model)->n_vocab;
    float *logits = malloc(N_LOGIT_TOKENS * n_vocab * sizeof *logits);
    struct cli_progress progress;
    if (logits == NULL)
        return cli_error(err, MB_NO_MEMORY, args.logits, "no memory for the logits");
    enum mb_status status = MB_OK;
    if (!write_npy_header(file, n_ids, n_vocab))
        status = cli_system_error(err, args.logits);
    cli_progress_begin(&progress, "tokens");
    for (size_t pos = 0; pos < n_ids && status == MB_OK; pos += N_LOGIT_TOKENS) {
        size_t n = n_ids - pos < N_LOGIT_TOKENS ? n_ids - pos : N_LOGIT_TOKENS;
        struct mb_batch_item item = {
            .session = session, .tokens = ids + pos, .n_tokens = n, .logits = logits, .all_logits = true};
        status = mb_decode(model, &item, 1, err);
        if (status == MB_OK && fwrite(logits, n_vocab * sizeof *logits, n, file) != n)
            status = cli_system_error(err, args.logits);
        if (status == MB_OK && cli_progress_show(&progress, "reading", pos + n, n_ids))
            status = cli_error(err, MB_CANCELLED, args.logits, "interrupted, not written");
    }
    cli_progress_end(&progress);
    free(logits);
    return status;
}

static enum mb_status check_ids(const int32_t *ids, size_t n_ids, size_t n_vocab, struct mb_error *err)
{
    for (size_t i = 0; i < n_ids; i++)
        if ((size_t)ids[i] >= n_vocab) {
            char what[96];
            snprintf(what, sizeof what, "token %zu, %d, is not in the vocabulary of %zu", i + 1, ids[i],
                     n_vocab);
            return cli_error(err, MB_BAD_DATA, args.tokens, what);
        }
    return MB_OK;
}

static enum mb_status run_tokens(struct mb_model *model, enum mb_cache_type cache_type, struct mb_error *err)
{
    int32_t *ids;
    size_t n_ids = 0;
    struct mb_session *session = NULL;
    struct output output = {0};
    enum mb_status status = read_ids(args.tokens, &ids, &n_ids, err);
    if (status != MB_OK)
        return status;
    struct mb_session_options session_options = {
        .size = sizeof session_options, .n_ctx = n_ids, .cache_type = cache_type};
    status = check_ids(ids, n_ids, mb_model_info(model)->n_vocab, err);
    if (status == MB_OK)
        status = mb_session_open(model, &session_options, &session, err);
    if (status == MB_OK)
        status = output_open(&output, args.logits, args.tokens, err);
    if (status == MB_OK) {
        status = write_logits(model, session, ids, n_ids, output.file, err);
        status = output_close(&output, status, err);
    }
    mb_session_close(session);
    free(ids);
    if (status == MB_OK)
        fprintf(stderr, "%zu x %zu logits written to %s\n", n_ids, mb_model_info(model)->n_vocab,
                args.logits);
    return status;
}

/* ---------------------------------------------------------------- the verb */

/* --tokens needs no tokenizer: folders without one can be measured too. */
static enum mb_status run(const char *path, enum mb_cache_type cache_type, struct mb_error *err)
{
    struct mb_model *model;
    struct mb_tokenizer *tokenizer = NULL;
    struct mb_model_options model_options = {.size = sizeof model_options, .n_threads = args.n_threads};
    enum mb_status status = args.tokens != NULL ? MB_OK : mb_tokenizer_open(path, &tokenizer, err);
    if (status != MB_OK)
        return status;
    status = mb_model_open(path, &model_options, &model, err);
    if (status == MB_OK) {
        cli_catch_interrupts(); /* only now: while it loads nothing would look at the flag */
        if (args.task != NULL)
            status = run_task(path, model, tokenizer, cache_type, err);
        else if (args.perplexity != NULL)
            status = run_perplexity(path, model, tokenizer, cache_type, err);
        else
            status = run_tokens(model, cache_type, err);
        mb_model_close(model);
    }
    mb_tokenizer_close(tokenizer);
    return status;
}

/* What a table of options cannot say: which go together. NULL when all is well. */
static const char *find_contradiction(void)
{
    if ((args.task != NULL) + (args.perplexity != NULL) + (args.tokens != NULL) != 1)
        return "one of --task, --perplexity and --tokens is needed";
    if ((args.tokens != NULL) != (args.logits != NULL))
        return "--tokens and --logits go together";
    if (args.task == NULL && (args.replies != NULL || args.n_predict != 0 || args.n_parallel != 0))
        return "--replies, --predict and --parallel go with --task";
    if (args.perplexity == NULL && args.n_ctx != 0)
        return "-c goes with --perplexity";
    if (args.tokens != NULL && args.limit != 0)
        return "--limit goes with --task or --perplexity";
    if (args.cache != NULL && strcmp(args.cache, "f16") != 0 && strcmp(args.cache, "f32") != 0)
        return "--cache-type is f16 or f32";
    return NULL;
}

int cli_eval(int argc, char **argv)
{
    const char *positional[CLI_ARGS_MAX];
    size_t n_args;
    int exit_status;
    struct mb_error err;
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, positional, &n_args, &exit_status))
        return exit_status;
    const char *contradiction = find_contradiction();
    if (contradiction != NULL)
        return cli_usage_error(&command, "%s", contradiction);
    enum mb_cache_type cache_type =
        args.cache != NULL && strcmp(args.cache, "f32") == 0 ? MB_CACHE_F32 : MB_CACHE_F16;
    return run(positional[0], cache_type, &err) == MB_OK ? 0 : cli_fail(&err);
}
