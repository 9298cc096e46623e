/*
 * test_measure_rows.c - the comparison of two rows of logits, and the figures that are made of many.
 */
#include "base/error.h"
#include "cmocka_all.h"
#include "lab/measure_figures.h"
#include "lab/opened.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 300 };

static uint32_t random_state = 1;

static float random_float(float size)
{
    random_state = random_state * 1664525U + 1013904223U;
    return ((float)(random_state >> 8) / 8388608.0F - 1) * size;
}

static void exp_and_ln_are_those_of_the_library_to_a_bit_or_two(void **state)
{
    (void)state;
    for (int i = 0; i < 100000; i++) {
        double x = -fabs((double)random_float(300)), y = exp((double)random_float(30));
        assert_true(fabs(mb_lab_exp(x) / exp(x) - 1) < 5e-16);
        assert_true(fabs(mb_lab_ln(y) - log(y)) <= 5e-16 * fmax(fabs(log(y)), 1));
    }
    assert_true(mb_lab_exp(0) == 1 && mb_lab_ln(1) == 0);
    assert_true(mb_lab_exp(-1000) == 0 && isinf(mb_lab_exp(1000)) && isnan(mb_lab_exp(NAN)));
    assert_true(isinf(mb_lab_ln(0)) && isnan(mb_lab_ln(-1)) && isnan(mb_lab_ln(NAN)) &&
                isinf(mb_lab_ln(INFINITY)));
}

/* As the definitions have it, in long double. */
static struct mb_row_figures plain(const float *a, const float *b, size_t n, int32_t token)
{
    long double a_sum = 0, b_sum = 0, kl = 0, tv = 0;
    size_t a_top = 0, b_top = 0;
    for (size_t i = 0; i < n; i++) {
        a_sum += expl((long double)a[i]);
        b_sum += expl((long double)b[i]);
        a_top = a[i] > a[a_top] ? i : a_top;
        b_top = b[i] > b[b_top] ? i : b_top;
    }
    for (size_t i = 0; i < n; i++) {
        long double p = expl((long double)a[i]) / a_sum, q = expl((long double)b[i]) / b_sum;
        kl += p * logl(p / q);
        tv += fabsl(p - q) / 2;
    }
    long double p = expl((long double)a[token]) / a_sum, q = expl((long double)b[token]) / b_sum;
    return (struct mb_row_figures){.kl = (double)kl,
                                   .tv = (double)tv,
                                   .nll = (double)-logl(q),
                                   .nll_clean = (double)-logl(p),
                                   .dp = (double)(q - p),
                                   .same_top = a_top == b_top ? 1 : 0};
}

static void close_to(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%.17g is not %.17g", a, b);
}

static void a_row_says_what_the_definitions_say(void **state)
{
    (void)state;
    float a[N_MAX], b[N_MAX];
    double scratch[2 * N_MAX + 2];
    for (int round = 0; round < 600; round++) {
        size_t n = (size_t)round % N_MAX + 1;
        float size = round % 3 == 0 ? 1e-4F : round % 3 == 1 ? 0.1F : 8;
        for (size_t i = 0; i < n; i++) {
            a[i] = random_float(9);
            b[i] = a[i] + random_float(size);
        }
        int32_t token = (int32_t)((size_t)round * 7 % n);
        struct mb_row_figures got = mb_row_compare(a, b, n, token, scratch), want = plain(a, b, n, token);
        close_to(got.kl, want.kl, 1e-14);
        close_to(got.tv, want.tv, 1e-14);
        close_to(got.nll, want.nll, 1e-13);
        close_to(got.nll_clean, want.nll_clean, 1e-13);
        close_to(got.dp, want.dp, 1e-13);
        assert_true(got.same_top == want.same_top);
    }
}

static void equal_rows_differ_by_nothing(void **state)
{
    (void)state;
    float a[N_MAX];
    double scratch[2 * N_MAX + 2];
    for (size_t i = 0; i < N_MAX; i++)
        a[i] = random_float(9);
    struct mb_row_figures f = mb_row_compare(a, a, N_MAX, 3, scratch);
    assert_true(f.kl == 0 && f.tv == 0 && f.dp == 0 && f.same_top == 1 && f.nll == f.nll_clean);
}

static void the_likeliest_of_equals_is_the_lowest(void **state)
{
    (void)state;
    static const float a[] = {1, 5, 2, 5, 0, 5, 5}, b[] = {1, 5, 2, 0, 0, 0, 0}, c[] = {0, 0, 0, 0, 0, 9, 0};
    double scratch[16];
    assert_true(mb_row_compare(a, b, 7, 0, scratch).same_top == 1);
    assert_true(mb_row_compare(a, c, 7, 0, scratch).same_top == 0);
}

static void rows_that_are_not_finite_say_so(void **state)
{
    (void)state;
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    double scratch[2 * N_MAX + 2];
    for (size_t n = 1; n < 12; n++)
        for (size_t at = 0; at < n; at++)
            for (size_t w = 0; w < 3; w++) {
                float a[12] = {0}, b[12] = {0};
                b[at] = wrong[w];
                struct mb_row_figures f = mb_row_compare(a, b, n, 0, scratch);
                assert_true(isnan(f.nll) && isnan(f.kl) && !isnan(f.nll_clean));
                f = mb_row_compare(b, a, n, 0, scratch);
                assert_true(isnan(f.nll_clean) && isnan(f.kl) && !isnan(f.nll));
            }
}

/* ---------------------------------------------------------------- figures */

/* Windows of 'n_scored' tokens each. */
static struct mb_windows windows_of(const size_t *n_scored, size_t n)
{
    static const int32_t tokens[64];
    struct mb_windows windows = {0};
    struct mb_error err;
    for (size_t i = 0; i < n; i++)
        must(mb_windows_add(&windows, tokens, n_scored[i] + 1, 0, &err), &err);
    return windows;
}

/* Eight tokens in three windows; what llama-perplexity's formulas make of them, by hand. */
static void figures_are_those_of_llama_perplexity(void **state)
{
    (void)state;
    static const size_t sizes[] = {3, 3, 2};
    struct mb_windows windows = windows_of(sizes, 3);
    struct mb_row_figures rows[8];
    struct mb_window_sums sums[3];
    struct mb_comparison c;
    struct mb_error err;
    for (size_t i = 0; i < 8; i++) {
        double x = (double)((i * 5 + 3) % 8); /* 3 0 5 2 7 4 1 6 */
        rows[i] = (struct mb_row_figures){
            .kl = x, .tv = x / 10, .nll = 1 + x / 8, .nll_clean = 1, .dp = x - 3, .same_top = x < 6 ? 1 : 0};
    }
    must(mb_figures_make(&windows, rows, sums, &c, &err), &err);
    assert_int_equal(c.n_scored, 8);
    assert_int_equal(c.n_windows, 3);
    assert_int_equal(c.n_tokens, 11);
    close_to(c.kl.value, 3.5, 1e-12);
    close_to(c.kl.stderr_tokens, sqrt((140.0 / 8 - 3.5 * 3.5) / 7), 1e-12);
    close_to(c.nll.value, 1.4375, 1e-12);
    close_to(c.ppl, exp(1.4375), 1e-12);
    close_to(c.ppl_stderr, exp(1.4375) * sqrt(5.25 / 64 / 7), 1e-12);
    close_to(c.ln_ratio.value, 0.4375, 1e-12);
    close_to(c.ln_ratio.stderr_tokens, sqrt(5.25 / 64 / 7), 1e-12);
    close_to(c.same_top.value, 0.75, 1e-12);
    close_to(c.same_top.stderr_tokens, sqrt(0.75 * 0.25 / 7), 1e-12);
    close_to(c.dp_rms, sqrt(5.5), 1e-12); /* 0 1 4 9 16 9 4 1: sum 44 */
    close_to(c.dp_rms_stderr, sqrt((452.0 / 8 - 5.5 * 5.5) / 7) / (2 * sqrt(5.5)), 1e-12);
    /* 0 to 7 at 7 p / 100. */
    static const double percentiles[] = {0,    0.007, 0.07, 0.35, 0.7,   1.75, 3.5,
                                         5.25, 6.3,   6.65, 6.93, 6.993, 7};
    for (size_t i = 0; i < MB_N_PERCENTS; i++)
        close_to(c.kl_percentiles[i], percentiles[i], 1e-12);
    close_to(c.dp_percentiles[0], -3, 0);
    /* Sums of windows: 8, 13, 7 of 3, 3, 2 tokens; a ratio's error. */
    close_to(sums[0].kl, 8, 1e-12);
    close_to(sums[1].kl, 13, 1e-12);
    close_to(sums[2].kl, 7, 1e-12);
    double squares = 2.5 * 2.5 + 2.5 * 2.5 + 0;
    close_to(c.kl.stderr_windows, sqrt(squares * 3 / 2) / 8, 1e-12);
    assert_true(c.kl.low < 3.5 && c.kl.low >= 8.0 / 3 && c.kl.high > 3.5 && c.kl.high <= 13.0 / 3);
    mb_windows_free(&windows);
}

static void one_window_has_no_interval(void **state)
{
    (void)state;
    static const size_t sizes[] = {2};
    struct mb_windows windows = windows_of(sizes, 1);
    struct mb_row_figures rows[2] = {{.kl = 1, .nll = 1, .nll_clean = 1},
                                     {.kl = 3, .nll = 1, .nll_clean = 1}};
    struct mb_window_sums sums[1];
    struct mb_comparison c;
    struct mb_error err;
    must(mb_figures_make(&windows, rows, sums, &c, &err), &err);
    close_to(c.kl.value, 2, 0);
    assert_true(isnan(c.kl.low) && isnan(c.kl.high) && isnan(c.kl.stderr_windows));
    close_to(c.kl_percentiles[6], 2, 0);
    assert_true(c.dp_rms == 0 && c.dp_rms_stderr == 0);
    mb_windows_free(&windows);
}

static void a_changed_model_without_finite_logits_has_no_figures(void **state)
{
    (void)state;
    static const size_t sizes[] = {2, 2};
    struct mb_windows windows = windows_of(sizes, 2);
    struct mb_row_figures rows[4] = {{.kl = NAN, .nll = NAN}};
    struct mb_window_sums sums[2];
    struct mb_comparison c;
    struct mb_error err;
    must(mb_figures_make(&windows, rows, sums, &c, &err), &err);
    assert_int_equal(c.n_not_finite, 1);
    assert_true(isnan(c.kl.value) && isnan(c.ppl) && isnan(c.kl_percentiles[0]) && isnan(c.same_top.low));
    mb_windows_free(&windows);
}

/* ---------------------------------------------------------------- load */

static void load_statistics_are_known_for_even_and_uneven_loads(void **state)
{
    (void)state;
    static const uint64_t even[] = {5, 5, 5, 5}, one[] = {0, 0, 8, 0}, some[] = {1, 2, 3, 0}, none[4];
    struct mb_load_statistics s;
    struct mb_error err;
    must(mb_load_statistics(even, 4, &s, &err), &err);
    close_to(s.utilisation, 1, 1e-15);
    close_to(s.entropy, 1, 1e-15);
    close_to(s.gini, 0, 1e-15);
    close_to(s.imbalance, 1, 1e-15);
    must(mb_load_statistics(one, 4, &s, &err), &err);
    close_to(s.utilisation, 0.25, 1e-15);
    close_to(s.entropy, 0, 1e-15);
    close_to(s.gini, 0.75, 1e-15);
    close_to(s.imbalance, 4, 1e-15);
    must(mb_load_statistics(some, 4, &s, &err), &err);
    close_to(s.utilisation, 0.75, 1e-15);
    close_to(s.entropy, -(log(1.0 / 6) / 6 + log(1.0 / 3) / 3 + log(0.5) / 2) / log(4), 1e-15);
    close_to(s.gini, 20.0 / (2 * 16 * 1.5), 1e-15); /* differences 1 2 1 1 2 3, each twice: 20 */
    close_to(s.imbalance, 2, 1e-15);
    must(mb_load_statistics(none, 4, &s, &err), &err);
    assert_true(s.utilisation == 0 && isnan(s.entropy) && isnan(s.gini) && isnan(s.imbalance));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_and_ln_are_those_of_the_library_to_a_bit_or_two),
        cmocka_unit_test(a_row_says_what_the_definitions_say),
        cmocka_unit_test(equal_rows_differ_by_nothing),
        cmocka_unit_test(the_likeliest_of_equals_is_the_lowest),
        cmocka_unit_test(rows_that_are_not_finite_say_so),
        cmocka_unit_test(figures_are_those_of_llama_perplexity),
        cmocka_unit_test(one_window_has_no_interval),
        cmocka_unit_test(a_changed_model_without_finite_logits_has_no_figures),
        cmocka_unit_test(load_statistics_are_known_for_even_and_uneven_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
