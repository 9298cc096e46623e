/*
 * test_options.c - options of callers that were compiled with an older or newer header.
 */
#include "base/options.h"
#include "cmocka_all.h"
#include <string.h>

/* Three versions of one struct. */
struct old {
    size_t size;
    int n_threads;
};
struct now {
    size_t size;
    int n_threads;
    int n_parallel;
    const char *name;
};
struct new
{
    struct now now;
    uint64_t limit;
};

static void no_options_are_defaults(void **state)
{
    (void)state;
    struct now taken;
    memset(&taken, 0xff, sizeof taken);
    assert_int_equal(mb_options_take(&taken, sizeof taken, NULL, 0, NULL), MB_OK);
    assert_int_equal(taken.size, sizeof taken);
    assert_int_equal(taken.n_threads, 0);
    assert_int_equal(taken.n_parallel, 0);
    assert_null(taken.name);
}

static void options_are_copied(void **state)
{
    (void)state;
    struct now given = {.size = sizeof given, .n_threads = 3, .n_parallel = 4, .name = "x"}, taken;
    const struct now *options = &given;
    assert_int_equal(MB_OPTIONS_TAKE(taken, options, NULL), MB_OK);
    assert_int_equal(taken.n_threads, 3);
    assert_int_equal(taken.n_parallel, 4);
    assert_string_equal(taken.name, "x");
    options = NULL;
    assert_int_equal(MB_OPTIONS_TAKE(taken, options, NULL), MB_OK);
    assert_int_equal(taken.n_threads, 0);
}

static void an_older_caller_gets_defaults_for_the_rest(void **state)
{
    (void)state;
    struct old given = {.size = sizeof given, .n_threads = 3};
    struct now taken;
    memset(&taken, 0xff, sizeof taken);
    /* offsetof: an older struct ends at its last member, whatever padding it had. */
    assert_int_equal(mb_options_take(&taken, sizeof taken, &given, offsetof(struct now, n_parallel), NULL),
                     MB_OK);
    assert_int_equal(taken.size, sizeof taken);
    assert_int_equal(taken.n_threads, 3);
    assert_int_equal(taken.n_parallel, 0);
    assert_null(taken.name);
}

static void a_newer_caller_is_refused_what_is_not_known(void **state)
{
    (void)state;
    struct new given = {.now = {.size = sizeof given, .n_threads = 3}};
    struct now taken;
    struct mb_error err;
    assert_int_equal(mb_options_take(&taken, sizeof taken, &given, given.now.size, &err), MB_OK);
    assert_int_equal(taken.size, sizeof taken);
    assert_int_equal(taken.n_threads, 3);
    given.limit = 1;
    assert_int_equal(mb_options_take(&taken, sizeof taken, &given, given.now.size, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "of which this version knows"));
}

static void a_size_that_was_not_set_is_refused(void **state)
{
    (void)state;
    struct now given = {.n_threads = 3}, taken;
    struct mb_error err;
    assert_int_equal(mb_options_take(&taken, sizeof taken, &given, given.size, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "set 'size'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_options_are_defaults),
        cmocka_unit_test(options_are_copied),
        cmocka_unit_test(an_older_caller_gets_defaults_for_the_rest),
        cmocka_unit_test(a_newer_caller_is_refused_what_is_not_known),
        cmocka_unit_test(a_size_that_was_not_set_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
