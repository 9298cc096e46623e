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
    PAGE = 4096,
    SEED = 12345,
    READ_NBYTES = 128 << 20,
    N_STAGES = 2000,
    N_WAKES = 60,
    N_AWAKE = 3,
    N_FEW = 4,
    FEW_NBYTES = 1 << 20,
    PAUSE_NS = 400000,
    PIECE_WEIGHTS = 1 << 17 /* as the engine's: rows that a thread multiplies at a time */
};
static const uint64_t nbytes_max = UINT64_C(192) << 20, time_ns = 250000000;

/* Large ones, as the engine's: memory that things are put into one after another. */
struct pages {
    uint8_t *bytes;
    uint64_t nbytes, n_taken;
};

static bool pages_open(struct pages *pages, uint64_t nbytes)
{
    *pages = (struct pages){.bytes = mb_pages_alloc(nbytes), .nbytes = nbytes};
    return pages->bytes != NULL;
}

/* There is room. */
static uint8_t *pages_take(struct pages *pages, uint64_t nbytes)
{
    uint8_t *bytes = pages->bytes + pages->n_taken;
    pages->n_taken += (nbytes + MB_SLACK_NBYTES + PAGE - 1) / PAGE * PAGE;
    return bytes;
}

struct sample {
    const struct mb_tensor *tensors[N_BLOBS_MAX];
    struct pages stored, fast; /* blobs, and matrices in the fast form, each with slack after it */
    struct mb_blob blobs[N_BLOBS_MAX];
    size_t n;
    uint64_t nbytes, opened_ns; /* of all; in which they were checked */
};

static enum mb_status read_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                struct sample *sample, struct mb_error *err)
{
    uint8_t *bytes = pages_take(&sample->stored, tensor->nbytes);
    MB_TRY(mb_checkpoint_read(ckpt, tensor, 0, bytes, tensor->nbytes, err));
    uint64_t begun_ns = mb_now_ns();
    enum mb_status status = mb_blob_open(bytes, tensor->nbytes, &sample->blobs[sample->n], err);
    sample->opened_ns += mb_now_ns() - begun_ns;
    sample->tensors[sample->n++] = tensor;
    sample->nbytes += tensor->nbytes;
    return status == MB_OK
               ? MB_OK
               : mb_fail_in(err, status, "%s: tensor %s", mb_tensor_path(ckpt, tensor), tensor->name);
}

/* Experts, or what every token is multiplied with before a layer's experts. */
static bool is_wanted(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, bool of_experts)
{
    const enum mb_role role = mb_role_of(tensor->name).role;
    if (!mb_tensor_is_blob(ckpt, tensor))
        return false;
    if (of_experts || role == MB_ROLE_EXPERT)
        return of_experts && role == MB_ROLE_EXPERT;
    return role != MB_ROLE_EMBEDDING && role != MB_ROLE_SHARED_EXPERT &&
           mb_tensor_is_text(ckpt, tensor->name) && strstr(tensor->name, "lm_head.") == NULL;
}

static enum mb_status read_sample(const struct mb_checkpoint *ckpt, bool of_experts, struct sample *sample,
                                  struct mb_error *err)
{
    if (!pages_open(&sample->stored, nbytes_max + (uint64_t)N_BLOBS_MAX * (MB_SLACK_NBYTES + PAGE)))
        return mb_fail_memory(err, "a measurement");
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        bool is_full = sample->n == N_BLOBS_MAX || sample->nbytes + tensor->nbytes > nbytes_max;
        if (!is_full && is_wanted(ckpt, tensor, of_experts))
            MB_TRY(read_blob(ckpt, tensor, sample, err));
    }
    return MB_OK;
}

static void sample_close(struct sample *sample)
{
    for (size_t i = 0; i < sample->n; i++)
        mb_blob_close(&sample->blobs[i]);
    mb_pages_free(sample->stored.bytes, sample->stored.nbytes);
    mb_pages_free(sample->fast.bytes, sample->fast.nbytes);
}

/* ---------------------------------------------------------------- products */

struct piece {
    const struct mb_coded_matrix *w;
    uint64_t row, n_rows;
};

/* Products of one stage, as the engine splits them. */
struct stage {
    struct mb_pool *pool;
    const struct mb_kernels *kernels;
    struct piece *pieces;
    size_t n_pieces, n_pieces_max;
    float *x, *y; /* y: [threads][n_rows_max] */
    int8_t *hi, *lo;
    void *wide;
    struct mb_activation activation;
    size_t n_rows_max; /* of a piece */
};

static size_t piece_rows(const struct mb_coded_matrix *w)
{
    const size_t rows = PIECE_WEIGHTS / w->n_cols, tile_rows = mb_tile_rows(w->n_cols);
    return rows < tile_rows ? tile_rows : rows / tile_rows * tile_rows;
}

/* Room for all matrices of a sample together. */
static bool stage_open(struct stage *stage, struct mb_pool *pool, const struct sample *sample)
{
    size_t n = 1;
    *stage = (struct stage){.pool = pool, .kernels = mb_kernels(), .n_rows_max = 1};
    for (size_t i = 0; i < sample->n; i++)
        for (size_t k = 0; k < sample->blobs[i].n_matrices; k++) {
            const struct mb_coded_matrix *w = &sample->blobs[i].matrix[k];
            const size_t rows = piece_rows(w);
            n = w->n_cols > n ? w->n_cols : n;
            stage->n_rows_max = rows > stage->n_rows_max ? rows : stage->n_rows_max;
            stage->n_pieces_max += (size_t)((w->n_rows + rows - 1) / rows);
        }
    stage->pieces = mb_alloc(stage->n_pieces_max, sizeof *stage->pieces);
    stage->x = mb_alloc(n, sizeof *stage->x);
    stage->y = mb_alloc(stage->n_rows_max * (size_t)mb_pool_n_threads(pool), sizeof *stage->y);
    stage->hi = mb_alloc(mb_activation_plane_nbytes(n), 1);
    stage->lo = mb_alloc(mb_activation_plane_nbytes(n), 1);
    stage->wide = mb_alloc(mb_activation_wide_nbytes(n), 1);
    uint32_t random = SEED;
    for (size_t i = 0; stage->x != NULL && i < n; i++) {
        random = random * 1664525 + 1013904223;
        stage->x[i] = (float)(random >> 8) * 0x1p-23F - 1;
    }
    return stage->pieces != NULL && stage->x != NULL && stage->y != NULL && stage->hi != NULL &&
           stage->lo != NULL && stage->wide != NULL;
}

static void stage_close(struct stage *stage)
{
    free(stage->pieces);
    free(stage->x);
    free(stage->y);
    free(stage->hi);
    free(stage->lo);
    free(stage->wide);
}

static void add(struct stage *stage, const struct mb_coded_matrix *w)
{
    const uint64_t rows = piece_rows(w);
    for (uint64_t row = 0; stage->pieces != NULL && row < w->n_rows; row += rows)
        stage->pieces[stage->n_pieces++] =
            (struct piece){w, row, w->n_rows - row < rows ? w->n_rows - row : rows};
}

static void multiply(void *ctx, size_t task, int thread)
{
    const struct stage *stage = ctx;
    const struct piece *piece = &stage->pieces[task];
    mb_prefetch_rows(piece->w, piece->row);
    stage->kernels->matvec(piece->w, piece->row, piece->n_rows, &stage->activation,
                           stage->y + (size_t)thread * stage->n_rows_max);
}

/* With a vector that so many products have each their own of. */
static void run(struct stage *stage, size_t n_vectors)
{
    for (size_t i = 0; i < n_vectors && stage->pieces != NULL; i++)
        stage->kernels->activation(stage->x, stage->pieces[0].w->n_cols, stage->hi, stage->lo, stage->wide,
                                   &stage->activation);
    mb_pool_run(stage->pool, stage->n_pieces, multiply, stage);
    stage->n_pieces = 0;
}

/* Whole waves of 'n' experts for a while: gate and up together, then down. Returns their bytes a second. */
static double rate_of_experts(struct stage *stage, const struct sample *sample, size_t n)
{
    const uint64_t begun_ns = mb_now_ns();
    uint64_t nbytes = 0;
    for (size_t first = 0; mb_now_ns() - begun_ns < time_ns; first = (first + n) % sample->n) {
        for (size_t i = 0; i < n; i++) {
            const size_t at = (first + i) % sample->n;
            for (size_t k = 0; k + 1 < sample->blobs[at].n_matrices; k++)
                add(stage, &sample->blobs[at].matrix[k]);
            nbytes += sample->tensors[at]->nbytes;
        }
        run(stage, 1);
        for (size_t i = 0; i < n; i++) {
            const struct mb_blob *blob = &sample->blobs[(first + i) % sample->n];
            add(stage, &blob->matrix[blob->n_matrices - 1]);
        }
        run(stage, n);
    }
    return (double)nbytes / cli_seconds_since(begun_ns);
}

/* One matrix after another. */
static double rate_of_dense(struct stage *stage, const struct sample *sample)
{
    const uint64_t begun_ns = mb_now_ns();
    uint64_t nbytes = 0;
    for (size_t i = 0; mb_now_ns() - begun_ns < time_ns; i = (i + 1) % sample->n) {
        for (size_t k = 0; k < sample->blobs[i].n_matrices; k++) {
            add(stage, &sample->blobs[i].matrix[k]);
            run(stage, 1);
        }
        nbytes += sample->tensors[i]->nbytes;
    }
    return (double)nbytes / cli_seconds_since(begun_ns);
}

/* The next few small matrices, one after another. */
static uint64_t time_few(struct stage *stage, const struct sample *sample, size_t *next)
{
    const uint64_t begun_ns = mb_now_ns();
    uint64_t nbytes = 0;
    for (size_t i = 0; i < N_FEW && (i == 0 || nbytes < FEW_NBYTES); i++, *next = (*next + 1) % sample->n) {
        const struct mb_blob *blob = &sample->blobs[*next];
        for (size_t k = 0; k < blob->n_matrices; k++) {
            add(stage, &blob->matrix[k]);
            run(stage, 1);
        }
        nbytes += sample->tensors[*next]->nbytes;
    }
    return mb_now_ns() - begun_ns;
}

/* What they take longer after all threads have slept, as while an expert is read. */
static uint64_t measure_asleep(struct stage *stage, const struct sample *sample)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    uint64_t asleep_ns = 0, awake_ns = 0;
    size_t next = 0;
    for (int i = 0; i < N_WAKES; i++) {
        nanosleep(&pause, NULL);
        asleep_ns += time_few(stage, sample, &next);
        for (int k = 0; k < N_AWAKE; k++)
            awake_ns += time_few(stage, sample, &next);
    }
    awake_ns /= N_AWAKE;
    return asleep_ns > awake_ns ? (asleep_ns - awake_ns) / N_WAKES : 0;
}

/* In the form with the fewest operations, if there is one. */
static bool make_fast(struct sample *sample)
{
    const struct mb_resident_form *form = mb_kernels()->resident;
    uint64_t nbytes = 0;
    for (size_t i = 0; form != NULL && i < sample->n; i++)
        for (size_t k = 0; k < sample->blobs[i].n_matrices; k++)
            nbytes += form->nbytes_max(&sample->blobs[i].matrix[k]) + MB_SLACK_NBYTES + PAGE;
    if (form == NULL || !pages_open(&sample->fast, nbytes))
        return false;
    for (size_t i = 0; i < sample->n; i++)
        for (size_t k = 0; k < sample->blobs[i].n_matrices; k++) {
            struct mb_coded_matrix *w = &sample->blobs[i].matrix[k];
            uint8_t *memory = sample->fast.bytes + sample->fast.n_taken;
            const uint64_t taken = form->make(w, 1, memory);
            *w = form->view(w, pages_take(&sample->fast, taken), taken);
        }
    return true;
}

/* ---------------------------------------------------------------- threads */

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

/* What experts, or others, are multiplied with: as they are stored, then in the fast form. */
static enum mb_status measure(const struct mb_checkpoint *ckpt, struct mb_pool *pool, bool of_experts,
                              size_t n_used, bool wants_fast, struct doctor_rates *rates,
                              struct doctor_products *result, struct mb_error *err)
{
    struct sample *sample = cli_check_memory(calloc(1, sizeof *sample));
    struct stage stage = {0};
    enum mb_status status = read_sample(ckpt, of_experts, sample, err);
    if (status == MB_OK && sample->n > 0 && !stage_open(&stage, pool, sample))
        status = mb_fail_memory(err, "a measurement");
    for (int i = 0; status == MB_OK && sample->n > 0 && i < 2; i++) {
        const size_t n = n_used < sample->n ? n_used : sample->n;
        if (i > 0 && (!wants_fast || !make_fast(sample)))
            break;
        if (i == 0 && !of_experts)
            result->asleep_ns = measure_asleep(&stage, sample);
        double rate = of_experts ? rate_of_experts(&stage, sample, n) : rate_of_dense(&stage, sample);
        *(i == 0 ? &rates->stored_bytes_per_s : &rates->fast_bytes_per_s) = rate;
    }
    if (of_experts && sample->opened_ns > 0)
        result->check_bytes_per_s = (double)sample->nbytes * 1e9 / (double)sample->opened_ns;
    stage_close(&stage);
    sample_close(sample);
    free(sample);
    return status;
}

enum mb_status doctor_measure_products(const struct mb_checkpoint *ckpt, int n_threads, size_t n_used,
                                       bool wants_fast, struct doctor_products *result, struct mb_error *err)
{
    struct mb_pool *pool;
    *result = (struct doctor_products){.memory_bytes_per_s = cli_memory_rate(READ_NBYTES, n_threads)};
    MB_TRY(mb_pool_create(n_threads, &pool, err));
    enum mb_status status = measure(ckpt, pool, true, n_used, wants_fast, &result->experts, result, err);
    if (status == MB_OK)
        status = measure(ckpt, pool, false, 1, wants_fast, &result->dense, result, err);
    result->stage_ns = measure_stage(pool);
    mb_pool_destroy(pool);
    return status;
}
