/*
 * bench_model.c - "bench MODEL": tokens per second of prompts and generation, in llama-bench's shape.
 *
 * Inside the window: mb_decode of all tokens of a test and, for generation, the greedy choice of each token.
 * Outside: opening the model, making sessions, warm-up.  Tokens are random, as llama-bench's, so that experts
 * are used as evenly as the model's router lets them.  Figures are means and standard deviations of the
 * repetitions.  The read rate of memory is measured in the same run, with as many threads.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "bench_routing.h"
#include "cli.h"
#include "expert_profile.h"
#include "generation.h"
#include "machine.h"
#include "memory.h"
#include "model_trace.h"
#include "output_file.h"
#include "report.h"
#include "timeline.h"
#include "units.h"
#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <moebius/codec.h>
#include <moebius/engine.h>
#include <moebius/offload.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LIST_MAX = 16, REPEATS_MAX = 100, BATCH_MAX = 64, RESULTS_MAX = 1024 };
static const double RIGHT_GUESSES = 0.886; /* published for Qwen3-30B-A3B */
enum { READ_NBYTES = 512 << 20, READ_NBYTES_MIN = 128 << 20, WARM_UP_TOKENS = 8 };

static struct {
    const char *prompts, *predicts, *depths, *threads, *batches, *cache, *memory_form, *activations, *memory,
        *policy, *profile, *link, *routing, *timeline, *trace;
    double right_guesses;
    int n_repeats, n_warm;
    bool no_warmup, no_lookahead;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT('p', "n-prompt", "N,...", args.prompts, "tokens of a prompt; 0: no such test (default 512)"),
    CLI_ROW_TEXT('n', "n-gen", "N,...", args.predicts, "generated tokens; 0: no such test (default 128)"),
    CLI_ROW_TEXT('d', "n-depth", "N,...", args.depths,
                 "tokens that each sequence holds before a test begins (default 0)"),
    CLI_ROW_TEXT('b', "n-seqs", "N,...", args.batches,
                 "sequences that generate together (default 1, at most 64)"),
    CLI_ROW_TEXT('t', "threads", "N,...", args.threads, "threads (default: as CPUs and cgroup quotas allow)"),
    CLI_ROW_INT('r', "repetitions", "N", args.n_repeats, 1, REPEATS_MAX,
                "times that every test is measured (default 5)"),
    CLI_ROW_TEXT(0, "cache-type", "TYPE", args.cache, "f16 (default) or f32: what the attention cache holds"),
    CLI_ROW_TEXT(0, "memory-form", "FORM", args.memory_form,
                 "coded weights in memory: auto (default), stored, compact or fast"),
    CLI_ROW_ACTIVATIONS(args.activations),
    CLI_ROW_MEMORY(args.memory),
    CLI_ROW_EXPERT_PROFILE(args.profile),
    CLI_ROW_TEXT(0, "expert-policy", "NAME", args.policy,
                 "which streamed expert leaves memory: lfru, lru, ... (default: the best)"),
    CLI_ROW_TEXT(0, "link", "RATE[,LATENCY[,DEPTH]]", args.link,
                 "streamed experts come no earlier than over such a disk or bus: 1GB,100us,8"),
    CLI_ROW_TEXT(0, "routing", "TRACE|SPEC", args.routing,
                 "send tokens to the experts of a trace, or of 'top8=44.5% overlap=38% seed=1' as in\n"
                 "simulate --random, not to the router's: to measure streaming; results are no model's"),
    CLI_ROW_DOUBLE(0, "right-guesses", "SHARE", args.right_guesses, 0, 1,
                   "of what --routing lets looking ahead guess (default 0.886: published for Qwen3-30B)"),
    CLI_ROW_FLAG(0, "no-lookahead", args.no_lookahead, "read no streamed expert before it is asked for"),
    CLI_ROW_TIMELINE(args.timeline),
    CLI_ROW_TEXT(0, "trace", "FILE", args.trace,
                 "write which experts generated tokens used, with those of the warm-up, for 'moebius\n"
                 "simulate' and 'moebius doctor' (.csv is CSV, else JSON lines); needs -p 0 and one test"),
    CLI_ROW_INT(0, "warmup-tokens", "N", args.n_warm, 0, 1 << 20,
                "generated tokens before those that are measured, so that memory is full (default: at "
                "most\n8, as many as are measured)"),
    CLI_ROW_FLAG(0, "no-warmup", args.no_warmup, "do not run every test once before it is measured"),
    CLI_ROW_FORMAT("md|csv|json|jsonl", args.format, CLI_MD | CLI_CSV | CLI_JSON | CLI_JSONL,
                   "table (default), or the same for programs"),
};

static const struct cli_command command = {
    .name = "bench",
    .args = "MODEL [options]",
    .summary = "Time prompts (pp) and generation (tg) of a model, in a table like llama-bench's.",
    .details =
        "Lists are numbers with commas between them. When one sequence generates, the table also has the\n"
        "bytes of weights that a token reads, their rate as a share of a plain read of memory with as many\n"
        "threads, and where a token's time goes.\n\n"
        "  moebius bench models/reference -p 128 -n 64 -t 1,2\n"
        "  moebius bench CODED -p 0 -n 32 -b 1,4,16 -o json\n"
        "  moebius bench CODED -p 512 -n 64 -d 0,4096,16384\n\n"
        "'moebius bench kernels' times the kernels alone, 'moebius bench codecs' compares codecs.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

struct list {
    size_t n;
    int at[LIST_MAX];
};

/* One line of the table. */
struct result {
    bool is_prompt;
    int n_tokens, n_depth, n_seqs, n_threads;
    size_t n_samples;
    double samples[REPEATS_MAX]; /* tokens/s */
    double mean, deviation;
    double read_nbytes_per_s;       /* of a plain read */
    struct mb_model_timing timing;  /* of all samples */
    double sampling_ns, elapsed_ns; /* of all samples */
    struct mb_store_traffic traffic;
};

struct bench {
    const char *path;
    struct mb_trace *trace;      /* NULL: none is wanted */
    size_t trace_first;          /* token of the present run */
    enum mb_status trace_status; /* of what the router's hook had to do */
    struct mb_error trace_err;
    struct list prompts, predicts, depths, batches, threads;
    enum mb_cache_type cache_type;
    enum mb_memory_form memory_form;
    enum mb_activation_form activations;
    uint64_t memory_nbytes; /* 0: no limit is given */
    struct mb_link_options link;
    struct result results[RESULTS_MAX];
    size_t n_results;
    struct mb_model_info info; /* numbers only: the model is closed when it is printed */
    char architecture[64];
    uint64_t random;
};

/* ---------------------------------------------------------------- arguments */

static bool parse_list(const char *text, const char *otherwise, int min, int max, struct list *list)
{
    const char *at = text == NULL ? otherwise : text;
    list->n = 0;
    for (;;) {
        char *end;
        long n = isdigit((unsigned char)*at) ? strtol(at, &end, 10) : -1;
        if (n < min || n > max || list->n == LIST_MAX)
            return false;
        list->at[list->n++] = (int)n;
        if (*end == '\0')
            return true;
        if (*end != ',')
            return false;
        at = end + 1;
    }
}

static bool parse_memory_form(enum mb_memory_form *form)
{
    static const char *const names[] = {"auto", "stored", "compact", "fast"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (args.memory_form == NULL || strcmp(args.memory_form, names[i]) == 0) {
            *form = (enum mb_memory_form)i;
            return true;
        }
    return false;
}

/* The optimum knows the future, and is none of them. */
static bool is_policy(const char *name)
{
    const struct mb_policy_info *info;
    for (size_t i = 0; (info = mb_policy_info(i)) != NULL; i++)
        if (strcmp(info->name, name) == 0)
            return true;
    return false;
}

/* MB_USAGE's exit status, or 0. */
static int parse_lists(struct bench *bench)
{
    if (!parse_list(args.prompts, "512", 0, 1 << 20, &bench->prompts))
        return cli_usage_error(&command, "-p '%s': not numbers from 0 to 1048576 with commas between them",
                               args.prompts);
    if (!parse_list(args.predicts, "128", 0, 1 << 20, &bench->predicts))
        return cli_usage_error(&command, "-n '%s': not numbers from 0 to 1048576 with commas between them",
                               args.predicts);
    if (!parse_list(args.depths, "0", 0, 1 << 20, &bench->depths))
        return cli_usage_error(&command, "-d '%s': not numbers from 0 to 1048576 with commas between them",
                               args.depths);
    if (!parse_list(args.batches, "1", 1, BATCH_MAX, &bench->batches))
        return cli_usage_error(&command, "-b '%s': not numbers from 1 to %d with commas between them",
                               args.batches, BATCH_MAX);
    if (!parse_list(args.threads, "0", args.threads == NULL ? 0 : 1, 256, &bench->threads))
        return cli_usage_error(&command, "-t '%s': not numbers from 1 to 256 with commas between them",
                               args.threads);
    if (args.cache != NULL && strcmp(args.cache, "f16") != 0 && strcmp(args.cache, "f32") != 0)
        return cli_usage_error(&command, "--cache-type '%s': not f16 or f32", args.cache);
    if (!cli_activations(args.activations, &bench->activations))
        return cli_usage_error(&command, CLI_ACTIVATIONS_WORDS);
    if (!cli_memory(args.memory, &bench->memory_nbytes))
        return cli_usage_error(&command, "--memory '%s': " CLI_MEMORY_WORDS, args.memory);
    if (args.policy != NULL && !is_policy(args.policy))
        return cli_usage_error(&command, "--expert-policy '%s': no policy of a store (see docs/offload.md)",
                               args.policy);
    if (args.right_guesses >= 0 && args.routing == NULL)
        return cli_usage_error(&command, "--right-guesses is of what --routing says");
    struct mb_error err;
    if (args.link != NULL && cli_link(args.link, &bench->link, &err) != MB_OK)
        return cli_usage_error(&command, "%s", err.msg);
    if (!parse_memory_form(&bench->memory_form))
        return cli_usage_error(&command, "--memory-form '%s': not auto, stored, compact or fast",
                               args.memory_form);
    if (bench->threads.n * bench->depths.n * (bench->prompts.n + bench->predicts.n * bench->batches.n) >
        RESULTS_MAX)
        return cli_usage_error(&command, "more than %d tests", RESULTS_MAX);
    if (args.trace != NULL && (bench->prompts.n != 1 || bench->prompts.at[0] != 0 || bench->depths.n != 1 ||
                               bench->depths.at[0] != 0 || bench->predicts.n != 1 || bench->batches.n != 1 ||
                               bench->batches.at[0] != 1 || bench->threads.n != 1))
        return cli_usage_error(&command,
                               "--trace is of one test: -p 0 -n N, one sequence, one number of threads");
    bench->cache_type = args.cache != NULL && strcmp(args.cache, "f32") == 0 ? MB_CACHE_F32 : MB_CACHE_F16;
    return 0;
}

/* ---------------------------------------------------------------- measuring */

static int32_t random_token(struct bench *bench, size_t n_vocab)
{
    bench->random = bench->random * 6364136223846793005U + 1442695040888963407U;
    return (int32_t)((bench->random >> 33) % n_vocab);
}

/* What a test's runs share. */
struct running {
    struct bench *bench;
    struct mb_model *model;
    const struct mb_model_info *info;
    struct mb_session *sessions[BATCH_MAX];
    size_t n_sessions;
    struct mb_batch_item items[BATCH_MAX];
    int32_t *tokens; /* of the prompt, or one a session */
    float *logits;   /* [n_sessions][n_vocab] */
    void *scratch;
    double sampling_ns;
};

static void close_running(struct running *r)
{
    for (size_t i = 0; i < r->n_sessions; i++)
        mb_session_close(r->sessions[i]);
    free(r->tokens);
    free(r->logits);
    free(r->scratch);
}

/* An mb_route_fn. */
static void record(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                   size_t n_experts, float margin)
{
    struct bench *bench = ctx;
    (void)margin;
    if (bench->trace_status == MB_OK)
        bench->trace_status = mb_trace_route(bench->trace, bench->trace_first + pos, layer, experts, weights,
                                             n_experts, &bench->trace_err);
}

/* The next token of the trace: of the present run, or the first one of a new one. */
static enum mb_status add_to_trace(struct bench *bench, bool begins, struct mb_error *err)
{
    if (bench->trace == NULL)
        return MB_OK;
    size_t n = mb_trace_n_tokens(bench->trace);
    uint32_t sequence = n == 0 ? 0 : mb_trace_token(bench->trace, n - 1).sequence + (begins ? 1 : 0);
    bench->trace_first = begins ? n : bench->trace_first;
    if (bench->trace_status != MB_OK)
        return mb_fail(err, bench->trace_status, "%s", bench->trace_err.msg);
    return mb_trace_add(bench->trace, sequence, true, err);
}

static enum mb_status open_running(struct running *r, size_t n_seqs, size_t n_ctx, size_t n_tokens,
                                   struct mb_error *err)
{
    struct mb_session_options session = {
        .size = sizeof session, .n_ctx = n_ctx, .cache_type = r->bench->cache_type};
    if (r->bench->trace != NULL) {
        session.route = record;
        session.route_ctx = r->bench;
    }
    r->tokens = calloc(n_tokens, sizeof *r->tokens);
    r->logits = calloc(n_seqs * r->info->n_vocab, sizeof *r->logits);
    r->scratch = calloc(r->info->n_vocab, 8);
    if (r->tokens == NULL || r->logits == NULL || r->scratch == NULL)
        return mb_fail_memory(err, "the sequences of a test");
    for (; r->n_sessions < n_seqs; r->n_sessions++)
        MB_TRY(mb_session_open(r->model, &session, &r->sessions[r->n_sessions], err));
    return MB_OK;
}

static enum mb_status feed_prompt(struct running *r, struct mb_session *session, int n_tokens, float *logits,
                                  struct mb_error *err)
{
    for (int i = 0; i < n_tokens; i++)
        r->tokens[i] = random_token(r->bench, r->info->n_vocab);
    struct mb_batch_item item = {
        .session = session, .tokens = r->tokens, .n_tokens = (size_t)n_tokens, .logits = logits};
    return mb_decode(r->model, &item, 1, err);
}

/* Every sequence holds the test's depth; what it holds already is kept. */
static enum mb_status go_to_depth(struct running *r, int n_depth, struct mb_error *err)
{
    for (size_t i = 0; i < r->n_sessions; i++) {
        if (mb_session_rewind(r->sessions[i], (size_t)n_depth) == (size_t)n_depth)
            continue;
        mb_session_reset(r->sessions[i]);
        MB_TRY(feed_prompt(r, r->sessions[i], n_depth, NULL, err));
        if (cli_interrupted())
            return mb_fail(err, MB_CANCELLED, "interrupted");
    }
    return MB_OK;
}

/* Every sequence gets one token, and one is picked after it. */
static enum mb_status generate_one(struct running *r, struct mb_sampler *sampler, struct mb_error *err)
{
    for (size_t i = 0; i < r->n_sessions; i++) {
        r->tokens[i] = random_token(r->bench, r->info->n_vocab);
        r->items[i] = (struct mb_batch_item){.session = r->sessions[i],
                                             .tokens = &r->tokens[i],
                                             .n_tokens = 1,
                                             .is_generated = true,
                                             .logits = r->logits + i * r->info->n_vocab};
    }
    MB_TRY(mb_decode(r->model, r->items, r->n_sessions, err));
    uint64_t begun_ns = mb_now_ns();
    for (size_t i = 0; i < r->n_sessions; i++) {
        int32_t token;
        MB_TRY(mb_sampler_pick(sampler, r->items[i].logits, r->info->n_vocab, r->scratch, &token, err));
    }
    r->sampling_ns += cli_seconds_since(begun_ns) * 1e9;
    return cli_interrupted() ? mb_fail(err, MB_CANCELLED, "interrupted") : MB_OK;
}

static enum mb_status generate(struct running *r, int n_tokens, struct mb_error *err)
{
    struct mb_sampler sampler;
    MB_TRY(mb_sampler_init(&sampler, NULL, err)); /* greedy */
    for (int k = 0; k < n_tokens; k++) {
        MB_TRY(add_to_trace(r->bench, k == 0, err));
        MB_TRY(generate_one(r, &sampler, err));
    }
    return MB_OK;
}

static void add_timing(struct mb_model_timing *to, const struct mb_model_timing *timing)
{
    to->embedding_ns += timing->embedding_ns;
    to->attention_ns += timing->attention_ns;
    to->router_ns += timing->router_ns;
    to->experts_ns += timing->experts_ns;
    to->dense_ns += timing->dense_ns;
    to->logits_ns += timing->logits_ns;
    to->waiting_ns += timing->waiting_ns;
    to->n_tokens += timing->n_tokens;
    to->n_passes += timing->n_passes;
}

/* One run of n_tokens. */
static enum mb_status run_once(struct running *r, struct result *result, int n_tokens, double *seconds,
                               struct mb_error *err)
{
    MB_TRY(go_to_depth(r, result->n_depth, err));
    mb_model_timing_reset(r->model);
    uint64_t begun_ns = mb_now_ns();
    MB_TRY(result->is_prompt ? feed_prompt(r, r->sessions[0], n_tokens, r->logits, err)
                             : generate(r, n_tokens, err));
    *seconds = cli_seconds_since(begun_ns);
    struct mb_model_timing timing = mb_model_timing(r->model);
    add_timing(&result->timing, &timing);
    return MB_OK;
}

/* Runs of no more tokens than the session has room for. */
static enum mb_status warm_up(struct running *r, struct result *result, struct mb_error *err)
{
    const int n_usual = result->n_tokens < WARM_UP_TOKENS ? result->n_tokens : WARM_UP_TOKENS;
    int n_left = result->is_prompt ? 1 : args.n_warm > 0 ? args.n_warm : n_usual;
    double seconds;
    while (n_left > 0 && !args.no_warmup) {
        const int n = result->is_prompt || n_left > result->n_tokens ? result->n_tokens : n_left;
        MB_TRY(run_once(r, result, n, &seconds, err));
        n_left -= n;
    }
    return MB_OK;
}

static void finish_result(struct result *result)
{
    double sum = 0, squares = 0;
    size_t n = result->n_samples;
    for (size_t i = 0; i < n; i++)
        sum += result->samples[i];
    result->mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += pow(result->samples[i] - result->mean, 2);
    result->deviation = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}

static enum mb_status run_all(struct running *r, struct result *result, struct mb_error *err)
{
    size_t n_seqs = (size_t)result->n_seqs, n = (size_t)result->n_tokens, n_depth = (size_t)result->n_depth;
    size_t n_fed = result->is_prompt && n > n_depth ? n : n_depth; /* at once, at most */
    double seconds;
    MB_TRY(open_running(r, n_seqs, n_depth + n, n_fed > n_seqs ? n_fed : n_seqs, err));
    MB_TRY(warm_up(r, result, err));
    result->timing = (struct mb_model_timing){0};
    r->sampling_ns = 0;
    struct mb_store_traffic before = mb_model_traffic(r->model);
    for (int i = 0; i < args.n_repeats; i++) {
        MB_TRY(run_once(r, result, result->n_tokens, &seconds, err));
        result->samples[result->n_samples++] = (double)(n * n_seqs) / seconds;
        result->elapsed_ns += seconds * 1e9;
    }
    struct mb_store_traffic now = mb_model_traffic(r->model);
    result->traffic = cli_traffic_since(&now, &before);
    result->sampling_ns = r->sampling_ns;
    finish_result(result);
    return MB_OK;
}

static enum mb_status measure(struct bench *bench, struct mb_model *model, struct result *result,
                              struct mb_error *err)
{
    struct running r = {.bench = bench, .model = model, .info = mb_model_info(model)};
    enum mb_status status = run_all(&r, result, err);
    close_running(&r);
    return status;
}

static void add_result(struct bench *bench, struct result result)
{
    if (result.n_tokens > 0)
        bench->results[bench->n_results++] = result;
}

static void add_tests(struct bench *bench, int n_depth)
{
    const struct list *prompts = &bench->prompts, *predicts = &bench->predicts, *batches = &bench->batches;
    for (size_t i = 0; i < prompts->n; i++)
        add_result(
            bench,
            (struct result){.is_prompt = true, .n_tokens = prompts->at[i], .n_depth = n_depth, .n_seqs = 1});
    for (size_t i = 0; i < predicts->n; i++)
        for (size_t b = 0; b < batches->n; b++)
            add_result(bench, (struct result){
                                  .n_tokens = predicts->at[i], .n_depth = n_depth, .n_seqs = batches->at[b]});
}

static size_t largest(const struct list *list)
{
    int most = 0;
    for (size_t i = 0; i < list->n; i++)
        most = list->at[i] > most ? list->at[i] : most;
    return (size_t)most;
}

static size_t largest_context(const struct bench *bench)
{
    size_t n_prompt = largest(&bench->prompts), n_predict = largest(&bench->predicts);
    size_t n = largest(&bench->depths) + (n_prompt > n_predict ? n_prompt : n_predict);
    return n == 0 ? 1 : n;
}

/* As "run" feeds prompts, or whole ones where those are longer; batches are of one token each. */
static size_t largest_step(const struct bench *bench)
{
    size_t n = CLI_N_STEP_TOKENS, n_prompt = largest(&bench->prompts), n_depth = largest(&bench->depths);
    n = n_prompt > n ? n_prompt : n;
    return n_depth > n ? n_depth : n;
}

/* Memory's rate, after the model has gone, within what may be used; 0: that is too little to tell. */
static double read_rate(const struct bench *bench, int n_threads)
{
    uint64_t nbytes = mb_memory_available() / 2;
    if (bench->memory_nbytes > 0 && bench->memory_nbytes / 2 < nbytes)
        nbytes = bench->memory_nbytes / 2;
    nbytes = nbytes < READ_NBYTES ? nbytes : READ_NBYTES;
    return nbytes < READ_NBYTES_MIN ? 0 : cli_memory_rate((size_t)nbytes, n_threads);
}

static void print_mode(const struct mb_model_info *info)
{
    cli_print_mode(info, args.memory != NULL);
    if (args.link != NULL && info->memory.reads == MB_READS_NONE)
        fprintf(stderr, "moebius: --link changes nothing: no expert is streamed\n");
}

static enum mb_status run_threads(struct bench *bench, int n_threads, struct mb_error *err)
{
    struct mb_model *model;
    struct bench_routing *routing;
    struct mb_model_options model_options = {.size = sizeof model_options,
                                             .n_threads = n_threads,
                                             .memory_form = bench->memory_form,
                                             .activations = bench->activations,
                                             .memory_nbytes = bench->memory_nbytes,
                                             .n_sessions = largest(&bench->batches),
                                             .n_ctx = largest_context(bench),
                                             .n_step_tokens = largest_step(bench),
                                             .cache_type = bench->cache_type,
                                             .expert_policy = args.policy,
                                             .expert_link = args.link == NULL ? NULL : &bench->link,
                                             .lookahead =
                                                 args.no_lookahead ? MB_LOOKAHEAD_OFF : MB_LOOKAHEAD_AUTO,
                                             .timeline = cli_timeline_hook()};
    size_t first = bench->n_results;
    enum mb_status status = cli_open_model(bench->path, args.profile, &model_options, &model, err);
    if (status != MB_OK)
        return status;
    if (bench->n_results == 0) /* else it was said of the same model with other threads */
        cli_print_notes(mb_model_info(model)->notes);
    if (bench->n_results == 0)
        print_mode(mb_model_info(model));
    cli_stop_at_interrupts(model);
    status = bench_routing_open(args.routing, args.right_guesses >= 0 ? args.right_guesses : RIGHT_GUESSES,
                                model, &routing, err);
    if (status == MB_OK && bench->n_results == 0)
        bench_routing_print(routing);
    bench->info = *mb_model_info(model);
    if (args.trace != NULL && status == MB_OK)
        status = cli_model_trace_open(model, &bench->trace, err);
    snprintf(bench->architecture, sizeof bench->architecture, "%s", bench->info.architecture);
    n_threads = bench->info.n_threads;
    for (size_t d = 0; d < bench->depths.n; d++)
        add_tests(bench, bench->depths.at[d]);
    for (size_t i = first; i < bench->n_results && status == MB_OK; i++) {
        struct result *result = &bench->results[i];
        result->n_threads = n_threads;
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "\r%d threads, test %zu of %zu ...", n_threads, i - first + 1,
                    bench->n_results - first);
        status = measure(bench, model, result, err);
    }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    cli_print_reads(model);
    if (args.trace != NULL && status == MB_OK)
        status = cli_model_trace_save(bench->trace, args.trace, err);
    mb_trace_close(bench->trace);
    mb_model_close(model);
    bench_routing_close(routing);
    double rate = status == MB_OK ? read_rate(bench, n_threads) : 0;
    for (size_t i = first; i < bench->n_results; i++)
        bench->results[i].read_nbytes_per_s = rate;
    return status;
}

/* ---------------------------------------------------------------- printing */

static void name_test(const struct result *result, char text[64])
{
    char seqs[16] = "", depth[24] = "";
    if (result->n_seqs > 1)
        snprintf(seqs, sizeof seqs, " x %d", result->n_seqs);
    if (result->n_depth > 0)
        snprintf(depth, sizeof depth, " @ d%d", result->n_depth);
    snprintf(text, 64, "%s%d%s%s", result->is_prompt ? "pp" : "tg", result->n_tokens, seqs, depth);
}

static bool is_streaming(const struct bench *bench)
{
    return bench->info.memory.reads != MB_READS_NONE;
}

static void print_streaming(const struct bench *bench)
{
    char test[64], text[CLI_TRAFFIC_NBYTES];
    if (!is_streaming(bench))
        return;
    printf("\nexperts from disk (%zu of %zu in memory):\n\n", bench->info.memory.n_experts_held,
           bench->info.memory.n_experts);
    for (size_t i = 0; i < bench->n_results; i++) {
        const struct result *result = &bench->results[i];
        name_test(result, test);
        printf(
            "- %s, %d threads: %s\n", test, result->n_threads,
            cli_traffic(text, &result->traffic, (size_t)result->timing.n_tokens, result->elapsed_ns * 1e-9));
    }
}

static uint64_t model_nbytes(const struct bench *bench)
{
    const struct mb_store_memory *m = &bench->info.memory;
    return m->blob_nbytes + m->table_nbytes + m->exact_nbytes + m->mapped_nbytes;
}

static bool has_share(const struct result *result)
{
    return !result->is_prompt && result->n_seqs == 1 && result->read_nbytes_per_s > 0;
}

static double share_of_read(const struct bench *bench, const struct result *result)
{
    return result->mean * (double)bench->info.token_nbytes / result->read_nbytes_per_s;
}

/* Where time goes, in milliseconds a token; waiting is contained in the others. */
enum { N_PARTS = 8 };
static const char *const part_names[N_PARTS] = {"attention", "router",    "experts",  "dense",
                                                "logits",    "embedding", "sampling", "waiting"};

static void parts_of(const struct result *result, double ms[N_PARTS])
{
    const struct mb_model_timing *t = &result->timing;
    double n = (double)t->n_tokens * 1e6;
    const double ns[N_PARTS] = {(double)t->attention_ns, (double)t->router_ns, (double)t->experts_ns,
                                (double)t->dense_ns,     (double)t->logits_ns, (double)t->embedding_ns,
                                result->sampling_ns,     (double)t->waiting_ns};
    for (size_t i = 0; i < N_PARTS; i++)
        ms[i] = n > 0 ? ns[i] / n : 0;
}

static void print_breakdown(const struct bench *bench)
{
    const char *heads[N_PARTS + 2] = {"threads", "test"};
    for (size_t i = 0; i < N_PARTS; i++)
        heads[i + 2] = part_names[i];
    struct cli_table *table = cli_table_new("rlrrrrrrrr", heads);
    for (size_t i = 0; i < bench->n_results; i++) {
        char test[64];
        double ms[N_PARTS];
        name_test(&bench->results[i], test);
        parts_of(&bench->results[i], ms);
        cli_table_cell(table, "%d", bench->results[i].n_threads);
        cli_table_cell(table, "%s", test);
        for (size_t k = 0; k < N_PARTS; k++)
            cli_table_cell(table, "%.3f", ms[k]);
    }
    printf("\nms a token (waiting, for other threads, is contained in the others):\n\n");
    cli_table_print(table);
}

static void print_table(const struct bench *bench, const struct cli_memory *memory)
{
    static const char *const heads[] = {"model", "size", "params",          "isa",           "threads",
                                        "test",  "t/s",  "weights a token", "of memory read"};
    struct cli_table *table = cli_table_new("lrrlrlrrr", heads);
    char size[32], token[32], test[64], cpu[128], anon[32], file[32], threads[64];
    char form[CLI_FORM_NBYTES], rate[48] = "not measured: that takes more memory";
    for (size_t i = 0; i < bench->n_results; i++) {
        const struct result *result = &bench->results[i];
        name_test(result, test);
        cli_table_cell(table, "%s%s", bench->architecture, bench->info.is_coded ? ", coded" : "");
        cli_table_cell(table, "%s", cli_bytes(size, model_nbytes(bench)));
        cli_table_cell(table, "%.2f B", (double)bench->info.n_params * 1e-9);
        cli_table_cell(table, "%s", mb_kernels()->isa);
        cli_table_cell(table, "%d", result->n_threads);
        cli_table_cell(table, "%s", test);
        cli_table_cell(table, "%.2f ± %.2f", result->mean, result->deviation);
        cli_table_cell(table, "%s", has_share(result) ? cli_bytes(token, bench->info.token_nbytes) : "");
        if (has_share(result))
            cli_table_cell(table, "%.0f %%", 100 * share_of_read(bench, result));
        else
            cli_table_cell(table, "%s", "");
    }
    const struct result *last = &bench->results[bench->n_results - 1];
    cli_cpu_name(cpu);
    cli_table_print(table);
    print_breakdown(bench);
    print_streaming(bench);
    if (last->read_nbytes_per_s > 0)
        snprintf(rate, sizeof rate, "%.1f GB/s", last->read_nbytes_per_s * 1e-9);
    printf("\nbuild %s, %s; %s; plain read %s; at most %s in memory (%s anonymous, %s of files at the "
           "end)\n",
           cli_commit, cpu, cli_threads(threads, last->n_threads), rate, cli_bytes(size, memory->peak_nbytes),
           cli_bytes(anon, memory->anon_nbytes), cli_bytes(file, memory->file_nbytes));
    if (bench->info.is_coded)
        printf("weights in memory: %s\n", cli_memory_form(form, &bench->info.memory));
}

/* Sums of all samples. */
static void add_streaming(const struct bench *bench, const struct result *result, json_t *json)
{
    const struct mb_store_traffic *t = &result->traffic;
    json_object_set_new(json, "n_experts", json_integer((json_int_t)bench->info.memory.n_experts));
    json_object_set_new(json, "n_experts_held", json_integer((json_int_t)bench->info.memory.n_experts_held));
    json_object_set_new(json, "experts_acquired", json_integer((json_int_t)t->n_acquired));
    json_object_set_new(json, "experts_missed", json_integer((json_int_t)t->n_misses));
    json_object_set_new(json, "experts_hinted", json_integer((json_int_t)t->n_hinted));
    json_object_set_new(json, "hints_used", json_integer((json_int_t)t->n_hints_used));
    json_object_set_new(json, "read_nbytes", json_integer((json_int_t)t->read_nbytes));
    json_object_set_new(json, "seconds", json_real(result->elapsed_ns * 1e-9));
    json_object_set_new(json, "waited_seconds", json_real((double)t->waited_ns * 1e-9));
    json_object_set_new(json, "disk_busy_seconds", json_real((double)t->busy_ns * 1e-9));
    json_object_set_new(json, "check_seconds", json_real((double)t->checked_ns * 1e-9));
}

static json_t *result_json(const struct bench *bench, const struct result *result,
                           const struct cli_memory *memory)
{
    char test[64], cpu[128];
    double ms[N_PARTS];
    json_t *samples = json_array(), *parts = json_object();
    name_test(result, test);
    parts_of(result, ms);
    cli_cpu_name(cpu);
    for (size_t i = 0; i < result->n_samples; i++)
        json_array_append_new(samples, json_real(result->samples[i]));
    for (size_t i = 0; i < N_PARTS; i++)
        json_object_set_new(parts, part_names[i], json_real(ms[i]));
    json_t *json = json_pack(
        "{s:s, s:s, s:o, s:s, s:b, s:I, s:I, s:s, s:i, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:o, s:I, s:f, "
        "s:o, s:o, s:I}",
        "build_commit", cli_commit, "cpu_info", cpu, "model", cli_json_path(bench->path), "model_type",
        bench->architecture, "coded", bench->info.is_coded, "model_size", (json_int_t)model_nbytes(bench),
        "model_n_params", (json_int_t)bench->info.n_params, "isa", mb_kernels()->isa, "n_threads",
        result->n_threads, "test", test, "n_prompt", result->is_prompt ? result->n_tokens : 0, "n_gen",
        result->is_prompt ? 0 : result->n_tokens, "n_depth", result->n_depth, "n_seqs", result->n_seqs,
        "avg_ts", result->mean, "stddev_ts", result->deviation, "samples_ts", samples, "token_nbytes",
        (json_int_t)bench->info.token_nbytes, "read_nbytes_per_s", result->read_nbytes_per_s, "share_of_read",
        has_share(result) ? json_real(share_of_read(bench, result)) : json_null(), "ms_a_token", parts,
        "peak_nbytes", (json_int_t)memory->peak_nbytes);
    if (is_streaming(bench))
        add_streaming(bench, result, json);
    if (bench->info.is_coded)
        json_object_set_new(json, "memory_form", json_string(cli_memory_form_name(bench->info.memory.form)));
    return json;
}

/* The members that are a number or a text, in order. */
static void print_csv(json_t *const *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *key;
        json_t *value;
        for (int is_head = i == 0; is_head >= 0; is_head--) {
            bool is_first = true;
            json_object_foreach(rows[i], key, value)
            {
                if (json_is_array(value) || json_is_object(value))
                    continue;
                printf("%s", is_first ? "" : ",");
                is_first = false;
                if (is_head)
                    printf("%s", key);
                else if (json_is_string(value))
                    printf("\"%s\"", json_string_value(value));
                else if (json_is_boolean(value))
                    printf("%s", json_is_true(value) ? "true" : "false");
                else if (json_is_integer(value))
                    printf("%lld", (long long)json_integer_value(value));
                else if (json_is_real(value))
                    printf("%.6g", json_real_value(value));
            }
            printf("\n");
        }
    }
}

static int print_rows(const struct bench *bench, const struct cli_memory *memory)
{
    json_t *rows[RESULTS_MAX], *all = json_array();
    for (size_t i = 0; i < bench->n_results; i++) {
        rows[i] = result_json(bench, &bench->results[i], memory);
        if (rows[i] == NULL || json_array_append_new(all, rows[i]) != 0) {
            json_decref(all);
            fputs("moebius: out of memory\n", stderr);
            return 4;
        }
    }
    if (args.format == CLI_CSV)
        print_csv(rows, bench->n_results);
    for (size_t i = 0; i < bench->n_results && args.format == CLI_JSONL; i++) {
        json_dumpf(rows[i], stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
        putchar('\n');
    }
    if (args.format == CLI_JSON)
        return cli_print_json(all);
    json_decref(all);
    return 0;
}

static int run_bench(struct bench *bench)
{
    struct mb_error err;
    if ((args.trace != NULL && cli_output_check(args.trace, bench->path, &err) != MB_OK) ||
        cli_timeline_begin(args.timeline, bench->path, &err) != MB_OK)
        return cli_fail(&err);
    cli_catch_interrupts();
    for (size_t i = 0; i < bench->threads.n; i++)
        if (run_threads(bench, bench->threads.at[i], &err) != MB_OK)
            return cli_fail(&err);
    if (bench->n_results == 0)
        return cli_usage_error(&command, "-p 0 -n 0 leaves nothing to measure");
    struct cli_memory memory = cli_memory_in_use();
    if (args.format != CLI_MD)
        return print_rows(bench, &memory);
    print_table(bench, &memory);
    return 0;
}

int cli_bench_model(int argc, char **argv)
{
    static struct bench bench;
    const char *paths[CLI_ARGS_MAX];
    size_t n_paths;
    int exit_status;
    args.n_repeats = 5;
    args.right_guesses = -1; /* not given */
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, paths, &n_paths, &exit_status))
        return exit_status;
    bench.path = paths[0];
    bench.random = 1;
    exit_status = parse_lists(&bench);
    if (exit_status != 0)
        return exit_status;
    return cli_timeline_end(run_bench(&bench));
}
