/*
 * bench_codecs_measure.c - a codec at a bound on all matrices: sizes and errors first, then rates.
 *
 * Inside the window: calls of the codec alone.  On one thread the thread's processor time counts, so that
 * other programs' turns do not; for all threads, each with matrices of its own, the time that passes.  The
 * best of the repetitions counts.  Each thread encodes to the same memory and decodes to the same memory
 * again and again, as a program does that needs one expert after another.
 */
#include "base/clock.h"
#include "base/error.h"
#include "bench_codecs.h"
#include "cli.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A window is repeated inside until it takes that long; measuring a codec ends after a second. */
enum { WINDOW_MS = 4, ENOUGH_MS = 1000, N_LOOPS_MAX = 64 };

struct pass {
    struct bench_work *work;
    struct bench_row *row;
    enum { ENCODE, DECODE, CHECK, PRODUCT } what;
    struct mb_error *errors; /* [matrices] */
};

/* ---------------------------------------------------------------- sizes and errors */

static enum mb_status code_matrix(struct pass *pass, struct bench_matrix *m, struct bench_scratch *scratch,
                                  struct mb_error *err)
{
    const struct mb_codec *codec = pass->row->codec;
    MB_TRY(mb_codec_encode(codec, &m->codec, scratch->bytes, scratch->bytes_cap, &m->coded_nbytes, err));
    m->coded = calloc(m->coded_nbytes + MB_SLACK_NBYTES, 1);
    if (m->coded == NULL)
        return mb_fail_memory(err, "coded weights");
    memcpy(m->coded, scratch->bytes, m->coded_nbytes);
    MB_TRY(
        mb_codec_open(codec, m->coded, m->coded_nbytes, m->codec.n_rows, m->codec.n_cols, &m->opened, err));
    MB_TRY(mb_codec_decode_opened(m->opened, scratch->decoded, err));
    mb_codec_error_add(&m->error, m->codec.values, scratch->decoded, m->codec.n_rows * m->codec.n_cols);
    return MB_OK;
}

static void forget_coded(struct bench_matrix *m)
{
    mb_codec_close(m->opened);
    free(m->coded);
    m->opened = NULL;
    m->coded = NULL;
}

static void code_task(void *ctx, size_t task, int thread)
{
    struct pass *pass = ctx;
    struct bench_matrix *m = &pass->work->matrices->at[task];
    const struct mb_weight_stats *stats = &pass->work->matrices->experts[m->expert].stats;
    forget_coded(m);
    m->error = (struct mb_codec_error){0};
    m->codec.eps = pass->row->has_bound ? mb_bound_eps(&pass->row->bound, stats) : 0;
    pass->errors[task].status = MB_OK;
    if (code_matrix(pass, m, &pass->work->scratch[thread], &pass->errors[task]) != MB_OK)
        forget_coded(m);
}

static void add_matrix(struct bench_row *row, const struct bench_matrix *m,
                       const struct mb_weight_stats *stats, double *nbytes, struct mb_codec_error *sum,
                       double *square)
{
    double mean = stats->sum_abs / (double)stats->n, met = m->error.err_max / mean;
    double worst = row->has_bound ? m->error.err_max / m->codec.eps : NAN;
    row->n_matrices++;
    row->n_weights += m->error.n;
    row->met = met > row->met ? met : row->met;
    row->worst = row->has_bound ? fmax(row->worst, worst) : NAN;
    *nbytes += (double)m->coded_nbytes;
    *square += m->error.sum_square / (mean * mean);
    sum->sum_square += m->error.sum_square;
    sum->sum_weight_square += m->error.sum_weight_square;
}

static void sum_up(struct pass *pass)
{
    struct bench_row *row = pass->row;
    const struct bench_matrices *all = pass->work->matrices;
    struct mb_codec_error sum = {0};
    double nbytes = 0, square = 0;
    for (size_t i = 0; i < all->n; i++)
        if (all->at[i].coded != NULL)
            add_matrix(row, &all->at[i], &all->experts[all->at[i].expert].stats, &nbytes, &sum, &square);
        else
            snprintf(row->refusal, sizeof row->refusal, "%.150s", pass->errors[i].msg);
    if (row->n_matrices == 0)
        return;
    row->bits = 8 * nbytes / (double)row->n_weights;
    row->rms = sqrt(square / (double)row->n_weights);
    row->sqnr = 10 * log10(sum.sum_weight_square / sum.sum_square);
    row->is_kept = row->worst <= 1;
}

/* ---------------------------------------------------------------- rates */

/* What was coded once is coded again: nothing fails that did not before. */
static void timed_task(void *ctx, size_t task, int thread)
{
    struct pass *pass = ctx;
    const struct bench_matrix *m = &pass->work->matrices->at[task % pass->work->matrices->n];
    struct bench_scratch *scratch = &pass->work->scratch[thread];
    struct mb_codec_opened *opened;
    size_t nbytes;
    if (m->coded == NULL)
        return;
    if (pass->what == ENCODE)
        mb_codec_encode(pass->row->codec, &m->codec, scratch->bytes, scratch->bytes_cap, &nbytes, NULL);
    if (pass->what == DECODE)
        mb_codec_decode_opened(m->opened, scratch->decoded, NULL);
    if (pass->what == PRODUCT)
        mb_codec_multiply(m->opened, scratch->x, scratch->y, NULL);
    if (pass->what == CHECK && mb_codec_open(pass->row->codec, m->coded, m->coded_nbytes, m->codec.n_rows,
                                             m->codec.n_cols, &opened, NULL) == MB_OK)
        mb_codec_close(opened);
}

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double window(struct pass *pass, enum bench_threads threads, size_t n_loops)
{
    size_t n_tasks = n_loops * pass->work->matrices->n;
    if (threads == ALL_THREADS) {
        uint64_t begun_ns = mb_now_ns();
        mb_pool_run(pass->work->pool, n_tasks, timed_task, pass);
        return cli_seconds_since(begun_ns);
    }
    bool is_cpu_time = !pass->row->codec->has_own_threads;
    uint64_t begun_ns = mb_now_ns();
    double begun = thread_seconds();
    for (size_t i = 0; i < n_tasks; i++)
        timed_task(pass, i, 0);
    return is_cpu_time ? thread_seconds() - begun : cli_seconds_since(begun_ns);
}

/* Weights a second, of the best window. */
static double rate_of(struct pass *pass, enum bench_threads threads)
{
    uint64_t begun_ns = mb_now_ns();
    size_t n_loops = 1;
    double best = window(pass, threads, 1);
    if (best * 1e3 < WINDOW_MS) {
        double wanted = WINDOW_MS / (best * 1e3 + 1e-6) + 1;
        n_loops = wanted < N_LOOPS_MAX ? (size_t)wanted : N_LOOPS_MAX;
    }
    for (int k = 1; k < pass->work->n_repeats && cli_seconds_since(begun_ns) * 1e3 < ENOUGH_MS; k++) {
        double seconds = window(pass, threads, n_loops) / (double)n_loops;
        best = seconds < best ? seconds : best;
    }
    return (double)pass->row->n_weights / best;
}

enum mb_status bench_codecs_measure(struct bench_work *work, struct bench_row *row, struct mb_error *err)
{
    struct pass pass = {.work = work, .row = row};
    pass.errors = cli_check_memory(calloc(work->matrices->n, sizeof *pass.errors));
    mb_pool_run(work->pool, work->matrices->n, code_task, &pass);
    sum_up(&pass);
    /* A matrix that the codec does not take is left out; any other failure is one. */
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < work->matrices->n && status == MB_OK; i++)
        if (pass.errors[i].status != MB_UNSUPPORTED)
            status = mb_pass_on(err, pass.errors[i].status, &pass.errors[i]);
    for (int k = ONE_THREAD; k < N_THREAD_COUNTS && status == MB_OK && row->n_matrices > 0; k++)
        for (pass.what = ENCODE; pass.what <= DECODE && !cli_interrupted(); pass.what++)
            *(pass.what == ENCODE ? &row->encode_rate[k] : &row->decode_rate[k]) =
                rate_of(&pass, (enum bench_threads)k);
    pass.what = CHECK;
    if (status == MB_OK && row->codec->has_check && row->n_matrices > 0)
        row->check_rate = rate_of(&pass, ONE_THREAD);
    pass.what = PRODUCT;
    if (status == MB_OK && row->codec->has_product && row->n_matrices > 0)
        row->product_rate = rate_of(&pass, ONE_THREAD);
    free(pass.errors);
    if (status == MB_OK && cli_interrupted())
        status = mb_fail(err, MB_CANCELLED, "interrupted");
    return status;
}
