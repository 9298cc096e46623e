/*
 * matrices.c - weights of all kinds, and blobs made from them.
 */
#include "matrices.h"
#include "base/bytes.h"
#include "cmocka_all.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double test_uniform(uint64_t *state)
{
    return ((double)(test_random(state) >> 12) + 0.5) * 0x1p-52;
}

double test_normal(uint64_t *state)
{
    double r = sqrt(-2 * log(test_uniform(state)));
    return r * cos(6.283185307179586 * test_uniform(state));
}

static double weight_of_kind(enum test_weights kind, size_t row, uint64_t *state)
{
    switch (kind) {
    case TEST_GAUSS:
        return 0.02 * test_normal(state);
    case TEST_HEAVY_TAILS:
        return 0.02 * test_normal(state) / sqrt(test_uniform(state));
    case TEST_HUGE_OUTLIERS:
        return test_random(state) % 61 == 0 ? 6e3 * test_normal(state) : 0.02 * test_normal(state);
    case TEST_EQUAL:
        return 0.015625;
    case TEST_SUBNORMAL:
        return 1e-41 * test_normal(state);
    case TEST_SPARSE:
        return test_random(state) % 50 == 0 ? test_normal(state) : 0;
    case TEST_ROW_SCALES:
        return 0.02 * exp(0.7 * (double)(row % 7) - 2) * test_normal(state);
    default:
        return 0;
    }
}

void *test_weights_make(enum test_weights kind, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                        uint64_t seed)
{
    uint64_t state = seed;
    size_t n = n_rows * n_cols;
    uint8_t *bytes = malloc(n * mb_dtype_nbytes(dtype));
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++) {
        float w = (float)weight_of_kind(kind, i / n_cols, &state);
        if (dtype == MB_F32)
            memcpy(bytes + 4 * i, &w, 4);
        else
            mb_store_u16(bytes + 2 * i, dtype == MB_BF16 ? mb_bf16_of_float(w) : mb_f16_of_float(w));
    }
    return bytes;
}

double test_weight(enum mb_dtype dtype, const void *weights, size_t i)
{
    const uint8_t *bytes = weights;
    if (dtype == MB_F32)
        return (double)mb_float_of_bits(mb_load_u32(bytes + 4 * i));
    uint16_t half = mb_load_u16(bytes + 2 * i);
    return (double)(dtype == MB_BF16 ? mb_float_of_bf16(half) : mb_float_of_f16(half));
}

void test_code(struct test_coded *coded, enum mb_dtype dtype, const void *weights, size_t n_rows,
               size_t n_cols, double eps)
{
    const struct mb_coding coding = {dtype, MB_FORM_PATCHED, n_cols, eps, mb_step_of_eps(eps), NULL};
    test_code_with(coded, &coding, weights, n_rows);
}

void test_code_with(struct test_coded *coded, const struct mb_coding *coding, const void *weights,
                    size_t n_rows)
{
    test_code_columns(coded, coding, NULL, weights, n_rows);
}

/* A copy of W. */
static void *scaled(const struct mb_coding *coding, const int8_t *exponents, const void *weights,
                    size_t n_rows)
{
    size_t nbytes = n_rows * coding->n_cols * mb_dtype_nbytes(coding->dtype);
    void *copy = malloc(nbytes);
    assert_non_null(copy);
    memcpy(copy, weights, nbytes);
    if (exponents != NULL)
        assert_true(mb_scale_columns(coding->dtype, copy, n_rows, coding->n_cols, exponents));
    return copy;
}

void test_code_columns(struct test_coded *coded, const struct mb_coding *coding, const int8_t *exponents,
                       const void *weights, size_t n_rows)
{
    enum mb_dtype dtype = coding->dtype;
    size_t n_cols = coding->n_cols, exponents_nbytes = exponents == NULL ? 0 : n_cols;
    size_t cap = mb_encode_bound(dtype, n_rows, n_cols), data_nbytes;
    size_t n_groups = (n_rows + mb_group_rows(n_cols) - 1) / mb_group_rows(n_cols);
    uint8_t *records = malloc(cap);
    struct mb_group *groups = calloc(n_groups, sizeof *groups);
    assert_true(records != NULL && groups != NULL);
    void *v = scaled(coding, exponents, weights, n_rows);
    assert_int_equal(mb_encode_rows(coding, v, n_rows, records, cap, &data_nbytes, groups, NULL), MB_OK);
    free(v);
    struct mb_blob_matrix info = {
        .name = "w",
        .name_nbytes = 1,
        .dtype = dtype,
        .form = MB_FORM_PATCHED,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .eps = coding->eps,
        .step = coding->step,
        .data_nbytes = data_nbytes,
        .directory_nbytes = mb_directory_nbytes(MB_FORM_PATCHED, groups, n_groups),
        .exponents_nbytes = exponents_nbytes,
    };
    size_t header_nbytes = mb_blob_header_nbytes(&info, 1);
    coded->nbytes = header_nbytes + data_nbytes + (size_t)info.directory_nbytes + exponents_nbytes;
    coded->bytes = calloc(1, coded->nbytes + MB_SLACK_NBYTES);
    assert_non_null(coded->bytes);
    memcpy(coded->bytes + header_nbytes, records, data_nbytes);
    mb_directory_write(MB_FORM_PATCHED, groups, n_groups, coded->bytes + header_nbytes + data_nbytes);
    if (exponents != NULL)
        memcpy(coded->bytes + coded->nbytes - n_cols, exponents, n_cols);
    mb_blob_write_header(&info, 1, XXH3_64bits(coded->bytes + header_nbytes, coded->nbytes - header_nbytes),
                         coded->bytes);
    struct mb_error err;
    if (mb_blob_open(coded->bytes, coded->nbytes, &coded->blob, &err) != MB_OK)
        fail_msg("%zu x %zu: %s", n_rows, n_cols, err.msg);
    coded->matrix = &coded->blob.matrix[0];
    free(groups);
    free(records);
}

void test_coded_free(struct test_coded *coded)
{
    mb_blob_close(&coded->blob);
    free(coded->bytes);
}

void test_repair_checksums(uint8_t *bytes, size_t nbytes)
{
    size_t header_nbytes = mb_load_u32(bytes + 8);
    uint64_t blob_nbytes = mb_load_u64(bytes + 16);
    if (header_nbytes < 40 || header_nbytes > nbytes || blob_nbytes < header_nbytes || blob_nbytes > nbytes)
        return;
    mb_store_u64(bytes + 24, XXH3_64bits(bytes + header_nbytes, blob_nbytes - header_nbytes));
    mb_store_u64(bytes + 32, 0);
    mb_store_u64(bytes + 32, XXH3_64bits(bytes, header_nbytes));
}
