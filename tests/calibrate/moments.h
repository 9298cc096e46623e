/*
 * moments.h - moments of made-up inputs, repeatable.
 */
#ifndef TESTS_CALIBRATE_MOMENTS_H
#define TESTS_CALIBRATE_MOMENTS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Sums of x x^T over n_tokens inputs of n columns that go together in a few directions, columns of unequal
 * energy: malloc'ed [n][n].  Fewer tokens than columns: of deficient rank.
 */
float *test_moments_make(size_t n, size_t n_tokens, uint64_t seed);

/* The error e H e^T of a row, in double. */
double test_row_error2(const float *moments, const double *e, size_t n);

#endif
