/*
 * doctor_products.c - how fast coded experts are multiplied: some of the model's own, with one vector, on all
 * threads.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli.h"
#include "doctor.h"
#include "machine.h"
#include <moebius/codec.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { N_BLOBS_MAX = 256, N_PASSES = 3, SEED = 12345, THREADS_MAX = 256, READ_NBYTES = 128 << 20 };
static const uint64_t nbytes_max = UINT64_C(192) << 20, pass_ns = 60000000;

struct sample {
    uint8_t *bytes[N_BLOBS_MAX]; /* each with slack after it */
    struct mb_blob blobs[N_BLOBS_MAX];
    size_t n;
    uint64_t nbytes;
    int n_threads;
};

struct worker {
    pthread_t thread;
    const struct sample *sample;
    int number;
    uint64_t nbytes; /* multiplied */
    double seconds;
    bool has_memory;
};

static enum mb_status read_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                struct sample *sample, struct mb_error *err)
{
    uint8_t *bytes = mb_alloc(tensor->nbytes + MB_SLACK_NBYTES, 1);
    if (bytes == NULL)
        return mb_fail_memory(err, "a measurement");
    sample->bytes[sample->n] = bytes;
    enum mb_status status = mb_checkpoint_read(ckpt, tensor, 0, bytes, tensor->nbytes, err);
    if (status == MB_OK)
        status = mb_blob_open(bytes, tensor->nbytes, &sample->blobs[sample->n], err);
    sample->n++;
    sample->nbytes += tensor->nbytes;
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "%s", tensor->name);
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

static void multiply(struct worker *w, struct vectors *v)
{
    const struct mb_kernels *kernels = mb_kernels();
    uint64_t begun_ns = mb_now_ns();
    for (size_t i = (size_t)w->number; mb_now_ns() - begun_ns < pass_ns; i += (size_t)w->sample->n_threads) {
        const struct mb_blob *blob = &w->sample->blobs[i % w->sample->n];
        for (size_t k = 0; k < blob->n_matrices; k++) {
            const struct mb_coded_matrix *matrix = &blob->matrix[k];
            struct mb_activation a;
            kernels->activation(v->x, matrix->n_cols, v->hi, v->lo, v->wide, &a);
            kernels->matvec(matrix, 0, matrix->n_rows, &a, v->y);
        }
        w->nbytes += blob->nbytes;
    }
    w->seconds = cli_seconds_since(begun_ns);
}

static void *work(void *ctx)
{
    struct worker *w = ctx;
    struct vectors v;
    w->has_memory = vectors_open(&v, w->sample);
    if (w->has_memory)
        multiply(w, &v);
    vectors_close(&v);
    return NULL;
}

static double run_pass(const struct sample *sample)
{
    struct worker workers[THREADS_MAX];
    double rate = 0;
    int n = 0;
    for (; n < sample->n_threads; n++) {
        workers[n] = (struct worker){.sample = sample, .number = n};
        if (pthread_create(&workers[n].thread, NULL, work, &workers[n]) != 0)
            break;
    }
    for (int i = 0; i < n; i++) {
        pthread_join(workers[i].thread, NULL);
        rate += workers[i].has_memory && workers[i].seconds > 0
                    ? (double)workers[i].nbytes / workers[i].seconds
                    : 0;
    }
    return rate;
}

enum mb_status doctor_measure_products(const struct mb_checkpoint *ckpt, int n_threads, double *bytes_per_s,
                                       bool *is_coded, struct mb_error *err)
{
    struct sample *sample = cli_check_memory(calloc(1, sizeof *sample));
    sample->n_threads = n_threads < THREADS_MAX ? n_threads : THREADS_MAX;
    enum mb_status status = read_sample(ckpt, sample, err);
    *bytes_per_s = 0;
    *is_coded = sample->n > 0;
    for (int i = 0; i < N_PASSES && status == MB_OK && *is_coded; i++) {
        double rate = run_pass(sample);
        *bytes_per_s = rate > *bytes_per_s ? rate : *bytes_per_s;
    }
    if (status == MB_OK && !*is_coded)
        *bytes_per_s = cli_memory_rate(READ_NBYTES, n_threads);
    sample_close(sample);
    free(sample);
    return status;
}
