/*
 * test_steps.c - steps finer than the bound needs, and encoders that are told which indices are wanted: every
 * weight keeps the bound, whatever is wanted, and all instruction sets write the same bytes and multiply
 * them.
 */
#include "base/bytes.h"
#include "base/value.h"
#include "cmocka_all.h"
#include "matrices.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_CASES = 1000, N_WEIGHTS_MAX = 5000 };

static void a_finer_step_is_the_smallest_that_rho_reach_the_bound_with(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 10000; i++) {
        double eps = ldexp(1 + test_uniform(&seed), (int)(test_random(&seed) % 270) - 150);
        double rho = 0.5 + 3.5 * test_uniform(&seed);
        float step = mb_step_of_rho(eps, rho), most = mb_step_of_eps(eps);
        assert_true(step <= most && (most == 0 || step > 0));
        if (step < most)
            assert_true(rho * (double)step >= eps && rho * (double)nextafterf(step, 0) < eps);
        assert_true(mb_step_of_rho(eps, 0.5) == most);
        assert_true(most == 0 || eps <= MB_RHO_MAX * (double)mb_step_of_rho(eps, MB_RHO_MAX));
    }
    assert_true(mb_step_of_rho(0, 1) == 0 && mb_step_of_rho(1e-50, 4) == 0);
    assert_true(mb_step_of_rho(1e300, 4) == mb_step_of_eps(1e300));
}

/* A matrix, a bound, a rho, and wanted indices: near the weights, anywhere, or none. */
struct trial {
    struct mb_coding coding;
    size_t n_rows, n;
    void *weights;
    int8_t wanted[N_WEIGHTS_MAX];
};

static void make_trial(struct trial *trial, uint64_t *seed)
{
    size_t n_cols = 1 + test_random(seed) % 1500, n_rows = 1 + test_random(seed) % (N_WEIGHTS_MAX / n_cols);
    enum mb_dtype dtype = (enum mb_dtype)(test_random(seed) % 3);
    double eps = ldexp(1 + test_uniform(seed), -3 - (int)(test_random(seed) % 6));
    double rho = 0.5 + 3.5 * test_uniform(seed);
    trial->n_rows = n_rows;
    trial->n = n_rows * n_cols;
    trial->weights = test_weights_make((enum test_weights)(test_random(seed) % TEST_N_WEIGHTS), dtype, n_rows,
                                       n_cols, test_random(seed));
    trial->coding =
        (struct mb_coding){dtype, MB_FORM_PATCHED, n_cols, eps, mb_step_of_rho(eps, rho), trial->wanted};
    unsigned spread = 1 + (unsigned)(test_random(seed) % 300);
    for (size_t i = 0; i < trial->n; i++) {
        double q = rint(test_weight(dtype, trial->weights, i) / (double)trial->coding.step);
        q += (double)(test_random(seed) % spread) - spread / 2;
        trial->wanted[i] = (int8_t)fmax(-128, fmin(127, q));
    }
}

/* The index nearest to the wanted one on the way to the weight's own, by trying all. */
static double expected_weight(const struct trial *trial, size_t i)
{
    double w = test_weight(trial->coding.dtype, trial->weights, i), best = w;
    int wanted = trial->wanted[i], best_distance = 1000;
    double own = rint(w / (double)trial->coding.step);
    int end = (int)fmax(-127, fmin(127, own));
    for (int q = -127; q <= 127 && wanted != MB_INDEX_NONE; q++) {
        double decoded = (double)(trial->coding.step * (float)q);
        bool is_between = (q - end) * (q - wanted) <= 0;
        if (is_between && abs(q - wanted) < best_distance && fabs(w - decoded) <= trial->coding.eps) {
            best_distance = abs(q - wanted);
            best = decoded;
        }
    }
    return best;
}

static void wanted_indices_are_coded_where_they_keep_the_bound(void **state)
{
    (void)state;
    static float decoded[N_WEIGHTS_MAX];
    static struct trial trial;
    uint64_t seed = 7;
    size_t n_wanted = 0, n_other = 0;
    for (int k = 0; k < N_CASES; k++) {
        struct test_coded coded;
        make_trial(&trial, &seed);
        test_code_with(&coded, &trial.coding, trial.weights, trial.n_rows);
        assert_int_equal(mb_load_u16(coded.bytes + 4),
                         trial.coding.step == mb_step_of_eps(trial.coding.eps) ? 1 : 2);
        assert_true(coded.matrix->step == trial.coding.step && coded.matrix->eps == trial.coding.eps);
        mb_kernels()->decode_rows(coded.matrix, 0, trial.n_rows, decoded);
        for (size_t i = 0; i < trial.n; i++) {
            double w = test_weight(trial.coding.dtype, trial.weights, i),
                   expected = expected_weight(&trial, i);
            assert_true(fabs(w - (double)decoded[i]) <= trial.coding.eps);
            if ((double)decoded[i] != w) /* not an outlier, nor in a raw group */
                assert_true((double)decoded[i] == expected);
            bool is_wanted = (double)decoded[i] == (double)(trial.coding.step * (float)trial.wanted[i]);
            n_wanted += is_wanted;
            n_other += !is_wanted;
        }
        test_coded_free(&coded);
        free(trial.weights);
    }
    assert_true(n_wanted > 100000 && n_other > 100000);
}

static void instruction_sets_and_pieces_give_the_same_bytes(void **state)
{
    (void)state;
    static const char *const isas[] = {"avx2", "avx512", "neon"};
    static struct trial trial;
    static uint8_t out[3][N_WEIGHTS_MAX * 4 + 64];
    static struct mb_group groups[3][N_WEIGHTS_MAX];
    const struct mb_kernels *scalar = mb_kernels_by_isa("scalar");
    uint64_t seed = 8;
    for (int k = 0; k < 300; k++) {
        size_t nbytes[3], part;
        make_trial(&trial, &seed);
        const struct mb_coding *coding = &trial.coding;
        assert_int_equal(scalar->encode_rows(coding, trial.weights, trial.n_rows, out[0], sizeof out[0],
                                             &nbytes[0], groups[0], NULL),
                         MB_OK);
        for (size_t i = 0; i < 3; i++) {
            const struct mb_kernels *k_isa = mb_kernels_by_isa(isas[i]);
            if (k_isa == NULL)
                continue;
            assert_int_equal(k_isa->encode_rows(coding, trial.weights, trial.n_rows, out[1], sizeof out[1],
                                                &nbytes[1], groups[1], NULL),
                             MB_OK);
            assert_int_equal(nbytes[0], nbytes[1]);
            assert_memory_equal(out[0], out[1], nbytes[0]);
        }
        size_t first = mb_group_rows(coding->n_cols);
        first = first < trial.n_rows ? first : trial.n_rows;
        struct mb_coding rest = *coding;
        rest.wanted += first * coding->n_cols;
        assert_int_equal(
            mb_encode_rows(coding, trial.weights, first, out[2], sizeof out[2], &part, groups[2], NULL),
            MB_OK);
        if (first < trial.n_rows) {
            const uint8_t *weights = trial.weights;
            size_t nbytes_first = first * coding->n_cols * mb_dtype_nbytes(coding->dtype);
            assert_int_equal(mb_encode_rows(&rest, weights + nbytes_first, trial.n_rows - first,
                                            out[2] + part, sizeof out[2] - part, &nbytes[2], groups[2], NULL),
                             MB_OK);
            part += nbytes[2];
        }
        assert_int_equal(part, nbytes[0]);
        assert_memory_equal(out[0], out[2], nbytes[0]);
        free(trial.weights);
    }
}

static enum mb_status open_with_step(struct test_coded *coded, unsigned version, float step)
{
    struct mb_blob blob;
    mb_store_u16(coded->bytes + 4, (uint16_t)version);
    memcpy(coded->bytes + 64, &step, 4);
    test_repair_checksums(coded->bytes, coded->nbytes);
    enum mb_status status = mb_blob_open(coded->bytes, coded->nbytes, &blob, NULL);
    mb_blob_close(&blob);
    return status;
}

static void steps_that_do_not_go_with_the_bound_are_refused(void **state)
{
    (void)state;
    const double eps = 0.013;
    const float most = mb_step_of_eps(eps), least = mb_step_of_rho(eps, MB_RHO_MAX);
    float *weights = test_weights_make(TEST_GAUSS, MB_F32, 4, 300, 5);
    struct test_coded coded;
    test_code(&coded, MB_F32, weights, 4, 300, eps);
    assert_int_equal(open_with_step(&coded, 1, most), MB_OK);
    assert_int_equal(open_with_step(&coded, 1, nextafterf(most, 0)), MB_BAD_DATA);
    assert_int_equal(open_with_step(&coded, 2, most), MB_OK);
    assert_int_equal(open_with_step(&coded, 2, nextafterf(most, 0)), MB_OK);
    assert_int_equal(open_with_step(&coded, 2, least), MB_OK);
    assert_int_equal(open_with_step(&coded, 2, nextafterf(least, 0)), MB_BAD_DATA);
    assert_int_equal(open_with_step(&coded, 2, nextafterf(most, 1)), MB_BAD_DATA);
    assert_int_equal(open_with_step(&coded, 2, 0), MB_BAD_DATA);
    assert_int_equal(open_with_step(&coded, 2, -least), MB_BAD_DATA);
    assert_int_equal(open_with_step(&coded, 2, NAN), MB_BAD_DATA);
    assert_int_equal(open_with_step(&coded, 4, most), MB_UNSUPPORTED);
    test_coded_free(&coded);
    free(weights);
}

static void products_do_not_care_where_the_step_comes_from(void **state)
{
    (void)state;
    enum { N_ROWS = 33, N_COLS = 300 };
    static float decoded[N_ROWS * N_COLS], x[N_COLS];
    static int8_t wanted[N_ROWS * N_COLS];
    const double eps = 0.02;
    uint64_t seed = 9;
    float *weights = test_weights_make(TEST_GAUSS, MB_F32, N_ROWS, N_COLS, 6);
    const struct mb_coding coding = {MB_F32, MB_FORM_PATCHED, N_COLS, eps, mb_step_of_rho(eps, 1), wanted};
    for (size_t i = 0; i < N_ROWS * N_COLS; i++)
        wanted[i] = (int8_t)(rintf(weights[i] / coding.step) + (float)(test_random(&seed) % 3) - 1);
    for (size_t i = 0; i < N_COLS; i++)
        x[i] = (float)test_normal(&seed);
    struct test_coded coded;
    test_code_with(&coded, &coding, weights, N_ROWS);
    static const char *const isas[] = {"scalar", "avx2", "avxvnni", "avx512",
                                       "zen4",   "neon", "dotprod", "i8mm"};
    mb_kernels()->decode_rows(coded.matrix, 0, N_ROWS, decoded);
    _Alignas(64) static int8_t hi[4096], lo[4096], wide[65536];
    float y[N_ROWS], first[N_ROWS];
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++) {
        const struct mb_kernels *k = mb_kernels_by_isa(isas[i]);
        struct mb_activation activation;
        if (k == NULL)
            continue;
        k->activation(x, N_COLS, hi, lo, wide, &activation);
        k->matvec(coded.matrix, 0, N_ROWS, &activation, y);
        if (i == 0)
            memcpy(first, y, sizeof y);
        assert_memory_equal(first, y, sizeof y);
    }
    for (size_t r = 0; r < N_ROWS; r++) {
        double sum = 0;
        for (size_t c = 0; c < N_COLS; c++)
            sum += (double)decoded[r * N_COLS + c] * (double)x[c];
        assert_true(fabs(sum - (double)first[r]) < 1e-3);
    }
    test_coded_free(&coded);
    free(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_finer_step_is_the_smallest_that_rho_reach_the_bound_with),
        cmocka_unit_test(wanted_indices_are_coded_where_they_keep_the_bound),
        cmocka_unit_test(instruction_sets_and_pieces_give_the_same_bytes),
        cmocka_unit_test(steps_that_do_not_go_with_the_bound_are_refused),
        cmocka_unit_test(products_do_not_care_where_the_step_comes_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
