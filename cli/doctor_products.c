/*
 * doctor_products.c - how fast coded experts are checked and multiplied: some of the model's own, with one
 * vector, as many together as a token uses in a layer, in two stages as the engine does it.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/pool.h"
#include "cli.h"
#include "doctor.h"
#include "machine.h"
#include <moebius/codec.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    N_BLOBS_MAX = 256,
    SEED = 12345,
    READ_NBYTES = 128 << 20,
    N_STAGES = 2000,
    N_WAKES = 60,
    PAUSE_NS = 300000
};
static const uint64_t nbytes_max = UINT64_C(192) << 20, time_ns = 250000000;

struct sample {
    uint8_t *bytes[N_BLOBS_MAX]; /* each with slack after it */
    struct mb_blob blobs[N_BLOBS_MAX];
    size_t n;
    uint64_t nbytes, opened_ns; /* of all; in which they were checked */
};

static enum mb_status read_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                struct sample *sample, struct mb_error *err)
{
    uint8_t *bytes = mb_alloc(tensor->nbytes + MB_SLACK_NBYTES, 1);
    if (bytes == NULL)
        return mb_fail_memory(err, "a measurement");
    enum mb_status status = mb_checkpoint_read(ckpt, tensor, 0, bytes, tensor->nbytes, err);
    if (status != MB_OK) {
        free(bytes);
        return status;
    }
    uint64_t begun_ns = mb_now_ns();
    sample->bytes[sample->n] = bytes;
    status = mb_blob_open(bytes, tensor->nbytes, &sample->blobs[sample->n], err);
    sample->opened_ns += mb_now_ns() - begun_ns;
    sample->n++;
    sample->nbytes += tensor->nbytes;
    return status == MB_OK
               ? MB_OK
               : mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(ckpt, tensor), tensor->name);
}

static enum mb_status read_sample(const struct mb_checkpoint *ckpt, struct sample *sample,
                                  struct mb_error *err)
{
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        bool is_full = sample->n == N_BLOBS_MAX || sample->nbytes + tensor->nbytes > nbytes_max;
        if (!is_full && mb_tensor_is_blob(ckpt, tensor) && mb_role_of(tensor->name).role == MB_ROLE_EXPERT)
            MB_TRY(read_blob(ckpt, tensor, sample, err));
    }
    return MB_OK;
}

static void sample_close(struct sample *sample)
{
    for (size_t i = 0; i < sample->n; i++) {
        mb_blob_close(&sample->blobs[i]);
        free(sample->bytes[i]);
    }
}

/* ---------------------------------------------------------------- products */

struct vectors {
    float *x, *y;
    int8_t *hi, *lo;
    void *wide;
};

static bool vectors_open(struct vectors *v, const struct sample *sample)
{
    size_t n = 0, n_rows = 0;
    for (size_t i = 0; i < sample->n; i++)
        for (size_t k = 0; k < sample->blobs[i].n_matrices; k++) {
            const struct mb_coded_matrix *w = &sample->blobs[i].matrix[k];
            n = w->n_cols > n ? w->n_cols : n;
            n_rows = w->n_rows > n_rows ? (size_t)w->n_rows : n_rows;
        }
    *v = (struct vectors){.x = mb_alloc(n, sizeof *v->x),
                          .y = mb_alloc(n_rows, sizeof *v->y),
                          .hi = mb_alloc(mb_activation_plane_nbytes(n), 1),
                          .lo = mb_alloc(mb_activation_plane_nbytes(n), 1),
                          .wide = mb_alloc(mb_activation_wide_nbytes(n), 1)};
    uint32_t random = SEED;
    for (size_t i = 0; v->x != NULL && i < n; i++) {
        random = random * 1664525 + 1013904223;
        v->x[i] = (float)(random >> 8) * 0x1p-23F - 1;
    }
    return v->x != NULL && v->y != NULL && v->hi != NULL && v->lo != NULL && v->wide != NULL;
}

static void vectors_close(struct vectors *v)
{
    free(v->x);
    free(v->y);
    free(v->hi);
    free(v->lo);
    free(v->wide);
}

/* A stage: products of 'n' blobs from 'first' on with their matrices [from, end). */
struct stage {
    const struct sample *sample;
    struct vectors *vectors; /* [threads] */
    size_t first, n, from, end;
};

static void multiply(void *ctx, size_t task, int thread)
{
    const struct stage *stage = ctx;
    const struct mb_kernels *kernels = mb_kernels();
    const struct vectors *v = &stage->vectors[thread];
    const struct mb_blob *blob = &stage->sample->blobs[(stage->first + task % stage->n) % stage->sample->n];
    size_t k = stage->from + task / stage->n;
    if (k >= blob->n_matrices)
        return;
    struct mb_activation a;
    kernels->activation(v->x, blob->matrix[k].n_cols, v->hi, v->lo, v->wide, &a);
    kernels->matvec(&blob->matrix[k], 0, blob->matrix[k].n_rows, &a, v->y);
}

static void run_stage(struct mb_pool *pool, struct stage *stage, size_t from, size_t end)
{
    stage->from = from;
    stage->end = end;
    mb_pool_run(pool, stage->n * (end - from), multiply, stage);
}

/* Whole waves for a while: gate and up together, then down. */
static double measure_rate(struct mb_pool *pool, struct stage *stage)
{
    uint64_t begun_ns = mb_now_ns(), nbytes = 0;
    const struct sample *sample = stage->sample;
    size_t n_matrices = sample->blobs[0].n_matrices;
    while (mb_now_ns() - begun_ns < time_ns) {
        if (n_matrices > 1)
            run_stage(pool, stage, 0, n_matrices - 1);
        run_stage(pool, stage, n_matrices - 1, n_matrices);
        for (size_t i = 0; i < stage->n; i++)
            nbytes += sample->blobs[(stage->first + i) % sample->n].nbytes;
        stage->first = (stage->first + stage->n) % sample->n;
    }
    return (double)nbytes / cli_seconds_since(begun_ns);
}

static void do_nothing(void *ctx, size_t task, int thread)
{
    (void)ctx, (void)task, (void)thread;
}

static uint64_t measure_stage(struct mb_pool *pool)
{
    uint64_t begun_ns = mb_now_ns();
    for (int i = 0; i < N_STAGES; i++)
        mb_pool_run(pool, (size_t)mb_pool_n_threads(pool), do_nothing, NULL);
    return (mb_now_ns() - begun_ns) / N_STAGES;
}

/* A thread that waits to be woken. */
struct waking {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_called, is_over;
    uint64_t woken_ns;
};

static void *wait_to_be_woken(void *ctx)
{
    struct waking *w = ctx;
    pthread_mutex_lock(&w->lock);
    while (!w->is_over) {
        if (w->is_called) {
            w->woken_ns = mb_now_ns();
            w->is_called = false;
            pthread_cond_broadcast(&w->changed);
        }
        pthread_cond_wait(&w->changed, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Processors are asleep then, as while experts are read. */
static uint64_t wake(struct waking *w)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    nanosleep(&pause, NULL);
    pthread_mutex_lock(&w->lock);
    uint64_t begun_ns = mb_now_ns();
    w->is_called = true;
    pthread_cond_broadcast(&w->changed);
    while (w->is_called)
        pthread_cond_wait(&w->changed, &w->lock);
    uint64_t ns = w->woken_ns - begun_ns;
    pthread_mutex_unlock(&w->lock);
    return ns;
}

static uint64_t measure_wake(void)
{
    struct waking w = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t thread;
    uint64_t sum_ns = 0;
    if (pthread_create(&thread, NULL, wait_to_be_woken, &w) != 0)
        return 0;
    for (int i = 0; i < N_WAKES; i++)
        sum_ns += wake(&w);
    pthread_mutex_lock(&w.lock);
    w.is_over = true;
    pthread_cond_broadcast(&w.changed);
    pthread_mutex_unlock(&w.lock);
    pthread_join(thread, NULL);
    return sum_ns / N_WAKES;
}

static enum mb_status measure(const struct sample *sample, struct mb_pool *pool, size_t n_used,
                              struct doctor_products *result, struct mb_error *err)
{
    size_t n_threads = (size_t)mb_pool_n_threads(pool);
    struct vectors *vectors = cli_check_memory(calloc(n_threads, sizeof *vectors));
    struct stage stage = {.sample = sample, .vectors = vectors, .n = n_used < sample->n ? n_used : sample->n};
    bool has_memory = true;
    for (size_t i = 0; i < n_threads && has_memory; i++)
        has_memory = vectors_open(&vectors[i], sample);
    result->stage_ns = measure_stage(pool);
    result->wake_ns = measure_wake();
    if (has_memory && sample->n > 0)
        result->bytes_per_s = measure_rate(pool, &stage);
    for (size_t i = 0; i < n_threads; i++)
        vectors_close(&vectors[i]);
    free(vectors);
    return has_memory ? MB_OK : mb_fail_memory(err, "a measurement");
}

enum mb_status doctor_measure_products(const struct mb_checkpoint *ckpt, int n_threads, size_t n_used,
                                       struct doctor_products *result, struct mb_error *err)
{
    struct sample *sample = cli_check_memory(calloc(1, sizeof *sample));
    struct mb_pool *pool = NULL;
    *result = (struct doctor_products){.memory_bytes_per_s = cli_memory_rate(READ_NBYTES, n_threads)};
    enum mb_status status = mb_pool_create(n_threads, &pool, err);
    if (status == MB_OK)
        status = read_sample(ckpt, sample, err);
    if (status == MB_OK)
        status = measure(sample, pool, n_used, result, err);
    if (sample->opened_ns > 0)
        result->check_bytes_per_s = (double)sample->nbytes * 1e9 / (double)sample->opened_ns;
    mb_pool_destroy(pool);
    sample_close(sample);
    free(sample);
    return status;
}
