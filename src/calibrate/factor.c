/*
 * factor.c - factors moments: the order of columns, and a Cholesky decomposition in double.
 *
 * The last column comes first: with rows and columns reversed, V is the lower triangle L of H' = L L^T.  An
 * element of L is its moment less the products of earlier columns, one after the other in their order, so
 * blocks and vectors do not show in the result.
 */
#include "factor.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "feedback_kernels.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PANEL = 64, ROWS = 64 };

/* ---------------------------------------------------------------- what is factored */

struct column {
    double energy; /* H_jj */
    uint32_t place;
};

static int by_falling_energy(const void *a, const void *b)
{
    const struct column *x = a, *y = b;
    if (x->energy != y->energy)
        return x->energy < y->energy ? 1 : -1;
    return x->place < y->place ? -1 : 1;
}

static enum mb_status check_moments(const float *moments, size_t n, struct mb_error *err)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k <= i; k++) {
            float h = moments[i * n + k];
            if (!isfinite(h))
                return mb_fail(err, MB_BAD_DATA, "the moments of columns %zu and %zu are not finite", i, k);
            if (h != moments[k * n + i])
                return mb_fail(err, MB_BAD_DATA, "the moments of columns %zu and %zu are not symmetric", i,
                               k);
            if (i == k && h < 0)
                return mb_fail(err, MB_BAD_DATA, "the moment of column %zu is negative", i);
        }
    return MB_OK;
}

/* An element of what is factored: exact. */
static double moment(const float *moments, size_t n, const int8_t *exponents, size_t i, size_t k)
{
    double h = (double)moments[i * n + k];
    return exponents == NULL ? h : ldexp(h, -(exponents[i] + exponents[k]));
}

static enum mb_status find_order(const float *moments, const int8_t *exponents, struct mb_factor *factor,
                                 struct mb_error *err)
{
    size_t n = factor->n;
    struct column *columns = calloc(n, sizeof *columns);
    if (columns == NULL)
        return mb_fail_memory(err, "the order of columns");
    for (size_t j = 0; j < n; j++)
        columns[j] = (struct column){moment(moments, n, exponents, j, j), (uint32_t)j};
    qsort(columns, n, sizeof *columns, by_falling_energy);
    for (size_t j = 0; j < n; j++)
        factor->order[j] = columns[j].place;
    free(columns);
    return MB_OK;
}

/* ---------------------------------------------------------------- the decomposition */

struct cholesky {
    const struct mb_feedback_kernels *kernels;
    size_t n, stride;
    double *l;      /* [n][stride] lower triangle; what is above it does not matter */
    double *across; /* [PANEL][stride] the panel, transposed and negated */
};

/* A row of the panel: columns p to end, or to the diagonal. 'square': the panel's triangle, transposed. */
static void solve_row(double *row, size_t width, double square[PANEL][PANEL])
{
    for (size_t m = 0; m < width; m++) {
        row[m] /= square[m][m];
        for (size_t k = m + 1; k < width; k++)
            row[k] -= row[m] * square[m][k];
    }
}

/* false: column *bad is not that of a positive definite matrix. */
static bool factor_square(double *l, size_t stride, size_t width, double square[PANEL][PANEL], size_t *bad)
{
    for (size_t i = 0; i < width; i++) {
        double *row = l + i * stride;
        solve_row(row, i, square);
        for (size_t m = 0; m < i; m++)
            row[i] -= row[m] * row[m];
        *bad = i;
        if (!(row[i] > 0) || !isfinite(row[i]))
            return false;
        row[i] = sqrt(row[i]);
        for (size_t m = 0; m <= i; m++)
            square[m][i] = row[m];
    }
    return true;
}

/* What the panel's columns take from the rest of the triangle. */
static void update_rest(struct cholesky *c, size_t begin, size_t end)
{
    size_t width = end - begin;
    for (size_t i = end; i < c->n; i++)
        for (size_t m = 0; m < width; m++)
            c->across[m * c->stride + i] = -c->l[i * c->stride + begin + m];
    for (size_t i = end; i < c->n; i += ROWS) {
        size_t n_rows = c->n - i < ROWS ? c->n - i : ROWS;
        c->kernels->update_f64(c->l + i * c->stride + end, c->stride, n_rows,
                               mb_round_up(i + n_rows - end, MB_UPDATE_COLS), c->l + i * c->stride + begin,
                               c->stride, c->across + end, c->stride, width);
    }
}

static bool decompose(struct cholesky *c, size_t *bad)
{
    double square[PANEL][PANEL];
    for (size_t begin = 0; begin < c->n; begin += PANEL) {
        size_t end = begin + PANEL < c->n ? begin + PANEL : c->n;
        if (!factor_square(c->l + begin * c->stride + begin, c->stride, end - begin, square, bad)) {
            *bad += begin;
            return false;
        }
        for (size_t i = end; i < c->n; i++)
            solve_row(c->l + i * c->stride + begin, end - begin, square);
        update_rest(c, begin, end);
    }
    return true;
}

/* ---------------------------------------------------------------- what is kept */

/* A_jk is L[n - 1 - j][n - 1 - k] over the diagonal of the same column. */
static void keep_feeds(const struct cholesky *c, struct mb_factor *factor)
{
    size_t n = factor->n;
    for (size_t j = 0; j < n; j++) {
        const double *row = c->l + (n - 1 - j) * c->stride;
        float *feeds = factor->feeds + j * factor->stride;
        for (size_t k = j + 1; k < n; k++) {
            feeds[k] = (float)(row[n - 1 - k] / c->l[(n - 1 - k) * c->stride + n - 1 - k]);
            factor->reach[k] += fabs((double)feeds[k]);
        }
        factor->weights[j] = row[n - 1 - j] * row[n - 1 - j];
    }
}

static enum mb_status decompose_moments(const float *moments, const int8_t *exponents, double added,
                                        struct cholesky *c, struct mb_factor *factor, struct mb_error *err)
{
    size_t n = factor->n, bad;
    for (size_t i = 0; i < n; i++) {
        size_t row = factor->order[n - 1 - i];
        for (size_t k = 0; k <= i; k++)
            c->l[i * c->stride + k] = moment(moments, n, exponents, row, factor->order[n - 1 - k]);
        c->l[i * c->stride + i] += added;
        factor->roots[factor->order[n - 1 - i]] = sqrt(c->l[i * c->stride + i]);
    }
    if (!decompose(c, &bad))
        return mb_fail(err, MB_BAD_DATA,
                       "the moments are not positive definite (at column %u): no inputs have such moments",
                       factor->order[n - 1 - bad]);
    keep_feeds(c, factor);
    for (size_t k = 0; k < n; k++)
        if (!isfinite(factor->reach[k] * factor->weights[k]))
            return mb_fail(err, MB_BAD_DATA, "the moments are too large (at column %u)", factor->order[k]);
    return MB_OK;
}

static enum mb_status factor_moments(const float *moments, const int8_t *exponents, double damping,
                                     struct mb_factor *factor, struct mb_error *err)
{
    size_t n = factor->n;
    double sum = 0;
    MB_TRY(check_moments(moments, n, err));
    for (size_t j = 0; j < n; j++)
        sum += moment(moments, n, exponents, j, j);
    factor->is_zero = n == 0 || sum == 0;
    if (factor->is_zero)
        return MB_OK;
    factor->stride = mb_round_up(n, MB_FEED_STRIDE);
    factor->order = calloc(n, sizeof *factor->order);
    factor->weights = calloc(n, sizeof *factor->weights);
    factor->reach = calloc(n, sizeof *factor->reach);
    factor->roots = calloc(n, sizeof *factor->roots);
    factor->feeds = mb_alloc(n, factor->stride * sizeof *factor->feeds);
    struct cholesky c = {mb_feedback_kernels(), n, mb_round_up(n, MB_UPDATE_COLS), NULL, NULL};
    c.l = mb_alloc(n, c.stride * sizeof *c.l);
    c.across = mb_alloc(PANEL, c.stride * sizeof *c.across);
    enum mb_status status = MB_OK;
    if (factor->order == NULL || factor->weights == NULL || factor->reach == NULL || factor->roots == NULL ||
        factor->feeds == NULL || c.l == NULL || c.across == NULL)
        status = mb_fail_memory(err, "factoring the moments of a matrix");
    if (status == MB_OK)
        status = find_order(moments, exponents, factor, err);
    if (status == MB_OK)
        status = decompose_moments(moments, exponents, damping * sum / (double)n, &c, factor, err);
    free(c.l);
    free(c.across);
    return status;
}

enum mb_status mb_factor_make(const float *moments, size_t n, const int8_t *exponents, double damping,
                              struct mb_factor *factor, struct mb_error *err)
{
    assert(n > 0);
    *factor = (struct mb_factor){.n = n};
    enum mb_status status = factor_moments(moments, exponents, damping, factor, err);
    if (status != MB_OK)
        mb_factor_free(factor);
    return status;
}

void mb_factor_free(struct mb_factor *factor)
{
    free(factor->order);
    free(factor->feeds);
    free(factor->weights);
    free(factor->reach);
    free(factor->roots);
    *factor = (struct mb_factor){0};
}
