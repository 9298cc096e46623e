/*
 * test_number.c - numbers have a decimal point, also in a program whose locale has a comma.
 */
#include "base/json.h"
#include "base/number.h"
#include "cmocka_all.h"
#include "comma_locale.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void plain_numbers_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
    } cases[] = {{"0", 0},       {"30", 30},      {"0.5", 0.5}, {".5", 0.5},  {"5.", 5},
                 {"-2e3", -2e3}, {"1E-3", 0.001}, {"+7", 7},    {"1e-400", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double value = NAN;
        if (!mb_number_parse(cases[i].text, strlen(cases[i].text), &value) || value != cases[i].value)
            fail_msg("'%s' is read as %.17g", cases[i].text, value);
    }
}

static void what_is_no_plain_number_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",      " 1", "1 ",   "0x10",  "inf", "nan", "1,5",
                                        "1e999", "e5", "1..2", "1e5e5", "--1", ".",   "+"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        double value = 42;
        if (mb_number_parse(texts[i], strlen(texts[i]), &value) || value != 42)
            fail_msg("'%s' is read as %.17g", texts[i], value);
    }
    double value = 42;
    char zeros[128];
    memset(zeros, '0', sizeof zeros);
    assert_true(mb_number_parse(zeros, 127, &value));
    assert_false(mb_number_parse(zeros, 128, &value));
    assert_false(mb_number_parse("1\0", 2, &value));
}

static void only_the_bytes_that_are_given_are_read(void **state)
{
    (void)state;
    double value;
    assert_true(mb_number_parse("12.5%", 4, &value));
    assert_true(value == 12.5);
}

static void a_comma_locale_changes_nothing(void **state)
{
    (void)state;
    char text[32];
    snprintf(text, sizeof text, "%g", 0.5);
    assert_string_equal(text, "0,5"); /* the host's own printf */
    assert_int_equal(mb_number_format(text, sizeof text, "%s:%.*g", "abs", 3, 0.0125), 10);
    assert_string_equal(text, "abs:0.0125");
    snprintf(text, sizeof text, "%g", 0.5);
    assert_string_equal(text, "0,5"); /* still */
    plain_numbers_are_read(state);
    what_is_no_plain_number_is_refused(state);
}

static void json_has_a_decimal_point_in_a_comma_locale(void **state)
{
    (void)state;
    json_t *root;
    assert_int_equal(mb_json_parse("[0.125]", 7, 0, &root, NULL), MB_OK);
    assert_true(json_real_value(json_array_get(root, 0)) == 0.125);
    char *text = mb_json_text(root, JSON_COMPACT, NULL);
    assert_string_equal(text, "[0.125]");
    free(text);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_numbers_are_read),
        cmocka_unit_test(what_is_no_plain_number_is_refused),
        cmocka_unit_test(only_the_bytes_that_are_given_are_read),
    };
    const struct CMUnitTest locale_tests[] = {
        cmocka_unit_test(a_comma_locale_changes_nothing),
        cmocka_unit_test(json_has_a_decimal_point_in_a_comma_locale),
    };
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (n_failed != 0)
        return n_failed;
    return comma_locale_set() ? cmocka_run_group_tests(locale_tests, NULL, NULL) : 77;
}
