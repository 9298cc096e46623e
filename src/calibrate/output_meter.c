/*
 * output_meter.c - measures rows of a matrix, or their errors, over calibration tokens: e H e^T.
 */
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "feedback_kernels.h"
#include <math.h>
#include <moebius/calibrate.h>
#include <stdlib.h>

enum { DEPTH = 64, ROWS = 64 };

/* Moments of a matrix's input, over sum g^2. */
struct measured {
    size_t n, stride;
    double *moments; /* [n][stride] */
};

static enum mb_status read_moments(const struct mb_moments *moments, const struct mb_moments_input *input,
                                   struct measured *m, struct mb_error *err)
{
    m->n = input->n_values;
    m->stride = mb_round_up(m->n, MB_UPDATE_COLS);
    float *values = mb_alloc(m->n, m->n * sizeof *values);
    m->moments = mb_alloc(m->n, m->stride * sizeof *m->moments);
    enum mb_status status = values == NULL || m->moments == NULL
                                ? mb_fail_memory(err, "the moments of a matrix")
                                : mb_moments_read(moments, input, values, err);
    for (size_t i = 0; i < m->n && status == MB_OK; i++)
        for (size_t k = 0; k < m->n; k++)
            m->moments[i * m->stride + k] = (double)values[i * m->n + k] / input->sum_gg;
    free(values);
    return status;
}

static void end(void *context, void *matrix)
{
    (void)context;
    struct measured *m = matrix;
    if (m != NULL)
        free(m->moments);
    free(m);
}

static enum mb_status begin(void *context, const char *tensor, size_t n_cols, void **matrix,
                            struct mb_error *err)
{
    const struct mb_moments *moments = context;
    const struct mb_moments_input *input = mb_moments_find(moments, tensor);
    *matrix = NULL;
    if (input == NULL || input->n_tokens == 0 || !(input->sum_gg > 0))
        return MB_OK;
    if (input->n_values != n_cols)
        return mb_fail(err, MB_BAD_DATA, "tensor %s: moments of %zu values for %zu columns", tensor,
                       input->n_values, n_cols);
    struct measured *m = calloc(1, sizeof *m);
    if (m == NULL)
        return mb_fail_memory(err, "a matrix that is measured");
    enum mb_status status = read_moments(moments, input, m, err);
    if (status == MB_OK)
        *matrix = m;
    else
        end(context, m);
    return status;
}

/* 'products': [ROWS][stride] room. */
static void measure(const struct measured *m, const double *rows, size_t n_rows, double *products,
                    double *squares)
{
    for (size_t i = 0; i < n_rows * m->stride; i++)
        products[i] = 0;
    for (size_t at = 0; at < m->n; at += DEPTH) {
        size_t depth = m->n - at < DEPTH ? m->n - at : DEPTH;
        mb_feedback_kernels()->update_f64(products, m->stride, n_rows, m->stride, rows + at, m->n,
                                          m->moments + at * m->stride, m->stride, depth);
    }
    for (size_t r = 0; r < n_rows; r++) {
        squares[r] = 0;
        for (size_t k = 0; k < m->n; k++)
            squares[r] += products[r * m->stride + k] * rows[r * m->n + k];
        squares[r] = fmax(squares[r], 0);
    }
}

static enum mb_status rows_of(void *context, const void *matrix, const double *rows, size_t n_rows,
                              double *squares, struct mb_error *err)
{
    (void)context;
    const struct measured *m = matrix;
    double *products = mb_alloc(ROWS, m->stride * sizeof *products);
    if (products == NULL)
        return mb_fail_memory(err, "rows that are measured");
    for (size_t at = 0; at < n_rows; at += ROWS)
        measure(m, rows + at * m->n, n_rows - at < ROWS ? n_rows - at : ROWS, products, squares + at);
    free(products);
    return MB_OK;
}

struct mb_output_meter mb_moments_as_meter(struct mb_moments *moments)
{
    return (struct mb_output_meter){.context = moments, .begin = begin, .rows = rows_of, .end = end};
}
