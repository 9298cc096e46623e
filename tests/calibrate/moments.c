#include "moments.h"
#include "../codec/matrices.h"
#include "cmocka_all.h"
#include <math.h>
#include <stdlib.h>

enum { N_DIRECTIONS = 6 };

float *test_moments_make(size_t n, size_t n_tokens, uint64_t seed)
{
    double *sums = calloc(n * n, sizeof *sums), *directions = calloc(n * N_DIRECTIONS, sizeof *directions);
    double *x = calloc(n, sizeof *x), *sizes = calloc(n, sizeof *sizes);
    float *moments = malloc(n * n * sizeof *moments);
    assert_true(sums != NULL && directions != NULL && x != NULL && sizes != NULL && moments != NULL);
    for (size_t j = 0; j < n; j++)
        sizes[j] = exp(0.7 * test_normal(&seed));
    for (size_t i = 0; i < n * N_DIRECTIONS; i++)
        directions[i] = test_normal(&seed);
    for (size_t t = 0; t < n_tokens; t++) {
        double parts[N_DIRECTIONS];
        for (size_t d = 0; d < N_DIRECTIONS; d++)
            parts[d] = test_normal(&seed);
        for (size_t j = 0; j < n; j++) {
            x[j] = 0.5 * test_normal(&seed);
            for (size_t d = 0; d < N_DIRECTIONS; d++)
                x[j] += parts[d] * directions[j * N_DIRECTIONS + d];
            x[j] *= sizes[j];
        }
        for (size_t j = 0; j < n; j++)
            for (size_t k = 0; k < n; k++)
                sums[j * n + k] += x[j] * x[k];
    }
    for (size_t i = 0; i < n * n; i++)
        moments[i] = (float)sums[i];
    free(sums);
    free(directions);
    free(x);
    free(sizes);
    return moments;
}

double test_row_error2(const float *moments, const double *e, size_t n)
{
    double sum = 0;
    for (size_t j = 0; j < n; j++) {
        double product = 0;
        for (size_t k = 0; k < n; k++)
            product += (double)moments[j * n + k] * e[k];
        sum += e[j] * product;
    }
    return sum;
}
