/*
 * test_locale.c - bounds in a program whose locale has a decimal comma.
 */
#include "cmocka_all.h"
#include "comma_locale.h"
#include <moebius/codec.h>
#include <stdio.h>

static void bounds_are_read_and_written_with_a_point(void **state)
{
    (void)state;
    static const char *const texts[] = {"30%", "12.5%", "abs:0.0125", "range:0.001", "0"};
    char text[40];
    snprintf(text, sizeof text, "%g", 0.5);
    assert_string_equal(text, "0,5");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct mb_bound bound;
        assert_int_equal(mb_bound_parse(texts[i], &bound, NULL), MB_OK);
        mb_bound_format(&bound, text);
        assert_string_equal(text, texts[i]);
    }
    struct mb_bound bound;
    assert_int_equal(mb_bound_parse("12,5%", &bound, NULL), MB_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bounds_are_read_and_written_with_a_point)};
    return comma_locale_set() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
