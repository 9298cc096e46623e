/*
 * test_feedback.c - factors are what they say, rows are rounded as a plain loop rounds them, on all
 * instruction sets, within the bound, and the proved error of a row's output holds.
 */
#include "../codec/matrices.h"
#include "base/bytes.h"
#include "base/checked.h"
#include "base/memory.h"
#include "calibrate/feedback_kernels.h"
#include "cmocka_all.h"
#include "moments.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const isas[] = {"scalar", "avx2", "avx512"};
enum { N_ISAS = 3 };

/* ---------------------------------------------------------------- factors */

static void a_factor_is_that_of_the_moments(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 17, 64, 65, 130, 200};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        size_t n = sizes[s];
        float *moments = test_moments_make(n, n / 2 + 1, n);
        struct mb_factor factor;
        assert_int_equal(mb_factor_make(moments, n, NULL, 0.01, &factor, NULL), MB_OK);
        double mean = 0;
        for (size_t j = 0; j < n; j++)
            mean += (double)moments[j * n + j] / (double)n;
        for (size_t j = 0; j < n; j++)
            for (size_t k = 0; k < n; k++) {
                /* V V^T, with V_im = A_im V_mm */
                double sum = 0;
                for (size_t m = j > k ? j : k; m < n; m++) {
                    double a = m == j ? 1 : (double)factor.feeds[j * factor.stride + m];
                    double b = m == k ? 1 : (double)factor.feeds[k * factor.stride + m];
                    sum += a * b * factor.weights[m];
                }
                double h =
                    (double)moments[factor.order[j] * n + factor.order[k]] + (j == k ? 0.01 * mean : 0);
                assert_true(fabs(sum - h) <= 1e-5 * mean * 50);
            }
        for (size_t j = 1; j < n; j++)
            assert_true(moments[factor.order[j] * (n + 1)] <= moments[factor.order[j - 1] * (n + 1)]);
        mb_factor_free(&factor);
        free(moments);
    }
}

static void equal_columns_keep_their_order(void **state)
{
    (void)state;
    float moments[25] = {0};
    for (size_t j = 0; j < 5; j++)
        moments[6 * j] = j == 3 ? 2 : 1;
    struct mb_factor factor;
    assert_int_equal(mb_factor_make(moments, 5, NULL, 0.01, &factor, NULL), MB_OK);
    static const uint32_t expected[] = {3, 0, 1, 2, 4};
    assert_memory_equal(factor.order, expected, sizeof expected);
    mb_factor_free(&factor);
}

static void moments_that_no_inputs_have_are_refused(void **state)
{
    (void)state;
    static const struct {
        float moments[4];
        const char *words;
    } cases[] = {
        {{1, NAN, NAN, 1}, "columns 1 and 0 are not finite"},
        {{INFINITY, 0, 0, 1}, "columns 0 and 0 are not finite"},
        {{1, 0.5F, 0.25F, 1}, "columns 1 and 0 are not symmetric"},
        {{-1, 0, 0, 1}, "moment of column 0 is negative"},
        {{1, 2, 2, 1}, "not positive definite"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mb_factor factor;
        struct mb_error err = {0};
        assert_int_equal(mb_factor_make(cases[i].moments, 2, NULL, 0.01, &factor, &err), MB_BAD_DATA);
        assert_non_null(strstr(err.msg, cases[i].words));
        assert_null(factor.feeds);
    }
    static const float zeros[9];
    struct mb_factor factor;
    assert_int_equal(mb_factor_make(zeros, 3, NULL, 0.01, &factor, NULL), MB_OK);
    assert_true(factor.is_zero);
    mb_factor_free(&factor);
}

/* ---------------------------------------------------------------- rows */

struct trial {
    struct mb_factor factor;
    struct mb_coding coding;
    float *moments;
    void *weights;     /* as they are coded: times 2^exponents */
    void *originals;   /* before that */
    int8_t *exponents; /* [n_cols] or NULL */
    size_t n_rows;
};

/* Exponents for half of the trials, as far as weights stay exact. */
static void make_exponents(struct trial *t, uint64_t *seed)
{
    size_t n = t->coding.n_cols, nbytes = t->n_rows * n * mb_dtype_nbytes(t->coding.dtype);
    t->originals = malloc(nbytes);
    memcpy(t->originals, t->weights, nbytes);
    t->exponents = NULL;
    if (test_random(seed) % 2 == 0 || !mb_step_takes_exponents(t->coding.step))
        return;
    t->exponents = malloc(n);
    for (size_t j = 0; j < n; j++)
        t->exponents[j] = (int8_t)((int)(test_random(seed) % 13) - 6);
    mb_limit_exponents(t->coding.dtype, t->weights, t->n_rows, n, t->exponents);
    assert_true(mb_scale_columns(t->coding.dtype, t->weights, t->n_rows, n, t->exponents));
}

/* What a table makes of it. */
struct outcome {
    int8_t *wanted;
    double *row_errors2;
    uint32_t *n_clipped;
};

static void make_trial(struct trial *t, uint64_t *seed, size_t n_cols_max, size_t n_rows_max)
{
    size_t n = 1 + test_random(seed) % n_cols_max;
    size_t n_tokens = 1 + test_random(seed) % (2 * n);
    t->n_rows = 1 + test_random(seed) % n_rows_max;
    enum mb_dtype dtype = (enum mb_dtype)(test_random(seed) % 3);
    double eps = ldexp(1 + test_uniform(seed), -3 - (int)(test_random(seed) % 5));
    double rho = test_random(seed) % 3 == 0 ? 1 : 0.5 + 3.5 * test_uniform(seed);
    t->weights = test_weights_make((enum test_weights)(test_random(seed) % TEST_N_WEIGHTS), dtype, t->n_rows,
                                   n, test_random(seed));
    t->coding = (struct mb_coding){dtype, MB_FORM_PATCHED, n, eps, mb_step_of_rho(eps, rho), NULL};
    t->moments = test_moments_make(n, n_tokens, test_random(seed));
    make_exponents(t, seed);
    float scale = (float)ldexp(1, (int)(test_random(seed) % 60) - 30);
    for (size_t i = 0; i < n * n; i++)
        t->moments[i] *= scale;
    double damping = test_random(seed) % 2 == 0 ? 0.01 : 0.0001 + test_uniform(seed);
    assert_int_equal(mb_factor_make(t->moments, n, t->exponents, damping, &t->factor, NULL), MB_OK);
}

static void free_trial(struct trial *t)
{
    mb_factor_free(&t->factor);
    free(t->moments);
    free(t->weights);
    free(t->originals);
    free(t->exponents);
}

static struct outcome run_trial(const struct mb_feedback_kernels *kernels, const struct trial *t)
{
    size_t rows = mb_round_up(t->n_rows, MB_FEED_ROWS), n = t->coding.n_cols;
    struct outcome outcome = {mb_alloc(rows, n), mb_alloc(rows, 8), mb_alloc(rows, 4)};
    double *drift = mb_alloc(n, sizeof *drift);
    struct mb_feed feed = {&t->factor,
                           &t->coding,
                           t->weights,
                           t->n_rows,
                           outcome.wanted,
                           mb_alloc(rows, t->factor.stride * sizeof(float)),
                           mb_alloc(rows, MB_FEED_PANEL * sizeof(float)),
                           drift,
                           outcome.row_errors2,
                           outcome.n_clipped};
    for (size_t k = 0; k < n; k++)
        drift[k] = (double)(k + 4) * 0x1p-23 * t->coding.eps * t->factor.reach[k];
    kernels->round_rows(&feed);
    free(feed.fed);
    free(feed.errors);
    free(drift);
    return outcome;
}

static void free_outcome(struct outcome *outcome)
{
    free(outcome->wanted);
    free(outcome->row_errors2);
    free(outcome->n_clipped);
}

/* Of the levels within the bound the one nearest to 'aim', by trying all: ties to even. */
static int nearest_level(const struct mb_coding *coding, float w, float aim)
{
    int best = MB_INDEX_NONE;
    float t = aim / coding->step, best_off = INFINITY;
    t = t >= -1000 ? t : -1000;
    t = t > 1000 ? 1000 : t;
    for (int q = -MB_INDEX_MAX; q <= MB_INDEX_MAX; q++) {
        float off = fabsf(t - (float)q), decoded = coding->step * (float)q;
        bool is_nearer = off < best_off || (off == best_off && q % 2 == 0);
        if (fabs((double)w - (double)decoded) <= coding->eps && is_nearer) {
            best = q;
            best_off = off;
        }
    }
    return best;
}

/* One row after the other, one column after the other: the specification. */
static void round_plainly(const struct trial *t, int8_t *wanted)
{
    size_t n = t->coding.n_cols;
    float *fed = malloc(n * sizeof *fed);
    for (size_t r = 0; r < t->n_rows; r++) {
        memset(fed, 0, n * sizeof *fed);
        for (size_t j = 0; j < n; j++) {
            size_t column = t->factor.order[j];
            float w = (float)test_weight(t->coding.dtype, t->weights, r * n + column), aim = w + fed[j];
            int q = nearest_level(&t->coding, w, aim);
            float error = q == MB_INDEX_NONE ? 0 : w - t->coding.step * (float)q;
            wanted[r * n + column] = (int8_t)q;
            for (size_t k = j + 1; k < n; k++)
                fed[k] += error * t->factor.feeds[j * t->factor.stride + k];
        }
    }
    free(fed);
}

static void rows_are_rounded_as_a_plain_loop_does(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int i = 0; i < 60; i++) {
        struct trial t;
        make_trial(&t, &seed, 200, 40);
        int8_t *expected = malloc(t.n_rows * t.coding.n_cols);
        round_plainly(&t, expected);
        for (size_t k = 0; k < N_ISAS; k++) {
            const struct mb_feedback_kernels *kernels = mb_feedback_kernels_by_isa(isas[k]);
            if (kernels == NULL)
                continue;
            struct outcome outcome = run_trial(kernels, &t);
            assert_memory_equal(outcome.wanted, expected, t.n_rows * t.coding.n_cols);
            free_outcome(&outcome);
        }
        free(expected);
        free_trial(&t);
    }
}

/*
 * The indices as the encoder takes them, coded and decoded; then e H e^T of each row.  Of the original
 * weights: each keeps the bound of its column.
 */
static void check_trial(const struct trial *t, const struct outcome *outcome)
{
    size_t n = t->coding.n_cols;
    struct mb_coding coding = t->coding;
    struct test_coded coded;
    float *decoded = malloc(t->n_rows * n * sizeof *decoded);
    double *e = malloc(n * sizeof *e);
    coding.wanted = outcome->wanted;
    test_code_with(&coded, &coding, t->weights, t->n_rows);
    mb_kernels()->decode_rows(coded.matrix, 0, t->n_rows, decoded);
    for (size_t r = 0; r < t->n_rows; r++) {
        for (size_t c = 0; c < n; c++) {
            double w = test_weight(t->coding.dtype, t->originals, r * n + c);
            int q = outcome->wanted[r * n + c], exponent = t->exponents == NULL ? 0 : t->exponents[c];
            double eps = ldexp(coding.eps, -exponent);
            assert_true(fabs(w - ldexp((double)decoded[r * n + c], -exponent)) <= eps);
            double chosen = q == MB_INDEX_NONE ? w : ldexp((double)(coding.step * (float)q), -exponent);
            assert_true(fabs(w - chosen) <= eps);
            e[c] = w - chosen;
        }
        assert_true(test_row_error2(t->moments, e, n) <= outcome->row_errors2[r] * (1 + 1e-6) + 1e-300);
    }
    test_coded_free(&coded);
    free(decoded);
    free(e);
}

static void a_thousand_cases_keep_their_bounds_on_every_instruction_set(void **state)
{
    (void)state;
    uint64_t seed = 4;
    for (int i = 0; i < 1000; i++) {
        struct trial t;
        make_trial(&t, &seed, 150, 20);
        struct outcome first = run_trial(mb_feedback_kernels_by_isa("scalar"), &t);
        check_trial(&t, &first);
        for (size_t k = 1; k < N_ISAS; k++) {
            const struct mb_feedback_kernels *kernels = mb_feedback_kernels_by_isa(isas[k]);
            if (kernels == NULL)
                continue;
            struct outcome outcome = run_trial(kernels, &t);
            assert_memory_equal(outcome.wanted, first.wanted, t.n_rows * t.coding.n_cols);
            assert_memory_equal(outcome.row_errors2, first.row_errors2, t.n_rows * 8);
            assert_memory_equal(outcome.n_clipped, first.n_clipped, t.n_rows * 4);
            free_outcome(&outcome);
        }
        free_outcome(&first);
        free_trial(&t);
    }
}

/* ---------------------------------------------------------------- what it is for */

static double error_of(const struct trial *t, const int8_t *wanted)
{
    size_t n = t->coding.n_cols;
    double *e = malloc(n * sizeof *e), sum = 0;
    for (size_t r = 0; r < t->n_rows; r++) {
        for (size_t c = 0; c < n; c++) {
            double w = test_weight(t->coding.dtype, t->weights, r * n + c);
            int q = wanted == NULL
                        ? mb_index_within(&t->coding, (float)w, (int)rint(w / (double)t->coding.step))
                        : wanted[r * n + c];
            e[c] = q == MB_INDEX_NONE ? 0 : w - (double)(t->coding.step * (float)q);
        }
        sum += test_row_error2(t->moments, e, n);
    }
    free(e);
    return sum;
}

static void feedback_at_one_step_halves_the_error_of_outputs_and_at_half_a_step_does_nothing(void **state)
{
    (void)state;
    enum { N = 128, N_ROWS = 64 };
    static const double rhos[] = {0.5, 0.75, 1, 2};
    double ratios[4];
    for (size_t i = 0; i < 4; i++) {
        struct trial t = {.n_rows = N_ROWS};
        const double step = 0.02;
        t.moments = test_moments_make(N, 4 * N, 11);
        t.weights = test_weights_make(TEST_GAUSS, MB_F32, N_ROWS, N, 12);
        t.coding = (struct mb_coding){MB_F32, MB_FORM_PATCHED, N, step * rhos[i], 0, NULL};
        t.coding.step = mb_step_of_rho(t.coding.eps, rhos[i]);
        assert_int_equal(mb_factor_make(t.moments, N, NULL, 0.01, &t.factor, NULL), MB_OK);
        struct outcome outcome = run_trial(mb_feedback_kernels(), &t);
        ratios[i] = error_of(&t, outcome.wanted) / error_of(&t, NULL);
        free_outcome(&outcome);
        free_trial(&t);
    }
    assert_true(ratios[0] > 0.99 && ratios[0] < 1.01);
    assert_true(ratios[1] < 0.6 && ratios[2] < 0.5 && ratios[2] < ratios[1] && ratios[3] < ratios[2] * 1.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_factor_is_that_of_the_moments),
        cmocka_unit_test(equal_columns_keep_their_order),
        cmocka_unit_test(moments_that_no_inputs_have_are_refused),
        cmocka_unit_test(rows_are_rounded_as_a_plain_loop_does),
        cmocka_unit_test(a_thousand_cases_keep_their_bounds_on_every_instruction_set),
        cmocka_unit_test(feedback_at_one_step_halves_the_error_of_outputs_and_at_half_a_step_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
