/*
 * estimate.c - codes row groups taken evenly from every matrix and scales what they need to the whole.
 */
#include "estimate.h"
#include "base/checked.h"
#include "base/pool.h"
#include "blob_writer.h"
#include "compress_report.h"
#include <stdlib.h>
#include <string.h>

/*
 * Groups of one matrix differ by some percent in size, so 128 of them give its size within a percent, and
 * the sum over matrices far better.  Matrices with fewer groups are coded completely.
 */
enum { SAMPLE_GROUPS_MIN = 128, SAMPLE_SHARE = 16, UNITS_AT_ONCE = 64 };

/* The groups of a matrix that are looked at. */
struct sample {
    const struct mb_tensor *tensor;
    uint64_t group_rows, n_groups, n_sampled;
};

static struct sample sample_of(const struct mb_tensor *tensor)
{
    struct sample sample = {.tensor = tensor, .group_rows = mb_group_rows((size_t)tensor->shape[1])};
    sample.n_groups = (tensor->shape[0] + sample.group_rows - 1) / sample.group_rows;
    uint64_t n = sample.n_groups / SAMPLE_SHARE;
    n = n < SAMPLE_GROUPS_MIN ? SAMPLE_GROUPS_MIN : n;
    sample.n_sampled = n < sample.n_groups ? n : sample.n_groups;
    return sample;
}

/* The i-th group of a sample: all of them when there are no more, else from the middle of equal parts. */
static uint64_t sampled_group(const struct sample *sample, uint64_t i)
{
    return (2 * i + 1) * sample->n_groups / (2 * sample->n_sampled);
}

/* Reads a group; *n_rows is its number of rows. */
static enum mb_status read_group(const struct mb_checkpoint *ckpt, const struct sample *sample,
                                 uint64_t group, uint8_t *buffer, uint64_t *n_rows, struct mb_error *err)
{
    const struct mb_tensor *tensor = sample->tensor;
    uint64_t row = group * sample->group_rows, n_left = tensor->shape[0] - row;
    uint64_t row_nbytes = tensor->shape[1] * mb_dtype_nbytes((enum mb_dtype)tensor->type);
    *n_rows = sample->group_rows < n_left ? sample->group_rows : n_left;
    return mb_checkpoint_read(ckpt, tensor, row * row_nbytes, buffer, *n_rows * row_nbytes, err);
}

/* A unit's sums; a task. */
struct job {
    const struct mb_checkpoint *ckpt;
    const struct mb_plan *plan;
    const struct mb_plan_unit *unit;
    struct mb_compress_report report;
    uint64_t in_nbytes;
    enum mb_status status;
    struct mb_error err;
    uint8_t *buffer; /* MB_CHUNK_NBYTES, of the thread */
    uint8_t *out;    /* SLOT_OUT_NBYTES, of the thread */
};
enum { SLOT_OUT_NBYTES = MB_CHUNK_NBYTES + 64 };

static enum mb_status add_stats(void *ctx, const struct mb_tensor *tensor, struct mb_weight_stats *stats,
                                struct mb_error *err)
{
    const struct job *job = ctx;
    if (tensor->n_dims != 2 || tensor->n_elems == 0)
        return MB_OK;
    struct sample sample = sample_of(tensor);
    enum mb_status status = MB_OK;
    for (uint64_t i = 0; i < sample.n_sampled && status == MB_OK; i++) {
        uint64_t group = sampled_group(&sample, i), n_rows;
        size_t bad;
        status = read_group(job->ckpt, &sample, group, job->buffer, &n_rows, err);
        if (status == MB_OK && mb_weight_stats_add(stats, (enum mb_dtype)tensor->type, job->buffer,
                                                   (size_t)(n_rows * tensor->shape[1]), &bad) != MB_OK)
            status =
                mb_fail_weight(job->ckpt, tensor, group * sample.group_rows * tensor->shape[1] + bad, err);
    }
    return status;
}

static uint64_t scaled(uint64_t count, uint64_t of_sample, uint64_t whole)
{
    return of_sample == whole ? count : (uint64_t)((double)count * (double)whole / (double)of_sample + 0.5);
}

/* What the sample of a matrix needs, scaled by rows (bytes, outliers) and by groups (directory). */
static enum mb_status predict_matrix(struct job *job, const struct mb_blob_matrix *info,
                                     const struct mb_tensor *tensor, uint64_t *nbytes, struct mb_error *err)
{
    struct mb_coding coding = {info->dtype, info->n_cols, info->eps, info->step};
    struct sample sample = sample_of(tensor);
    uint64_t n_sampled_rows = 0, record_nbytes = 0, directory_nbytes = 0, n_outliers = 0, n_raw = 0;
    for (uint64_t i = 0; i < sample.n_sampled; i++) {
        uint64_t first = sampled_group(&sample, i), n_rows;
        struct mb_group group;
        size_t out_nbytes, bad;
        enum mb_status status = read_group(job->ckpt, &sample, first, job->buffer, &n_rows, err);
        if (status != MB_OK)
            return status;
        if (mb_encode_rows(&coding, job->buffer, (size_t)n_rows, job->out, SLOT_OUT_NBYTES, &out_nbytes,
                           &group, &bad) != MB_OK)
            return mb_fail_weight(job->ckpt, tensor, first * sample.group_rows * info->n_cols + bad, err);
        n_sampled_rows += n_rows;
        record_nbytes += out_nbytes;
        directory_nbytes += mb_directory_nbytes(&group, 1);
        n_outliers += group.n_outliers;
        n_raw += mb_group_is_raw(&group);
    }
    *nbytes += scaled(record_nbytes, n_sampled_rows, info->n_rows) +
               scaled(directory_nbytes, sample.n_sampled, sample.n_groups);
    job->report.n_outliers += scaled(n_outliers, n_sampled_rows, info->n_rows);
    job->report.n_raw_groups += scaled(n_raw, sample.n_sampled, sample.n_groups);
    job->report.n_groups += sample.n_groups;
    return MB_OK;
}

static enum mb_status predict_unit(struct job *job, struct mb_error *err)
{
    const struct mb_plan_unit *unit = job->unit;
    double *eps = calloc(unit->n, sizeof *eps);
    struct mb_blob_matrix *infos = calloc(unit->n_coded, sizeof *infos);
    uint64_t nbytes = 0, n_weights = 0, in_nbytes = 0;
    enum mb_role role = MB_ROLE_OTHER;
    enum mb_status status = MB_OK;
    if (eps == NULL || infos == NULL)
        status = mb_fail_memory(err, "the matrices of a blob");
    if (status == MB_OK)
        status = mb_unit_eps(job->plan, unit, add_stats, job, eps, err);
    for (size_t i = 0, n = 0; i < unit->n && status == MB_OK; i++) {
        const struct mb_plan_item *item = &job->plan->items[unit->first + i];
        if (item->bound.kind == MB_BOUND_EXACT)
            continue;
        role = n == 0 ? item->role : role;
        infos[n] = mb_item_info(item, eps[i]);
        status = predict_matrix(job, &infos[n++], item->tensor, &nbytes, err);
        n_weights += item->tensor->n_elems;
        in_nbytes += item->tensor->nbytes;
    }
    if (status == MB_OK)
        mb_report_blob(&job->report, role, n_weights, in_nbytes,
                       nbytes + mb_blob_header_nbytes(infos, unit->n_coded));
    job->in_nbytes = in_nbytes;
    free(infos);
    free(eps);
    return status;
}

struct prediction {
    struct job jobs[UNITS_AT_ONCE];
    uint8_t *buffers; /* [n_threads][2 chunks] */
};

static void predict_task(void *ctx, size_t task, int thread)
{
    struct prediction *prediction = ctx;
    struct job *job = &prediction->jobs[task];
    job->buffer = prediction->buffers + (size_t)thread * (MB_CHUNK_NBYTES + SLOT_OUT_NBYTES);
    job->out = job->buffer + MB_CHUNK_NBYTES;
    job->status = predict_unit(job, &job->err);
}

static enum mb_status predict_units(const struct mb_checkpoint *ckpt, const struct mb_plan *plan,
                                    struct prediction *prediction, struct mb_pool *pool,
                                    struct mb_progress *progress, struct mb_compress_report *report,
                                    struct mb_error *err)
{
    enum mb_status status = MB_OK;
    for (size_t first = 0; first < plan->n_units && status == MB_OK; first += UNITS_AT_ONCE) {
        size_t n = plan->n_units - first < UNITS_AT_ONCE ? plan->n_units - first : UNITS_AT_ONCE;
        for (size_t i = 0; i < n; i++)
            prediction->jobs[i] = (struct job){.ckpt = ckpt, .plan = plan, .unit = &plan->units[first + i]};
        mb_pool_run(pool, n, predict_task, prediction);
        for (size_t i = 0; i < n && status == MB_OK; i++) {
            const struct job *job = &prediction->jobs[i];
            status = job->status;
            if (status != MB_OK && err != NULL)
                *err = job->err;
            mb_report_add(report, &job->report);
            if (status == MB_OK)
                status = mb_progress_add(progress, "sample", job->in_nbytes, err);
        }
    }
    return status;
}

/* Headers of the files, and exact tensors. */
static enum mb_status predict_rest(const struct mb_checkpoint *ckpt, const struct mb_plan *plan,
                                   struct mb_compress_report *report, struct mb_error *err)
{
    for (size_t i = 0; i < plan->n_exact; i++) {
        report->n_weights_exact += plan->exact[i]->n_elems;
        report->exact_nbytes += plan->exact[i]->nbytes;
    }
    for (size_t i = 0; i < ckpt->n_tensors; i++)
        report->in_nbytes += ckpt->tensors[i]->nbytes;
    report->n_shards = plan->n_shards;
    report->out_nbytes = report->coded_nbytes + report->padding_nbytes + report->exact_nbytes;
    for (size_t i = 0; i < plan->n_shards; i++) {
        struct mb_planned planned;
        enum mb_status status = mb_plan_shard(plan, i, &planned, err);
        if (status != MB_OK)
            return status;
        uint64_t data_pos = mb_shard_data_pos(planned.tensors, planned.n_units + planned.n_exact);
        mb_planned_free(&planned);
        if (data_pos == 0)
            return mb_fail_memory(err, "the header of a shard");
        report->out_nbytes += data_pos;
    }
    return MB_OK;
}

enum mb_status mb_predict(const struct mb_checkpoint *ckpt, const struct mb_plan *plan, int n_threads,
                          struct mb_progress *progress, struct mb_compress_report *report,
                          struct mb_error *err)
{
    struct mb_pool *pool;
    enum mb_status status = mb_pool_create(n_threads, &pool, err);
    if (status != MB_OK)
        return status;
    struct prediction *prediction = calloc(1, sizeof *prediction);
    uint64_t nbytes = (uint64_t)mb_pool_n_threads(pool) * (MB_CHUNK_NBYTES + SLOT_OUT_NBYTES);
    uint8_t *buffers = malloc(nbytes);
    if (prediction == NULL || buffers == NULL) {
        status = mb_fail_memory(err, "the samples");
    } else {
        prediction->buffers = buffers;
        status = predict_units(ckpt, plan, prediction, pool, progress, report, err);
    }
    mb_pool_destroy(pool);
    free(buffers);
    free(prediction);
    return status == MB_OK ? predict_rest(ckpt, plan, report, err) : status;
}
