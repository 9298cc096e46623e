/*
 * test_float8.c - every code of the 8-bit float types against the definition of the type.
 */
#include "base/float8.h"
#include "cmocka_all.h"
#include <math.h>

static void e4m3_codes_have_the_values_of_their_parts(void **state)
{
    (void)state;
    for (int code = 0; code < 256; code++) {
        int exponent = code >> 3 & 15, mantissa = code & 7;
        float value = mb_float_of_e4m3((uint8_t)code);
        if ((code & 0x7f) == 0x7f) {
            assert_true(isnan(value));
            continue;
        }
        double size = exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 10);
        assert_true((double)value == (code < 128 ? size : -size));
        assert_int_equal(signbit(value) != 0, code >= 128);
    }
    assert_true(mb_float_of_e4m3(0x7e) == 448.0F);
    assert_true(mb_float_of_e4m3(0x38) == 1.0F);
    assert_true(mb_float_of_e4m3(0x01) == 0x1p-9F);
}

static void e8m0_codes_are_powers_of_two(void **state)
{
    (void)state;
    for (int code = 0; code < 255; code++)
        assert_true((double)mb_float_of_e8m0((uint8_t)code) == ldexp(1, code - 127));
    assert_true(isnan(mb_float_of_e8m0(255)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e4m3_codes_have_the_values_of_their_parts),
        cmocka_unit_test(e8m0_codes_are_powers_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
