/*
 * test_dispatch.c - the best table that the CPU can run and that agrees with the first one is used.
 */
#include "base/dispatch.h"
#include "cmocka_all.h"
#include <limits.h>
#include <string.h>

static const char scalar = 's', good = 'g', wrong = 'w', foreign = 'f';
static int n_checks;

static bool agrees(const void *table)
{
    n_checks++;
    return table != &wrong;
}

static const struct mb_dispatch_table tables[] = {
    {"scalar", &scalar, 0},
    {"good", &good, 0},
    {"wrong", &wrong, 0},
    {"foreign", &foreign, UINT_MAX}, /* no CPU has every feature bit */
    {0},
};

static void the_last_that_agrees_is_the_best(void **state)
{
    (void)state;
    struct mb_dispatch dispatch = MB_DISPATCH(tables, agrees);
    n_checks = 0;
    assert_ptr_equal(mb_dispatch_best(&dispatch), &good);
    assert_ptr_equal(mb_dispatch_best(&dispatch), &good);
    assert_int_equal(n_checks, 2); /* once for each that the CPU can run, but the first */
}

static void a_table_is_found_by_its_name_if_it_is_usable(void **state)
{
    (void)state;
    struct mb_dispatch dispatch = MB_DISPATCH(tables, agrees);
    assert_ptr_equal(mb_dispatch_by_isa(&dispatch, "scalar"), &scalar);
    assert_ptr_equal(mb_dispatch_by_isa(&dispatch, "good"), &good);
    assert_null(mb_dispatch_by_isa(&dispatch, "wrong"));
    assert_null(mb_dispatch_by_isa(&dispatch, "foreign"));
    assert_null(mb_dispatch_by_isa(&dispatch, "nothing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_that_agrees_is_the_best),
        cmocka_unit_test(a_table_is_found_by_its_name_if_it_is_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
