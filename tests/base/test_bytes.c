/*
 * test_bytes.c - 16-bit float conversions against the compiler's own _Float16 and against definitions.
 */
#include "base/bytes.h"
#include "base/checked.h"
#include "cmocka_all.h"
#include <math.h>

static void f16_all_values_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h <= 0xffff; h++) {
        float f = mb_float_of_f16((uint16_t)h);
        if (isnan(f)) {
            assert_true((h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0);
            assert_true(isnan(mb_float_of_f16(mb_f16_of_float(f))));
            continue;
        }
        assert_int_equal(mb_f16_of_float(f), h);
    }
}

/* Nearest by search: no other f16 is nearer, and a tie has an even mantissa. */
static void f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = mb_float_of_f16((uint16_t)h), high = mb_float_of_f16((uint16_t)(h + 1));
        float middle = (low + high) / 2; /* exact: one bit more than f16 has */
        assert_int_equal(mb_f16_of_float(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(mb_f16_of_float(nextafterf(middle, low)), h);
        assert_int_equal(mb_f16_of_float(nextafterf(middle, high)), h + 1);
        assert_int_equal(mb_f16_of_float(-middle), 0x8000 | (h % 2 == 0 ? h : h + 1));
    }
}

static void f16_overflows_to_infinity(void **state)
{
    (void)state;
    assert_int_equal(mb_f16_of_float(65519.99F), 0x7bff);
    assert_int_equal(mb_f16_of_float(65520.0F), 0x7c00);
    assert_int_equal(mb_f16_of_float(1e30F), 0x7c00);
    assert_int_equal(mb_f16_of_float(-1e30F), 0xfc00);
    assert_int_equal(mb_f16_of_float(1e-30F), 0);
}

static void bf16_round_trips_and_rounds(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7f7f; h++) {
        float low = mb_float_of_bf16((uint16_t)h);
        assert_int_equal(mb_bf16_of_float(low), h);
        float middle = mb_float_of_bits(h << 16 | 0x8000);
        assert_int_equal(mb_bf16_of_float(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(mb_bf16_of_float(mb_float_of_bits(h << 16 | 0x7fff)), h);
        assert_int_equal(mb_bf16_of_float(mb_float_of_bits(h << 16 | 0x8001)), h + 1);
    }
    assert_true(isnan(mb_float_of_bf16(mb_bf16_of_float(NAN))));
    assert_int_equal(mb_bf16_of_float(INFINITY), 0x7f80);
}

static void sizes_do_not_wrap(void **state)
{
    (void)state;
    uint64_t r;
    assert_true(mb_mul_u64(1ull << 31, 1ull << 32, &r) && r == 1ull << 63);
    assert_false(mb_mul_u64(1ull << 32, 1ull << 32, &r));
    assert_true(mb_add_u64(UINT64_MAX - 1, 1, &r) && r == UINT64_MAX);
    assert_false(mb_add_u64(UINT64_MAX, 1, &r));
    assert_int_equal(mb_round_up(0, 4096), 0);
    assert_int_equal(mb_round_up(1, 4096), 4096);
    assert_int_equal(mb_round_up(4096, 4096), 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_all_values_round_trip), cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(f16_overflows_to_infinity), cmocka_unit_test(bf16_round_trips_and_rounds),
        cmocka_unit_test(sizes_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
