/*
 * rounder.c - rounds the matrices that mb_compress codes, by moments that somebody else gathers.
 *
 * Owns the factors that are in use: matrices with the same input share one.  Several threads prepare and
 * round matrices at once; the list of factors has a lock.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/value.h"
#include "column_factors.h"
#include "feedback_kernels.h"
#include <math.h>
#include <moebius/feedback.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double DAMPING = 0.01, RHO = 1;
enum { COLS_MAX = 14336 };

/* A factor in use. */
struct shared_factor {
    struct mb_factor factor;
    uint64_t input;
    int8_t *exponents; /* [factor.n] or NULL */
    size_t n_users;
    struct shared_factor *next;
};

/* Exponents of columns, kept until the end. */
struct shared_exponents {
    struct shared_exponents *next;
    uint64_t input;
    size_t n;
    int8_t exponents[];
};

enum { N_BUCKETS = 1024 };

struct mb_feedback {
    const struct mb_moments_source *source;
    struct mb_feedback_options options;
    struct mb_rounder rounder;
    struct mb_feedback_report report;
    pthread_mutex_t lock;
    struct shared_factor *factors;
    struct shared_exponents *exponents[N_BUCKETS];
};

/* A matrix between begin and end. */
struct work {
    struct shared_factor *shared; /* NULL: rounded plainly */
    struct mb_moments_info info;
    struct mb_coding coding;
    double *drift;   /* [n_cols] */
    double backward; /* what the decomposition's rounding may add to e H e^T */
    double limit;    /* of e H e^T where nothing is clipped */
    uint64_t n_rows;
    bool is_wide;
    char *tensor;
};

/* ---------------------------------------------------------------- factors */

static bool is_same(const int8_t *a, const int8_t *b, size_t n)
{
    return a == NULL || b == NULL ? a == b : memcmp(a, b, n) == 0;
}

static struct shared_factor *find_factor(struct mb_feedback *feedback, uint64_t input, size_t n_cols,
                                         const int8_t *exponents)
{
    pthread_mutex_lock(&feedback->lock);
    struct shared_factor *shared = feedback->factors;
    while (shared != NULL && (shared->input != input || shared->factor.n != n_cols ||
                              !is_same(shared->exponents, exponents, n_cols)))
        shared = shared->next;
    if (shared != NULL)
        shared->n_users++;
    pthread_mutex_unlock(&feedback->lock);
    return shared;
}

static void release_factor(struct mb_feedback *feedback, struct shared_factor *shared)
{
    pthread_mutex_lock(&feedback->lock);
    bool is_last = --shared->n_users == 0;
    struct shared_factor **at = &feedback->factors;
    while (is_last && *at != shared)
        at = &(*at)->next;
    if (is_last)
        *at = shared->next;
    pthread_mutex_unlock(&feedback->lock);
    if (is_last) {
        mb_factor_free(&shared->factor);
        free(shared->exponents);
        free(shared);
    }
}

static enum mb_status factor_moments(struct mb_feedback *feedback, const char *tensor, size_t n_cols,
                                     const int8_t *exponents, struct work *work, struct mb_factor *factor,
                                     struct mb_error *err)
{
    float *moments = mb_alloc((uint64_t)n_cols * n_cols, sizeof *moments);
    if (moments == NULL)
        return mb_fail_memory(err, "the moments of a matrix");
    const struct mb_moments_source *source = feedback->source;
    enum mb_status status = source->get(source->context, tensor, n_cols, &work->info, moments, err);
    if (status == MB_OK) {
        status = mb_factor_make(moments, n_cols, exponents, feedback->options.damping, factor, err);
        if (status != MB_OK)
            status = mb_fail_in(err, status, "tensor %s", tensor);
    }
    free(moments);
    return status;
}

static enum mb_status copy_exponents(const int8_t *exponents, size_t n, int8_t **copy, struct mb_error *err)
{
    *copy = exponents == NULL ? NULL : malloc(n);
    if (*copy != NULL)
        memcpy(*copy, exponents, n);
    return exponents != NULL && *copy == NULL ? mb_fail_memory(err, "exponents of columns") : MB_OK;
}

/* Two threads may factor the same moments; each then has its own, which is as good. */
static enum mb_status get_factor(struct mb_feedback *feedback, const char *tensor, size_t n_cols,
                                 const int8_t *exponents, struct work *work, struct mb_error *err)
{
    work->shared = find_factor(feedback, work->info.input, n_cols, exponents);
    if (work->shared != NULL)
        return MB_OK;
    struct shared_factor *shared = calloc(1, sizeof *shared);
    if (shared == NULL)
        return mb_fail_memory(err, "a factor");
    enum mb_status status = copy_exponents(exponents, n_cols, &shared->exponents, err);
    if (status == MB_OK)
        status = factor_moments(feedback, tensor, n_cols, exponents, work, &shared->factor, err);
    if (status != MB_OK || shared->factor.is_zero) {
        mb_factor_free(&shared->factor);
        free(shared->exponents);
        free(shared);
        return status;
    }
    shared->input = work->info.input;
    shared->n_users = 1;
    pthread_mutex_lock(&feedback->lock);
    shared->next = feedback->factors;
    feedback->factors = shared;
    pthread_mutex_unlock(&feedback->lock);
    work->shared = shared;
    return MB_OK;
}

/* ---------------------------------------------------------------- a matrix */

static enum mb_status takes(void *context, const char *tensor, size_t n_cols, bool *is_taken,
                            struct mb_error *err)
{
    const struct mb_feedback *feedback = context;
    struct mb_moments_info info = {0};
    MB_TRY(feedback->source->get(feedback->source->context, tensor, n_cols, &info, NULL, err));
    *is_taken = info.is_known;
    return MB_OK;
}

/* ---------------------------------------------------------------- columns */

/* Energies are on the moments' diagonal. */
static enum mb_status make_exponents(struct mb_feedback *feedback, const char *tensor, size_t n_cols,
                                     int8_t *exponents, struct mb_error *err)
{
    const struct mb_moments_source *source = feedback->source;
    struct mb_moments_info info = {0};
    float *moments = mb_alloc((uint64_t)n_cols * n_cols, sizeof *moments);
    double *energies = mb_alloc(n_cols, sizeof *energies);
    int64_t *logs = mb_alloc(n_cols, sizeof *logs);
    enum mb_status status = moments == NULL || energies == NULL || logs == NULL
                                ? mb_fail_memory(err, "the moments of a matrix")
                                : source->get(source->context, tensor, n_cols, &info, moments, err);
    for (size_t j = 0; j < n_cols && status == MB_OK; j++)
        energies[j] = (double)moments[j * n_cols + j];
    if (status == MB_OK)
        mb_column_exponents(energies, n_cols, info.n_tokens, logs, exponents);
    free(moments);
    free(energies);
    free(logs);
    return status;
}

static struct shared_exponents **bucket_of(struct mb_feedback *feedback, uint64_t input)
{
    return &feedback->exponents[input * 0x9e3779b97f4a7c15U >> 54];
}

static bool find_exponents(struct mb_feedback *feedback, uint64_t input, size_t n_cols, int8_t *exponents)
{
    pthread_mutex_lock(&feedback->lock);
    const struct shared_exponents *shared = *bucket_of(feedback, input);
    while (shared != NULL && (shared->input != input || shared->n != n_cols))
        shared = shared->next;
    if (shared != NULL)
        memcpy(exponents, shared->exponents, n_cols);
    pthread_mutex_unlock(&feedback->lock);
    return shared != NULL;
}

/* A plan asks many times, and moments are large. */
static enum mb_status keep_exponents(struct mb_feedback *feedback, uint64_t input, size_t n_cols,
                                     const int8_t *exponents, struct mb_error *err)
{
    struct shared_exponents *shared = malloc(sizeof *shared + n_cols);
    if (shared == NULL)
        return mb_fail_memory(err, "exponents of columns");
    shared->input = input;
    shared->n = n_cols;
    memcpy(shared->exponents, exponents, n_cols);
    pthread_mutex_lock(&feedback->lock);
    shared->next = *bucket_of(feedback, input);
    *bucket_of(feedback, input) = shared;
    pthread_mutex_unlock(&feedback->lock);
    return MB_OK;
}

static enum mb_status exponents_of(void *context, const char *tensor, size_t n_cols, int8_t *exponents,
                                   struct mb_error *err)
{
    struct mb_feedback *feedback = context;
    struct mb_moments_info info = {0};
    memset(exponents, 0, n_cols);
    if (!mb_may_have_exponents(tensor) || n_cols > feedback->options.n_cols_max)
        return MB_OK;
    MB_TRY(feedback->source->get(feedback->source->context, tensor, n_cols, &info, NULL, err));
    if (!info.is_known || info.n_tokens == 0 || find_exponents(feedback, info.input, n_cols, exponents))
        return MB_OK;
    MB_TRY(make_exponents(feedback, tensor, n_cols, exponents, err));
    return keep_exponents(feedback, info.input, n_cols, exponents, err);
}

/* ---------------------------------------------------------------- what arithmetic may add */

/*
 * What was fed into column k is a float sum of k products of floats: it is off by at most (k + 4) 2^-23 of
 * the sum of their magnitudes, eps times the column's reach.  The decomposition itself is exact for moments
 * that differ from H' by at most (n + 2) 2^-52 |V| |V^T|.
 */
static void allow_for_arithmetic(struct work *work)
{
    const struct mb_factor *factor = &work->shared->factor;
    double eps = work->coding.eps, step = (double)work->coding.step, spread = 0;
    for (size_t k = 0; k < factor->n; k++) {
        work->drift[k] = (double)(k + 4) * 0x1p-23 * eps * factor->reach[k];
        double half = step / 2 * (1 + 0x1p-20) + work->drift[k] * 2;
        work->limit += factor->weights[k] * half * half;
        spread += factor->weights[k] * (1 + factor->reach[k]) * (1 + factor->reach[k]);
    }
    work->backward = (double)(factor->n + 2) * 0x1p-52 * eps * eps * spread;
    work->limit += work->backward;
}

static enum mb_status prepare(struct mb_feedback *feedback, const char *tensor, const int8_t *exponents,
                              struct work *work, struct mb_error *err)
{
    size_t n_cols = work->coding.n_cols;
    MB_TRY(feedback->source->get(feedback->source->context, tensor, n_cols, &work->info, NULL, err));
    work->tensor = strdup(tensor);
    if (work->tensor == NULL)
        return mb_fail_memory(err, "the name of a matrix");
    work->is_wide = n_cols > feedback->options.n_cols_max;
    if (!work->info.is_known || work->info.n_tokens == 0 || work->coding.step == 0 || work->is_wide)
        return MB_OK;
    if (!(work->info.sum_gates2 > 0) || !isfinite(work->info.sum_gates2))
        return mb_fail(err, MB_BAD_DATA, "tensor %s: its moments are of %llu tokens whose gates have no sum",
                       tensor, (unsigned long long)work->info.n_tokens);
    MB_TRY(get_factor(feedback, tensor, n_cols, exponents, work, err));
    if (work->shared == NULL)
        return MB_OK;
    work->drift = calloc(n_cols, sizeof *work->drift);
    if (work->drift == NULL)
        return mb_fail_memory(err, "a matrix that is rounded");
    allow_for_arithmetic(work);
    return MB_OK;
}

static void free_work(struct mb_feedback *feedback, struct work *work)
{
    if (work->shared != NULL)
        release_factor(feedback, work->shared);
    free(work->drift);
    free(work->tensor);
    free(work);
}

static enum mb_status begin(void *context, const char *tensor, uint64_t n_rows,
                            const struct mb_coding *coding, const int8_t *exponents, void **matrix,
                            struct mb_error *err)
{
    struct mb_feedback *feedback = context;
    struct work *work = calloc(1, sizeof *work);
    *matrix = NULL;
    if (work == NULL)
        return mb_fail_memory(err, "a matrix that is rounded");
    work->n_rows = n_rows;
    work->coding = *coding;
    enum mb_status status = prepare(feedback, tensor, exponents, work, err);
    if (status != MB_OK)
        free_work(feedback, work);
    else
        *matrix = work;
    return status;
}

/* ---------------------------------------------------------------- rows */

static void count_rows(const struct mb_feed *feed, double backward, struct mb_rounded *rounded)
{
    for (size_t r = 0; r < feed->n_rows; r++) {
        double error2 = feed->row_errors2[r] + backward;
        rounded->n_weights += feed->factor->n;
        rounded->n_clipped += feed->n_clipped[r];
        rounded->n_rows_clipped += feed->n_clipped[r] > 0;
        rounded->row_error2_sum += error2;
        rounded->row_error2_max = fmax(rounded->row_error2_max, error2);
    }
}

static enum mb_status feed_rows(const struct work *work, const void *weights, size_t n_rows, int8_t *wanted,
                                struct mb_rounded *rounded, struct mb_error *err)
{
    const struct mb_factor *factor = &work->shared->factor;
    size_t rows = mb_round_up(n_rows, MB_FEED_ROWS);
    struct mb_feed feed = {
        .factor = factor,
        .coding = &work->coding,
        .weights = weights,
        .n_rows = n_rows,
        .wanted = wanted,
        .fed = mb_alloc(rows, factor->stride * sizeof *feed.fed),
        .errors = mb_alloc(rows, MB_FEED_PANEL * sizeof *feed.errors),
        .drift = work->drift,
        .row_errors2 = mb_alloc(rows, sizeof *feed.row_errors2),
        .n_clipped = mb_alloc(rows, sizeof *feed.n_clipped),
    };
    enum mb_status status = MB_OK;
    if (feed.fed == NULL || feed.errors == NULL || feed.row_errors2 == NULL || feed.n_clipped == NULL) {
        status = mb_fail_memory(err, "rows that are rounded");
    } else {
        mb_feedback_kernels()->round_rows(&feed);
        count_rows(&feed, work->backward, rounded);
    }
    free(feed.fed);
    free(feed.errors);
    free(feed.row_errors2);
    free(feed.n_clipped);
    return status;
}

static enum mb_status round_rows(void *context, void *matrix, const void *weights, size_t n_rows,
                                 int8_t *wanted, bool *is_plain, struct mb_rounded *rounded,
                                 struct mb_error *err)
{
    (void)context;
    const struct work *work = matrix;
    *is_plain = work->shared == NULL;
    return *is_plain ? MB_OK : feed_rows(work, weights, n_rows, wanted, rounded, err);
}

/*
 * A weight stored as it is takes back the error that other weights made up for: the root of e H' e^T grows by
 * at most that error times the root of H'_jj.
 */
static double growth_of(const struct work *work, const void *weights, size_t row, const int8_t *wanted,
                        int reach)
{
    size_t n = work->coding.n_cols;
    double growth = 0;
    for (size_t j = 0; j < n && reach >= 0; j++) {
        const int8_t q = wanted[row * n + j];
        if (q == MB_INDEX_NONE || abs(q) <= reach)
            continue;
        float w = mb_load_value(work->coding.dtype, weights, row * n + j);
        growth += fabs((double)w - (double)(work->coding.step * (float)q)) * work->shared->factor.roots[j];
    }
    return growth * (1 + 1e-9);
}

static void settle_rows(void *context, void *matrix, const void *weights, size_t n_rows, const int8_t *wanted,
                        const int8_t *reach, struct mb_rounded *rounded)
{
    (void)context;
    double most = 0, root = sqrt(rounded->row_error2_max);
    for (size_t r = 0; r < n_rows; r++) {
        double growth = growth_of(matrix, weights, r, wanted, reach[r]);
        rounded->n_rows_exact += growth > 0;
        rounded->row_error2_sum += growth * (growth + 2 * root); /* no row's own root is larger */
        most = fmax(most, growth);
    }
    rounded->row_error2_max = (root + most) * (root + most) * (1 + 1e-12);
}

/* ---------------------------------------------------------------- the end of a matrix */

static struct mb_feedback_matrix matrix_of(const struct work *work, const struct mb_rounded *rounded)
{
    double n_gates = work->info.sum_gates2;
    return (struct mb_feedback_matrix){.tensor = work->tensor,
                                       .n_tokens = work->info.n_tokens,
                                       .n_weights = rounded->n_weights,
                                       .n_clipped = rounded->n_clipped,
                                       .n_rows = work->n_rows,
                                       .n_rows_clipped = rounded->n_rows_clipped,
                                       .n_rows_exact = rounded->n_rows_exact,
                                       .row_error_max = sqrt(rounded->row_error2_max / n_gates),
                                       .row_error_rms =
                                           sqrt(rounded->row_error2_sum / (double)work->n_rows / n_gates),
                                       .row_error_limit = sqrt(work->limit / n_gates)};
}

static void report_matrix(struct mb_feedback *feedback, const struct mb_feedback_matrix *matrix,
                          bool is_plain, bool is_wide)
{
    struct mb_feedback_report *report = &feedback->report;
    if (is_wide && report->n_wide++ == 0)
        snprintf(report->wide_tensor, sizeof report->wide_tensor, "%.255s", matrix->tensor);
    report->n_unreached += is_plain && !is_wide;
    report->n_matrices += !is_plain;
    report->n_weights += matrix->n_weights;
    report->n_clipped += matrix->n_clipped;
    report->n_rows += is_plain ? 0 : matrix->n_rows;
    report->n_rows_clipped += matrix->n_rows_clipped;
    if (feedback->options.each != NULL)
        feedback->options.each(feedback->options.each_ctx, matrix);
}

static bool end(void *context, void *matrix, const struct mb_rounded *rounded, struct mb_output_error *error)
{
    struct mb_feedback *feedback = context;
    struct work *work = matrix;
    bool is_plain = work->shared == NULL;
    if (rounded != NULL && work->info.is_known && work->coding.step != 0) {
        struct mb_feedback_matrix found = {.tensor = work->tensor, .n_rows = work->n_rows};
        found = is_plain ? found : matrix_of(work, rounded);
        *error = (struct mb_output_error){found.row_error_rms, found.row_error_max, found.n_rows_clipped};
        report_matrix(feedback, &found, is_plain, work->is_wide);
    } else {
        is_plain = true;
    }
    free_work(feedback, work);
    return !is_plain;
}

/* ---------------------------------------------------------------- the calls */

enum mb_status mb_feedback_create(const struct mb_moments_source *source,
                                  const struct mb_feedback_options *given, struct mb_feedback **feedback,
                                  struct mb_error *err)
{
    struct mb_feedback_options options;
    *feedback = NULL;
    MB_TRY(MB_OPTIONS_TAKE(options, given, err));
    options.rho = options.rho == 0 ? RHO : options.rho;
    options.n_cols_max = options.n_cols_max == 0 ? COLS_MAX : options.n_cols_max;
    options.damping = options.damping == 0 ? DAMPING : options.damping;
    if (!(options.rho >= 0.5 && options.rho <= MB_RHO_MAX))
        return mb_fail(err, MB_USAGE, "feedback within %g steps: not within 0.5 to %g", options.rho,
                       MB_RHO_MAX);
    if (!(options.damping > 0 && options.damping <= 1))
        return mb_fail(err, MB_USAGE, "damping of moments by %g: not above 0 and up to 1", options.damping);
    struct mb_feedback *made = calloc(1, sizeof *made);
    if (made == NULL)
        return mb_fail_memory(err, "feedback");
    made->source = source;
    made->options = options;
    made->rounder = (struct mb_rounder){.context = made,
                                        .rho = options.rho,
                                        .damping = options.damping,
                                        .moments_hash = source->hash,
                                        .takes = takes,
                                        .exponents = options.no_column_factors ? NULL : exponents_of,
                                        .begin = begin,
                                        .round = round_rows,
                                        .settle = settle_rows,
                                        .end = end};
    pthread_mutex_init(&made->lock, NULL);
    *feedback = made;
    return MB_OK;
}

void mb_feedback_free(struct mb_feedback *feedback)
{
    if (feedback == NULL)
        return;
    for (size_t i = 0; i < N_BUCKETS; i++)
        for (struct shared_exponents *next, *shared = feedback->exponents[i]; shared != NULL; shared = next) {
            next = shared->next;
            free(shared);
        }
    pthread_mutex_destroy(&feedback->lock);
    free(feedback);
}

const struct mb_rounder *mb_feedback_rounder(const struct mb_feedback *feedback)
{
    return &feedback->rounder;
}

struct mb_feedback_report mb_feedback_report(const struct mb_feedback *feedback)
{
    return feedback->report;
}
