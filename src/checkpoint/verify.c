/*
 * verify.c - proves a coded folder: structure and checksums, and the bound of every weight against the
 * original.
 */
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/value.h"
#include "checksums.h"
#include "each_blob.h"
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is found out about a matrix; pieces of it by many threads. */
struct finding {
    const struct mb_tensor *original;
    double err_max, ratio_max; /* of errors, and of errors over their bound */
    uint64_t err_index;        /* of the latter */
    uint64_t n_broken;
    struct mb_coded_statistics coded;
    void *meter;      /* the meter's, with an original; NULL: it does not know the matrix */
    double *errors2;  /* [n_rows] of outputs, in order: their sum must not depend on threads */
    double *outputs2; /* [n_rows] of the original's outputs */
};

struct verification {
    const struct mb_checkpoint *coded, *original; /* original: NULL when there is none */
    const struct mb_verify_options *options;
    struct mb_verify_report *report;
    uint8_t *buffers; /* [n_threads][BUFFER_NBYTES], of the original; the first also takes exact tensors */
    pthread_mutex_t lock;
    char **names; /* of all original tensors, in the order found */
    size_t n_names, cap;
    const struct mb_tensor *differs; /* the exact tensor that was last counted as different */
};

enum { BUFFER_NBYTES = MB_WALK_WEIGHTS * 4 };

/* ---------------------------------------------------------------- names */

static enum mb_status keep_name(struct verification *v, const char *name, struct mb_error *err)
{
    if (v->n_names == v->cap) {
        size_t cap = v->cap == 0 ? 256 : 2 * v->cap;
        char **grown = realloc(v->names, cap * sizeof *grown);
        if (grown == NULL)
            return mb_fail_memory(err, "the names of the tensors");
        v->names = grown;
        v->cap = cap;
    }
    v->names[v->n_names] = strdup(name);
    if (v->names[v->n_names] == NULL)
        return mb_fail_memory(err, "the name of a tensor");
    v->n_names++;
    return MB_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Each name belongs to one tensor, and no tensor of the original is missing. */
static enum mb_status check_names(struct verification *v, struct mb_error *err)
{
    if (v->n_names > 0)
        qsort(v->names, v->n_names, sizeof *v->names, by_text);
    for (size_t i = 1; i < v->n_names; i++)
        if (strcmp(v->names[i], v->names[i - 1]) == 0)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: is there twice; make the folder anew",
                           v->coded->path, v->names[i]);
    for (size_t i = 0; v->original != NULL && i < v->original->n_tensors; i++) {
        const struct mb_tensor *tensor = v->original->by_name[i];
        if (v->n_names == 0 ||
            bsearch(&tensor->name, v->names, v->n_names, sizeof *v->names, by_text) == NULL)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: is not in %s, which was made from another model",
                           mb_tensor_path(v->original, tensor), tensor->name, v->coded->path);
    }
    return MB_OK;
}

static enum mb_status find_original(const struct verification *v, const char *name,
                                    const struct mb_tensor *stored, const struct mb_tensor **found,
                                    struct mb_error *err)
{
    *found = mb_checkpoint_find(v->original, name);
    if (*found == NULL)
        return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: is not in %s, which is another model",
                       mb_tensor_path(v->coded, stored), name, v->original->path);
    return MB_OK;
}

/* ---------------------------------------------------------------- a coded matrix */

static enum mb_status begin_meter(struct verification *v, const struct mb_walk_matrix *matrix,
                                  struct finding *finding, struct mb_error *err)
{
    const struct mb_output_meter *meter = v->options->meter;
    if (meter == NULL)
        return MB_OK;
    MB_TRY(meter->begin(meter->context, matrix->name, matrix->coded->n_cols, &finding->meter, err));
    if (finding->meter == NULL)
        return MB_OK;
    finding->errors2 = mb_alloc(matrix->coded->n_rows, sizeof *finding->errors2);
    finding->outputs2 = mb_alloc(matrix->coded->n_rows, sizeof *finding->outputs2);
    return finding->errors2 == NULL || finding->outputs2 == NULL ? mb_fail_memory(err, "errors of outputs")
                                                                 : MB_OK;
}

static void drop_matrix(void *ctx, void *user)
{
    const struct verification *v = ctx;
    struct finding *finding = user;
    if (finding->meter != NULL)
        v->options->meter->end(v->options->meter->context, finding->meter);
    free(finding->errors2);
    free(finding->outputs2);
}

/* Rows of the original, and what decoding them lost. */
static enum mb_status measure_rows(struct verification *v, const struct finding *finding,
                                   const struct mb_coded_matrix *coded, const uint8_t *original,
                                   const float *decoded, uint64_t row, uint64_t n_rows, struct mb_error *err)
{
    const struct mb_output_meter *meter = v->options->meter;
    size_t n = (size_t)(n_rows * coded->n_cols);
    enum mb_dtype dtype = mb_tensor_dtype(finding->original);
    double *rows = mb_alloc(n, sizeof *rows);
    if (rows == NULL)
        return mb_fail_memory(err, "rows that are measured");
    for (size_t i = 0; i < n; i++)
        rows[i] = (double)mb_load_value(dtype, original, i);
    enum mb_status status =
        meter->rows(meter->context, finding->meter, rows, (size_t)n_rows, finding->outputs2 + row, err);
    for (size_t i = 0; i < n; i++)
        rows[i] -= (double)decoded[i];
    if (status == MB_OK)
        status =
            meter->rows(meter->context, finding->meter, rows, (size_t)n_rows, finding->errors2 + row, err);
    free(rows);
    return status;
}

static enum mb_status begin_matrix(void *ctx, struct mb_walk_matrix *matrix, struct mb_error *err)
{
    struct verification *v = ctx;
    struct finding *finding = matrix->user;
    MB_TRY(keep_name(v, matrix->name, err));
    if (v->original == NULL)
        return MB_OK;
    MB_TRY(find_original(v, matrix->name, matrix->tensor, &finding->original, err));
    const struct mb_tensor *original = finding->original;
    if (original->n_dims != 2 || !mb_tensor_is_float(original) ||
        original->shape[0] != matrix->coded->n_rows || original->shape[1] != matrix->coded->n_cols)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: tensor %s: is not a matrix of %" PRIu64
                       " x %zu weights as in %s, which was made from another model",
                       mb_tensor_path(v->original, original), matrix->name, matrix->coded->n_rows,
                       matrix->coded->n_cols, v->coded->path);
    return begin_meter(v, matrix, finding, err);
}

/*
 * Rows from the first on.  "!(err <= eps)" lets no NaN pass; a weight that is none counts as infinitely far.
 * The worst is the one with the largest error over its bound; where a bound is 0, any error is infinite.
 */
static void compare(struct finding *finding, const struct mb_coded_matrix *coded, enum mb_dtype dtype,
                    const uint8_t *original, const float *decoded, uint64_t first, size_t n)
{
    for (size_t i = 0, c = 0; i < n; i++, c = c + 1 == coded->n_cols ? 0 : c + 1) {
        double eps = mb_column_eps(coded, c);
        double err_abs = fabs((double)mb_load_value(dtype, original, i) - (double)decoded[i]);
        if (!(err_abs <= eps)) {
            finding->n_broken++;
            err_abs = isnan(err_abs) ? INFINITY : err_abs;
        }
        double ratio = err_abs == 0 ? 0 : err_abs / eps;
        if (ratio > finding->ratio_max) {
            finding->ratio_max = ratio;
            finding->err_index = first + i;
        }
        finding->err_max = fmax(finding->err_max, err_abs);
    }
}

static void add_finding(struct finding *to, const struct finding *from)
{
    bool is_worse = from->ratio_max > to->ratio_max;
    bool is_earlier =
        from->ratio_max == to->ratio_max && from->ratio_max > 0 && from->err_index < to->err_index;
    if (is_worse || is_earlier) {
        to->ratio_max = from->ratio_max;
        to->err_index = from->err_index;
    }
    to->err_max = fmax(to->err_max, from->err_max);
    to->n_broken += from->n_broken;
    mb_coded_statistics_merge(&to->coded, &from->coded);
}

static enum mb_status verify_rows(void *ctx, const struct mb_walk_matrix *matrix, uint64_t row,
                                  uint64_t n_rows, float *weights, int thread, struct mb_error *err)
{
    struct verification *v = ctx;
    struct finding *finding = matrix->user, found = {0};
    const struct mb_coded_matrix *coded = matrix->coded;
    if (finding->original != NULL) {
        uint8_t *buffer = v->buffers + (size_t)thread * BUFFER_NBYTES;
        enum mb_dtype dtype = mb_tensor_dtype(finding->original);
        uint64_t row_nbytes = coded->n_cols * mb_dtype_nbytes(dtype);
        MB_TRY(mb_checkpoint_read(v->original, finding->original, row * row_nbytes, buffer,
                                  n_rows * row_nbytes, err));
        compare(&found, coded, dtype, buffer, weights, row * coded->n_cols, n_rows * coded->n_cols);
        if (finding->meter != NULL)
            MB_TRY(measure_rows(v, finding, coded, buffer, weights, row, n_rows, err));
    }
    mb_coded_statistics_add(&found.coded, coded, row, n_rows, weights);
    pthread_mutex_lock(&v->lock);
    add_finding(finding, &found);
    pthread_mutex_unlock(&v->lock);
    return MB_OK;
}

static void report_matrix(struct mb_verify_report *report, const struct mb_walk_matrix *matrix,
                          const struct finding *finding)
{
    report->n_weights += matrix->coded->n_rows * matrix->coded->n_cols;
    report->n_broken += finding->n_broken;
    if (finding->ratio_max > report->worst_ratio) {
        report->worst_ratio = finding->ratio_max;
        snprintf(report->worst_tensor, sizeof report->worst_tensor, "%.255s", matrix->name);
    }
}

/* What was proved has room for damping, so rounding here cannot break it. */
static void report_outputs(struct verification *v, const struct mb_walk_matrix *matrix,
                           const struct finding *finding, struct mb_verify_tensor *tensor)
{
    double errors2 = 0, outputs2 = 0, max2 = 0;
    tensor->has_output_error =
        mb_output_error_of(v->coded, matrix->tensor, matrix->name, &tensor->output_error);
    v->report->n_output_errors += tensor->has_output_error;
    if (finding->meter == NULL)
        return;
    for (uint64_t r = 0; r < tensor->n_rows; r++) {
        errors2 += finding->errors2[r];
        outputs2 += finding->outputs2[r];
        max2 = fmax(max2, finding->errors2[r]);
    }
    tensor->is_measured = true;
    tensor->output_rms = sqrt(errors2 / (double)tensor->n_rows);
    tensor->output_max = sqrt(max2);
    tensor->output_relative = outputs2 > 0 ? sqrt(errors2 / outputs2) : 0;
    v->report->n_measured++;
    v->report->n_output_errors_broken +=
        tensor->has_output_error && !(tensor->output_rms <= tensor->output_error.rms * (1 + 1e-9) &&
                                      tensor->output_max <= tensor->output_error.max * (1 + 1e-9));
}

static enum mb_status end_matrix(void *ctx, struct mb_walk_matrix *matrix, struct mb_error *err)
{
    (void)err;
    struct verification *v = ctx;
    const struct finding *finding = matrix->user;
    const struct mb_coded_matrix *coded = matrix->coded;
    double n = (double)coded->n_rows * (double)coded->n_cols, eps_min = coded->eps, eps_max = coded->eps;
    for (size_t c = 0; coded->col_exponents != NULL && c < coded->n_cols; c++) {
        eps_min = c == 0 ? mb_column_eps(coded, c) : fmin(eps_min, mb_column_eps(coded, c));
        eps_max = c == 0 ? mb_column_eps(coded, c) : fmax(eps_max, mb_column_eps(coded, c));
    }
    v->report->n_blobs += matrix->index == 0;
    if (v->original != NULL)
        report_matrix(v->report, matrix, finding);
    struct mb_verify_tensor tensor = {
        .name = matrix->name,
        .dtype = coded->dtype,
        .n_rows = coded->n_rows,
        .n_cols = coded->n_cols,
        .eps = eps_max,
        .err_abs_max = v->original == NULL ? NAN : finding->err_max,
        .err_max_index = finding->err_index,
        .bits_per_weight = 8 *
                           (double)(matrix->info->data_nbytes + matrix->info->directory_nbytes +
                                    matrix->info->exponents_nbytes) /
                           n,
        .entropy_bits = mb_coded_entropy_bits(&finding->coded),
        .n_outliers = finding->coded.n_outliers,
        .n_broken = finding->n_broken,
        .step = eps_max == coded->eps ? coded->step : coded->step * (float)(eps_max / coded->eps),
        .eps_min = eps_min,
        .err_ratio_max = v->original == NULL ? NAN : finding->ratio_max,
    };
    report_outputs(v, matrix, finding, &tensor);
    if (v->options->each != NULL)
        v->options->each(v->options->each_ctx, &tensor);
    return MB_OK;
}

/* ---------------------------------------------------------------- an exact tensor */

static bool same_shape(const struct mb_tensor *a, const struct mb_tensor *b)
{
    return strcmp(a->type_name, b->type_name) == 0 && a->n_dims == b->n_dims &&
           memcmp(a->shape, b->shape, a->n_dims * sizeof *a->shape) == 0;
}

static enum mb_status verify_exact(void *ctx, const struct mb_tensor *tensor, uint64_t pos, const void *bytes,
                                   uint64_t nbytes, struct mb_error *err)
{
    struct verification *v = ctx;
    const struct mb_tensor *original;
    if (pos == 0) {
        MB_TRY(keep_name(v, tensor->name, err));
        v->report->n_exact++;
    }
    if (v->original == NULL)
        return MB_OK;
    MB_TRY(find_original(v, tensor->name, tensor, &original, err));
    if (!same_shape(tensor, original))
        return mb_fail(
            err, MB_BAD_DATA,
            "%s: tensor %s: has another type or shape than in %s, which was made from another model",
            mb_tensor_path(v->original, original), tensor->name, v->coded->path);
    for (uint64_t at = 0; at < nbytes && v->differs != tensor; at += BUFFER_NBYTES) {
        uint64_t n = nbytes - at < BUFFER_NBYTES ? nbytes - at : BUFFER_NBYTES;
        MB_TRY(mb_checkpoint_read(v->original, original, pos + at, v->buffers, n, err));
        if (memcmp(v->buffers, (const uint8_t *)bytes + at, n) != 0) {
            v->differs = tensor; /* counted once */
            v->report->n_broken++;
        }
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- the call */

static enum mb_status verify_tensors(struct verification *v, struct mb_pool *pool, struct mb_error *err)
{
    static const struct mb_walk_ops ops = {sizeof(struct finding), begin_matrix, verify_rows, end_matrix,
                                           verify_exact,           drop_matrix};
    struct mb_progress progress = {.fn = v->options->progress, .ctx = v->options->progress_ctx};
    for (size_t i = 0; i < v->coded->n_tensors; i++)
        progress.total_nbytes += v->coded->tensors[i]->nbytes;
    v->buffers = malloc((size_t)mb_pool_n_threads(pool) * BUFFER_NBYTES);
    if (v->buffers == NULL)
        return mb_fail_memory(err, "reading the original");
    MB_TRY(mb_walk(v->coded, 0, v->coded->n_tensors, pool, &ops, v, &progress, "verify", err));
    return check_names(v, err);
}

static enum mb_status verify(struct verification *v, struct mb_error *err)
{
    struct mb_pool *pool;
    MB_TRY(mb_check_files(v->coded, &v->report->n_files, err));
    MB_TRY(mb_pool_create(v->options->n_threads, &pool, err));
    enum mb_status status = verify_tensors(v, pool, err);
    for (size_t i = 0; i < v->n_names; i++)
        free(v->names[i]);
    free(v->names);
    free(v->buffers);
    mb_pool_destroy(pool);
    return status;
}

static enum mb_status open_both(const char *coded_path, const char *original_path,
                                struct mb_checkpoint **coded, struct mb_checkpoint **original,
                                struct mb_error *err)
{
    MB_TRY(mb_checkpoint_open(coded_path, coded, err));
    if (!(*coded)->is_coded)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: is not a coded folder; give one that 'moebius compress' has written", coded_path);
    if (original_path == NULL)
        return MB_OK;
    MB_TRY(mb_checkpoint_open(original_path, original, err));
    if ((*original)->is_coded)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: is coded itself; give the checkpoint that the coded folder was made from",
                       original_path);
    return MB_OK;
}

enum mb_status mb_verify(const char *coded_path, const char *original_path,
                         const struct mb_verify_options *given, struct mb_verify_report *report,
                         struct mb_error *err)
{
    struct mb_verify_options options;
    struct mb_checkpoint *coded = NULL, *original = NULL;
    *report = (struct mb_verify_report){0};
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    enum mb_status status = open_both(coded_path, original_path, &coded, &original, err);
    if (status == MB_OK) {
        struct verification v = {
            .coded = coded,
            .original = original,
            .options = &options,
            .report = report,
            .lock = PTHREAD_MUTEX_INITIALIZER,
        };
        status = verify(&v, err);
    }
    mb_checkpoint_close(original);
    mb_checkpoint_close(coded);
    return status;
}
