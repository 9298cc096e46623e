/*
 * test_published.c - bytes that others define: llama.cpp's blocks equal those of its own quantiser, cuSZp's
 * are laid out as its kernels write them, OpenCL's equal the CPU's.
 */
#include "base/bytes.h"
#include "base/file.h"
#include "cmocka_all.h"
#include "matrices.h"
#include <stdlib.h>
#include <string.h>

static const struct mb_codec *find(const char *name)
{
    const struct mb_codec *codec = NULL;
    struct mb_error err;
    if (mb_codec_find(name, &codec, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return codec;
}

static uint8_t *encode(const char *name, const struct mb_codec_matrix *matrix, size_t *nbytes)
{
    struct mb_error err;
    size_t cap = mb_codec_nbytes_max(matrix->n_rows, matrix->n_cols);
    uint8_t *bytes = malloc(cap);
    assert_non_null(bytes);
    if (mb_codec_encode(find(name), matrix, bytes, cap, nbytes, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return bytes;
}

/* tools/goldens/llamacpp_blocks.py has written the file. */
static void llamacpp_blocks_are_the_same_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t block, block_nbytes;
    } kinds[] = {{"q4_0", 32, 18}, {"q4_k", 256, 144}};
    char *file;
    size_t nbytes;
    struct mb_error err;
    if (mb_read_file(MB_REPO "/tests/codecs/data/llamacpp.bin", 1 << 20, &file, &nbytes, &err) != MB_OK)
        fail_msg("%s", err.msg);
    size_t n_rows = mb_load_u32(file), n_cols = mb_load_u32(file + 4), n = n_rows * n_cols;
    float *values = malloc(n * sizeof *values), *decoded = malloc(n * sizeof *decoded);
    assert_non_null(values);
    assert_non_null(decoded);
    memcpy(values, file + 8, n * sizeof *values);
    const char *blocks = file + 8 + n * sizeof *values, *back = blocks + n / 32 * 18 + n / 256 * 144;
    assert_int_equal(back + 2 * n * sizeof *values - file, nbytes);
    const struct mb_codec_matrix matrix = {
        .weights = values, .values = values, .n_rows = n_rows, .n_cols = n_cols};
    for (size_t k = 0; k < 2; k++) {
        size_t coded_nbytes;
        uint8_t *coded = encode(kinds[k].name, &matrix, &coded_nbytes);
        assert_int_equal(coded_nbytes, n / kinds[k].block * kinds[k].block_nbytes);
        assert_memory_equal(coded, blocks, coded_nbytes);
        assert_int_equal(
            mb_codec_decode(find(kinds[k].name), coded, coded_nbytes, n_rows, n_cols, decoded, NULL), MB_OK);
        assert_memory_equal(decoded, back, n * sizeof *decoded);
        free(coded);
        blocks += coded_nbytes;
        back += n * sizeof *decoded;
    }
    free(decoded);
    free(values);
    free(file);
}

/* 33 weights, eps 0.5, so that q is the weight: worked out by hand from cuSZp's kernels. */
static void cuszp_blocks_are_laid_out_as_published(void **state)
{
    (void)state;
    float values[33] = {300, 1, -2, 3};
    values[31] = -1;
    values[32] = -5;
    const struct mb_codec_matrix matrix = {
        .weights = values, .values = values, .n_rows = 1, .n_cols = 33, .eps = 0.5};
    size_t nbytes;
    const uint8_t *at;

    /* fixed: nine planes for 300 = 100101100b, then a block of one weight, 5 = 101b */
    uint8_t *bytes = encode("cuszp-fixed", &matrix, &nbytes);
    assert_int_equal(nbytes, 4 + 1024 + 4 + 9 * 4 + 4 + 3 * 4);
    assert_true(mb_float_of_bits(mb_load_u32(bytes)) == 0.5F);
    at = bytes + 4;
    assert_int_equal(at[0], 9);
    assert_int_equal(at[1], 3);
    assert_int_equal(at[2], 0);
    at += 1024;
    const uint8_t signs[] = {0x20, 0, 0, 1}, plane0[] = {0x50, 0, 0, 1}, plane1[] = {0x30, 0, 0, 0},
                  plane2[] = {0x80, 0, 0, 0};
    assert_memory_equal(at, signs, 4);
    assert_memory_equal(at + 4, plane0, 4);
    assert_memory_equal(at + 8, plane1, 4);
    assert_memory_equal(at + 12, plane2, 4);
    free(bytes);

    /* outlier: differences 300, -299, -3, 5, -3, 0 ..., -1: all need nine bits, so nothing is kept apart */
    bytes = encode("cuszp-outlier", &matrix, &nbytes);
    assert_int_equal(bytes[4], 9);
    free(bytes);

    /* 300 everywhere: differences 300, 0, 0, ...: two bytes and the signs instead of nine planes */
    for (size_t i = 0; i < 33; i++)
        values[i] = -300;
    bytes = encode("cuszp-outlier", &matrix, &nbytes);
    assert_int_equal(nbytes, 4 + 1024 + 2 * (2 + 4));
    assert_int_equal(bytes[4], 0x80 | 1 << 5);
    const uint8_t apart[] = {300 & 255, 300 >> 8, 0x80, 0, 0, 0};
    assert_memory_equal(bytes + 4 + 1024, apart, sizeof apart);
    free(bytes);
    bytes = encode("cuszp-plain", &matrix, &nbytes);
    assert_int_equal(nbytes, 4 + 1024 + 2 * (4 + 9 * 4));
    free(bytes);
}

static void opencl_writes_and_reads_the_same_bytes_as_the_cpu(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"cuszp-fixed", "cuszp-fixed-cl"},
                                           {"cuszp-plain", "cuszp-plain-cl"},
                                           {"cuszp-outlier", "cuszp-outlier-cl"}};
    static const size_t shapes[][2] = {{1, 1}, {3, 33}, {64, 512}, {40, 1100}};
    struct mb_error err;
    if (mb_codec_check(find(names[0][1]), &err) != MB_OK) {
        print_message("skipped: %s\n", err.msg);
        skip();
    }
    for (int kind = 0; kind < TEST_N_KINDS; kind++)
        for (size_t s = 0; s < 4; s++)
            for (size_t k = 0; k < 3; k++) {
                struct test_matrix m =
                    test_matrix_make((enum test_matrix_kind)kind, shapes[s][0], shapes[s][1], 11);
                struct mb_codec_matrix matrix =
                    test_codec_matrix(&m, m.mean_abs > 0 ? 0.3 * m.mean_abs : 0.01);
                size_t n = m.n_rows * m.n_cols, nbytes, cl_nbytes;
                uint8_t *bytes = encode(names[k][0], &matrix, &nbytes);
                uint8_t *cl_bytes = encode(names[k][1], &matrix, &cl_nbytes);
                float *decoded = malloc(n * sizeof *decoded), *cl_decoded = malloc(n * sizeof *decoded);
                assert_non_null(decoded);
                assert_non_null(cl_decoded);
                assert_int_equal(cl_nbytes, nbytes);
                assert_memory_equal(cl_bytes, bytes, nbytes);
                assert_int_equal(
                    mb_codec_decode(find(names[k][0]), bytes, nbytes, m.n_rows, m.n_cols, decoded, NULL),
                    MB_OK);
                assert_int_equal(
                    mb_codec_decode(find(names[k][1]), bytes, nbytes, m.n_rows, m.n_cols, cl_decoded, NULL),
                    MB_OK);
                assert_memory_equal(cl_decoded, decoded, n * sizeof *decoded);
                free(decoded);
                free(cl_decoded);
                free(bytes);
                free(cl_bytes);
                test_matrix_free(&m);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llamacpp_blocks_are_the_same_bytes),
        cmocka_unit_test(cuszp_blocks_are_laid_out_as_published),
        cmocka_unit_test(opencl_writes_and_reads_the_same_bytes_as_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
