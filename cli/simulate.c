/*
 * simulate.c - the verb "simulate": what policies would find in memory, and how fast tokens would come.
 */
#include "simulate.h"
#include "base/error.h"
#include "base/number.h"
#include "cli.h"
#include "expert_profile.h"
#include "model_bytes.h"
#include "report.h"
#include "units.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *random, *sizes, *expert_bytes, *memory, *policies, *compute, *check, *dense_bytes, *profile,
        *chart;
    struct cli_strings links;
    int half_life, n_warm, n_pass_tokens, n_threads;
    double lookahead;
    bool all_tokens;
    enum cli_format format;
} args;

static const struct cli_option options[] = {
    CLI_ROW_TEXT(0, "random", "SPEC", args.random,
                 "routing by chance in place of a trace, such as\n"
                 "'experts=128 used=8 layers=48 tokens=1000 top8=44.5% overlap=38% seed=1'"),
    CLI_ROW_TEXT(0, "sizes", "MODEL", args.sizes,
                 "take the bytes of experts, and of all else, from this folder"),
    CLI_ROW_TEXT(0, "expert-bytes", "SIZE", args.expert_bytes,
                 "all experts have so many bytes, such as 4.7MB"),
    CLI_ROW_TEXT(0, "memory", "LIST", args.memory,
                 "memory for experts: shares of them, or sizes (default 25%,50%,75%)"),
    CLI_ROW_TEXT(0, "policy", "LIST", args.policies,
                 "policies, such as lfru,lru; belady is the optimum, which knows the trace\n(default: all)"),
    CLI_ROW_TEXT(0, "expert-profile", "FILE", args.profile,
                 "a usage profile for the policy profile ('moebius eval --profile-out'); needs --sizes"),
    CLI_ROW_INT(0, "half-life", "N", args.half_life, 0, 1e9,
                "tokens after which a use counts half (default 256)"),
    CLI_ROW_TEXTS(0, "link", "RATE[,LATENCY[,DEPTH]]", args.links,
                  "where experts come from: bytes a second, time before each read, reads in flight, such\n"
                  "as 3GB,80us,8; may be given several times (default: reads take no time)"),
    CLI_ROW_TEXT(0, "compute", "RATE", args.compute,
                 "bytes of weights that are multiplied a second (default: products take no time)"),
    CLI_ROW_TEXT(0, "check", "RATE", args.check,
                 "bytes of experts that a thread checks a second (default: checks take no time)"),
    CLI_ROW_INT('t', "threads", "N", args.n_threads, 0, 64,
                "threads that multiply and check: checks take time from products (default: they do not)"),
    CLI_ROW_TEXT(0, "dense-bytes", "SIZE", args.dense_bytes,
                 "weights beside those of experts that a token is multiplied with (default: from --sizes)"),
    CLI_ROW_DOUBLE(0, "lookahead", "SHARE", args.lookahead, 0, 1,
                   "guess the next layer's experts, and be right for that share of them (default 0: no\n"
                   "guesses)"),
    CLI_ROW_INT(0, "warm", "N", args.n_warm, 0, 1e9, "leave the first N generated tokens out of the figures"),
    CLI_ROW_INT(0, "pass-tokens", "N", args.n_pass_tokens, 1, 512,
                "tokens of a prompt that go through the layers together at most, as the line about the mode\n"
                "says (default 512)"),
    CLI_ROW_FLAG(0, "all-tokens", args.all_tokens, "feed prompts token by token, too, and count them"),
    CLI_ROW_TEXT(0, "chart", "FILE.svg", args.chart, "draw the hit rates"),
    CLI_ROW_FORMAT("md|json|csv", args.format, CLI_MD | CLI_JSON | CLI_CSV, "table (default), JSON or CSV"),
};

static const struct cli_command command = {
    .name = "simulate",
    .args = "TRACE | --random SPEC  [options]",
    .summary = "Replay routing over cache policies, memory sizes and links.",
    .details = "TRACE is a file of 'moebius trace'. Each policy starts with nothing in memory and sees the "
               "same tokens.\nHits: experts that generated tokens find in memory. Prompts read each layer's "
               "experts once and throw\nnothing out. docs/offload.md says how times are computed.\n\n"
               "  moebius simulate trace.jsonl --sizes MODEL --link 3GB,80us,8 --compute 20GB\n"
               "  moebius simulate --random 'experts=128 used=8 layers=48 top8=44.5% overlap=38%' "
               "--expert-bytes 2.5MB",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .n_args_min = 0,
    .n_args_max = 1,
};

enum { LIST_MAX = 32, WORD_NBYTES = 64 };

struct link {
    const char *text;
    struct mb_link_options options; /* bytes_per_s 0: none */
};

struct work {
    struct mb_trace *trace;
    const struct mb_trace_shape *shape;
    uint64_t *nbytes; /* [n_layers * n_experts] */
    uint64_t all_nbytes, dense_nbytes, shared_nbytes, head_nbytes, compute_bytes_per_s, check_bytes_per_s;
    double *usage; /* NULL: none */
    uint64_t memory[LIST_MAX];
    size_t n_memory;
    char policies[LIST_MAX][WORD_NBYTES];
    size_t n_policies;
    struct link links[LIST_MAX];
    size_t n_links;
    struct simulate_row *rows;
    size_t n_rows;
};

/* ---------------------------------------------------------------- options */

static enum mb_status read_memory(struct work *w, struct mb_error *err)
{
    const char *list = args.memory != NULL ? args.memory : "25%,50%,75%", *word;
    for (size_t n; (word = cli_next_word(&list, &n)) != NULL; w->n_memory++) {
        double share;
        bool is_share = n > 0 && word[n - 1] == '%';
        uint64_t *nbytes = &w->memory[w->n_memory < LIST_MAX ? w->n_memory : 0];
        bool is_right = is_share ? mb_number_parse(word, n - 1, &share) && share > 0 && share <= 100
                                 : cli_unit_bytes(word, n, nbytes);
        if (!is_right || w->n_memory == LIST_MAX)
            return mb_fail(err, MB_USAGE,
                           "--memory '%.60s': up to %d shares such as 25%% or sizes such as 4GiB",
                           args.memory, LIST_MAX);
        if (is_share)
            *nbytes = (uint64_t)ceil(share / 100 * (double)w->all_nbytes);
    }
    return MB_OK;
}

static void add_policy(struct work *w, const char *name, size_t n)
{
    snprintf(w->policies[w->n_policies++], WORD_NBYTES, "%.*s", (int)n, name);
}

static enum mb_status read_policies(struct work *w, struct mb_error *err)
{
    const char *list = args.policies, *word;
    const struct mb_policy_info *info;
    for (size_t n; (word = cli_next_word(&list, &n)) != NULL;) {
        if (w->n_policies == LIST_MAX || n == 0 || n >= WORD_NBYTES)
            return mb_fail(err, MB_USAGE, "--policy '%.60s': names with commas between", args.policies);
        add_policy(w, word, n);
    }
    for (size_t i = 0; args.policies == NULL && (info = mb_policy_info(i)) != NULL; i++)
        if (strcmp(info->name, "profile") != 0 || w->usage != NULL)
            add_policy(w, info->name, strlen(info->name));
    if (args.policies == NULL)
        add_policy(w, "belady", strlen("belady"));
    return MB_OK;
}

static enum mb_status read_links(struct work *w, struct mb_error *err)
{
    for (size_t i = 0; i < args.links.n && i < LIST_MAX; i++) {
        struct link *link = &w->links[w->n_links++];
        link->text = args.links.items[i];
        MB_TRY(cli_link(link->text, &link->options, err));
    }
    if (w->n_links == 0)
        w->links[w->n_links++] = (struct link){.text = "none"};
    return MB_OK;
}

static enum mb_status read_size(const char *option, const char *text, uint64_t *nbytes, struct mb_error *err)
{
    if (text != NULL && !cli_unit_bytes(text, strlen(text), nbytes))
        return mb_fail(err, MB_USAGE, "--%s '%.60s': a size such as 4.7MB", option, text);
    return MB_OK;
}

/* ---------------------------------------------------------------- sizes */

/* The layers of a trace are those of the model that it was recorded from; random ones are as many. */
static enum mb_status take_sizes(struct work *w, const struct cli_model_bytes *bytes, struct mb_error *err)
{
    const uint32_t *layers = mb_trace_layers(w->trace);
    bool is_same = bytes->n_layers == w->shape->n_layers && bytes->n_experts == w->shape->n_experts;
    for (size_t l = 0; is_same && args.random == NULL && l < bytes->n_layers; l++)
        is_same = layers[l] == bytes->layers[l];
    if (!is_same)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: has %zu layers with %zu experts; the trace is of another model (%zu with %zu)",
                       args.sizes, bytes->n_layers, bytes->n_experts, w->shape->n_layers,
                       w->shape->n_experts);
    memcpy(w->nbytes, bytes->experts, bytes->n_layers * bytes->n_experts * sizeof *w->nbytes);
    w->dense_nbytes = bytes->always_nbytes - bytes->embedding_nbytes;
    w->shared_nbytes = bytes->shared_nbytes;
    w->head_nbytes = bytes->head_nbytes;
    if (args.profile == NULL)
        return MB_OK;
    return cli_expert_profile(args.profile, args.sizes, bytes->layers, bytes->n_layers, bytes->n_experts,
                              &w->usage, err);
}

static enum mb_status sizes_of_model(struct work *w, struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    struct cli_model_bytes bytes;
    MB_TRY(mb_checkpoint_open(args.sizes, &ckpt, err));
    enum mb_status status = cli_model_bytes_open(ckpt, &bytes, err);
    if (status == MB_OK) {
        status = take_sizes(w, &bytes, err);
        cli_model_bytes_close(&bytes);
    }
    mb_checkpoint_close(ckpt);
    return status;
}

static enum mb_status find_sizes(struct work *w, struct mb_error *err)
{
    size_t n = w->shape->n_layers * w->shape->n_experts;
    uint64_t each = 0;
    w->nbytes = cli_check_memory(calloc(n, sizeof *w->nbytes));
    MB_TRY(read_size("expert-bytes", args.expert_bytes, &each, err));
    for (size_t e = 0; e < n; e++)
        w->nbytes[e] = each;
    if (args.sizes != NULL)
        MB_TRY(sizes_of_model(w, err));
    for (size_t e = 0; e < n; e++)
        w->all_nbytes += w->nbytes[e];
    MB_TRY(read_size("dense-bytes", args.dense_bytes, &w->dense_nbytes, err));
    MB_TRY(read_size("check", args.check, &w->check_bytes_per_s, err));
    return read_size("compute", args.compute, &w->compute_bytes_per_s, err);
}

static enum mb_status open_trace(struct work *w, const char *path, struct mb_error *err)
{
    struct mb_trace_random random;
    if (args.random == NULL)
        MB_TRY(mb_trace_load(path, &w->trace, err));
    else {
        MB_TRY(mb_trace_random_parse(args.random, &random, err));
        MB_TRY(mb_trace_make(&random, &w->trace, err));
    }
    w->shape = mb_trace_shape(w->trace);
    return MB_OK;
}

/* ---------------------------------------------------------------- running */

static enum mb_status run_one(struct work *w, const struct link *link, const char *policy, uint64_t memory,
                              struct mb_error *err)
{
    struct mb_simulation_options o = {.size = sizeof o,
                                      .policy = policy,
                                      .memory_nbytes = memory,
                                      .nbytes = w->nbytes,
                                      .link = link->options,
                                      .dense_nbytes = w->dense_nbytes,
                                      .shared_nbytes = args.dense_bytes == NULL ? w->shared_nbytes : 0,
                                      .head_nbytes = args.dense_bytes == NULL ? w->head_nbytes : 0,
                                      .compute_bytes_per_s = w->compute_bytes_per_s,
                                      .check_bytes_per_s = w->check_bytes_per_s,
                                      .n_threads = (size_t)args.n_threads,
                                      .half_life = (unsigned)args.half_life,
                                      .usage = w->usage,
                                      .are_all_generated = args.all_tokens,
                                      .n_warm = (size_t)args.n_warm,
                                      .n_pass_tokens = (size_t)args.n_pass_tokens,
                                      .lookahead = args.lookahead};
    struct simulate_row *row = &w->rows[w->n_rows++];
    *row = (struct simulate_row){.policy = policy,
                                 .share = (double)memory / (double)w->all_nbytes,
                                 .link = link->text,
                                 .memory_nbytes = memory};
    MB_TRY(mb_simulate(w->trace, &o, &row->result, err));
    if (row->result.n_tokens == 0)
        return mb_fail(err, MB_BAD_DATA,
                       "the trace has no generated tokens to count; --all-tokens counts those of prompts");
    return MB_OK;
}

static enum mb_status run_all(struct work *w, struct mb_error *err)
{
    size_t n = w->n_links * w->n_policies * w->n_memory;
    w->rows = cli_check_memory(calloc(n, sizeof *w->rows));
    for (size_t i = 0; i < w->n_links; i++)
        for (size_t p = 0; p < w->n_policies; p++)
            for (size_t m = 0; m < w->n_memory; m++)
                MB_TRY(run_one(w, &w->links[i], w->policies[p], w->memory[m], err));
    return MB_OK;
}

/* ---------------------------------------------------------------- output */

struct figures {
    double hits, token_nbytes, tokens_per_s, waiting; /* tokens_per_s 0: no time passes */
};

static struct figures figures_of(const struct simulate_row *row)
{
    const struct mb_simulation *r = &row->result;
    return (struct figures){cli_ratio((double)r->n_hits, (double)r->n_uses),
                            cli_ratio((double)r->read_nbytes, (double)r->n_tokens),
                            cli_ratio(1e9 * (double)r->n_tokens, (double)r->total_ns),
                            cli_ratio((double)r->waited_ns, (double)r->total_ns)};
}

static void print_rate(struct cli_table *table, double rate)
{
    if (rate > 0)
        cli_table_cell(table, rate < 10 ? "%.2f" : "%.1f", rate);
    else
        cli_table_cell(table, "-");
}

static void title_of(const struct work *w, const struct mb_trace_statistics *s, char *title, size_t nbytes)
{
    mb_number_format(
        title, nbytes,
        "%zu layers of %zu experts, %zu used; the 8 most used have %.1f %% of the uses; overlap with "
        "the token before %.1f %%",
        w->shape->n_layers, w->shape->n_experts, w->shape->n_used, 100 * s->top_share, 100 * s->overlap);
}

static void print_table(const struct work *w, const char *title)
{
    static const char *const heads[] = {"policy",     "memory",   "link",      "hits, %",
                                        "MB a token", "tokens/s", "waiting, %"};
    const struct mb_simulation *first = &w->rows[0].result;
    printf("%s\n%llu generated tokens counted; %.1f MB of experts\n\n", title,
           (unsigned long long)first->n_tokens, (double)w->all_nbytes * 1e-6);
    struct cli_table *table = cli_table_new("lrlrrrr", heads);
    for (size_t i = 0; i < w->n_rows; i++) {
        struct figures f = figures_of(&w->rows[i]);
        cli_table_cell(table, "%s", w->rows[i].policy);
        cli_table_cell(table, "%.1f %%", 100 * w->rows[i].share);
        cli_table_cell(table, "%s", w->rows[i].link);
        cli_table_cell(table, "%.1f", 100 * f.hits);
        cli_table_cell(table, "%.2f", f.token_nbytes * 1e-6);
        print_rate(table, f.tokens_per_s);
        print_rate(table, 100 * f.waiting);
    }
    cli_table_print(table);
}

static int print_csv(const struct work *w)
{
    printf(
        "policy,memory_nbytes,memory_share,link,n_tokens,hit_rate,nbytes_per_token,tokens_per_s,waiting\n");
    for (size_t i = 0; i < w->n_rows; i++) {
        const struct simulate_row *row = &w->rows[i];
        struct figures f = figures_of(row);
        char text[256];
        mb_number_format(text, sizeof text, "%.6g,%.6g,%.6g,%.6g", f.hits, f.token_nbytes, f.tokens_per_s,
                         f.waiting);
        printf("%s,%llu,", row->policy, (unsigned long long)row->memory_nbytes);
        char share[32];
        mb_number_format(share, sizeof share, "%.6g", row->share);
        printf("%s,\"%s\",%llu,%s\n", share, row->link, (unsigned long long)row->result.n_tokens, text);
    }
    return 0;
}

static json_t *row_json(const struct simulate_row *row)
{
    struct figures f = figures_of(row);
    const struct mb_simulation *r = &row->result;
    return json_pack("{s:s, s:I, s:f, s:s, s:I, s:I, s:I, s:f, s:f, s:I, s:o, s:f, s:I}", "policy",
                     row->policy, "memory_nbytes", (json_int_t)row->memory_nbytes, "memory_share", row->share,
                     "link", row->link, "n_tokens", (json_int_t)r->n_tokens, "n_uses", (json_int_t)r->n_uses,
                     "n_hits", (json_int_t)r->n_hits, "hit_rate", f.hits, "nbytes_per_token", f.token_nbytes,
                     "prompt_nbytes", (json_int_t)r->prompt_nbytes, "tokens_per_s",
                     f.tokens_per_s > 0 ? json_real(f.tokens_per_s) : json_null(), "waiting", f.waiting,
                     "busy_ns", (json_int_t)r->busy_ns);
}

static int print_all_json(const struct work *w, const struct mb_trace_statistics *s)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < w->n_rows; i++)
        json_array_append_new(rows, row_json(&w->rows[i]));
    return cli_print_json(json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "n_layers", (json_int_t)w->shape->n_layers,
        "n_experts", (json_int_t)w->shape->n_experts, "n_experts_used", (json_int_t)w->shape->n_used,
        "n_tokens", (json_int_t)mb_trace_n_tokens(w->trace), "experts_nbytes", (json_int_t)w->all_nbytes,
        "top8_share", cli_json_real(s->top_share), "overlap", cli_json_real(s->overlap), "overlap_8",
        cli_json_real(s->overlap_8), "experts_in_128_tokens", cli_json_real(s->in_128), "rows", rows));
}

static enum mb_status print(const struct work *w, const char *path, int *exit_status, struct mb_error *err)
{
    *exit_status = 0;
    struct mb_trace_statistics s;
    char title[256];
    MB_TRY(mb_trace_statistics(w->trace, &s, err));
    title_of(w, &s, title, sizeof title);
    if (args.chart != NULL)
        MB_TRY(simulate_chart(w->rows, w->n_rows, title, args.chart, path != NULL ? path : "", err));
    if (args.format == CLI_JSON)
        *exit_status = print_all_json(w, &s);
    else if (args.format == CLI_CSV)
        *exit_status = print_csv(w);
    else
        print_table(w, title);
    return MB_OK;
}

static enum mb_status simulate(struct work *w, const char *path, int *exit_status, struct mb_error *err)
{
    MB_TRY(read_links(w, err));
    MB_TRY(open_trace(w, path, err));
    MB_TRY(find_sizes(w, err));
    if (w->all_nbytes == 0)
        return mb_fail(err, MB_USAGE, "the experts have no bytes: give --sizes MODEL or --expert-bytes SIZE");
    MB_TRY(read_memory(w, err));
    MB_TRY(read_policies(w, err));
    MB_TRY(run_all(w, err));
    return print(w, path, exit_status, err);
}

static const char *wrong_usage(size_t n_args)
{
    if ((n_args == 0) == (args.random == NULL))
        return "give a TRACE or --random SPEC";
    if ((args.sizes == NULL) == (args.expert_bytes == NULL))
        return "give the bytes of experts: --sizes MODEL or --expert-bytes SIZE";
    if (args.profile != NULL && args.sizes == NULL)
        return "--expert-profile needs --sizes MODEL, whose profile it is";
    return NULL;
}

int cli_simulate(int argc, char **argv)
{
    const char *names[CLI_ARGS_MAX];
    size_t n_names;
    int exit_status;
    args.format = CLI_MD;
    if (!cli_parse(&command, argc, argv, names, &n_names, &exit_status))
        return exit_status;
    const char *wrong = wrong_usage(n_names);
    if (wrong != NULL)
        return cli_usage_error(&command, "%s", wrong);
    struct work *w = cli_check_memory(calloc(1, sizeof *w));
    struct mb_error err;
    enum mb_status status = simulate(w, names[0], &exit_status, &err);
    mb_trace_close(w->trace);
    free(w->nbytes);
    free(w->usage);
    free(w->rows);
    free(w);
    return status == MB_OK ? exit_status : cli_fail(&err);
}
