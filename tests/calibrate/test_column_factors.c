/*
 * test_column_factors.c - exponents follow energies, have the sum 0, and stay within their limits.
 */
#include "../codec/matrices.h"
#include "calibrate/column_factors.h"
#include "cmocka_all.h"
#include <math.h>
#include <string.h>

enum { N_MAX = 300, MANY = 1 << 30 };

static int sum_of(const int8_t *exponents, size_t n)
{
    int sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += exponents[j];
    return sum;
}

static void energies_that_are_alike_have_no_exponents(void **state)
{
    (void)state;
    double energies[8] = {1, 1.2, 0.9, 1, 1.1, 0.8, 1, 1};
    int64_t logs[8];
    int8_t exponents[8];
    static const int8_t zeros[8];
    assert_false(mb_column_exponents(energies, 8, MANY, logs, exponents));
    assert_memory_equal(exponents, zeros, sizeof zeros);
    assert_false(mb_column_exponents(energies, 1, MANY, logs, exponents));
    memset(energies, 0, sizeof energies);
    assert_false(mb_column_exponents(energies, 8, MANY, logs, exponents));
    energies[3] = INFINITY;
    assert_false(mb_column_exponents(energies, 8, MANY, logs, exponents));
    energies[3] = 5;
    assert_false(mb_column_exponents(energies, 8, 0, logs, exponents));
    assert_memory_equal(exponents, zeros, sizeof zeros);
}

/* 2^8 times the energy of the others is a step 2^(8 x 5/16) times as fine: 1.25 either way, rounded. */
static void an_exponent_follows_the_energy(void **state)
{
    (void)state;
    double energies[16];
    int64_t logs[16];
    int8_t exponents[16];
    for (size_t j = 0; j < 16; j++)
        energies[j] = j % 2 == 0 ? 1 : 256;
    for (int scale = -300; scale <= 300; scale += 100) { /* the unit does not matter */
        double scaled[16];
        for (size_t j = 0; j < 16; j++)
            scaled[j] = ldexp(energies[j], scale);
        assert_true(mb_column_exponents(scaled, 16, MANY, logs, exponents));
        for (size_t j = 0; j < 16; j++)
            assert_int_equal(exponents[j], j % 2 == 0 ? -1 : 1);
    }
}

static void few_tokens_make_small_exponents(void **state)
{
    (void)state;
    double energies[64];
    int64_t logs[64];
    int8_t exponents[64];
    int last = 100;
    for (size_t j = 0; j < 64; j++)
        energies[j] = j == 5 ? 1e6 : 1;
    for (uint64_t n_tokens = MANY; n_tokens >= 1; n_tokens /= 1024) {
        mb_column_exponents(energies, 64, n_tokens, logs, exponents);
        assert_true(exponents[5] <= last);
        last = exponents[5];
    }
    assert_true(last <= 2);
}

static void a_thousand_random_cases_keep_sum_order_and_limits(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (int i = 0; i < 1000; i++) {
        double energies[N_MAX];
        int64_t logs[N_MAX];
        int8_t exponents[N_MAX];
        size_t n = 1 + test_random(&seed) % N_MAX;
        for (size_t j = 0; j < n; j++) {
            int spread = (int)(test_random(&seed) % 60) - 30;
            energies[j] = test_random(&seed) % 9 == 0 ? 0 : ldexp(test_uniform(&seed), spread);
        }
        bool any = mb_column_exponents(energies, n, 1 + test_random(&seed) % 100000, logs, exponents);
        bool found = false;
        for (size_t j = 0; j < n; j++)
            found |= exponents[j] != 0;
        assert_true(any == found);
        assert_int_equal(sum_of(exponents, n), 0);
        for (size_t j = 0; j < n; j++) {
            assert_in_range(exponents[j] + MB_COLUMN_FACTOR_BITS, 0, 2 * MB_COLUMN_FACTOR_BITS);
            for (size_t k = 0; k < j; k++)
                assert_true(energies[j] <= energies[k] || exponents[j] >= exponents[k] - 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(energies_that_are_alike_have_no_exponents),
        cmocka_unit_test(an_exponent_follows_the_energy),
        cmocka_unit_test(few_tokens_make_small_exponents),
        cmocka_unit_test(a_thousand_random_cases_keep_sum_order_and_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
