/*
 * doctor.c - the verb "doctor": what a model needs, what of it fits, and how fast it would be, before it is
 * loaded.
 */
#include "doctor.h"
#include "base/cpus.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/number.h"
#include "cli.h"
#include "generation.h"
#include "memory.h"
#include "model_bytes.h"
#include "report.h"
#include "units.h"
#include <inttypes.h>
#include <moebius/engine.h>
#include <moebius/offload.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *memory, *experts, *cache, *trace, *link;
    double lookahead;
    int n_ctx, n_threads, n_warm;
    bool is_dry, no_lookahead;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT(0, "memory", "SIZE", args.memory,
                 "memory that may be used, all in all, such as 6GiB (default: what is available now)"),
    CLI_ROW_TEXT(0, "experts", "SIZE", args.experts,
                 "so much is left for experts, whatever else takes (default: what --memory leaves)"),
    CLI_ROW_INT('c', "ctx-size", "N", args.n_ctx, 0, 1e9,
                "tokens of context (default: the model's, at most 8192)"),
    CLI_ROW_TEXT(0, "cache-type", "TYPE", args.cache, "f16 (default) or f32: what the attention cache holds"),
    CLI_ROW_TEXT(
        0, "trace", "FILE", args.trace,
        "routing of this model ('moebius trace'), for the expected share of experts found in memory\n"
        "(default: routing by chance with the statistics of Qwen3-30B-A3B)"),
    CLI_ROW_INT(0, "warm", "N", args.n_warm, 0, 1e9,
                "leave the first N generated tokens of the trace out of the figures (default 0)"),
    CLI_ROW_TEXT(0, "link", "RATE[,LATENCY[,DEPTH]]", args.link,
                 "predict for another disk or bus: bytes a second, time before each read, reads in flight,\n"
                 "such as 3GB,80us,8 (default: the disk, measured)"),
    CLI_ROW_DOUBLE(0, "lookahead", "SHARE", args.lookahead, 0, 1,
                   "share of right guesses of the next layer's experts (default 0.7)"),
    CLI_ROW_FLAG(0, "no-lookahead", args.no_lookahead, "the next layer's experts are not guessed"),
    CLI_ROW_FLAG(0, "dry-run", args.is_dry, "measure neither disk nor products: no speed is predicted"),
    CLI_ROW_THREADS(args.n_threads),
    CLI_ROW_FORMAT("md|json", args.format, CLI_MD | CLI_JSON, "table (default) or JSON"),
};

static const struct cli_command command = {
    .name = "doctor",
    .args = "MODEL [--memory SIZE] [-c N] [options]",
    .summary = "What of a model fits into memory, and how fast it would generate, before it is loaded.",
    .details =
        "Reads headers, and measures for about a second how fast the model's own experts come from the "
        "disk and\nare multiplied. Exit status 1: the model cannot run with these settings; the last line "
        "says what would\nhelp.\n\n"
        "  moebius doctor MODEL --memory 6GiB -c 4096",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 1,
    .n_args_max = 1,
};

enum { MARGIN_MIB = 4 }; /* for what else a program takes, in advice */
/* Stages of a layer beside those of its experts: attention, router, norms; and of a token. */
enum { N_LAYER_STAGES = 9, N_TOKEN_STAGES = 3, N_WAVE_STAGES = 2 };
static const double LOOKAHEAD = 0.7; /* right guesses, as measured with trained models (docs/streaming.md) */
static const double FAST_SIZE =
    1.35; /* of the form with the fewest operations, at most: src/store/form_choice.c */
enum { N_TRACED = 600, N_WARM = 200, TOP_PERMILLE = 445, OVERLAP_PERMILLE = 380 };

enum verdict { FITS, STREAMS, CANNOT };

struct doctor {
    const char *path;
    struct mb_checkpoint *ckpt;
    struct cli_model_bytes bytes;
    struct mb_model_needs needs;
    uint64_t memory_nbytes;  /* that may be used */
    uint64_t program_nbytes; /* code, libraries, headers of files, a tokenizer */
    uint64_t fixed_nbytes;   /* needed whatever experts are in memory */
    uint64_t expert_nbytes;  /* left for experts */
    uint64_t wave_nbytes;    /* experts of one token in one layer, at most */
    uint64_t active_nbytes;  /* a token is multiplied with */
    enum verdict verdict;
    struct doctor_disk disk;
    struct mb_link_options link; /* that experts come over: --link, or the disk. bytes_per_s 0: not known */
    struct doctor_products products;
    bool is_fast;      /* memory has room for the form of weights with the fewest operations */
    uint64_t token_ns; /* of a token, before layers' experts */
    int n_threads;
    const char *routing; /* in words */
    struct mb_simulation simulation;
    double tokens_per_s; /* 0: not known */
};

/* ---------------------------------------------------------------- what is needed */

static int from_largest(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

static uint64_t sum_of_largest(const struct doctor *d, size_t layer)
{
    size_t n = d->bytes.n_experts;
    uint64_t *sorted = cli_check_memory(malloc(n * sizeof *sorted)), sum = 0;
    memcpy(sorted, d->bytes.experts + layer * n, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, from_largest);
    for (size_t k = 0; k < d->needs.n_experts_used && k < n; k++)
        sum += sorted[k];
    free(sorted);
    return sum;
}

/* What a token is multiplied with beside routed experts. */
static uint64_t dense_nbytes(const struct doctor *d)
{
    return d->bytes.always_nbytes - d->bytes.embedding_nbytes;
}

/* Of that, what is multiplied beside a layer's experts and after the last layer, if it is coded. */
static uint64_t later_nbytes(const struct doctor *d)
{
    const uint64_t nbytes = d->bytes.shared_nbytes + d->bytes.head_nbytes;
    return nbytes < d->bytes.coded_nbytes ? nbytes : d->bytes.coded_nbytes;
}

/* As the engine does. Plain models are mapped, and have the largest. */
static void choose_pass(struct doctor *d)
{
    struct mb_model_needs *needs = &d->needs;
    uint64_t left = d->memory_nbytes > d->fixed_nbytes ? d->memory_nbytes - d->fixed_nbytes : 0;
    if (!mb_checkpoint_is_coded(d->ckpt))
        return;
    size_t n_step = needs->n_ctx < CLI_N_STEP_TOKENS ? needs->n_ctx : CLI_N_STEP_TOKENS;
    size_t n_tokens =
        mb_pass_tokens_for(needs->passes_nbytes, n_step, left, d->bytes.experts_nbytes, d->wave_nbytes);
    for (size_t i = 0; needs->n_pass_tokens > n_tokens; needs->n_pass_tokens /= 2)
        needs->work_nbytes = needs->passes_nbytes[++i];
}

static void judge(struct doctor *d)
{
    const struct cli_model_bytes *b = &d->bytes;
    for (size_t l = 0; l < b->n_layers; l++) {
        uint64_t sum = sum_of_largest(d, l);
        d->wave_nbytes = sum > d->wave_nbytes ? sum : d->wave_nbytes;
    }
    d->active_nbytes =
        dense_nbytes(d) +
        (uint64_t)((double)b->experts_nbytes * (double)d->needs.n_experts_used / (double)d->needs.n_experts);
    d->fixed_nbytes = b->always_nbytes + d->needs.cache_nbytes + d->program_nbytes;
    choose_pass(d);
    d->fixed_nbytes += d->needs.work_nbytes;
    if (args.experts == NULL)
        d->expert_nbytes = d->memory_nbytes > d->fixed_nbytes ? d->memory_nbytes - d->fixed_nbytes : 0;
    d->verdict = d->expert_nbytes >= b->experts_nbytes                                   ? FITS
                 : d->expert_nbytes < d->wave_nbytes || !mb_checkpoint_is_coded(d->ckpt) ? CANNOT
                                                                                         : STREAMS;
}

/* What this program takes with the model's headers and tokenizer. Without one the model runs on numbers. */
static uint64_t program_nbytes(const char *path)
{
    struct mb_tokenizer *tokenizer = NULL;
    (void)mb_tokenizer_open(path, &tokenizer, NULL);
    uint64_t nbytes = mb_memory_used();
    mb_tokenizer_close(tokenizer);
    return nbytes;
}

/* As the engine without --memory: what is available, less a margin for what others will need. */
static uint64_t memory_found(void)
{
    uint64_t available = mb_memory_available(), margin = available / 16;
    margin = margin < UINT64_C(256) << 20 ? UINT64_C(256) << 20 : margin;
    return available > 2 * margin ? available - margin : available / 2;
}

/* As the engine expects without -c. */
static enum mb_status look_at_session(struct doctor *d, struct mb_error *err)
{
    struct mb_session_options session = {.size = sizeof session, .n_ctx = (size_t)args.n_ctx};
    if (args.cache != NULL && strcmp(args.cache, "f32") == 0)
        session.cache_type = MB_CACHE_F32;
    MB_TRY(mb_model_look(d->ckpt, &session, &d->needs, err));
    if (args.n_ctx > 0 || d->needs.n_ctx <= MB_CTX_EXPECTED)
        return MB_OK;
    session.n_ctx = MB_CTX_EXPECTED;
    return mb_model_look(d->ckpt, &session, &d->needs, err);
}

static enum mb_status look(struct doctor *d, struct mb_error *err)
{
    MB_TRY(mb_checkpoint_look(d->path, err));
    MB_TRY(mb_checkpoint_open(d->path, &d->ckpt, err));
    MB_TRY(look_at_session(d, err));
    MB_TRY(cli_model_bytes_open(d->ckpt, &d->bytes, err));
    if (d->needs.n_experts == 0 || d->needs.n_experts != d->bytes.n_experts)
        return mb_fail(err, MB_BAD_DATA, "%s: config.json says %zu experts, tensors %zu", d->path,
                       d->needs.n_experts, d->bytes.n_experts);
    if (args.memory == NULL)
        d->memory_nbytes = memory_found();
    else if (!cli_memory(args.memory, &d->memory_nbytes))
        return mb_fail(err, MB_USAGE, "--memory '%.60s': a size such as 6GiB", args.memory);
    if (args.experts != NULL && !cli_unit_bytes(args.experts, strlen(args.experts), &d->expert_nbytes))
        return mb_fail(err, MB_USAGE, "--experts '%.60s': a size such as 4GiB", args.experts);
    d->program_nbytes = program_nbytes(d->path);
    judge(d);
    return args.link != NULL ? cli_link(args.link, &d->link, err) : MB_OK;
}

/* ---------------------------------------------------------------- what is expected */

/* The published statistics where the model's shape can have them. */
static enum mb_status make_trace(struct doctor *d, struct mb_trace **trace, struct mb_error *err)
{
    struct mb_trace_random random = {
        .size = sizeof random,
        .shape = {d->bytes.n_layers, d->needs.n_experts, d->needs.n_experts_used},
        .n_tokens = N_TRACED,
        .top_share = TOP_PERMILLE / 1000.0,
        .overlap = OVERLAP_PERMILLE / 1000.0,
        .seed = 1,
    };
    d->routing = "routing by chance: the 8 most used experts have 44.5 % of the uses, overlap 38 %";
    if (mb_trace_make(&random, trace, err) == MB_OK)
        return MB_OK;
    random.top_share = 0;
    d->routing = "routing by chance: experts used alike, overlap 38 %";
    if (mb_trace_make(&random, trace, err) == MB_OK)
        return MB_OK;
    random.overlap = 0;
    d->routing = "routing by chance: experts used alike";
    return mb_trace_make(&random, trace, err);
}

static enum mb_status load_trace(struct doctor *d, struct mb_trace **trace, struct mb_error *err)
{
    MB_TRY(mb_trace_load(args.trace, trace, err));
    const struct mb_trace_shape *shape = mb_trace_shape(*trace);
    d->routing = "routing of the trace";
    if (shape->n_layers == d->bytes.n_layers && shape->n_experts == d->bytes.n_experts)
        return MB_OK;
    mb_trace_close(*trace);
    *trace = NULL;
    return mb_fail(err, MB_BAD_DATA, "%s: the trace of another model", args.trace);
}

/* A wrong trace is refused even where none is needed. */
static enum mb_status check_trace(struct doctor *d, struct mb_error *err)
{
    struct mb_trace *trace;
    MB_TRY(load_trace(d, &trace, err));
    mb_trace_close(trace);
    return MB_OK;
}

static enum mb_status simulate(struct doctor *d, struct mb_error *err)
{
    struct mb_trace *trace;
    MB_TRY(args.trace != NULL ? load_trace(d, &trace, err) : make_trace(d, &trace, err));
    struct mb_simulation_options o = {
        .size = sizeof o,
        .memory_nbytes = d->expert_nbytes,
        .nbytes = d->bytes.experts,
        .link = d->link,
        .dense_nbytes = later_nbytes(d),
        .shared_nbytes = d->bytes.shared_nbytes,
        .head_nbytes = d->bytes.head_nbytes,
        .token_ns = d->token_ns,
        .wave_ns = N_WAVE_STAGES * d->products.stage_ns,
        .check_bytes_per_s = (uint64_t)d->products.check_bytes_per_s,
        .compute_bytes_per_s = (uint64_t)d->products.experts.stored_bytes_per_s,
        .lookahead = args.no_lookahead ? 0 : args.lookahead,
        .n_threads = args.is_dry ? 0 : (size_t)d->n_threads,
        .request_ns = d->disk.request_ns,
        .ask_ns = d->disk.ask_ns,
        .arrive_ns = d->disk.arrive_ns + (args.link != NULL ? d->disk.timer_ns : 0),
        .wake_ns = d->disk.wake_ns + d->products.asleep_ns,
        .reap_ns = d->disk.reap_ns,
        .call_ns = d->disk.call_ns,
        .n_pass_tokens =
            d->needs.n_pass_tokens < CLI_N_STEP_TOKENS ? d->needs.n_pass_tokens : CLI_N_STEP_TOKENS,
        .n_warm = args.trace != NULL ? (size_t)args.n_warm : N_WARM,
    };
    enum mb_status status = mb_simulate(trace, &o, &d->simulation, err);
    mb_trace_close(trace);
    if (status == MB_OK && !args.is_dry && d->link.bytes_per_s > 0)
        d->tokens_per_s = cli_ratio(1e9 * (double)d->simulation.n_tokens, (double)d->simulation.total_ns);
    return status;
}

/* Of coded weights in the form that the engine will choose; exact ones come as fast as memory gives them. */
static double rate_of(const struct doctor *d, const struct doctor_rates *rates)
{
    double rate =
        d->is_fast && rates->fast_bytes_per_s > 0 ? rates->fast_bytes_per_s : rates->stored_bytes_per_s;
    return rate > 0 ? rate : d->products.memory_bytes_per_s;
}

static double rate_of_experts(const struct doctor *d)
{
    return rate_of(d, &d->products.experts);
}

/* Of a token, before layers' experts. Exact weights are multiplied as fast as they come from memory. */
static uint64_t token_ns(const struct doctor *d)
{
    const struct doctor_products *p = &d->products;
    const double n_stages = N_TOKEN_STAGES + (double)N_LAYER_STAGES * (double)d->needs.n_layers;
    const double coded_nbytes = (double)(d->bytes.coded_nbytes - later_nbytes(d));
    if (p->memory_bytes_per_s <= 0)
        return 0;
    return (uint64_t)(1e9 * (double)(dense_nbytes(d) - d->bytes.coded_nbytes) / p->memory_bytes_per_s +
                      1e9 * coded_nbytes / rate_of(d, &p->dense) + n_stages * (double)p->stage_ns);
}

/* Of a token whose experts are in memory: those, shared ones and the head. */
static double later_ns(const struct doctor *d)
{
    const double n_stages = N_WAVE_STAGES * (double)d->bytes.n_layers;
    const double nbytes = (double)(d->active_nbytes - dense_nbytes(d) + later_nbytes(d));
    return 1e9 * nbytes / rate_of_experts(d) + n_stages * (double)d->products.stage_ns;
}

/* As the engine does, but that it measures nothing of a small model and takes the form with fewer operations.
 */
static void choose_form(struct doctor *d)
{
    const struct doctor_rates *rates = &d->products.experts;
    const double nbytes = FAST_SIZE * (double)(d->bytes.coded_nbytes + d->bytes.experts_nbytes);
    const double left = (double)d->expert_nbytes + (double)d->bytes.coded_nbytes;
    d->is_fast = d->verdict == FITS && nbytes <= left && rates->fast_bytes_per_s > rates->stored_bytes_per_s;
}

static enum mb_status measure(struct doctor *d, struct mb_error *err)
{
    struct mb_cpu_share share = mb_cpu_share();
    d->n_threads = args.n_threads > 0 ? args.n_threads : mb_cpu_share_threads(&share);
    if (!args.is_dry && d->verdict != CANNOT) {
        MB_TRY(doctor_measure_products(d->ckpt, d->n_threads, d->needs.n_experts_used, d->verdict == FITS,
                                       &d->products, err));
        MB_TRY(doctor_measure_disk(d->ckpt, d->n_threads, d->expert_nbytes, &d->disk, err));
        choose_form(d);
        d->token_ns = token_ns(d);
    }
    if (args.link == NULL)
        d->link = (struct mb_link_options){.size = sizeof d->link,
                                           .bytes_per_s = (uint64_t)d->disk.bytes_per_s,
                                           .latency_ns = d->disk.latency_ns,
                                           .depth = d->disk.depth};
    if (d->verdict == STREAMS)
        return simulate(d, err);
    if (args.trace != NULL)
        MB_TRY(check_trace(d, err));
    if (d->verdict == FITS && d->token_ns > 0)
        d->tokens_per_s = 1e9 / ((double)d->token_ns + later_ns(d));
    return MB_OK;
}

/* ---------------------------------------------------------------- advice */

/* The longest context, in tokens, with which 'nbytes' of experts have room; 0: none. */
static size_t context_for(struct doctor *d, uint64_t nbytes)
{
    struct mb_session_options session = {.size = sizeof session};
    session.cache_type = args.cache != NULL && strcmp(args.cache, "f32") == 0 ? MB_CACHE_F32 : MB_CACHE_F16;
    size_t low = 0, high = d->needs.n_ctx;
    while (low < high) {
        struct mb_model_needs needs;
        session.n_ctx = low + (high - low + 1) / 2;
        uint64_t rest = d->fixed_nbytes - d->needs.cache_nbytes;
        bool has_room = mb_model_look(d->ckpt, &session, &needs, NULL) == MB_OK &&
                        rest + needs.cache_nbytes + nbytes <= d->memory_nbytes;
        if (has_room)
            low = session.n_ctx;
        else
            high = session.n_ctx - 1;
    }
    return low;
}

/* Experts that have to have room for a better verdict. */
static uint64_t wanted_nbytes(const struct doctor *d)
{
    return d->verdict == CANNOT && mb_checkpoint_is_coded(d->ckpt) ? d->wave_nbytes : d->bytes.experts_nbytes;
}

static void print_advice(struct doctor *d)
{
    char text[32];
    uint64_t wanted = wanted_nbytes(d);
    const char *what = d->verdict == CANNOT ? "to run at all" : "to hold all experts";
    size_t n_ctx = context_for(d, wanted);
    printf("%s: --memory %" PRIu64 "MiB", what, ((d->fixed_nbytes + wanted) >> 20) + MARGIN_MIB);
    if (n_ctx > 0)
        printf(", or -c %zu", n_ctx);
    if (!mb_checkpoint_is_coded(d->ckpt))
        printf(", or a coded model ('moebius compress'), whose experts can be streamed");
    if (d->verdict == STREAMS)
        printf(", or experts of %.0f %% of their bytes (%s): a looser bound",
               100 * (double)d->expert_nbytes / (double)d->bytes.experts_nbytes,
               cli_bytes(text, d->expert_nbytes));
    putchar('\n');
}

/* ---------------------------------------------------------------- output */

static void print_need(struct cli_table *table, const char *what, uint64_t nbytes)
{
    char text[32];
    cli_table_cell(table, "%s", what);
    cli_table_cell(table, "%s", cli_bytes(text, nbytes));
}

static void print_needs(const struct doctor *d)
{
    static const char *const heads[] = {"what", "memory"};
    char text[64];
    struct cli_table *table = cli_table_new("lr", heads);
    print_need(table, "weights that every token needs", d->bytes.always_nbytes);
    snprintf(text, sizeof text, "cache of %zu tokens", d->needs.n_ctx);
    print_need(table, text, d->needs.cache_nbytes);
    snprintf(text, sizeof text, "work memory of a pass of %zu tokens", d->needs.n_pass_tokens);
    print_need(table, text, d->needs.work_nbytes);
    print_need(table, "the program", d->program_nbytes);
    print_need(table, "all routed experts", d->bytes.experts_nbytes);
    print_need(table, args.memory != NULL ? "may be used (--memory)" : "available now", d->memory_nbytes);
    print_need(table, "of that, left for experts", d->expert_nbytes);
    cli_table_print(table);
}

static void print_measured(const struct doctor *d)
{
    char rate[32], size[32];
    if (args.link != NULL)
        printf("\nlink: %s\n", args.link);
    else if (d->disk.bytes_per_s > 0)
        printf("\ndisk: %s/s in reads of %s, %u in flight%s; %.0f us more for one alone\n",
               cli_bytes(rate, (uint64_t)d->disk.bytes_per_s), cli_bytes(size, d->disk.read_nbytes),
               d->disk.depth,
               d->disk.is_direct ? " (O_DIRECT)" : ", through the page cache: it may be slower",
               (double)d->disk.latency_ns * 1e-3);
    else if (!args.is_dry && d->verdict != CANNOT)
        printf("\ndisk: not measured: experts do not lie in the files as they are used\n");
    if (d->products.memory_bytes_per_s > 0)
        printf(
            "%s: %s/s on %d threads, which take %.1f us to meet\n",
            d->products.experts.stored_bytes_per_s > 0 ? "products with coded experts" : "reads from memory",
            cli_bytes(rate, (uint64_t)rate_of_experts(d)), d->n_threads, 1e-3 * (double)d->products.stage_ns);
    if (d->products.check_bytes_per_s > 0)
        printf("checks of experts: %s/s by one thread, which wakes up in %.0f us\n",
               cli_bytes(rate, (uint64_t)d->products.check_bytes_per_s), 1e-3 * (double)d->disk.wake_ns);
}

static void print_verdict(struct doctor *d)
{
    const struct mb_simulation *s = &d->simulation;
    char held[32], all[32], read[32];
    cli_bytes(held, d->expert_nbytes);
    cli_bytes(all, d->bytes.experts_nbytes);
    if (d->verdict == CANNOT) {
        if (!mb_checkpoint_is_coded(d->ckpt))
            printf("\nmode: cannot run: a plain model has to fit, and only coded ones are streamed\n");
        else
            printf("\nmode: cannot run: a token's %zu experts of one layer need %s, and %s is left\n",
                   d->needs.n_experts_used, cli_bytes(read, d->wave_nbytes), held);
    } else if (d->verdict == FITS) {
        printf("\nmode: in memory, all %s of experts; a token is multiplied with %s\n", all,
               cli_bytes(read, d->active_nbytes));
    } else {
        printf("\nmode: streaming, %s of %s of experts in memory\n", held, all);
        printf("expected: %.1f %% of experts found in memory, %s read a token",
               100 * cli_ratio((double)s->n_hits, (double)s->n_uses),
               cli_bytes(read, (uint64_t)cli_ratio((double)s->read_nbytes, (double)s->n_tokens)));
        if (d->tokens_per_s > 0)
            printf(", %.0f %% of the time waiting for the disk",
                   100 * cli_ratio((double)s->waited_ns, (double)s->total_ns));
        printf("\n(%s", d->routing);
        if (!args.no_lookahead && args.lookahead > 0)
            printf("; %.0f %% of the guesses of the next layer's experts are right", 100 * args.lookahead);
        printf(")\n");
    }
    if (d->tokens_per_s > 0)
        printf("predicted: %.1f tokens/s\n", d->tokens_per_s);
    if (d->verdict != FITS)
        print_advice(d);
}

static json_t *disk_json(const struct doctor *d)
{
    if (d->disk.bytes_per_s <= 0)
        return json_null();
    return json_pack("{s:f, s:I, s:I, s:i, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "bytes_per_s",
                     d->disk.bytes_per_s, "latency_ns", (json_int_t)d->disk.latency_ns, "read_nbytes",
                     (json_int_t)d->disk.read_nbytes, "depth", (int)d->disk.depth, "direct",
                     (int)d->disk.is_direct, "io_uring", (int)d->disk.has_io_uring, "ask_ns",
                     (json_int_t)d->disk.ask_ns, "request_ns", (json_int_t)d->disk.request_ns, "arrive_ns",
                     (json_int_t)d->disk.arrive_ns, "wake_ns", (json_int_t)d->disk.wake_ns, "call_ns",
                     (json_int_t)d->disk.call_ns, "reap_ns", (json_int_t)d->disk.reap_ns, "timer_ns",
                     (json_int_t)d->disk.timer_ns);
}

static json_t *products_json(const struct doctor *d)
{
    const struct doctor_products *p = &d->products;
    if (p->memory_bytes_per_s <= 0)
        return json_null();
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "experts_bytes_per_s",
                     p->experts.stored_bytes_per_s, "experts_fast_bytes_per_s", p->experts.fast_bytes_per_s,
                     "dense_bytes_per_s", p->dense.stored_bytes_per_s, "dense_fast_bytes_per_s",
                     p->dense.fast_bytes_per_s, "check_bytes_per_s", p->check_bytes_per_s,
                     "memory_bytes_per_s", p->memory_bytes_per_s, "stage_ns", (json_int_t)p->stage_ns,
                     "asleep_ns", (json_int_t)p->asleep_ns);
}

static json_t *expected_json(const struct doctor *d)
{
    const struct mb_simulation *s = &d->simulation;
    if (d->verdict != STREAMS)
        return json_null();
    return json_pack("{s:s, s:f, s:f, s:f}", "routing", d->routing, "hit_rate",
                     cli_ratio((double)s->n_hits, (double)s->n_uses), "nbytes_per_token",
                     cli_ratio((double)s->read_nbytes, (double)s->n_tokens), "waiting",
                     cli_ratio((double)s->waited_ns, (double)s->total_ns));
}

static int print_as_json(struct doctor *d)
{
    static const char *const modes[] = {"in memory", "streaming", "cannot run"};
    uint64_t wanted = wanted_nbytes(d);
    uint64_t helps_nbytes = d->fixed_nbytes + wanted;
    size_t n_ctx = d->verdict == FITS ? d->needs.n_ctx : context_for(d, wanted);
    return cli_print_json(json_pack(
        "{s:o, s:s, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, "
        "s:I, "
        "s:I}",
        "path", cli_json_path(d->path), "mode", modes[d->verdict], "needs", "always_nbytes",
        (json_int_t)d->bytes.always_nbytes, "cache_nbytes", (json_int_t)d->needs.cache_nbytes, "work_nbytes",
        (json_int_t)d->needs.work_nbytes, "pass_tokens", (json_int_t)d->needs.n_pass_tokens, "program_nbytes",
        (json_int_t)d->program_nbytes, "experts_nbytes", (json_int_t)d->bytes.experts_nbytes,
        "token_layer_nbytes", (json_int_t)d->wave_nbytes, "n_ctx", (json_int_t)d->needs.n_ctx,
        "memory_nbytes", (json_int_t)d->memory_nbytes, "experts_memory_nbytes", (json_int_t)d->expert_nbytes,
        "token_nbytes", (json_int_t)d->active_nbytes, "n_threads", (json_int_t)d->n_threads, "disk",
        disk_json(d), "products", products_json(d), "compute_bytes_per_s",
        d->products.memory_bytes_per_s > 0 ? json_real(rate_of_experts(d)) : json_null(), "expected",
        expected_json(d), "tokens_per_s", d->tokens_per_s > 0 ? json_real(d->tokens_per_s) : json_null(),
        "memory_that_helps_nbytes", (json_int_t)helps_nbytes, "context_that_helps", (json_int_t)n_ctx));
}

static int print(struct doctor *d)
{
    if (args.format == CLI_JSON) {
        int exit_status = print_as_json(d);
        return exit_status != 0 ? exit_status : d->verdict == CANNOT;
    }
    printf("%s: %zu layers with %zu experts, of which a token uses %zu\n\n", d->path, d->bytes.n_layers,
           d->bytes.n_experts, d->needs.n_experts_used);
    print_needs(d);
    print_measured(d);
    print_verdict(d);
    return d->verdict == CANNOT ? 1 : 0;
}

int cli_doctor(int argc, char **argv)
{
    const char *names[CLI_ARGS_MAX];
    size_t n_names;
    int exit_status;
    args.format = CLI_MD;
    args.lookahead = LOOKAHEAD;
    if (!cli_parse(&command, argc, argv, names, &n_names, &exit_status))
        return exit_status;
    if (args.cache != NULL && strcmp(args.cache, "f16") != 0 && strcmp(args.cache, "f32") != 0)
        return cli_usage_error(&command, "--cache-type is f16 or f32");
    struct doctor doctor = {.path = names[0]};
    struct mb_error err;
    enum mb_status status = look(&doctor, &err);
    if (status == MB_OK)
        status = measure(&doctor, &err);
    exit_status = status == MB_OK ? print(&doctor) : cli_fail(&err);
    cli_model_bytes_close(&doctor.bytes);
    mb_checkpoint_close(doctor.ckpt);
    return exit_status;
}
