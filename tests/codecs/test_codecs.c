/*
 * test_codecs.c - every codec: what comes back, bounds, hard matrices, damaged bytes, refusals.
 *
 * Codecs whose library is not installed are left out and named; the count of them is printed.
 */
#include "cmocka_all.h"
#include "matrices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mb_codec *all;
static size_t n_all;

static const struct mb_codec *find(const char *name)
{
    const struct mb_codec *codec = NULL;
    struct mb_error err;
    if (mb_codec_find(name, &codec, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return codec;
}

static bool is_there(const struct mb_codec *codec)
{
    return mb_codec_check(codec, NULL) == MB_OK;
}

static int name_what_is_missing(void **state)
{
    (void)state;
    size_t n_missing = 0;
    struct mb_error err;
    all = mb_codecs(&n_all);
    for (size_t i = 0; i < n_all; i++)
        if (mb_codec_check(&all[i], &err) != MB_OK) {
            print_message("left out: %s (%s)\n", all[i].name, err.msg);
            n_missing++;
        }
    print_message("%zu of %zu codecs are not here\n", n_missing, n_all);
    return 0;
}

/*
 * How far over the bound a codec may be.  SZ3 compares in float, and cuSZp does not compare.  Of bounds that
 * are subnormal floats, cuSZp's inverse is infinite: it loses them, and all that is asked is that it returns.
 */
static double tolerance(const struct mb_codec *codec, const struct test_matrix *m, double eps)
{
    float top = 0; /* in float: gcc 12 for aarch64 fails on the same reduction of doubles */
    for (size_t i = 0; i < m->n_rows * m->n_cols; i++)
        top = fmaxf(top, fabsf(m->values[i]));
    double largest = top;
    if (strncmp(codec->name, "cuszp", 5) == 0 && (eps < 0x1p-126 || largest / eps > 0x1p28))
        return INFINITY;
    return strcmp(codec->name, "ours") == 0 || strcmp(codec->name, "zfp") == 0 ? 0 : 4 * largest * 0x1p-23;
}

static bool apply(const struct mb_codec *codec, const struct mb_codec_matrix *matrix, float *decoded,
                  size_t *nbytes, struct mb_codec_error *error)
{
    struct mb_error err;
    enum mb_status status = mb_codec_apply(codec, matrix, decoded, nbytes, error, &err);
    if (status == MB_UNSUPPORTED)
        return false; /* a shape that it does not take */
    if (status != MB_OK)
        fail_msg("%s: %zu x %zu: %s", codec->name, matrix->n_rows, matrix->n_cols, err.msg);
    return true;
}

static void check(const struct mb_codec *codec, enum test_matrix_kind kind, size_t n_rows, size_t n_cols,
                  double share)
{
    struct test_matrix m = test_matrix_make(kind, n_rows, n_cols, n_rows + 7 * n_cols);
    struct mb_codec_matrix matrix = test_codec_matrix(&m, m.mean_abs > 0 ? share * m.mean_abs : 0.01);
    float *decoded = malloc(n_rows * n_cols * sizeof *decoded);
    struct mb_codec_error error = {0};
    size_t nbytes = 0;
    assert_non_null(decoded);
    if (apply(codec, &matrix, decoded, &nbytes, &error)) {
        assert_true(nbytes > 0 && nbytes <= mb_codec_nbytes_max(n_rows, n_cols));
        assert_int_equal(error.n, n_rows * n_cols);
        if (codec->takes <= MB_CODEC_TAKES_RANGE &&
            !(error.err_max <= matrix.eps + tolerance(codec, &m, matrix.eps)))
            fail_msg("%s: kind %d, %zu x %zu: error %g, bound %g", codec->name, kind, n_rows, n_cols,
                     error.err_max, matrix.eps);
        if (codec->takes == MB_CODEC_LOSSLESS)
            assert_memory_equal(decoded, m.values, n_rows * n_cols * sizeof *decoded);
    }
    free(decoded);
    test_matrix_free(&m);
}

static void bounds_hold_for_random_and_hard_matrices(void **state)
{
    (void)state;
    static const double shares[] = {0.02, 0.3, 2};
    for (size_t c = 0; c < n_all; c++)
        for (int kind = 0; kind < TEST_N_KINDS && is_there(&all[c]); kind++)
            for (size_t s = 0; s < 3; s++)
                check(&all[c], (enum test_matrix_kind)kind, 24, 512, shares[s]);
}

static void all_shapes_come_back(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{1, 1},  {1, 31},  {33, 1},   {2, 2},    {3, 33},   {5, 63},
                                       {7, 65}, {4, 256}, {130, 31}, {1, 4099}, {2000, 1}, {9, 1408}};
    for (size_t c = 0; c < n_all; c++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes && is_there(&all[c]); s++) {
            check(&all[c], TEST_NORMAL, shapes[s][0], shapes[s][1], 0.1);
            check(&all[c], TEST_ZEROS, shapes[s][0], shapes[s][1], 0.1);
        }
}

static double bits_of(const char *name, double *sqnr)
{
    struct test_matrix m = test_matrix_make(TEST_NORMAL, 128, 1024, 5);
    struct mb_codec_matrix matrix = test_codec_matrix(&m, 0.3 * m.mean_abs);
    float *decoded = malloc(m.n_rows * m.n_cols * sizeof *decoded);
    struct mb_codec_error error = {0};
    size_t nbytes = 0;
    assert_non_null(decoded);
    assert_true(apply(find(name), &matrix, decoded, &nbytes, &error));
    *sqnr = 10 * log10(error.sum_weight_square / error.sum_square);
    free(decoded);
    test_matrix_free(&m);
    return 8.0 * (double)nbytes / (double)error.n;
}

/* Bits are arithmetic; ratios are those that the formats are known for on normal weights. */
static void bits_and_ratios_are_those_of_the_formats(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double bits, sqnr_min, sqnr_max;
    } rows[] = {
        {"q4_0", 4.5, 21.0, 21.7},     {"q4_k", 4.5, 22.6, 23.3},      {"nf4", 4.5, 19.5, 21.5},
        {"rtn4-g32", 4.625, 21, 23},   {"rtn4-g128", 4.15625, 19, 21}, {"rtn4", 4.01953125, 16.5, 19},
        {"rtn8-g128", 8.1875, 43, 46}, {"rtn2-g32", 2.5625, 5, 9},     {"rtn3-g128", 3.1484375, 11.5, 15},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double sqnr, bits = bits_of(rows[i].name, &sqnr);
        print_message("%s: %.4f bits, %.2f dB\n", rows[i].name, bits, sqnr);
        assert_true(fabs(bits - rows[i].bits) < 0.01);
        assert_true(sqnr > rows[i].sqnr_min && sqnr < rows[i].sqnr_max);
    }
}

/* Exponents of normal weights have 2.5 to 2.7 bits; a bound of 30 % of the mean needs 3.12 at least. */
static void sizes_are_near_what_entropy_says(void **state)
{
    (void)state;
    double sqnr, bits = bits_of("bf16-exponents", &sqnr);
    print_message("bf16-exponents: %.3f bits\n", bits);
    assert_true(bits > 10.45 && bits < 10.75);
    bits = bits_of("ours", &sqnr);
    print_message("ours: %.3f bits\n", bits);
    assert_true(bits > 3.12 && bits < 3.45);
    bits = bits_of("cuszp-fixed", &sqnr);
    print_message("cuszp-fixed: %.3f bits\n", bits);
    assert_true(bits > 4.0 && bits < 4.5);
    if (is_there(find("sz3-nopred"))) {
        bits = bits_of("sz3-nopred", &sqnr);
        print_message("sz3-nopred: %.3f bits\n", bits);
        assert_true(bits > 3.12 && bits < 3.3);
    }
}

/* Decoders of our own see every byte of a coded matrix changed and every length; with a sanitizer, nothing
 * outside is read. */
static void damaged_bytes_of_our_own_codecs_are_survived(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 256 };
    struct test_matrix m = test_matrix_make(TEST_OUTLIERS, ROWS, COLS, 3);
    struct mb_codec_matrix matrix = test_codec_matrix(&m, 0.3 * m.mean_abs);
    size_t cap = mb_codec_nbytes_max(ROWS, COLS);
    uint8_t *bytes = malloc(cap);
    float *decoded = malloc(sizeof *decoded * ROWS * COLS);
    assert_non_null(bytes);
    assert_non_null(decoded);
    for (size_t c = 0; c < n_all; c++) {
        bool is_own = strncmp(all[c].name, "sz3", 3) != 0 && strcmp(all[c].name, "zfp") != 0;
        size_t nbytes = 0, n_refused = 0;
        if (!is_own || !is_there(&all[c]))
            continue;
        assert_int_equal(mb_codec_encode(&all[c], &matrix, bytes, cap, &nbytes, NULL), MB_OK);
        size_t step = strstr(all[c].name, "-cl") != NULL ? 97 : 1;
        for (size_t n = 0; n < nbytes; n += step) {
            uint8_t *cut = malloc(n + MB_SLACK_NBYTES);
            assert_non_null(cut);
            memcpy(cut, bytes, n);
            memset(cut + n, 0, MB_SLACK_NBYTES);
            if (mb_codec_decode(&all[c], cut, n, ROWS, COLS, decoded, NULL) == MB_OK)
                fail_msg("%s: %zu of %zu bytes are decoded", all[c].name, n, nbytes);
            free(cut);
        }
        uint8_t *changed = malloc(nbytes + MB_SLACK_NBYTES);
        assert_non_null(changed);
        memcpy(changed, bytes, nbytes);
        memset(changed + nbytes, 0, MB_SLACK_NBYTES);
        for (size_t i = 0; i < nbytes; i += step) {
            changed[i] ^= (uint8_t)(1 + i % 255);
            n_refused += mb_codec_decode(&all[c], changed, nbytes, ROWS, COLS, decoded, NULL) != MB_OK;
            changed[i] = bytes[i];
        }
        free(changed);
        print_message("%s: %zu of %zu changed bytes are refused\n", all[c].name, n_refused, nbytes);
    }
    free(decoded);
    free(bytes);
    test_matrix_free(&m);
}

/* Opened once and decoded again and again: the same weights; ours multiplies, the others say that they do
 * not. */
static void opened_bytes_are_decoded_as_others_are(void **state)
{
    (void)state;
    enum { ROWS = 40, COLS = 256 };
    struct test_matrix m = test_matrix_make(TEST_NORMAL, ROWS, COLS, 9);
    struct mb_codec_matrix matrix = test_codec_matrix(&m, 0.3 * m.mean_abs);
    size_t cap = mb_codec_nbytes_max(ROWS, COLS);
    uint8_t *bytes = malloc(cap);
    float decoded[2][ROWS * COLS], x[COLS], y[ROWS];
    assert_non_null(bytes);
    for (size_t i = 0; i < COLS; i++)
        x[i] = (float)(i % 13) - 6;
    for (size_t c = 0; c < n_all; c++) {
        struct mb_codec_opened *opened;
        size_t nbytes;
        if (!is_there(&all[c]))
            continue;
        assert_int_equal(mb_codec_encode(&all[c], &matrix, bytes, cap, &nbytes, NULL), MB_OK);
        assert_int_equal(mb_codec_open(&all[c], bytes, nbytes, ROWS, COLS, &opened, NULL), MB_OK);
        assert_int_equal(mb_codec_decode(&all[c], bytes, nbytes, ROWS, COLS, decoded[0], NULL), MB_OK);
        for (int k = 0; k < 2; k++) {
            memset(decoded[1], 0xff, sizeof decoded[1]);
            assert_int_equal(mb_codec_decode_opened(opened, decoded[1], NULL), MB_OK);
            assert_memory_equal(decoded[1], decoded[0], sizeof decoded[0]);
        }
        enum mb_status status = mb_codec_multiply(opened, x, y, NULL);
        assert_int_equal(status, all[c].has_product ? MB_OK : MB_UNSUPPORTED);
        for (size_t r = 0; r < ROWS && status == MB_OK; r++) {
            double sum = 0;
            for (size_t i = 0; i < COLS; i++)
                sum += (double)decoded[0][r * COLS + i] * (double)x[i];
            assert_true(fabs(sum - (double)y[r]) < 1e-3);
        }
        mb_codec_close(opened);
        if (all[c].has_check) {
            bytes[nbytes / 2] ^= 1;
            assert_int_equal(mb_codec_open(&all[c], bytes, nbytes, ROWS, COLS, &opened, NULL), MB_BAD_DATA);
        }
    }
    mb_codec_close(NULL);
    free(bytes);
    test_matrix_free(&m);
}

static void wrong_calls_are_refused(void **state)
{
    (void)state;
    struct test_matrix m = test_matrix_make(TEST_NORMAL, 4, 48, 3);
    struct mb_codec_matrix matrix = test_codec_matrix(&m, 0);
    struct mb_error err;
    const struct mb_codec *codec;
    size_t nbytes, cap = mb_codec_nbytes_max(4, 48);
    uint8_t *bytes = malloc(cap);
    assert_non_null(bytes);
    assert_int_equal(mb_codec_find("sz4", &codec, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "sz3-nopred"));
    assert_int_equal(mb_codec_encode(find("ours"), &matrix, bytes, cap, &nbytes, &err), MB_USAGE);
    matrix.eps = NAN;
    assert_int_equal(mb_codec_encode(find("cuszp-fixed"), &matrix, bytes, cap, &nbytes, &err), MB_USAGE);
    assert_int_equal(mb_codec_encode(find("rtn4"), &matrix, bytes, cap, &nbytes, &err), MB_OK);
    assert_int_equal(mb_codec_encode(find("rtn4"), &matrix, bytes, cap - 1, &nbytes, &err), MB_NO_SPACE);
    assert_int_equal(mb_codec_encode(find("q4_k"), &matrix, bytes, cap, &nbytes, &err), MB_UNSUPPORTED);
    assert_int_equal(mb_codec_encode(find("q4_0"), &matrix, bytes, cap, &nbytes, &err), MB_UNSUPPORTED);
    matrix.dtype = MB_F32;
    matrix.weights = matrix.values;
    assert_int_equal(mb_codec_encode(find("bf16-exponents"), &matrix, bytes, cap, &nbytes, &err),
                     MB_UNSUPPORTED);
    free(bytes);
    test_matrix_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_hold_for_random_and_hard_matrices),
        cmocka_unit_test(all_shapes_come_back),
        cmocka_unit_test(bits_and_ratios_are_those_of_the_formats),
        cmocka_unit_test(sizes_are_near_what_entropy_says),
        cmocka_unit_test(damaged_bytes_of_our_own_codecs_are_survived),
        cmocka_unit_test(opened_bytes_are_decoded_as_others_are),
        cmocka_unit_test(wrong_calls_are_refused),
    };
    return cmocka_run_group_tests(tests, name_what_is_missing, NULL);
}
