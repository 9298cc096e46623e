/*
 * test_version.c - the library's version is that of its headers.
 */
#include "cmocka_all.h"
#include <moebius/version.h>
#include <stdio.h>

static void the_library_says_the_version_of_its_headers(void **state)
{
    (void)state;
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", MB_VERSION_MAJOR, MB_VERSION_MINOR, MB_VERSION_PATCH);
    assert_string_equal(mb_version(), text);
    assert_string_equal(mb_version(), MB_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_says_the_version_of_its_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
