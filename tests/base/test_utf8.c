/*
 * test_utf8.c - what is a character and what is not.
 */
#include "base/utf8.h"
#include "cmocka_all.h"
#include <string.h>

static void what_is_not_utf8_is_cleaned(void **state)
{
    static const struct {
        const char *in, *out;
        size_t n;
    } texts[] = {
        {"abc \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "abc \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", 15},
        {"a\0b", "a?b", 3},
        {"\xe2\x82", "??", 2},                /* cut */
        {"\xc0\xaf\xe0\x80\x80", "?????", 5}, /* overlong */
        {"\xed\xa0\x80", "???", 3},           /* a surrogate */
        {"\xf4\x90\x80\x80\xff", "?????", 5}, /* beyond Unicode */
        {"\xc3(", "?(", 2},
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char text[32] = {0};
        memcpy(text, texts[i].in, texts[i].n);
        mb_utf8_clean(text, texts[i].n);
        assert_string_equal(text, texts[i].out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_utf8_is_cleaned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
