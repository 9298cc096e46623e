/*
 * test_bound.c - spellings of bounds, what they are relative to, and the step that keeps them.
 */
#include "cmocka_all.h"
#include <math.h>
#include <moebius/codec.h>
#include <string.h>

static void spellings_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum mb_bound_kind kind;
        double value;
        const char *back;
    } cases[] = {
        {"30%", MB_BOUND_MEAN_ABS, 0.3, "30%"},
        {"0.5%", MB_BOUND_MEAN_ABS, 0.005, "0.5%"},
        {"200%", MB_BOUND_MEAN_ABS, 2, "200%"},
        {"7%", MB_BOUND_MEAN_ABS, 0.07, "7%"},
        {"abs:0.001", MB_BOUND_ABS, 0.001, "abs:0.001"},
        {"abs:1e-5", MB_BOUND_ABS, 1e-5, "abs:1e-05"},
        {"range:0.01", MB_BOUND_RANGE, 0.01, "range:0.01"},
        {"0", MB_BOUND_EXACT, 0, "0"},
        {"0%", MB_BOUND_EXACT, 0, "0"},
        {"abs:0", MB_BOUND_EXACT, 0, "0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mb_bound bound;
        char back[40];
        assert_int_equal(mb_bound_parse(cases[i].text, &bound, NULL), MB_OK);
        assert_int_equal(bound.kind, cases[i].kind);
        assert_true(bound.value == cases[i].value);
        mb_bound_format(&bound, back);
        assert_string_equal(back, cases[i].back);
    }
}

static void other_spellings_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",      "%",         "30",     "30 %",   " 30%",  "-1%",
                                      "nan%",  "inf%",      "abs:",   "abs:-1", "abs:x", "abs:1%",
                                      "rel:1", "range:0x1", "1e999%", "30%%",   "-0",    "abs:inf",
                                      "30%x",  "range:",    "0.1",    "abs: 1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct mb_bound bound;
        struct mb_error err;
        assert_int_equal(mb_bound_parse(bad[i], &bound, &err), MB_USAGE);
        assert_non_null(strstr(err.msg, "write it like"));
    }
}

static void stats_are_sums_in_order(void **state)
{
    (void)state;
    const float w[] = {1, -3, 0.5F, 1e-30F};
    struct mb_weight_stats stats = MB_WEIGHT_STATS_INIT;
    assert_int_equal(mb_weight_stats_add(&stats, MB_F32, w, 2, NULL), MB_OK);
    assert_int_equal(mb_weight_stats_add(&stats, MB_F32, w + 2, 2, NULL), MB_OK);
    assert_int_equal(stats.n, 4);
    assert_true(stats.sum_abs == ((1.0 + 3.0) + 0.5) + (double)1e-30F && stats.min == -3 && stats.max == 1);
    struct mb_bound bound = {MB_BOUND_MEAN_ABS, 0.3};
    assert_true(mb_bound_eps(&bound, &stats) == 0.3 * (stats.sum_abs / 4));
    bound = (struct mb_bound){MB_BOUND_RANGE, 0.01};
    assert_true(mb_bound_eps(&bound, &stats) == 0.04);
    bound = (struct mb_bound){MB_BOUND_ABS, 0.5};
    assert_true(mb_bound_eps(&bound, &stats) == 0.5);
}

static void nan_and_infinity_are_refused(void **state)
{
    (void)state;
    float w[5] = {1, 2, 3, NAN, 5};
    size_t bad = 99;
    struct mb_weight_stats stats = MB_WEIGHT_STATS_INIT;
    assert_int_equal(mb_weight_stats_add(&stats, MB_F32, w, 5, &bad), MB_BAD_DATA);
    assert_int_equal(bad, 3);
    w[3] = 4;
    w[1] = -INFINITY;
    assert_int_equal(mb_weight_stats_add(&stats, MB_F32, w, 5, &bad), MB_BAD_DATA);
    assert_int_equal(bad, 1);
    const uint16_t f16[2] = {0x3c00, 0x7c00}, bf16[1] = {0x7fc0};
    assert_int_equal(mb_weight_stats_add(&stats, MB_F16, f16, 2, &bad), MB_BAD_DATA);
    assert_int_equal(bad, 1);
    assert_int_equal(mb_weight_stats_add(&stats, MB_BF16, bf16, 1, &bad), MB_BAD_DATA);
}

static void the_step_is_the_largest_that_keeps_the_bound(void **state)
{
    (void)state;
    static const double eps[] = {0.001, 0.3, 1, 1e-30, 1e-44, 123456.789, 1e30};
    for (size_t i = 0; i < sizeof eps / sizeof eps[0]; i++) {
        float step = mb_step_of_eps(eps[i]);
        double limit = 2 * eps[i] * (1 - 1.0 / 65536);
        assert_true((double)step <= limit);
        assert_true((double)nextafterf(step, INFINITY) > limit);
    }
    assert_true(mb_step_of_eps(0) == 0);
    assert_true(mb_step_of_eps(1e-50) == 0);
    assert_true(isfinite(mb_step_of_eps(1e300)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spellings_parse),
        cmocka_unit_test(other_spellings_are_refused),
        cmocka_unit_test(stats_are_sums_in_order),
        cmocka_unit_test(nan_and_infinity_are_refused),
        cmocka_unit_test(the_step_is_the_largest_that_keeps_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
