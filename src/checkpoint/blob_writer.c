/*
 * blob_writer.c - codes blobs: a batch of units at a time, first their bounds, then their rows in waves.
 *
 * A wave is a set of row chunks, read and encoded in parallel, while one more task writes the chunks of the
 * wave before, in order.  The weights are read twice, once for the mean and once to encode: the second time
 * mostly from the page cache, since a batch is small.  So no matrix is ever in memory as a whole.  A rounder
 * prepares the matrices of a batch, which is as many units as there are threads then, and sees the same
 * chunks.
 */
#include "blob_writer.h"
#include "base/checked.h"
#include "base/cpus.h"
#include "base/memory.h"
#include "base/pool.h"
#include "blob_units.h"
#include "extremes.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { SLOTS_MAX = 48 }; /* of a wave: 48 x 3 x 512 KiB are 72 MiB */
enum { CHUNK_WEIGHTS = MB_CHUNK_NBYTES / 2 };
static const uint64_t BATCH_NBYTES = 256 << 20;

/* A matrix on its way into a blob. */
struct matrix {
    const struct mb_layout_item *item;
    struct mb_coding coding;
    struct mb_blob_matrix *info; /* sizes grow while it is written */
    struct mb_group *groups;     /* of the whole matrix */
    uint64_t n_groups;
    int8_t *exponents; /* [n_cols] of its columns; NULL: none */
    void *rounding;    /* what the rounder made; NULL: it does not take this one */
    struct mb_rounded rounded;
};

/* A unit of the batch. */
struct job {
    const struct mb_unit *unit;
    double *eps;                  /* [unit->n] */
    struct matrix *matrices;      /* [unit->n_coded] */
    struct mb_blob_matrix *infos; /* [unit->n_coded] as the blob's header has them */
    struct mb_extremes extremes;
    struct mb_reused reused; /* bytes NULL: it is coded */
    uint64_t origin;         /* XXH3-64 of the chunks that it is coded from, each with that of those before */
    enum mb_status status;   /* of its statistics, then of preparing its matrices */
    struct mb_error err;
};

/* Whole row groups of a matrix; or a blob that is reused (matrix is NULL). */
struct chunk {
    struct job *job;
    struct matrix *matrix;
    uint64_t row, n_rows;
    bool begins_blob, ends_matrix, ends_blob;
};

struct slot {
    struct chunk chunk;
    uint64_t origin; /* of its weights */
    uint8_t *out;    /* of slot_nbytes */
    size_t out_nbytes;
    struct mb_rounded rounded;
    enum mb_status status;
    struct mb_error err;
};

struct mb_coder {
    const struct mb_checkpoint *ckpt;
    const struct mb_layout *layout;
    const struct mb_rounder *rounder; /* or NULL */
    const struct mb_reuse *reuse;     /* or NULL */
    struct mb_progress *progress;
    struct mb_pool *pool;
    struct mb_shard_writer *writer;
    struct mb_compress_report *report;
    size_t n_slots, slot_nbytes;
    uint8_t *in;           /* [n_slots][MB_CHUNK_NBYTES] */
    int8_t *wanted;        /* [n_slots][CHUNK_WEIGHTS] with a rounder */
    struct slot *waves[2]; /* [n_slots] */
    uint8_t *out;

    struct job *jobs; /* the batch */
    size_t n_jobs;
    size_t next_job, next_matrix; /* where the next chunk begins */
    uint64_t next_row;

    /* The wave that is encoded, and the one that is written meanwhile. */
    struct slot *encoding, *writing;
    size_t n_encoding, n_writing;
    enum mb_status write_status;
    struct mb_error write_err;
    uint64_t blob_pos; /* of the blob that is written */
    XXH3_state_t *payload;
};

/* ---------------------------------------------------------------- bounds */

struct reading {
    const struct mb_checkpoint *ckpt;
    uint8_t *buffer; /* MB_CHUNK_NBYTES */
};

/* Prefetches what comes next, so that the disk works while we compute. */
static void read_ahead(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, uint64_t pos)
{
    if (pos < tensor->nbytes && mb_tensor_is_mapped(ckpt, tensor))
        posix_fadvise(ckpt->shards[tensor->shard].fd, (off_t)(tensor->file_pos + pos), MB_CHUNK_NBYTES,
                      POSIX_FADV_WILLNEED);
}

static enum mb_status add_stats(void *ctx, const struct mb_tensor *tensor, struct mb_weight_stats *stats,
                                struct mb_error *err)
{
    const struct reading *reading = ctx;
    enum mb_dtype dtype = mb_tensor_dtype(tensor);
    size_t elem_nbytes = mb_dtype_nbytes(dtype), bad;
    for (uint64_t pos = 0; pos < tensor->nbytes; pos += MB_CHUNK_NBYTES) {
        uint64_t nbytes = tensor->nbytes - pos < MB_CHUNK_NBYTES ? tensor->nbytes - pos : MB_CHUNK_NBYTES;
        read_ahead(reading->ckpt, tensor, pos + MB_CHUNK_NBYTES);
        MB_TRY(mb_checkpoint_read(reading->ckpt, tensor, pos, reading->buffer, nbytes, err));
        if (mb_weight_stats_add(stats, dtype, reading->buffer, nbytes / elem_nbytes, &bad) != MB_OK)
            return mb_fail_weight(reading->ckpt, tensor, pos / elem_nbytes + bad, err);
    }
    return MB_OK;
}

/* A task is a job; while statistics are gathered the slots' input buffers serve as one for each task. */
static void stats_task(void *ctx, size_t task, int thread)
{
    struct mb_coder *coder = ctx;
    struct job *job = &coder->jobs[task];
    struct reading reading = {coder->ckpt, coder->in + (size_t)thread * MB_CHUNK_NBYTES};
    const struct mb_unit_reading unit = {coder->ckpt, add_stats, &reading, reading.buffer, &job->extremes};
    job->status = mb_unit_eps(coder->layout, job->unit, &unit, job->eps, &job->err);
}

/* ---------------------------------------------------------------- a batch */

static enum mb_status make_matrices(const struct mb_coder *coder, struct job *job, struct mb_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < job->unit->n; i++) {
        const struct mb_layout_item *item = &coder->layout->items[job->unit->first + i];
        if (item->bound.kind == MB_BOUND_EXACT)
            continue;
        struct mb_blob_matrix *info = &job->infos[n];
        struct matrix *matrix = &job->matrices[n++];
        MB_TRY(mb_item_info(item, job->eps[i], coder->rounder, info, err));
        matrix->item = item;
        matrix->info = info;
        matrix->coding = mb_item_coding(info);
        uint64_t group_rows = mb_group_rows(info->n_cols);
        matrix->n_groups = (info->n_rows + group_rows - 1) / group_rows;
        matrix->groups = calloc(matrix->n_groups, sizeof *matrix->groups);
        if (matrix->groups == NULL)
            return mb_fail_memory(err, "the directory of a matrix");
    }
    return MB_OK;
}

static void free_batch(struct mb_coder *coder)
{
    for (size_t i = 0; i < coder->n_jobs; i++) {
        struct job *job = &coder->jobs[i];
        for (size_t k = 0; job->matrices != NULL && k < job->unit->n_coded; k++) {
            struct matrix *matrix = &job->matrices[k];
            struct mb_output_error unused;
            if (matrix->rounding != NULL)
                coder->rounder->end(coder->rounder->context, matrix->rounding, NULL, &unused);
            free(matrix->groups);
            free(matrix->exponents);
        }
        free(job->reused.bytes);
        free(job->matrices);
        free(job->infos);
        free(job->eps);
    }
    free(coder->jobs);
    coder->jobs = NULL;
    coder->n_jobs = 0;
}

static enum mb_status copy_output_errors(struct mb_coder *coder, const struct job *job, struct mb_error *err)
{
    struct mb_tensor blob = mb_unit_tensor(coder->layout, job->unit);
    enum mb_status status = blob.name == NULL ? mb_fail_memory(err, "the name of a blob") : MB_OK;
    for (size_t i = 0; i < job->unit->n_coded && status == MB_OK; i++) {
        const char *name = job->matrices[i].item->tensor->name,
                   *text = mb_reuse_output_error(coder->reuse, blob.name, name);
        if (text != NULL)
            status = mb_shard_add_output_error_text(coder->writer, name, text, err);
    }
    free((char *)blob.name);
    return status;
}

/* In the folder's order, whatever is reused: so a shard's header is that of one which is coded afresh. */
static enum mb_status end_roundings(struct mb_coder *coder, struct mb_error *err)
{
    const struct mb_rounder *rounder = coder->rounder;
    for (size_t i = 0; i < coder->n_jobs; i++) {
        if (rounder != NULL && coder->jobs[i].reused.bytes != NULL)
            MB_TRY(copy_output_errors(coder, &coder->jobs[i], err));
        for (size_t k = 0; k < coder->jobs[i].unit->n_coded; k++) {
            struct matrix *matrix = &coder->jobs[i].matrices[k];
            struct mb_output_error error;
            void *rounding = matrix->rounding;
            matrix->rounding = NULL;
            if (rounding != NULL && rounder->end(rounder->context, rounding, &matrix->rounded, &error))
                MB_TRY(mb_shard_add_output_error(coder->writer, matrix->item->tensor->name, &error, err));
        }
    }
    return MB_OK;
}

static enum mb_status make_jobs(struct mb_coder *coder, const struct mb_unit *units, size_t n_units,
                                struct mb_error *err)
{
    coder->jobs = calloc(n_units, sizeof *coder->jobs);
    if (coder->jobs == NULL)
        return mb_fail_memory(err, "the blobs of a unit");
    coder->n_jobs = n_units;
    for (size_t i = 0; i < n_units; i++) {
        struct job *job = &coder->jobs[i];
        job->unit = &units[i];
        job->eps = calloc(job->unit->n, sizeof *job->eps);
        job->matrices = calloc(job->unit->n_coded, sizeof *job->matrices);
        job->infos = calloc(job->unit->n_coded, sizeof *job->infos);
        if (job->eps == NULL || job->matrices == NULL || job->infos == NULL)
            return mb_fail_memory(err, "the matrices of a blob");
    }
    return MB_OK;
}

static enum mb_status prepare_matrix(const struct mb_rounder *rounder, struct matrix *matrix,
                                     struct mb_error *err)
{
    const char *name = matrix->item->tensor->name;
    bool is_taken;
    MB_TRY(rounder->takes(rounder->context, name, matrix->info->n_cols, &is_taken, err));
    return !is_taken ? MB_OK
                     : rounder->begin(rounder->context, name, matrix->info->n_rows, &matrix->coding,
                                      matrix->exponents, &matrix->rounding, err);
}

static void prepare_task(void *ctx, size_t task, int thread)
{
    (void)thread;
    const struct mb_coder *coder = ctx;
    struct job *job = &coder->jobs[task];
    for (size_t i = 0; i < job->unit->n_coded && job->status == MB_OK && job->reused.bytes == NULL; i++)
        job->status = prepare_matrix(coder->rounder, &job->matrices[i], &job->err);
}

static enum mb_status prepare_batch(struct mb_coder *coder, struct mb_error *err)
{
    if (coder->rounder == NULL)
        return MB_OK;
    mb_pool_run(coder->pool, coder->n_jobs, prepare_task, coder);
    for (size_t i = 0; i < coder->n_jobs; i++)
        MB_TRY(mb_pass_on(err, coder->jobs[i].status, &coder->jobs[i].err));
    return MB_OK;
}

/* ---------------------------------------------------------------- columns */

/* Every weight has to stay exact. */
static enum mb_status limit_exponents(const struct mb_coder *coder, const struct matrix *matrix,
                                      uint8_t *buffer, struct mb_error *err)
{
    const struct mb_tensor *tensor = matrix->item->tensor;
    uint64_t row_nbytes = tensor->nbytes / tensor->shape[0];
    uint64_t nbytes = mb_chunk_rows(tensor, MB_CHUNK_NBYTES) * row_nbytes;
    for (uint64_t pos = 0; pos < tensor->nbytes; pos += nbytes) {
        uint64_t n = tensor->nbytes - pos < nbytes ? tensor->nbytes - pos : nbytes;
        MB_TRY(mb_checkpoint_read(coder->ckpt, tensor, pos, buffer, n, err));
        mb_limit_exponents(matrix->info->dtype, buffer, (size_t)(n / row_nbytes), matrix->info->n_cols,
                           matrix->exponents);
    }
    return MB_OK;
}

static void exponents_task(void *ctx, size_t task, int thread)
{
    const struct mb_coder *coder = ctx;
    struct job *job = &coder->jobs[task];
    for (size_t i = 0; i < job->unit->n_coded && job->status == MB_OK; i++) {
        struct matrix *matrix = &job->matrices[i];
        job->status = mb_item_exponents(matrix->item, coder->rounder, matrix->info->step, &matrix->exponents,
                                        &job->err);
        if (job->status == MB_OK && matrix->exponents != NULL)
            job->status =
                limit_exponents(coder, matrix, coder->in + (size_t)thread * MB_CHUNK_NBYTES, &job->err);
        mb_settle_exponents(&matrix->exponents, matrix->info);
    }
}

static enum mb_status find_exponents(struct mb_coder *coder, struct mb_error *err)
{
    if (coder->rounder == NULL || coder->rounder->exponents == NULL)
        return MB_OK;
    mb_pool_run(coder->pool, coder->n_jobs, exponents_task, coder);
    for (size_t i = 0; i < coder->n_jobs; i++)
        MB_TRY(mb_pass_on(err, coder->jobs[i].status, &coder->jobs[i].err));
    return MB_OK;
}

/* ---------------------------------------------------------------- what need not be coded */

static uint64_t add_origin(uint64_t origin, uint64_t chunk)
{
    return XXH3_64bits_withSeed(&chunk, sizeof chunk, origin);
}

/* The origin that the job's blob would get. false: a weight cannot be read; coding it will say so. */
static bool find_origin(const struct mb_coder *coder, const struct job *job, uint8_t *buffer,
                        uint64_t *origin)
{
    *origin = 0;
    for (size_t i = 0; i < job->unit->n_coded; i++) {
        const struct mb_tensor *tensor = job->matrices[i].item->tensor;
        uint64_t row_nbytes = tensor->nbytes / tensor->shape[0];
        uint64_t nbytes = mb_chunk_rows(tensor, MB_CHUNK_NBYTES) * row_nbytes;
        for (uint64_t pos = 0; pos < tensor->nbytes; pos += nbytes) {
            uint64_t n = tensor->nbytes - pos < nbytes ? tensor->nbytes - pos : nbytes;
            if (mb_checkpoint_read(coder->ckpt, tensor, pos, buffer, n, NULL) != MB_OK)
                return false;
            *origin = add_origin(*origin, XXH3_64bits(buffer, n));
        }
    }
    return true;
}

/* The exponents of its columns are in the payload: what is taken has those that would be coded. */
static void take_reused(const struct mb_coder *coder, struct job *job, const char *name)
{
    const int8_t **exponents = calloc(job->unit->n_coded, sizeof *exponents);
    for (size_t i = 0; exponents != NULL && i < job->unit->n_coded; i++)
        exponents[i] = job->matrices[i].exponents;
    if (exponents != NULL)
        job->reused = mb_reuse_take(coder->reuse, name, exponents);
    free(exponents);
}

static void reuse_task(void *ctx, size_t task, int thread)
{
    const struct mb_coder *coder = ctx;
    struct job *job = &coder->jobs[task];
    struct mb_tensor blob = mb_unit_tensor(coder->layout, job->unit);
    uint64_t there, origin;
    if (blob.name != NULL && mb_reuse_look(coder->reuse, blob.name, job->infos, job->unit->n_coded, &there) &&
        find_origin(coder, job, coder->in + (size_t)thread * MB_CHUNK_NBYTES, &origin) && origin == there) {
        take_reused(coder, job, blob.name);
        job->origin = job->reused.bytes == NULL ? 0 : origin;
    }
    free((char *)blob.name);
}

/* Bounds of all units of the batch in parallel: a mean is a sum in order, so one unit cannot be split. */
static enum mb_status begin_batch(struct mb_coder *coder, const struct mb_unit *units, size_t n_units,
                                  struct mb_error *err)
{
    MB_TRY(make_jobs(coder, units, n_units, err));
    mb_pool_run(coder->pool, n_units, stats_task, coder);
    for (size_t i = 0; i < n_units; i++) {
        MB_TRY(mb_pass_on(err, coder->jobs[i].status, &coder->jobs[i].err));
        mb_extremes_add(&coder->report->extremes, &coder->jobs[i].extremes);
        MB_TRY(make_matrices(coder, &coder->jobs[i], err));
    }
    MB_TRY(find_exponents(coder, err));
    if (coder->reuse != NULL)
        mb_pool_run(coder->pool, n_units, reuse_task, coder);
    MB_TRY(prepare_batch(coder, err));
    coder->next_job = coder->next_matrix = 0;
    coder->next_row = 0;
    return MB_OK;
}

/* ---------------------------------------------------------------- chunks */

/* false: the batch has no more. */
static bool next_chunk(struct mb_coder *coder, struct chunk *chunk)
{
    if (coder->next_job == coder->n_jobs)
        return false;
    struct job *job = &coder->jobs[coder->next_job];
    if (job->reused.bytes != NULL) {
        *chunk = (struct chunk){.job = job};
        coder->next_job++;
        return true;
    }
    struct matrix *matrix = &job->matrices[coder->next_matrix];
    uint64_t n_left = matrix->info->n_rows - coder->next_row;
    uint64_t n_rows = mb_chunk_rows(matrix->item->tensor, MB_CHUNK_NBYTES);
    *chunk = (struct chunk){
        .job = job,
        .matrix = matrix,
        .row = coder->next_row,
        .n_rows = n_rows < n_left ? n_rows : n_left,
        .begins_blob = coder->next_matrix == 0 && coder->next_row == 0,
        .ends_matrix = n_rows >= n_left,
        .ends_blob = n_rows >= n_left && coder->next_matrix + 1 == job->unit->n_coded,
    };
    coder->next_row += chunk->n_rows;
    if (chunk->ends_matrix) {
        coder->next_row = 0;
        coder->next_matrix++;
    }
    if (chunk->ends_blob) {
        coder->next_matrix = 0;
        coder->next_job++;
    }
    return true;
}

/* *wanted: 'room', filled, or NULL for plain rounding. */
static enum mb_status round_chunk(struct mb_coder *coder, struct slot *slot, const uint8_t *in, int8_t *room,
                                  const int8_t **wanted)
{
    const struct mb_rounder *rounder = coder->rounder;
    const struct chunk *chunk = &slot->chunk;
    bool is_plain = true;
    slot->rounded = (struct mb_rounded){0};
    if (chunk->matrix->rounding != NULL)
        MB_TRY(rounder->round(rounder->context, chunk->matrix->rounding, in, (size_t)chunk->n_rows, room,
                              &is_plain, &slot->rounded, &slot->err));
    *wanted = is_plain ? NULL : room;
    return MB_OK;
}

/* What the groups' kinds say (docs/format.md): M + T, or that the group is raw. */
static int reach_of(const struct mb_coding *coding, const struct mb_group *group)
{
    int a = (group->kind & 127) / 9, b = (group->kind & 127) % 9;
    int inner = a == 0 ? 0 : (1 << (a - 1)) - 1, half = b == 0 ? 0 : 1 << (b - 1);
    return mb_group_is_raw(coding->form, group) ? -1 : inner + half;
}

/* The rounder learns which weights have no index. */
static enum mb_status settle_chunk(const struct mb_coder *coder, struct slot *slot,
                                   const struct mb_coding *coding, const uint8_t *in,
                                   const struct mb_group *groups)
{
    size_t n_rows = (size_t)slot->chunk.n_rows, group_rows = mb_group_rows(coding->n_cols);
    if (coding->wanted == NULL)
        return MB_OK;
    int8_t *reach = mb_alloc(n_rows, sizeof *reach);
    if (reach == NULL)
        return mb_fail_memory(&slot->err, "rows that are rounded");
    for (size_t r = 0; r < n_rows; r++)
        reach[r] = (int8_t)reach_of(coding, &groups[r / group_rows]);
    coder->rounder->settle(coder->rounder->context, slot->chunk.matrix->rounding, in, n_rows, coding->wanted,
                           reach, &slot->rounded);
    free(reach);
    return MB_OK;
}

static enum mb_status encode_chunk(struct mb_coder *coder, struct slot *slot, uint8_t *in, int8_t *room)
{
    const struct chunk *chunk = &slot->chunk;
    struct matrix *matrix = chunk->matrix;
    if (matrix == NULL)
        return MB_OK;
    const struct mb_tensor *tensor = matrix->item->tensor;
    uint64_t row_nbytes = matrix->info->n_cols * mb_dtype_nbytes(matrix->info->dtype);
    uint64_t pos = chunk->row * row_nbytes, nbytes = chunk->n_rows * row_nbytes;
    read_ahead(coder->ckpt, tensor, pos + coder->n_slots * nbytes);
    MB_TRY(mb_checkpoint_read(coder->ckpt, tensor, pos, in, nbytes, &slot->err));
    slot->origin = XXH3_64bits(in, nbytes);
    if (matrix->exponents != NULL && !mb_scale_columns(matrix->info->dtype, in, (size_t)chunk->n_rows,
                                                       matrix->info->n_cols, matrix->exponents))
        return mb_fail(&slot->err, MB_BAD_DATA, "tensor %s: has changed while it was read", tensor->name);
    size_t bad;
    struct mb_group *groups = matrix->groups + chunk->row / mb_group_rows(matrix->info->n_cols);
    struct mb_coding coding = matrix->coding;
    MB_TRY(round_chunk(coder, slot, in, room, &coding.wanted));
    enum mb_status status = mb_encode_rows(&coding, in, (size_t)chunk->n_rows, slot->out, coder->slot_nbytes,
                                           &slot->out_nbytes, groups, &bad);
    if (status == MB_BAD_DATA)
        return mb_fail_weight(coder->ckpt, tensor, chunk->row * matrix->info->n_cols + bad, &slot->err);
    if (status != MB_OK)
        return mb_fail(&slot->err, status, "tensor %s: cannot be encoded", tensor->name);
    return settle_chunk(coder, slot, &coding, in, groups);
}

/* ---------------------------------------------------------------- writing, in order */

static enum mb_status write_payload(struct mb_coder *coder, const void *bytes, uint64_t nbytes,
                                    struct mb_error *err)
{
    XXH3_64bits_update(coder->payload, bytes, nbytes);
    return mb_shard_write(coder->writer, bytes, nbytes, err);
}

/* The header's place is left open: it is written last. */
static enum mb_status begin_blob(struct mb_coder *coder, const struct job *job, struct mb_error *err)
{
    size_t header_nbytes = mb_blob_header_nbytes(job->infos, job->unit->n_coded);
    if (header_nbytes == 0)
        return mb_fail(err, MB_UNSUPPORTED, "tensor %s: too many matrices for one blob",
                       job->matrices[0].item->tensor->name);
    coder->blob_pos = coder->writer->at;
    coder->writer->at += header_nbytes;
    XXH3_64bits_reset(coder->payload);
    return MB_OK;
}

static enum mb_status end_matrix(struct mb_coder *coder, struct matrix *matrix, struct mb_error *err)
{
    uint64_t nbytes = mb_directory_nbytes(matrix->info->form, matrix->groups, matrix->n_groups);
    uint8_t *directory = malloc(nbytes);
    if (directory == NULL)
        return mb_fail_memory(err, "a directory");
    mb_directory_write(matrix->info->form, matrix->groups, matrix->n_groups, directory);
    enum mb_status status = write_payload(coder, directory, nbytes, err);
    free(directory);
    if (status == MB_OK && matrix->exponents != NULL)
        status = write_payload(coder, matrix->exponents, matrix->info->n_cols, err);
    matrix->info->directory_nbytes = nbytes;
    coder->report->n_groups += matrix->n_groups;
    for (uint64_t i = 0; i < matrix->n_groups; i++) {
        coder->report->n_outliers += matrix->groups[i].n_outliers;
        coder->report->n_raw_groups += mb_group_is_raw(matrix->info->form, &matrix->groups[i]);
    }
    return status;
}

static enum mb_status write_header(struct mb_coder *coder, const struct job *job, struct mb_error *err)
{
    size_t nbytes = mb_blob_header_nbytes(job->infos, job->unit->n_coded);
    uint8_t *header = malloc(nbytes);
    if (header == NULL)
        return mb_fail_memory(err, "the header of a blob");
    mb_blob_write_header(job->infos, job->unit->n_coded, XXH3_64bits_digest(coder->payload), header);
    enum mb_status status = mb_shard_write_at(coder->writer, coder->blob_pos, header, nbytes, err);
    free(header);
    return status;
}

/* Pads the blob to a page, and counts it. */
static enum mb_status add_blob(struct mb_coder *coder, const struct job *job, struct mb_error *err)
{
    static const uint8_t zeros[MB_ST_PAGE_NBYTES];
    uint64_t nbytes = coder->writer->at - coder->blob_pos, n_weights = 0, in_nbytes = 0;
    MB_TRY(mb_shard_write(coder->writer, zeros, mb_round_up(nbytes, MB_ST_PAGE_NBYTES) - nbytes, err));
    for (size_t i = 0; i < job->unit->n_coded; i++) {
        n_weights += job->matrices[i].item->tensor->n_elems;
        in_nbytes += mb_tensor_stored_nbytes(coder->ckpt, job->matrices[i].item->tensor);
    }
    mb_report_blob(coder->report, job->matrices[0].item->class, n_weights, in_nbytes, nbytes);
    MB_TRY(mb_shard_add(coder->writer, coder->blob_pos, err));
    return mb_shard_add_origin(coder->writer, job->origin, err);
}

static enum mb_status end_blob(struct mb_coder *coder, const struct job *job, struct mb_error *err)
{
    MB_TRY(write_header(coder, job, err));
    return add_blob(coder, job, err);
}

static enum mb_status write_reused(struct mb_coder *coder, const struct job *job, struct mb_error *err)
{
    const struct mb_reused *reused = &job->reused;
    coder->blob_pos = coder->writer->at;
    MB_TRY(mb_shard_write(coder->writer, reused->bytes, reused->nbytes, err));
    coder->report->n_groups += reused->n_groups;
    coder->report->n_raw_groups += reused->n_raw_groups;
    coder->report->n_outliers += reused->n_outliers;
    coder->report->n_blobs_reused++;
    return add_blob(coder, job, err);
}

/* In the order of rows, so that sums do not depend on threads. */
static void add_rounded(struct mb_rounded *to, const struct mb_rounded *from)
{
    to->n_weights += from->n_weights;
    to->n_clipped += from->n_clipped;
    to->n_rows_clipped += from->n_rows_clipped;
    to->n_rows_exact += from->n_rows_exact;
    to->row_error2_sum += from->row_error2_sum;
    to->row_error2_max =
        from->row_error2_max > to->row_error2_max ? from->row_error2_max : to->row_error2_max;
}

static enum mb_status write_slot(struct mb_coder *coder, const struct slot *slot, struct mb_error *err)
{
    const struct chunk *chunk = &slot->chunk;
    if (chunk->matrix == NULL)
        return write_reused(coder, chunk->job, err);
    if (chunk->begins_blob)
        MB_TRY(begin_blob(coder, chunk->job, err));
    chunk->job->origin = add_origin(chunk->job->origin, slot->origin);
    MB_TRY(write_payload(coder, slot->out, slot->out_nbytes, err));
    chunk->matrix->info->data_nbytes += slot->out_nbytes;
    add_rounded(&chunk->matrix->rounded, &slot->rounded);
    if (chunk->ends_matrix)
        MB_TRY(end_matrix(coder, chunk->matrix, err));
    return chunk->ends_blob ? end_blob(coder, chunk->job, err) : MB_OK;
}

static enum mb_status write_wave(struct mb_coder *coder, struct mb_error *err)
{
    for (size_t i = 0; i < coder->n_writing; i++)
        MB_TRY(write_slot(coder, &coder->writing[i], err));
    return MB_OK;
}

/* ---------------------------------------------------------------- waves */

/* Task 0 writes the wave before, the others encode this one. */
static void wave_task(void *ctx, size_t task, int thread)
{
    (void)thread;
    struct mb_coder *coder = ctx;
    if (task == 0) {
        coder->write_status = write_wave(coder, &coder->write_err);
        return;
    }
    struct slot *slot = &coder->encoding[task - 1];
    int8_t *room = coder->wanted == NULL ? NULL : coder->wanted + (task - 1) * CHUNK_WEIGHTS;
    slot->status = encode_chunk(coder, slot, coder->in + (task - 1) * MB_CHUNK_NBYTES, room);
}

/* Weights that are done with it. */
static uint64_t chunk_nbytes(const struct chunk *chunk)
{
    uint64_t nbytes = 0;
    if (chunk->matrix != NULL)
        return chunk->n_rows * chunk->matrix->info->n_cols * mb_dtype_nbytes(chunk->matrix->info->dtype);
    for (size_t i = 0; i < chunk->job->unit->n_coded; i++)
        nbytes += chunk->job->matrices[i].item->tensor->nbytes;
    return nbytes;
}

static enum mb_status run_wave(struct mb_coder *coder, struct mb_error *err)
{
    uint64_t nbytes = 0;
    mb_pool_run(coder->pool, 1 + coder->n_encoding, wave_task, coder);
    MB_TRY(mb_pass_on(err, coder->write_status, &coder->write_err));
    for (size_t i = 0; i < coder->n_encoding; i++) {
        const struct slot *slot = &coder->encoding[i];
        MB_TRY(mb_pass_on(err, slot->status, &slot->err));
        nbytes += chunk_nbytes(&slot->chunk);
    }
    return mb_progress_add(coder->progress, "compress", nbytes, err);
}

static enum mb_status run_batch(struct mb_coder *coder, struct mb_error *err)
{
    coder->n_writing = 0;
    for (unsigned wave = 0;; wave++) {
        coder->encoding = coder->waves[wave % 2];
        coder->n_encoding = 0;
        while (coder->n_encoding < coder->n_slots &&
               next_chunk(coder, &coder->encoding[coder->n_encoding].chunk))
            coder->n_encoding++;
        if (coder->n_encoding + coder->n_writing == 0)
            return MB_OK;
        MB_TRY(run_wave(coder, err));
        coder->writing = coder->encoding;
        coder->n_writing = coder->n_encoding;
    }
}

static enum mb_status code_units(struct mb_coder *coder, const struct mb_unit *units, size_t n_units,
                                 struct mb_error *err)
{
    MB_TRY(begin_batch(coder, units, n_units, err));
    return run_batch(coder, err);
}

static uint64_t unit_nbytes(const struct mb_layout *layout, const struct mb_unit *unit)
{
    uint64_t nbytes = 0;
    for (size_t i = unit->first; i < unit->first + unit->n; i++)
        nbytes += layout->items[i].tensor->nbytes;
    return nbytes;
}

enum mb_status mb_coder_run(struct mb_coder *coder, const struct mb_unit *units, size_t n_units,
                            struct mb_shard_writer *writer, struct mb_compress_report *report,
                            struct mb_error *err)
{
    coder->writer = writer;
    coder->report = report;
    for (size_t i = 0, n = 0; i < n_units; i += n) {
        uint64_t nbytes = unit_nbytes(coder->layout, &units[i]);
        size_t n_most = coder->rounder == NULL ? n_units : (size_t)mb_pool_n_threads(coder->pool);
        for (n = 1; i + n < n_units && n < n_most && nbytes < BATCH_NBYTES; n++)
            nbytes += unit_nbytes(coder->layout, &units[i + n]);
        enum mb_status status = code_units(coder, units + i, n, err);
        if (status == MB_OK)
            status = end_roundings(coder, err);
        free_batch(coder);
        MB_TRY(status);
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- its memory */

static enum mb_status make_buffers(struct mb_coder *coder, struct mb_error *err)
{
    uint64_t n = coder->n_slots, out_nbytes = mb_round_up(coder->slot_nbytes, 4096);
    coder->in = mb_alloc(n, MB_CHUNK_NBYTES);
    coder->out = mb_alloc(2 * n, out_nbytes);
    coder->wanted = coder->rounder == NULL ? NULL : mb_alloc(n, CHUNK_WEIGHTS);
    for (size_t k = 0; k < 2; k++) {
        coder->waves[k] = calloc(n, sizeof **coder->waves);
        for (size_t i = 0; i < n && coder->waves[k] != NULL && coder->out != NULL; i++)
            coder->waves[k][i].out = coder->out + (k * n + i) * out_nbytes;
    }
    coder->payload = XXH3_createState();
    if (coder->in == NULL || coder->out == NULL || (coder->rounder != NULL && coder->wanted == NULL) ||
        coder->waves[0] == NULL || coder->waves[1] == NULL || coder->payload == NULL)
        return mb_fail_memory(err, "the chunks that are coded");
    return MB_OK;
}

/* Several chunks a thread, so that few wait at a wave's end. There are never more threads than slots. */
static enum mb_status make_threads(struct mb_coder *coder, int n_threads, struct mb_error *err)
{
    if (n_threads == 0) {
        struct mb_cpu_share share = mb_cpu_share();
        n_threads = mb_cpu_share_threads(&share);
    }
    MB_TRY(mb_pool_create(n_threads < SLOTS_MAX ? n_threads : SLOTS_MAX, &coder->pool, err));
    size_t n = 4 * (size_t)mb_pool_n_threads(coder->pool);
    coder->n_slots = n < SLOTS_MAX ? n : SLOTS_MAX;
    coder->slot_nbytes = mb_coded_chunk_bound();
    return make_buffers(coder, err);
}

enum mb_status mb_coder_create(const struct mb_checkpoint *ckpt, const struct mb_layout *layout,
                               const struct mb_rounder *rounder, int n_threads, struct mb_progress *progress,
                               struct mb_coder **coder, struct mb_error *err)
{
    *coder = calloc(1, sizeof **coder);
    if (*coder == NULL)
        return mb_fail_memory(err, "the coder");
    **coder = (struct mb_coder){.ckpt = ckpt, .layout = layout, .rounder = rounder, .progress = progress};
    enum mb_status status = make_threads(*coder, n_threads, err);
    if (status != MB_OK) {
        mb_coder_free(*coder);
        *coder = NULL;
    }
    return status;
}

void mb_coder_reuse(struct mb_coder *coder, const struct mb_reuse *reuse)
{
    coder->reuse = reuse;
}

void mb_coder_free(struct mb_coder *coder)
{
    if (coder == NULL)
        return;
    if (coder->pool != NULL)
        mb_pool_destroy(coder->pool);
    XXH3_freeState(coder->payload);
    free(coder->waves[0]);
    free(coder->waves[1]);
    free(coder->out);
    free(coder->wanted);
    free(coder->in);
    free(coder);
}
