/*
 * products.c - see products.h.
 */
#include "products.h"
#include "base/memory.h"
#include "codec/kernels.h"
#include "fuzz.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOKENS = 3, N_WEIGHTS_MAX = 1 << 17, N_VALUES_MAX = MB_COLS_MAX };
enum { MATVEC, MATMUL, TRANSPOSED, ROWS, N_RESULTS };

/* What one table gives. Values are compared as bytes: NaN, too. */
struct results {
    float *values[N_RESULTS];
    size_t n[N_RESULTS];
};

/* A range of rows, and vectors as long as the columns and as the range. */
struct job {
    const struct mb_coded_matrix *w;
    uint64_t row, n_rows;
    float *x;
};

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return z ^ (z >> 31);
}

static void activate(const struct mb_kernels *k, const float *x, size_t n, struct mb_activation *out,
                     int8_t **planes)
{
    size_t nbytes = mb_activation_plane_nbytes(n);
    *planes = mb_alloc(1, 2 * nbytes + mb_activation_wide_nbytes(n));
    REQUIRE(*planes != NULL);
    k->activation(x, n, *planes, *planes + nbytes, *planes + 2 * nbytes, out);
}

static void make_results(const struct job *job, struct results *r)
{
    const size_t n[N_RESULTS] = {[MATVEC] = job->n_rows,
                                 [MATMUL] = N_TOKENS * job->n_rows,
                                 [TRANSPOSED] = job->w->n_cols,
                                 [ROWS] = job->n_rows * job->w->n_cols};
    for (size_t i = 0; i < N_RESULTS; i++) {
        r->n[i] = n[i];
        r->values[i] = malloc(n[i] * sizeof(float));
        REQUIRE(r->values[i] != NULL);
    }
}

static void free_results(struct results *r)
{
    for (size_t i = 0; i < N_RESULTS; i++)
        free(r->values[i]);
}

static void run(const struct mb_kernels *k, const struct job *job, struct results *r)
{
    const struct mb_coded_matrix *w = job->w;
    struct mb_activation x[N_TOKENS], column;
    int8_t *planes[N_TOKENS], *column_planes;
    size_t scratch_nbytes = k->matmul_scratch_nbytes(w->n_cols);
    void *scratch = mb_alloc(1, scratch_nbytes),
         *other_scratch = mb_alloc(1, k->transposed_scratch_nbytes(w->n_cols));
    REQUIRE((scratch != NULL || scratch_nbytes == 0) && other_scratch != NULL);
    make_results(job, r);
    for (size_t t = 0; t < N_TOKENS; t++)
        activate(k, job->x + t * w->n_cols, w->n_cols, &x[t], &planes[t]);
    activate(k, job->x, job->n_rows, &column, &column_planes);
    k->matvec(w, job->row, job->n_rows, &x[0], r->values[MATVEC]);
    k->matmul(w, job->row, job->n_rows, x, N_TOKENS, r->values[MATMUL], job->n_rows, scratch);
    k->matvec_transposed(w, job->row, job->n_rows, &column, r->values[TRANSPOSED], other_scratch);
    k->decode_rows(w, job->row, job->n_rows, r->values[ROWS]);
    for (size_t t = 0; t < N_TOKENS; t++)
        free(planes[t]);
    free(column_planes);
    free(scratch);
    free(other_scratch);
}

static float pick_value(uint64_t *seed)
{
    static const float odd[] = {0, -0.0F, 1e-40F, 3e38F, -1};
    uint64_t dice = next_random(seed);
    if (dice % 64 == 5)
        return (float)((double)(int64_t)dice * 0x1p-60 * (double)(1ull << dice / 64 % 60)); /* an outlier */
    if (dice % 16 < 2)
        return odd[dice / 16 % (sizeof odd / sizeof *odd)];
    return (float)((double)(int64_t)dice * 0x1p-60);
}

/* Up to N_WEIGHTS_MAX weights of whole rows, anywhere in the matrix. */
static struct job make_job(const struct mb_coded_matrix *w, uint64_t seed)
{
    struct job job = {.w = w};
    uint64_t max = N_WEIGHTS_MAX / w->n_cols;
    max = max < w->n_rows ? max : w->n_rows;
    job.n_rows = seed % 4 == 0 ? 1 + next_random(&seed) % max : max;
    job.row = next_random(&seed) % (w->n_rows - job.n_rows + 1);
    size_t n = N_TOKENS * w->n_cols > job.n_rows ? N_TOKENS * w->n_cols : job.n_rows;
    job.x = malloc(n * sizeof *job.x);
    REQUIRE(job.x != NULL);
    for (size_t i = 0; i < n; i++)
        job.x[i] = pick_value(&seed);
    if (job.n_rows > N_VALUES_MAX)
        job.n_rows = N_VALUES_MAX;
    return job;
}

void fuzz_products(const struct mb_coded_matrix *w, uint64_t seed)
{
    static const char *const isas[] = {"avx2", "avx512"};
    struct job job = make_job(w, seed);
    struct results expected, got;
    run(mb_kernels_by_isa("scalar"), &job, &expected);
    for (size_t i = 0; i < expected.n[ROWS]; i++) /* a checked blob has no other weights */
        REQUIRE(isfinite(expected.values[ROWS][i]));
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const struct mb_kernels *k = mb_kernels_by_isa(isas[i]);
        if (k == NULL)
            continue;
        run(k, &job, &got);
        for (size_t kind = 0; kind < N_RESULTS; kind++)
            REQUIRE(memcmp(got.values[kind], expected.values[kind], got.n[kind] * sizeof(float)) == 0);
        free_results(&got);
    }
    free_results(&expected);
    free(job.x);
}
