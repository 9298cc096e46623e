/*
 * test_stats.c - statistics against SciPy's and statsmodels' (tools/goldens/paired_statistics.py), and their
 * limits.
 */
#include "cmocka_all.h"
#include "lab/stats_distributions.h"
#include <jansson.h>
#include <math.h>
#include <moebius/lab.h>
#include <stdlib.h>
#include <string.h>

enum { N_VALUES_MAX = 2000 };

static json_t *goldens;

static int open_goldens(void **state)
{
    (void)state;
    goldens = json_load_file(MB_REPO "/tests/lab/data/statistics.json", 0, NULL);
    return goldens == NULL ? -1 : 0;
}

static int close_goldens(void **state)
{
    (void)state;
    json_decref(goldens);
    return 0;
}

static size_t n_cases(const char *name)
{
    size_t n = json_array_size(json_object_get(goldens, name));
    assert_true(n > 0);
    return n;
}

static const json_t *golden(const char *name, size_t i)
{
    return json_array_get(json_object_get(goldens, name), i);
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static size_t list(const json_t *object, const char *key, double values[N_VALUES_MAX])
{
    const json_t *array = json_object_get(object, key);
    size_t n = json_array_size(array);
    assert_true(n > 0 && n <= N_VALUES_MAX);
    for (size_t i = 0; i < n; i++)
        values[i] = json_number_value(json_array_get(array, i));
    return n;
}

static void assert_near(double ours, double theirs, double relative)
{
    if (!(fabs(ours - theirs) <= relative * fabs(theirs) + 1e-300))
        fail_msg("%.17g, not %.17g", ours, theirs);
}

/* Against SciPy 1.17.1: binomtest(k, n).proportion_ci(method="wilson"). */
static void wilson_intervals_are_known(void **state)
{
    static const struct {
        uint64_t k, n;
        double low, high;
    } known[] = {
        {0, 10, 0, 0.27753280},
        {10, 10, 0.72246720, 1},
        {5, 10, 0.23659309, 0.76340691},
        {1, 1, 0.20654931, 1},
        {398, 400, 0.98195508, 0.99862775},
        {1990, 2000, 0.99082030, 0.99728182},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double low, high;
        mb_wilson95(known[i].k, known[i].n, &low, &high);
        assert_true(fabs(low - known[i].low) < 1e-8 && fabs(high - known[i].high) < 1e-8);
    }
    double low, high;
    mb_wilson95(0, 0, &low, &high);
    assert_true(low == 0 && high == 1);
}

static void quantiles_are_those_of_scipy(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_cases("normal"); i++) {
        const json_t *g = golden("normal", i);
        assert_true(fabs(mb_normal_quantile(number(g, "p")) - number(g, "x")) < 1e-9);
    }
    for (size_t i = 0; i < n_cases("student"); i++) {
        const json_t *g = golden("student", i);
        assert_near(mb_student_quantile(number(g, "p"), number(g, "df")), number(g, "t"), 1e-8);
        assert_near(mb_student_two_sided(number(g, "t"), number(g, "df")), number(g, "p"), 1e-8);
    }
    assert_true(mb_student_two_sided(0, 5) == 1 && mb_student_two_sided(INFINITY, 5) == 0);
}

static void mcnemar_is_that_of_statsmodels(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_cases("mcnemar"); i++) {
        const json_t *g = golden("mcnemar", i);
        struct mb_mcnemar ours = mb_mcnemar((uint64_t)number(g, "n_better"), (uint64_t)number(g, "n_worse"));
        assert_near(ours.p_exact, number(g, "p_exact"), 1e-8);
        assert_near(ours.p_mid, number(g, "p_mid"), 1e-8);
    }
}

static void corrections_are_those_of_statsmodels(void **state)
{
    double p[N_VALUES_MAX], theirs[N_VALUES_MAX], ours[N_VALUES_MAX];
    struct mb_error err;
    (void)state;
    for (size_t i = 0; i < n_cases("adjusted"); i++) {
        const json_t *g = golden("adjusted", i);
        size_t n = list(g, "p", p);
        assert_int_equal(list(g, "holm", theirs), n);
        assert_int_equal(mb_adjust_holm(p, n, ours, &err), MB_OK);
        for (size_t k = 0; k < n; k++)
            assert_near(ours[k], theirs[k], 1e-12);
        assert_int_equal(list(g, "bh", theirs), n);
        assert_int_equal(mb_adjust_benjamini_hochberg(p, n, p, &err), MB_OK);
        for (size_t k = 0; k < n; k++)
            assert_near(p[k], theirs[k], 1e-12);
    }
    p[0] = NAN;
    assert_int_equal(mb_adjust_holm(p, 1, ours, &err), MB_USAGE);
    p[0] = 1.5;
    assert_int_equal(mb_adjust_benjamini_hochberg(p, 1, ours, &err), MB_USAGE);
    assert_int_equal(mb_adjust_holm(p, 0, ours, &err), MB_OK);
}

/* Where the resampled mean's distribution is known, and one sample against scipy.stats.bootstrap. */
static void bootstrap_intervals_are_known(void **state)
{
    double values[N_VALUES_MAX];
    struct mb_error err;
    (void)state;
    for (size_t i = 0; i < n_cases("bootstrap"); i++) {
        const json_t *g = golden("bootstrap", i);
        size_t n = list(g, "values", values);
        struct mb_bootstrap_options options = {.size = sizeof options, .seed = i};
        struct mb_estimate ours;
        assert_int_equal(mb_bootstrap_mean95(values, n, &options, &ours, &err), MB_OK);
        double tolerance = number(g, "tolerance");
        if (fabs(ours.low - number(g, "low")) > tolerance || fabs(ours.high - number(g, "high")) > tolerance)
            fail_msg("case %zu: %g to %g", i, ours.low, ours.high);
    }
}

static void bootstrap_repeats_itself_and_seeds_differ(void **state)
{
    double a[100], b[100];
    struct mb_error err;
    struct mb_bootstrap_options options = {.size = sizeof options, .n_resamples = 500, .seed = 7};
    struct mb_estimate first, again, other;
    (void)state;
    for (size_t i = 0; i < 100; i++) {
        a[i] = (double)(i * i % 31);
        b[i] = 1;
    }
    assert_int_equal(mb_bootstrap_difference95(a, b, 100, &options, &first, &err), MB_OK);
    assert_int_equal(mb_bootstrap_difference95(a, b, 100, &options, &again, &err), MB_OK);
    assert_memory_equal(&first, &again, sizeof first);
    assert_true(first.low < first.value && first.value < first.high);
    options.seed = 8;
    assert_int_equal(mb_bootstrap_difference95(a, b, 100, &options, &other, &err), MB_OK);
    assert_true(other.low != first.low && other.value == first.value);
    assert_int_equal(mb_bootstrap_mean95(a, 0, NULL, &first, &err), MB_USAGE);
    a[3] = NAN;
    assert_int_equal(mb_bootstrap_mean95(a, 100, NULL, &first, &err), MB_USAGE);
}

static void seeds_and_questions_are_kept_apart(void **state)
{
    double values[N_VALUES_MAX];
    struct mb_error err;
    struct mb_two_level ours;
    (void)state;
    for (size_t i = 0; i < n_cases("two_level"); i++) {
        const json_t *g = golden("two_level", i);
        size_t n_seeds = (size_t)number(g, "n_seeds"), n_questions = (size_t)number(g, "n_questions");
        assert_int_equal(list(g, "values", values), n_seeds * n_questions);
        assert_int_equal(mb_two_level(values, n_seeds, n_questions, &ours, &err), MB_OK);
        assert_near(ours.mean, number(g, "mean"), 1e-9);
        assert_near(ours.se, number(g, "se"), 1e-8);
        assert_near(ours.df, number(g, "df"), 1e-7);
        assert_near(ours.low, number(g, "low"), 1e-7);
        assert_near(ours.high, number(g, "high"), 1e-7);
        assert_near(ours.p, number(g, "p"), 1e-7);
        assert_near(ours.se_seeds, number(g, "se_seeds"), 1e-8);
        assert_near(ours.se_questions, number(g, "se_questions"), 1e-8);
        if (n_seeds == 1)
            continue;
        assert_true(fabs(ours.var_seeds - number(g, "var_seeds")) < 1e-9);
        assert_true(fabs(ours.var_questions - number(g, "var_questions")) < 1e-9);
        assert_true(fabs(ours.var_rest - number(g, "var_rest")) < 1e-9);
    }
}

static void nothing_varies(void **state)
{
    static const double zeros[4] = {0}, ones[4] = {-1, -1, -1, -1};
    struct mb_error err;
    struct mb_two_level ours;
    (void)state;
    assert_int_equal(mb_two_level(zeros, 2, 2, &ours, &err), MB_OK);
    assert_true(ours.p == 1 && ours.low == 0 && ours.high == 0 && ours.se == 0);
    assert_int_equal(mb_two_level(ones, 2, 2, &ours, &err), MB_OK);
    assert_true(ours.p == 0 && ours.low == -1 && ours.high == -1);
    assert_int_equal(mb_two_level(ones, 2, 1, &ours, &err), MB_USAGE);
    assert_int_equal(mb_two_level(ones, 0, 2, &ours, &err), MB_USAGE);
}

static void detectable_differences_are_connors(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_cases("power"); i++) {
        const json_t *g = golden("power", i);
        uint64_t n = (uint64_t)number(g, "n");
        double discordance = number(g, "discordance"), alpha = number(g, "alpha"), power = number(g, "power");
        double ours = mb_detectable_difference(n, discordance, alpha, power);
        assert_near(ours, number(g, "difference"), 1e-9);
        uint64_t needed = mb_questions_needed(-ours * (1 + 1e-9), discordance, alpha, power);
        assert_true(needed == n || needed + 1 == n);
    }
    /* ((1.95996 sqrt(0.5) + 0.84162 sqrt(0.34)) / 0.4)^2 = 22.01 */
    assert_int_equal(mb_questions_needed(0.4, 0.5, 0.05, 0.8), 23);
    assert_true(isinf(mb_detectable_difference(1000, 0, 0.05, 0.8)));
    assert_true(isinf(mb_detectable_difference(10, 0.1, 0.05, 0.8)));
    assert_int_equal(mb_questions_needed(0.2, 0.1, 0.05, 0.8), 0);
    assert_int_equal(mb_questions_needed(0, 0.1, 0.05, 0.8), 0);
}

static void verdicts_are_words(void **state)
{
    bool base[200] = {false}, run[200] = {false};
    struct mb_paired paired;
    struct mb_error err;
    char text[64];
    (void)state;
    for (size_t i = 0; i < 20; i++)
        base[i] = run[100 + i] = true;
    assert_int_equal(mb_compare_paired(base, run, 200, NULL, &paired, &err), MB_OK);
    assert_true(paired.n == 200 && paired.n_better == 20 && paired.n_worse == 20 &&
                paired.mcnemar.p_exact == 1);
    assert_string_equal(mb_verdict_text(paired.verdict, paired.n, text), "no difference seen (n = 200)");
    for (size_t i = 100; i < 120; i++)
        run[i] = i < 104;
    assert_int_equal(mb_compare_paired(base, run, 200, NULL, &paired, &err), MB_OK);
    assert_string_equal(mb_verdict_text(paired.verdict, paired.n, text), "worse");
    assert_true(fabs(paired.difference.value + 0.08) < 1e-12 && paired.difference.high < 0);
    assert_int_equal(mb_compare_paired(run, base, 200, NULL, &paired, &err), MB_OK);
    assert_string_equal(mb_verdict_text(paired.verdict, paired.n, text), "better");
    assert_int_equal(mb_compare_paired(base, run, 0, NULL, &paired, &err), MB_USAGE);
    assert_int_equal(mb_verdict_of(0.1, NAN, 0.05), MB_NO_DIFFERENCE_SEEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wilson_intervals_are_known),
        cmocka_unit_test(quantiles_are_those_of_scipy),
        cmocka_unit_test(mcnemar_is_that_of_statsmodels),
        cmocka_unit_test(corrections_are_those_of_statsmodels),
        cmocka_unit_test(bootstrap_intervals_are_known),
        cmocka_unit_test(bootstrap_repeats_itself_and_seeds_differ),
        cmocka_unit_test(seeds_and_questions_are_kept_apart),
        cmocka_unit_test(nothing_varies),
        cmocka_unit_test(detectable_differences_are_connors),
        cmocka_unit_test(verdicts_are_words),
    };
    return cmocka_run_group_tests(tests, open_goldens, close_goldens);
}
