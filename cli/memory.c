/*
 * memory.c - the limit of memory, and words about streaming.
 */
#include "memory.h"
#include "report.h"
#include "units.h"
#include <stdio.h>
#include <string.h>

bool cli_memory(const char *text, uint64_t *nbytes)
{
    *nbytes = 0;
    return text == NULL || (cli_unit_bytes(text, strlen(text), nbytes) && *nbytes > 0);
}

void cli_print_mode(const struct mb_model_info *info, bool is_asked)
{
    const struct mb_store_memory *m = &info->memory;
    char held[32], all[32], limit[32], passes[64] = "";
    if (m->reads == MB_READS_NONE && !is_asked)
        return;
    cli_bytes(limit, info->memory_nbytes);
    if (info->n_pass_tokens < info->n_step_tokens)
        snprintf(passes, sizeof passes, ", prompts in passes of %zu tokens", info->n_pass_tokens);
    if (m->reads == MB_READS_NONE) {
        cli_bytes(all, m->blob_nbytes + m->table_nbytes + m->exact_nbytes + m->mapped_nbytes);
        fprintf(stderr, "moebius: mode: in memory, %s of weights (of %s that may be used)%s\n", all, limit,
                passes);
        return;
    }
    fprintf(stderr, "moebius: mode: streaming, %s of %s of experts in memory (%s may be used in all%s)%s\n",
            cli_bytes(held, m->held_nbytes), cli_bytes(all, m->expert_nbytes), limit,
            is_asked ? "" : ": that is available", passes);
    if (m->reads == MB_READS_THREADS)
        fprintf(stderr, "moebius: experts are read by threads: %s\n", m->reads_reason);
}

void cli_print_reads(const struct mb_model *model)
{
    static bool is_said;
    if (is_said || model == NULL || !mb_model_traffic(model).has_left_io_uring)
        return;
    is_said = true;
    fprintf(stderr,
            "moebius: io_uring was given up: the kernel took no reads any more, threads read since then\n");
}

/* An mb_cancel_fn. */
static bool is_interrupted(void *ctx)
{
    (void)ctx;
    return cli_interrupted();
}

void cli_stop_at_interrupts(struct mb_model *model)
{
    mb_model_cancel_when(model, is_interrupted, NULL);
}

struct mb_store_traffic cli_traffic_since(const struct mb_store_traffic *now,
                                          const struct mb_store_traffic *before)
{
    return (struct mb_store_traffic){
        .n_acquired = now->n_acquired - before->n_acquired,
        .n_misses = now->n_misses - before->n_misses,
        .n_read = now->n_read - before->n_read,
        .n_hinted = now->n_hinted - before->n_hinted,
        .n_hints_used = now->n_hints_used - before->n_hints_used,
        .read_nbytes = now->read_nbytes - before->read_nbytes,
        .waited_ns = now->waited_ns - before->waited_ns,
        .busy_ns = now->busy_ns - before->busy_ns,
        .checked_ns = now->checked_ns - before->checked_ns,
        .has_left_io_uring = now->has_left_io_uring,
    };
}

const char *cli_traffic(char text[CLI_TRAFFIC_NBYTES], const struct mb_store_traffic *t, size_t n_tokens,
                        double seconds)
{
    char read[32];
    double hits = t->n_acquired > 0 ? 100 * (1 - (double)t->n_misses / (double)t->n_acquired) : 100;
    double ns = seconds > 0 ? seconds * 1e9 : 1;
    snprintf(text, CLI_TRAFFIC_NBYTES,
             "hits %.1f %%, %s read a token, %.0f %% of the time waiting, disk busy %.0f %%", hits,
             cli_bytes(read, n_tokens > 0 ? t->read_nbytes / n_tokens : 0), 100 * (double)t->waited_ns / ns,
             100 * (double)t->busy_ns / ns);
    return text;
}
