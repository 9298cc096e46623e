/*
 * matrices.c - matrices for codecs.
 */
#include "matrices.h"
#include "base/bytes.h"
#include "cmocka_all.h"
#include <math.h>
#include <stdlib.h>

static double uniform(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (double)((*state >> 11) + 1) * 0x1p-53;
}

static double value_of(enum test_matrix_kind kind, uint64_t *state)
{
    double normal = sqrt(-2 * log(uniform(state))) * cos(6.283185307179586 * uniform(state)) * 0.02;
    switch (kind) {
    case TEST_ZEROS:
        return 0;
    case TEST_CONSTANT:
        return -0.375;
    case TEST_SUBNORMAL:
        return normal * 1e-38;
    case TEST_OUTLIERS:
        return uniform(state) < 0.002 ? normal * 1e6 : normal;
    case TEST_POSITIVE:
        return fabs(normal) + 0.001;
    default:
        return normal;
    }
}

struct test_matrix test_matrix_make(enum test_matrix_kind kind, size_t n_rows, size_t n_cols, uint64_t seed)
{
    struct test_matrix m = {.n_rows = n_rows, .n_cols = n_cols};
    uint64_t state = seed * 2654435761u + 88172645463325252u;
    m.weights = malloc(n_rows * n_cols * sizeof *m.weights);
    m.values = malloc(n_rows * n_cols * sizeof *m.values);
    assert_non_null(m.weights);
    assert_non_null(m.values);
    for (size_t i = 0; i < n_rows * n_cols; i++) {
        m.weights[i] = mb_bf16_of_float((float)value_of(kind, &state));
        m.values[i] = mb_float_of_bf16(m.weights[i]);
        m.mean_abs += fabs((double)m.values[i]) / (double)(n_rows * n_cols);
    }
    return m;
}

void test_matrix_free(struct test_matrix *m)
{
    free(m->weights);
    free(m->values);
}

struct mb_codec_matrix test_codec_matrix(const struct test_matrix *m, double eps)
{
    return (struct mb_codec_matrix){.dtype = MB_BF16,
                                    .weights = m->weights,
                                    .values = m->values,
                                    .n_rows = m->n_rows,
                                    .n_cols = m->n_cols,
                                    .eps = eps};
}
