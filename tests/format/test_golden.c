/*
 * test_golden.c - golden folders decode to the hashes that are kept beside them, and docs/format.md's example
 * to the weights that stand there.  The second decoder's side of both is test_format.py.
 */
#include "cmocka_all.h"
#include "weights.h"
#include <inttypes.h>
#include <moebius/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char PAGE[] = MB_REPO "/docs/format.md";

/* ---------------------------------------------------------------- golden folders */

static uint64_t hash_coded(const struct mb_kernels *kernels, struct test_weights *weights, const char *name,
                           uint64_t n_rows, uint64_t n_cols)
{
    const struct mb_matrix *matrix;
    struct mb_error err;
    if (mb_store_matrix(weights->store, name, n_rows, n_cols, &matrix, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_true(matrix->is_coded);
    float *values = malloc(n_rows * n_cols * sizeof *values);
    assert_non_null(values);
    kernels->decode_rows(&matrix->coded, 0, n_rows, values);
    uint64_t hash = XXH3_64bits(values, n_rows * n_cols * sizeof *values);
    free(values);
    return hash;
}

static uint64_t hash_exact(const struct mb_checkpoint *ckpt, const char *name)
{
    const struct mb_tensor *tensor = mb_checkpoint_find(ckpt, name);
    const void *bytes;
    struct mb_error err;
    assert_non_null(tensor);
    if (mb_checkpoint_map(ckpt, tensor, &bytes, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return XXH3_64bits(bytes, tensor->nbytes);
}

/* A line: hash, rows, columns (0 and 0: the bytes of an exact tensor), name. */
static size_t check_hashes(const struct mb_kernels *kernels, struct test_weights *weights, const char *hashes)
{
    FILE *file = fopen(hashes, "r");
    assert_non_null(file);
    char line[1000], name[600];
    uint64_t expected, n_rows, n_cols;
    size_t n = 0;
    for (; fgets(line, sizeof line, file) != NULL; n++) {
        assert_int_equal(
            sscanf(line, "%" SCNx64 " %" SCNu64 " %" SCNu64 " %599s", &expected, &n_rows, &n_cols, name), 4);
        uint64_t hash =
            n_rows > 0 ? hash_coded(kernels, weights, name, n_rows, n_cols) : hash_exact(weights->ckpt, name);
        if (hash != expected)
            fail_msg("%s, %s: decodes to %016" PRIx64 ", not %016" PRIx64, kernels->isa, name, hash,
                     expected);
    }
    fclose(file);
    return n;
}

static void check_golden(const char *folder, const char *hashes, size_t n_tensors)
{
    static const char *const isas[] = {"scalar", "avx2", "avxvnni", "avx512",
                                       "zen4",   "neon", "dotprod", "i8mm"};
    /* As stored: the faster form in memory is for this processor's own table. */
    const struct mb_store_options options = {
        .size = sizeof options, .n_threads = 2, .memory_form = MB_MEMORY_FORM_STORED};
    struct test_weights weights;
    struct mb_error err;
    if (test_weights_open_with(folder, &options, &weights, &err) != MB_OK)
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++)
        if (mb_kernels_by_isa(isas[i]) != NULL)
            assert_int_equal(check_hashes(mb_kernels_by_isa(isas[i]), &weights, hashes), n_tensors);
    test_weights_close(&weights);
}

static void version_1_decodes_to_these_hashes(void **state)
{
    (void)state;
    check_golden(MB_REPO "/tests/format/golden-v1", MB_REPO "/tests/format/golden-v1.xxh3", 19);
}

/* Blobs of both versions: of matrices without moments the steps are those of their bounds. */
static void version_2_decodes_to_these_hashes(void **state)
{
    (void)state;
    check_golden(MB_REPO "/tests/format/golden-v2", MB_REPO "/tests/format/golden-v2.xxh3", 18);
}

/* The same codes with exponents from -15 to 15 for the columns of down. */
static void version_3_decodes_to_these_hashes(void **state)
{
    (void)state;
    check_golden(MB_REPO "/tests/format/golden-v3", MB_REPO "/tests/format/golden-v3.xxh3", 18);
}

/* ---------------------------------------------------------------- the page's example */

/* The text between the line "```kind" and the next "```": malloc'ed. */
static char *page_block(const char *kind)
{
    FILE *file = fopen(PAGE, "r");
    assert_non_null(file);
    char line[1000], fence[40], *text = calloc(1, 10000);
    snprintf(fence, sizeof fence, "```%s\n", kind);
    assert_non_null(text);
    bool is_inside = false;
    while (fgets(line, sizeof line, file) != NULL) {
        if (is_inside && strncmp(line, "```", 3) == 0)
            break;
        if (is_inside)
            strncat(text, line, 9999 - strlen(text));
        is_inside = is_inside || strcmp(line, fence) == 0;
    }
    fclose(file);
    return text;
}

/* Lines of a place and up to 16 bytes. */
static size_t read_hex(char *text, uint8_t *bytes, size_t n_max)
{
    size_t n = 0;
    char *lines, *words;
    for (char *line = strtok_r(text, "\n", &lines); line != NULL; line = strtok_r(NULL, "\n", &lines)) {
        char *word = strtok_r(line, " ", &words);
        assert_int_equal(strtoul(word, NULL, 16), n);
        while ((word = strtok_r(NULL, " ", &words)) != NULL) {
            assert_true(n < n_max);
            bytes[n++] = (uint8_t)strtoul(word, NULL, 16);
        }
    }
    return n;
}

static void check_page(const char *hex_kind, const char *weights_kind, size_t nbytes, size_t n_rows,
                       size_t n_cols)
{
    uint8_t bytes[200 + MB_SLACK_NBYTES] = {0};
    float decoded[20];
    char *hex = page_block(hex_kind), *weights = page_block(weights_kind), *at = weights;
    struct mb_blob blob;
    struct mb_error err;
    assert_int_equal(read_hex(hex, bytes, 200), nbytes);
    if (mb_blob_open(bytes, nbytes, &blob, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_true(blob.n_matrices == 1 && blob.matrix[0].n_rows == n_rows && blob.matrix[0].n_cols == n_cols);
    mb_kernels()->decode_rows(&blob.matrix[0], 0, n_rows, decoded);
    for (size_t i = 0; i < n_rows * n_cols; i++) {
        char *end;
        float expected = strtof(at, &end);
        assert_true(end != at);
        assert_memory_equal(&decoded[i], &expected, sizeof expected);
        at = end;
    }
    assert_string_equal(at, "\n");
    mb_blob_close(&blob);
    free(hex);
    free(weights);
}

static void the_page_shows_what_is_decoded(void **state)
{
    (void)state;
    check_page("hex", "weights", 111, 3, 5);
    check_page("hex2", "weights2", 102, 2, 4);
    check_page("hex3", "weights3", 114, 2, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_1_decodes_to_these_hashes),
        cmocka_unit_test(version_2_decodes_to_these_hashes),
        cmocka_unit_test(version_3_decodes_to_these_hashes),
        cmocka_unit_test(the_page_shows_what_is_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
