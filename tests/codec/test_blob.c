/*
 * test_blob.c - damaged blobs are refused: by checksum when bytes changed, by structure when checksums are
 * made right.
 */
#include "base/bytes.h"
#include "cmocka_all.h"
#include "codec/kernels.h"
#include "matrices.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void make_small(struct test_coded *coded)
{
    float *weights = test_weights_make(TEST_HUGE_OUTLIERS, MB_F32, 40, 50, 1);
    test_code(coded, MB_F32, weights, 40, 50, 0.006);
    free(weights);
}

/* The same while bytes come, what is not there yet being something else: the verdict and the words are the
 * same. */
static void check_in_parts(const uint8_t *bytes, size_t nbytes, enum mb_status status, const char *message)
{
    static struct mb_blob_check *check; /* used again and again, for blobs of all kinds */
    const size_t memory_nbytes = 8 * nbytes + 4096, steps[] = {1 + nbytes / 3, 1 + nbytes / 17, nbytes + 1};
    uint8_t *copy = malloc(nbytes + 1), *memory = malloc(memory_nbytes);
    check = check == NULL ? mb_blob_check_new() : check;
    assert_true(copy != NULL && memory != NULL && check != NULL);
    for (size_t s = 0; s < sizeof steps / sizeof steps[0]; s++) {
        struct mb_blob blob;
        struct mb_error err = {0};
        memset(copy, 0xa5, nbytes);
        mb_blob_check_begin(check, copy, nbytes, memory, memory_nbytes);
        for (size_t n = 0, next; n < nbytes; n = next) {
            next = nbytes - n < steps[s] ? nbytes : n + steps[s];
            memcpy(copy + n, bytes + n, next - n);
            if (next < nbytes)
                mb_blob_check_add(check, next);
        }
        assert_int_equal(mb_blob_check_end(check, &blob, &err), status);
        assert_string_equal(status == MB_OK ? "" : err.msg, message);
        assert_int_equal(blob.n_matrices > 0, status == MB_OK);
    }
    free(memory);
    free(copy);
}

static enum mb_status open_copy(const uint8_t *bytes, size_t nbytes, struct mb_error *err)
{
    uint8_t *copy = malloc(nbytes + 1); /* of the very size, for the address sanitizer */
    memcpy(copy, bytes, nbytes);
    struct mb_blob blob;
    struct mb_error own = {0};
    enum mb_status status = mb_blob_open(copy, nbytes, &blob, &own);
    check_in_parts(bytes, nbytes, status, own.msg);
    if (err != NULL && status != MB_OK)
        *err = own;
    mb_blob_close(&blob);
    free(copy);
    return status;
}

static void every_flipped_byte_is_found(void **state)
{
    (void)state;
    struct test_coded coded;
    make_small(&coded);
    for (size_t i = 0; i < coded.nbytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            coded.bytes[i] ^= (uint8_t)(1 << bit);
            assert_int_not_equal(open_copy(coded.bytes, coded.nbytes, NULL), MB_OK);
            coded.bytes[i] ^= (uint8_t)(1 << bit);
        }
    assert_int_equal(open_copy(coded.bytes, coded.nbytes, NULL), MB_OK);
    test_coded_free(&coded);
}

static void every_truncation_is_found(void **state)
{
    (void)state;
    struct test_coded coded;
    make_small(&coded);
    for (size_t n = 0; n < coded.nbytes; n++)
        assert_int_not_equal(open_copy(coded.bytes, n, NULL), MB_OK);
    test_coded_free(&coded);
}

/* What has come is not looked at again: not even a byte that changes afterwards, which no caller may do. */
static void what_has_come_is_looked_at_once(void **state)
{
    (void)state;
    struct test_coded coded;
    make_small(&coded);
    struct mb_blob blob;
    uint8_t *memory = malloc(coded.nbytes * 8 + 4096);
    struct mb_blob_check *check = mb_blob_check_new();
    assert_true(memory != NULL && check != NULL);
    mb_blob_check_begin(check, coded.bytes, coded.nbytes, memory, coded.nbytes * 8 + 4096);
    mb_blob_check_add(check, coded.nbytes);
    coded.bytes[coded.nbytes / 2] ^= 1;
    assert_int_equal(mb_blob_check_end(check, &blob, NULL), MB_OK);
    assert_int_equal(blob.n_matrices, 1);
    assert_int_equal(blob.matrix[0].n_rows, coded.matrix->n_rows);
    assert_int_equal(blob.matrix[0].n_groups, coded.matrix->n_groups);
    mb_blob_check_free(check);
    free(memory);
    test_coded_free(&coded);
}

static void padding_is_zero(void **state)
{
    (void)state;
    struct test_coded coded;
    make_small(&coded);
    uint8_t *padded = calloc(1, coded.nbytes + 100);
    memcpy(padded, coded.bytes, coded.nbytes);
    assert_int_equal(open_copy(padded, coded.nbytes + 100, NULL), MB_OK);
    padded[coded.nbytes + 99] = 1;
    assert_int_equal(open_copy(padded, coded.nbytes + 100, NULL), MB_BAD_DATA);
    free(padded);
    test_coded_free(&coded);
}

/* One field of the header at a time gets a wrong value, with checksums made right. */
static void wrong_headers_are_named(void **state)
{
    (void)state;
    static const struct {
        size_t at, nbytes;
        uint64_t value;
        enum mb_status status;
        const char *message;
    } cases[] = {
        {0, 1, 'X', MB_BAD_DATA, "not a Moebius blob"},
        {4, 2, 0, MB_BAD_DATA, "format version 0"},
        {4, 2, 4, MB_UNSUPPORTED, "format version 4"},
        {6, 2, 0, MB_BAD_DATA, "without matrices"},
        {6, 2, 2, MB_BAD_DATA, "header size"},
        {8, 4, 97, MB_BAD_DATA, "header size"},
        {8, 4, 80, MB_BAD_DATA, "header size"},
        {8, 4, 104, MB_BAD_DATA, "reaches past"},
        {8, 4, UINT32_MAX & ~7u, MB_BAD_DATA, "header size"},
        {12, 4, 1, MB_BAD_DATA, "not zero"},
        {16, 8, 20, MB_BAD_DATA, "blob of 20 bytes"},
        {16, 8, UINT64_MAX, MB_BAD_DATA, "in a tensor of"},
        {40, 8, 0, MB_BAD_DATA, "impossible shape"},
        {40, 8, UINT64_MAX, MB_BAD_DATA, "impossible shape"},
        {40, 8, 1000, MB_BAD_DATA, "directory"},
        {40, 8, 39, MB_BAD_DATA, "row group"},
        {48, 4, 0, MB_BAD_DATA, "impossible shape"},
        {48, 4, 65536, MB_BAD_DATA, "impossible shape"},
        {52, 1, 3, MB_BAD_DATA, "impossible shape"},
        {53, 1, 0, MB_UNSUPPORTED, "matrix w: form 0 is not known to this version"},
        {53, 1, 7, MB_UNSUPPORTED, "matrix w: form 7 is not known to this version"},
        {54, 2, 0, MB_BAD_DATA, "name"},
        {54, 2, 1000, MB_BAD_DATA, "name"},
        {56, 8, 0x7ff0000000000000, MB_BAD_DATA, "impossible shape"}, /* eps infinite */
        {56, 8, 0x8000000000000000, MB_BAD_DATA, "impossible shape"}, /* eps -0 */
        {64, 4, 0x3f800000, MB_BAD_DATA, "impossible shape"},         /* a step that is not eps's */
        {68, 4, 1, MB_BAD_DATA, "impossible shape"},
        {72, 8, UINT64_MAX, MB_BAD_DATA, "reaches past"},
        {72, 8, 1, MB_BAD_DATA, "after the last matrix"},
        {80, 8, UINT64_MAX, MB_BAD_DATA, "reaches past"},
        {88, 1, 7, MB_BAD_DATA, "name"},
        {89, 1, 7, MB_BAD_DATA, "names do not fill"},
    };
    struct test_coded coded;
    make_small(&coded);
    uint8_t *copy = malloc(coded.nbytes);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mb_error err = {.msg = ""};
        memcpy(copy, coded.bytes, coded.nbytes);
        memcpy(copy + cases[i].at, &cases[i].value, cases[i].nbytes);
        test_repair_checksums(copy, coded.nbytes);
        enum mb_status status = open_copy(copy, coded.nbytes, &err);
        if (status != cases[i].status || strstr(err.msg, cases[i].message) == NULL)
            fail_msg("case %zu: status %d, '%s'", i, (int)status, err.msg);
    }
    free(copy);
    test_coded_free(&coded);
}

/* Every byte of the payload gets other values, with checksums made right. */
static void change_payload(const struct test_coded *coded, size_t *n_refused, size_t *n_taken)
{
    size_t header_nbytes = mb_load_u32(coded->bytes + 8);
    size_t n_weights = coded->matrix->n_rows * coded->matrix->n_cols;
    uint8_t *copy = malloc(coded->nbytes + MB_SLACK_NBYTES);
    float *decoded = malloc(n_weights * sizeof *decoded);
    *n_refused = *n_taken = 0;
    for (size_t i = header_nbytes; i < coded->nbytes; i++)
        for (int change = 0; change < 3; change++) {
            static const uint8_t masks[] = {0x01, 0x80, 0xff};
            memcpy(copy, coded->bytes, coded->nbytes);
            copy[i] ^= masks[change];
            test_repair_checksums(copy, coded->nbytes);
            struct mb_blob blob;
            if (mb_blob_open(copy, coded->nbytes, &blob, NULL) != MB_OK) {
                ++*n_refused;
                continue;
            }
            ++*n_taken;
            mb_kernels()->decode_rows(&blob.matrix[0], 0, coded->matrix->n_rows, decoded);
            for (size_t k = 0; k < n_weights; k++)
                assert_true(isfinite(decoded[k]));
            mb_blob_close(&blob);
        }
    free(decoded);
    free(copy);
}

/* Refused, or decodes to finite weights without a stray access: codes that mean another weight are legal. */
static void changed_payloads_are_refused_or_decode(void **state)
{
    (void)state;
    struct test_coded coded;
    size_t n_refused, n_taken;
    make_small(&coded);
    change_payload(&coded, &n_refused, &n_taken);
    assert_true(n_refused > 0 && n_taken > 0);
    test_coded_free(&coded);
}

/* Weights of up to six steps, where seven are more than the largest float: a code could mean those. */
static void infinite_weights_are_refused(void **state)
{
    (void)state;
    enum { N_ROWS = 4, N_COLS = 300 };
    static float weights[N_ROWS * N_COLS];
    const double eps = 0.26e38;
    const float step = mb_step_of_eps(eps);
    struct test_coded coded;
    size_t n_refused, n_taken;
    assert_true(isinf(7 * step) && isfinite(6 * step));
    for (size_t i = 0; i < N_ROWS * N_COLS; i++)
        weights[i] = step * (float)((int)(i % 13) - 6);
    test_code(&coded, MB_F32, weights, N_ROWS, N_COLS, eps);
    assert_int_equal(coded.matrix->kinds[0], 9 * 4); /* a = 4: codes of -7 to 7 */
    change_payload(&coded, &n_refused, &n_taken);
    assert_true(n_refused > 0 && n_taken > 0);
    size_t body = mb_load_u32(coded.bytes + 8);
    coded.bytes[body] = (uint8_t)((coded.bytes[body] & 0xf0) | 14); /* the first code: q = 7 */
    test_repair_checksums(coded.bytes, coded.nbytes);
    struct mb_error err;
    assert_int_equal(open_copy(coded.bytes, coded.nbytes, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "row group 0: a weight is infinite"));
    test_coded_free(&coded);
}

static void several_matrices_share_a_blob(void **state)
{
    (void)state;
    struct mb_blob_matrix info[3];
    for (size_t i = 0; i < 3; i++)
        info[i] = (struct mb_blob_matrix){
            &"gate_proj.weight"[i], 16 - i, MB_BF16, MB_FORM_PATCHED, 5, 4, 0, 0, 0, 3, 0};
    size_t nbytes = mb_blob_header_nbytes(info, 3) + 9;
    uint8_t *bytes = calloc(1, nbytes); /* three all-zero matrices: no records, three directories of zeros */
    mb_blob_write_header(info, 3, 0, bytes);
    test_repair_checksums(bytes, nbytes);
    struct mb_blob blob;
    assert_int_equal(mb_blob_open(bytes, nbytes, &blob, NULL), MB_OK);
    assert_int_equal(blob.n_matrices, 3);
    assert_memory_equal(blob.info[1].name, "ate_proj.weight", 15);
    mb_blob_close(&blob);
    info[2] = info[1]; /* two of one name */
    nbytes = mb_blob_header_nbytes(info, 3) + 9;
    free(bytes);
    bytes = calloc(1, nbytes);
    mb_blob_write_header(info, 3, 0, bytes);
    test_repair_checksums(bytes, nbytes);
    struct mb_error err;
    assert_int_equal(mb_blob_open(bytes, nbytes, &blob, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "name of its own"));
    free(bytes);
}

static void a_directory_ends_with_its_groups(void **state)
{
    (void)state;
    for (size_t n_more = 0; n_more < 4; n_more++) {
        struct mb_blob_matrix info = {"w", 1, MB_BF16, MB_FORM_PATCHED, 5, 4, 0, 0, 0, 3 + n_more, 0};
        size_t nbytes = mb_blob_header_nbytes(&info, 1) + 3 + n_more;
        uint8_t *bytes = calloc(1, nbytes);
        struct mb_error err = {0};
        mb_blob_write_header(&info, 1, 0, bytes);
        test_repair_checksums(bytes, nbytes);
        assert_int_equal(open_copy(bytes, nbytes, &err), n_more == 0 ? MB_OK : MB_BAD_DATA);
        if (n_more > 0)
            assert_non_null(strstr(err.msg, "the directory is longer than its groups"));
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_flipped_byte_is_found),
        cmocka_unit_test(every_truncation_is_found),
        cmocka_unit_test(what_has_come_is_looked_at_once),
        cmocka_unit_test(padding_is_zero),
        cmocka_unit_test(wrong_headers_are_named),
        cmocka_unit_test(several_matrices_share_a_blob),
        cmocka_unit_test(a_directory_ends_with_its_groups),
        cmocka_unit_test(changed_payloads_are_refused_or_decode),
        cmocka_unit_test(infinite_weights_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
