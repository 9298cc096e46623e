/*
 * matrices.h - weights to code in tests, and coded matrices made from them. All are repeatable.
 */
#ifndef TESTS_CODEC_MATRICES_H
#define TESTS_CODEC_MATRICES_H

#include <moebius/codec.h>

/* A repeatable generator: splitmix64. */
uint64_t test_random(uint64_t *state);
double test_uniform(uint64_t *state); /* (0, 1) */
double test_normal(uint64_t *state);

/* What weights look like. */
enum test_weights {
    TEST_GAUSS,
    TEST_HEAVY_TAILS, /* a normal over a small uniform: some a hundred times the usual */
    TEST_HUGE_OUTLIERS,
    TEST_EQUAL,
    TEST_ZERO,
    TEST_SUBNORMAL,
    TEST_SPARSE, /* one in fifty is not zero */
    TEST_ROW_SCALES,
    TEST_N_WEIGHTS,
};

/* n_rows x n_cols elements of dtype, malloc'ed. */
void *test_weights_make(enum test_weights kind, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                        uint64_t seed);
double test_weight(enum mb_dtype dtype, const void *weights, size_t i);

/* A blob of one matrix "w", with slack behind it, opened. Free with test_coded_free. */
struct test_coded {
    uint8_t *bytes;
    size_t nbytes;
    struct mb_blob blob;
    const struct mb_coded_matrix *matrix; /* = &blob.matrix[0] */
};

/* 'coding' has everything; test_code: plain rounding at the step of eps. */
void test_code_with(struct test_coded *coded, const struct mb_coding *coding, const void *weights,
                    size_t n_rows);
void test_code(struct test_coded *coded, enum mb_dtype dtype, const void *weights, size_t n_rows,
               size_t n_cols, double eps);

/* The same of W with an exponent for each column, or NULL: V is coded. 'weights' are W. */
void test_code_columns(struct test_coded *coded, const struct mb_coding *coding, const int8_t *exponents,
                       const void *weights, size_t n_rows);
void test_coded_free(struct test_coded *coded);

/* The blob's checksums made right again after its bytes were changed. */
void test_repair_checksums(uint8_t *bytes, size_t nbytes);

#endif
