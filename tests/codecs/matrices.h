/*
 * matrices.h - matrices for codecs: random ones and hard ones, all repeatable.
 */
#ifndef TESTS_CODECS_MATRICES_H
#define TESTS_CODECS_MATRICES_H

#include <moebius/codecs.h>

enum test_matrix_kind {
    TEST_NORMAL,
    TEST_ZEROS,
    TEST_CONSTANT,
    TEST_SUBNORMAL,
    TEST_OUTLIERS, /* one in 500 is a million times the others */
    TEST_POSITIVE,
    TEST_N_KINDS,
};

/* bf16 values, as bf16 and as float. */
struct test_matrix {
    uint16_t *weights;
    float *values;
    size_t n_rows, n_cols;
    double mean_abs;
};

struct test_matrix test_matrix_make(enum test_matrix_kind kind, size_t n_rows, size_t n_cols, uint64_t seed);
void test_matrix_free(struct test_matrix *matrix);

/* The same as a codec takes it, with a bound. */
struct mb_codec_matrix test_codec_matrix(const struct test_matrix *matrix, double eps);

#endif
