/*
 * test_starved.c - the codec without memory: kernels are chosen all the same, coding and products ask for
 * none, and a blob that cannot be opened for the lack of it says so.
 */
#include "base/cpu.h"
#include "base/memory.h"
#include "cmocka_all.h"
#include "codec/kernels.h"
#include "matrices.h"
#include "starve.h"
#include <stdlib.h>
#include <string.h>

enum { N_ROWS = 40, N_COLS = 50, N_TOKENS = 3 };

/* The first call in the process: all tables prove themselves now. */
static void kernels_are_chosen_without_memory(void **state)
{
    (void)state;
    static const char *const isas[] = {"zen4", "avx512",  "avxvnni", "avx2",
                                       "i8mm", "dotprod", "neon",    "scalar"};
    starve_begin(STARVE_MEMORY, 1, true);
    const struct mb_kernels *best = mb_kernels();
    assert_int_equal(starve_end(), 0);
    const struct mb_kernels *first = NULL;
    for (size_t i = 0; i < sizeof isas / sizeof isas[0] && first == NULL; i++)
        first = mb_kernels_by_isa(isas[i]);
    assert_non_null(first);
    assert_ptr_equal(best, first);
    if ((mb_cpu_features() & (MB_CPU_AVX2 | MB_CPU_NEON)) != 0)
        assert_string_not_equal(best->isa, "scalar");
}

static void coding_and_products_ask_for_none(void **state)
{
    (void)state;
    float *weights = test_weights_make(TEST_HUGE_OUTLIERS, MB_F32, N_ROWS, N_COLS, 1);
    struct test_coded coded;
    test_code(&coded, MB_F32, weights, N_ROWS, N_COLS, 0.006);
    size_t cap = mb_encode_bound(MB_F32, N_ROWS, N_COLS), nbytes;
    const struct mb_coding coding = {MB_F32, MB_FORM_PATCHED, N_COLS, coded.matrix->eps, coded.matrix->step,
                                     NULL};
    uint8_t *records = malloc(cap);
    struct mb_group groups[N_ROWS];
    static float y[N_ROWS * N_COLS];
    static _Alignas(64) int8_t planes[2][N_TOKENS][(N_COLS + 127) / 128 * 128];
    enum { N_PADDED = (N_COLS + 127) / 128 * 128 };
    static _Alignas(64) uint8_t wide[N_TOKENS][64 + MB_WIDE_PLANES_MAX * N_PADDED + 2 * (64 + 4 * N_PADDED)];
    struct mb_activation x[N_TOKENS];
    const struct mb_kernels *k = mb_kernels();
    void *scratch = mb_alloc(1, k->matmul_scratch_nbytes(N_COLS) + k->transposed_scratch_nbytes(N_COLS));
    assert_true(records != NULL && scratch != NULL);
    starve_begin(STARVE_MEMORY, 1, true);
    enum mb_status status = mb_encode_rows(&coding, weights, N_ROWS, records, cap, &nbytes, groups, NULL);
    for (size_t t = 0; t < N_TOKENS; t++)
        k->activation(weights + t * N_COLS, N_COLS, planes[0][t], planes[1][t], wide[t], &x[t]);
    k->matvec(coded.matrix, 0, N_ROWS, &x[0], y);
    k->matmul(coded.matrix, 0, N_ROWS, x, N_TOKENS, y, N_ROWS, scratch);
    k->matvec_transposed(coded.matrix, 0, N_ROWS, &x[0], y, scratch);
    k->decode_rows(coded.matrix, 0, N_ROWS, y);
    assert_int_equal(starve_end(), 0);
    assert_int_equal(status, MB_OK);
    free(scratch);
    free(records);
    test_coded_free(&coded);
    free(weights);
}

static void a_blob_is_opened_or_says_why_not(void **state)
{
    (void)state;
    float *weights = test_weights_make(TEST_GAUSS, MB_F32, N_ROWS, N_COLS, 1);
    struct test_coded coded;
    test_code(&coded, MB_F32, weights, N_ROWS, N_COLS, 0.006);
    struct starve_held before = starve_held();
    struct mb_blob blob;
    struct mb_error err = {0};
    long n = 0;
    for (bool is_open = false; !is_open;) {
        starve_begin(STARVE_MEMORY, ++n, false);
        enum mb_status status = mb_blob_open(coded.bytes, coded.nbytes, &blob, &err);
        long n_calls = starve_end();
        is_open = status == MB_OK;
        assert_true(is_open ? n_calls < n : status == MB_NO_MEMORY && strstr(err.msg, "memory") != NULL);
        mb_blob_close(&blob);
        assert_int_equal(starve_held().n_blocks, before.n_blocks);
    }
    assert_true(n > 2); /* two allocations: the names and shapes, then all tables */
    test_coded_free(&coded);
    free(weights);
}

static void a_blob_opened_in_given_memory_allocates_nothing(void **state)
{
    (void)state;
    float *weights = test_weights_make(TEST_HUGE_OUTLIERS, MB_F32, N_ROWS, N_COLS, 1);
    struct test_coded coded;
    test_code(&coded, MB_F32, weights, N_ROWS, N_COLS, 0.006);
    uint64_t nbytes = mb_blob_tables_nbytes(coded.blob.info, coded.blob.n_matrices);
    void *memory = malloc(nbytes);
    assert_non_null(memory);
    struct mb_blob blob;
    starve_begin(STARVE_MEMORY, 1, true);
    enum mb_status status = mb_blob_open_in(coded.bytes, coded.nbytes, memory, nbytes, &blob, NULL);
    assert_int_equal(starve_end(), 0);
    assert_int_equal(status, MB_OK);
    assert_int_equal(blob.tables_nbytes, nbytes);
    assert_int_equal(blob.n_matrices, 1);
    const struct mb_coded_matrix *opened = &blob.matrix[0];
    assert_int_equal(opened->n_tiles, coded.matrix->n_tiles);
    for (size_t i = 0; i < opened->n_tiles; i++) {
        assert_int_equal(opened->tiles[i].data_pos, coded.matrix->tiles[i].data_pos);
        assert_int_equal(opened->tiles[i].first_outlier, coded.matrix->tiles[i].first_outlier);
    }
    for (size_t less = 1; less <= nbytes; less++)
        assert_int_equal(mb_blob_open_in(coded.bytes, coded.nbytes, memory, nbytes - less, &blob, NULL),
                         MB_NO_SPACE);
    free(memory);
    test_coded_free(&coded);
    free(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_are_chosen_without_memory),
        cmocka_unit_test(coding_and_products_ask_for_none),
        cmocka_unit_test(a_blob_is_opened_or_says_why_not),
        cmocka_unit_test(a_blob_opened_in_given_memory_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
