/*
 * estimate.c - codes row groups taken evenly from every matrix and scales what they need to the whole.
 */
#include "estimate.h"
#include "base/checked.h"
#include "base/pool.h"
#include "base/value.h"
#include "blob_units.h"
#include "compress_report.h"
#include "shard_writer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * Groups of one matrix differ by some percent in size, so 128 of them give its size within a percent, and
 * the sum over matrices far better.  Matrices with fewer groups are coded completely.
 */
enum { SAMPLE_GROUPS_MIN = 128, SAMPLE_SHARE = 16, UNITS_AT_ONCE = 64 };

/*
 * Of models with tens of thousands of matrices fewer groups of each are enough: so many together, but for a
 * minimum of each.  So the largest model takes a minute as well.
 */
enum { ALL_GROUPS_MAX = 1 << 20, FEW_GROUPS_MIN = 16 };

/* A matrix that is computed may have its rows all over the file: they cost little more where many are read.
 */
enum { COMPUTED_TOGETHER = 32 };

/* Weights of a row group: one row of the most columns, or several that have fewer than MB_GROUP_WEIGHTS
 * together with the last of them. */
enum { WANTED_MAX = 2 * MB_COLS_MAX };

/* The groups of a matrix that are looked at. */
struct sample {
    const struct mb_tensor *tensor;
    uint64_t group_rows, group_nbytes, n_groups, n_sampled;
    uint64_t n_together;     /* that follow one another in the matrix */
    uint64_t n_read, n_left; /* in the buffer: those that were read last, and how many come after this one */
};

/* 'n_all': groups that the samples of all matrices would have together. */
static struct sample sample_of(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                               uint64_t n_all)
{
    struct sample sample = {.tensor = tensor, .group_rows = mb_group_rows((size_t)tensor->shape[1])};
    sample.group_nbytes = sample.group_rows * tensor->shape[1] * mb_elem_nbytes(tensor);
    sample.n_together = mb_tensor_is_mapped(ckpt, tensor) ? 1 : COMPUTED_TOGETHER;
    sample.n_groups = (tensor->shape[0] + sample.group_rows - 1) / sample.group_rows;
    while (sample.n_together > 1 &&
           (sample.n_together > sample.n_groups || sample.n_together * sample.group_nbytes > MB_CHUNK_NBYTES))
        sample.n_together /= 2;
    uint64_t n = sample.n_groups / SAMPLE_SHARE;
    n = n < SAMPLE_GROUPS_MIN ? SAMPLE_GROUPS_MIN : n;
    if (n_all > ALL_GROUPS_MAX)
        n = n * ALL_GROUPS_MAX / n_all < FEW_GROUPS_MIN ? FEW_GROUPS_MIN : n * ALL_GROUPS_MAX / n_all;
    sample.n_sampled = n < sample.n_groups ? n : sample.n_groups;
    return sample;
}

static uint64_t count_groups(const struct mb_checkpoint *ckpt, const struct mb_layout *layout)
{
    uint64_t n = 0;
    for (size_t i = 0; i < layout->n_items; i++)
        if (layout->items[i].bound.kind != MB_BOUND_EXACT)
            n += sample_of(ckpt, layout->items[i].tensor, 0).n_sampled;
    return n;
}

/*
 * The i-th group of a sample: all of them when there are no more, else from the middle of equal parts, where
 * n_together of them follow one another.
 */
static uint64_t sampled_group(const struct sample *sample, uint64_t i)
{
    if (sample->n_sampled == sample->n_groups)
        return i;
    uint64_t n = sample->n_together, n_runs = (sample->n_sampled + n - 1) / n;
    uint64_t middle = (2 * (i / n) + 1) * sample->n_groups / (2 * n_runs);
    uint64_t begin = middle < n / 2 ? 0 : middle - n / 2;
    begin = begin + n > sample->n_groups ? sample->n_groups - n : begin;
    return begin + i % n;
}

/* The i-th group, after the ones before it, is at *rows in the buffer; *n_rows is its number of rows. */
static enum mb_status read_group(const struct mb_checkpoint *ckpt, struct sample *sample, uint64_t i,
                                 uint8_t *buffer, uint8_t **rows, uint64_t *n_rows, struct mb_error *err)
{
    const struct mb_tensor *tensor = sample->tensor;
    uint64_t row = sampled_group(sample, i) * sample->group_rows, n_after = tensor->shape[0] - row;
    uint64_t row_nbytes = tensor->shape[1] * mb_elem_nbytes(tensor);
    *n_rows = sample->group_rows < n_after ? sample->group_rows : n_after;
    if (sample->n_left == 0) {
        uint64_t n = sample->n_together - i % sample->n_together, n_sampled = sample->n_sampled - i;
        sample->n_read = sample->n_left = n < n_sampled ? n : n_sampled;
        uint64_t n_wanted = sample->n_read * sample->group_rows;
        MB_TRY(mb_checkpoint_read(ckpt, tensor, row * row_nbytes, buffer,
                                  (n_wanted < n_after ? n_wanted : n_after) * row_nbytes, err));
    }
    *rows = buffer + (sample->n_read - sample->n_left--) * sample->group_nbytes;
    return MB_OK;
}

/* A unit's sums; a task. */
struct job {
    const struct mb_checkpoint *ckpt;
    const struct mb_layout *layout;
    const struct mb_unit *unit;
    const struct mb_rounder *rounder;
    uint64_t n_all; /* see sample_of */
    struct mb_compress_report report;
    uint64_t in_nbytes;
    enum mb_status status;
    struct mb_error err;
    uint8_t *buffer; /* MB_CHUNK_NBYTES, of the thread */
    uint8_t *out;    /* of out_nbytes, of the thread */
    size_t out_nbytes;
    int8_t *wanted;                      /* [WANTED_MAX] of the thread */
    struct mb_compress_matrix *matrices; /* [unit->n_coded] what was predicted */
};

static enum mb_status add_stats(void *ctx, const struct mb_tensor *tensor, struct mb_weight_stats *stats,
                                struct mb_error *err)
{
    const struct job *job = ctx;
    if (tensor->n_dims != 2 || tensor->n_elems == 0)
        return MB_OK;
    struct sample sample = sample_of(job->ckpt, tensor, job->n_all);
    for (uint64_t i = 0; i < sample.n_sampled; i++) {
        uint64_t group = sampled_group(&sample, i), n_rows;
        uint8_t *rows;
        size_t bad;
        MB_TRY(read_group(job->ckpt, &sample, i, job->buffer, &rows, &n_rows, err));
        if (mb_weight_stats_add(stats, mb_tensor_dtype(tensor), rows, (size_t)(n_rows * tensor->shape[1]),
                                &bad) != MB_OK)
            return mb_fail_weight(job->ckpt, tensor, group * sample.group_rows * tensor->shape[1] + bad, err);
    }
    return MB_OK;
}

static uint64_t scaled(uint64_t count, uint64_t of_sample, uint64_t whole)
{
    return of_sample == whole ? count : (uint64_t)((double)count * (double)whole / (double)of_sample + 0.5);
}

/*
 * What a rounder wants is not known without its work.  Feedback moves the weights, before they are rounded,
 * by what is left of the errors of others: to the size that is like noise.  FED_SIGMA, in steps, is what
 * gives the sizes of real folders, without exponents of columns and with them (docs/plan.md).
 */
static const double FED_SIGMA[] = {0.27, 0.25};
static void spread(const struct mb_coding *coding, double sigma, const uint8_t *rows, size_t n,
                   int8_t *wanted)
{
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525U + 1013904223U;
        double even = (double)(state >> 8) * 0x1p-23 - 1; /* -1 to 1 */
        double level = mb_load_value(coding->dtype, rows, i) / (double)coding->step + sigma * sqrt(3) * even;
        wanted[i] = (int8_t)lrint(fmin(fmax(level, -MB_INDEX_MAX), MB_INDEX_MAX));
    }
}

/* As many exponents as the sample admits. */
static enum mb_status find_exponents(struct job *job, const struct mb_layout_item *item,
                                     struct mb_blob_matrix *info, int8_t **exponents, struct mb_error *err)
{
    enum mb_status status = mb_item_exponents(item, job->rounder, info->step, exponents, err);
    struct sample sample = sample_of(job->ckpt, item->tensor, job->n_all);
    for (uint64_t i = 0; i < sample.n_sampled && status == MB_OK && *exponents != NULL; i++) {
        uint64_t n_rows;
        uint8_t *rows;
        status = read_group(job->ckpt, &sample, i, job->buffer, &rows, &n_rows, err);
        if (status == MB_OK)
            mb_limit_exponents(info->dtype, rows, (size_t)n_rows, info->n_cols, *exponents);
    }
    mb_settle_exponents(exponents, info);
    return status;
}

/* What the sample of a matrix needs, scaled by rows (bytes, outliers) and by groups (directory). */
static enum mb_status estimate_matrix(struct job *job, const struct mb_blob_matrix *info,
                                      const struct mb_tensor *tensor, const int8_t *exponents,
                                      uint64_t *nbytes, struct mb_error *err)
{
    struct mb_coding coding = mb_item_coding(info);
    bool is_fed = info->step < mb_step_of_eps(info->eps);
    double sigma = FED_SIGMA[job->rounder != NULL && job->rounder->exponents != NULL];
    struct sample sample = sample_of(job->ckpt, tensor, job->n_all);
    uint64_t n_sampled_rows = 0, record_nbytes = 0, directory_nbytes = 0, n_outliers = 0, n_raw = 0;
    for (uint64_t i = 0; i < sample.n_sampled; i++) {
        uint64_t first = sampled_group(&sample, i), n_rows;
        struct mb_group group;
        size_t out_nbytes, bad;
        uint8_t *rows;
        MB_TRY(read_group(job->ckpt, &sample, i, job->buffer, &rows, &n_rows, err));
        if (exponents != NULL)
            mb_scale_columns(info->dtype, rows, (size_t)n_rows, info->n_cols, exponents);
        coding.wanted = is_fed ? job->wanted : NULL;
        if (is_fed)
            spread(&coding, sigma, rows, (size_t)n_rows * info->n_cols, job->wanted);
        if (mb_encode_rows(&coding, rows, (size_t)n_rows, job->out, job->out_nbytes, &out_nbytes, &group,
                           &bad) != MB_OK)
            return mb_fail_weight(job->ckpt, tensor, first * sample.group_rows * info->n_cols + bad, err);
        n_sampled_rows += n_rows;
        record_nbytes += out_nbytes;
        directory_nbytes += mb_directory_nbytes(info->form, &group, 1);
        n_outliers += group.n_outliers;
        n_raw += mb_group_is_raw(info->form, &group);
    }
    *nbytes += info->exponents_nbytes;
    *nbytes += scaled(record_nbytes, n_sampled_rows, info->n_rows) +
               scaled(directory_nbytes, sample.n_sampled, sample.n_groups);
    job->report.n_outliers += scaled(n_outliers, n_sampled_rows, info->n_rows);
    job->report.n_raw_groups += scaled(n_raw, sample.n_sampled, sample.n_groups);
    job->report.n_groups += sample.n_groups;
    return MB_OK;
}

/* 'eps' and 'infos': room for all items of the unit. */
static enum mb_status estimate_matrices(struct job *job, double *eps, struct mb_blob_matrix *infos,
                                        struct mb_error *err)
{
    const struct mb_unit *unit = job->unit;
    uint64_t nbytes = 0, n_weights = 0;
    enum mb_bound_class class = MB_CLASS_OTHER;
    const struct mb_unit_reading reading = {job->ckpt, add_stats, job, job->buffer, &job->report.extremes};
    MB_TRY(mb_unit_eps(job->layout, unit, &reading, eps, err));
    for (size_t i = 0, n = 0; i < unit->n; i++) {
        const struct mb_layout_item *item = &job->layout->items[unit->first + i];
        if (item->bound.kind == MB_BOUND_EXACT)
            continue;
        class = n == 0 ? item->class : class;
        MB_TRY(mb_item_info(item, eps[i], job->rounder, &infos[n], err));
        uint64_t before = nbytes;
        int8_t *exponents;
        MB_TRY(find_exponents(job, item, &infos[n], &exponents, err));
        enum mb_status status = estimate_matrix(job, &infos[n], item->tensor, exponents, &nbytes, err);
        free(exponents);
        MB_TRY(status);
        job->matrices[n++] = (struct mb_compress_matrix){item->tensor->name, item->bound, eps[i],
                                                         item->tensor->n_elems, nbytes - before};
        n_weights += item->tensor->n_elems;
        job->in_nbytes += mb_tensor_stored_nbytes(job->ckpt, item->tensor);
    }
    mb_report_blob(&job->report, class, n_weights, job->in_nbytes,
                   nbytes + mb_blob_header_nbytes(infos, unit->n_coded));
    return MB_OK;
}

static enum mb_status estimate_unit(struct job *job, struct mb_error *err)
{
    job->matrices = calloc(job->unit->n_coded, sizeof *job->matrices);
    if (job->matrices == NULL)
        return mb_fail_memory(err, "the matrices of a blob");
    double *eps = calloc(job->unit->n, sizeof *eps);
    struct mb_blob_matrix *infos = calloc(job->unit->n, sizeof *infos);
    enum mb_status status = eps == NULL || infos == NULL ? mb_fail_memory(err, "the matrices of a blob")
                                                         : estimate_matrices(job, eps, infos, err);
    free(infos);
    free(eps);
    return status;
}

struct estimate {
    const struct mb_checkpoint *ckpt;
    const struct mb_layout *layout;
    const struct mb_rounder *rounder;
    uint64_t n_all;
    struct job jobs[UNITS_AT_ONCE];
    mb_compress_matrix_fn each; /* or NULL */
    void *each_ctx;
    uint8_t *buffers; /* [n_threads][thread_nbytes] */
    size_t out_nbytes, thread_nbytes;
};

static void estimate_task(void *ctx, size_t task, int thread)
{
    struct estimate *estimate = ctx;
    struct job *job = &estimate->jobs[task];
    job->buffer = estimate->buffers + (size_t)thread * estimate->thread_nbytes;
    job->out = job->buffer + MB_CHUNK_NBYTES;
    job->wanted = (int8_t *)job->out + estimate->out_nbytes;
    job->out_nbytes = estimate->out_nbytes;
    job->status = estimate_unit(job, &job->err);
}

static enum mb_status finish_job(const struct estimate *estimate, struct job *job,
                                 struct mb_progress *progress, struct mb_compress_report *report,
                                 struct mb_error *err)
{
    MB_TRY(mb_pass_on(err, job->status, &job->err));
    mb_report_add(report, &job->report);
    for (size_t i = 0; i < job->unit->n_coded && estimate->each != NULL; i++)
        estimate->each(estimate->each_ctx, &job->matrices[i]);
    return mb_progress_add(progress, "sample", job->in_nbytes, err);
}

static enum mb_status estimate_units(struct estimate *estimate, struct mb_pool *pool,
                                     struct mb_progress *progress, struct mb_compress_report *report,
                                     struct mb_error *err)
{
    const struct mb_layout *layout = estimate->layout;
    for (size_t first = 0; first < layout->n_units; first += UNITS_AT_ONCE) {
        size_t n = layout->n_units - first < UNITS_AT_ONCE ? layout->n_units - first : UNITS_AT_ONCE;
        for (size_t i = 0; i < n; i++)
            estimate->jobs[i] = (struct job){.ckpt = estimate->ckpt,
                                             .layout = layout,
                                             .unit = &layout->units[first + i],
                                             .rounder = estimate->rounder,
                                             .n_all = estimate->n_all};
        mb_pool_run(pool, n, estimate_task, estimate);
        enum mb_status status = MB_OK;
        for (size_t i = 0; i < n; i++) {
            if (status == MB_OK)
                status = finish_job(estimate, &estimate->jobs[i], progress, report, err);
            free(estimate->jobs[i].matrices);
        }
        MB_TRY(status);
    }
    return MB_OK;
}

/* Headers of the files, and exact tensors. */
static enum mb_status estimate_rest(const struct mb_checkpoint *ckpt, const struct mb_layout *layout,
                                    bool has_errors, struct mb_compress_report *report, struct mb_error *err)
{
    for (size_t i = 0; i < layout->n_exact; i++) {
        report->n_weights_exact += layout->exact[i].tensor->n_elems;
        report->exact_nbytes += layout->exact[i].tensor->nbytes;
    }
    for (size_t i = 0; i < ckpt->n_tensors; i++)
        report->in_nbytes += mb_tensor_stored_nbytes(ckpt, ckpt->tensors[i]);
    report->n_shards = layout->n_shards;
    report->out_nbytes = report->coded_nbytes + report->padding_nbytes + report->exact_nbytes;
    for (size_t i = 0; i < layout->n_shards; i++) {
        struct mb_shard_layout planned;
        MB_TRY(mb_shard_layout_make(layout, i, &planned, err));
        const struct mb_shard_errors errors = {planned.coded, planned.n_coded};
        uint64_t data_pos = mb_shard_data_pos(planned.tensors, planned.n_units + planned.n_exact,
                                              has_errors ? &errors : NULL);
        mb_shard_layout_free(&planned);
        if (data_pos == 0)
            return mb_fail_memory(err, "the header of a shard");
        report->out_nbytes += data_pos;
    }
    return MB_OK;
}

enum mb_status mb_estimate(const struct mb_checkpoint *ckpt, const struct mb_layout *layout,
                           const struct mb_compress_options *options, struct mb_progress *progress,
                           struct mb_compress_report *report, struct mb_error *err)
{
    struct mb_pool *pool;
    MB_TRY(mb_pool_create(options->n_threads, &pool, err));
    struct estimate *estimate = calloc(1, sizeof *estimate);
    size_t out_nbytes = mb_coded_chunk_bound(), thread_nbytes = MB_CHUNK_NBYTES + out_nbytes + WANTED_MAX;
    uint8_t *buffers = malloc((size_t)mb_pool_n_threads(pool) * thread_nbytes);
    enum mb_status status = MB_OK;
    if (estimate == NULL || buffers == NULL) {
        status = mb_fail_memory(err, "the samples");
    } else {
        estimate->ckpt = ckpt;
        estimate->layout = layout;
        estimate->rounder = options->rounder;
        estimate->each = options->each;
        estimate->each_ctx = options->each_ctx;
        estimate->thread_nbytes = thread_nbytes;
        estimate->n_all = count_groups(ckpt, layout);
        estimate->buffers = buffers;
        estimate->out_nbytes = out_nbytes;
        status = estimate_units(estimate, pool, progress, report, err);
    }
    mb_pool_destroy(pool);
    free(buffers);
    free(estimate);
    MB_TRY(status);
    return estimate_rest(ckpt, layout, options->rounder != NULL, report, err);
}
