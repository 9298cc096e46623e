/*
 * test_form_choice.c - which form matrices get in memory: by sizes, and by the speed of memory.
 */
#include "cmocka_all.h"
#include "store/form_choice.h"
#include <math.h>

static struct mb_form_choice choose(enum mb_memory_form wanted, uint64_t blob_nbytes,
                                    uint64_t available_nbytes)
{
    const struct mb_form_facts facts = {.wanted = wanted,
                                        .has_faster = true,
                                        .blob_nbytes = blob_nbytes,
                                        .available_nbytes = available_nbytes};
    return mb_choose_form_by_size(&facts);
}

static void without_another_form_matrices_stay_as_stored(void **state)
{
    (void)state;
    const struct mb_form_facts facts = {.wanted = MB_MEMORY_FORM_FAST, .available_nbytes = UINT64_MAX};
    struct mb_form_choice choice = mb_choose_form_by_size(&facts);
    assert_true(choice.form == MB_MEMORY_FORM_STORED && choice.reason == MB_MEMORY_REASON_ONLY);
}

static void what_is_wanted_is_taken(void **state)
{
    (void)state;
    for (enum mb_memory_form form = MB_MEMORY_FORM_STORED; form <= MB_MEMORY_FORM_FAST; form++) {
        struct mb_form_choice choice = choose(form, 1000, 0);
        assert_true(choice.form == form && choice.reason == MB_MEMORY_REASON_WANTED);
    }
}

static void a_small_model_is_fast_without_a_measurement(void **state)
{
    (void)state;
    struct mb_form_choice choice = choose(MB_MEMORY_FORM_AUTO, 9000000, UINT64_MAX);
    assert_true(choice.form == MB_MEMORY_FORM_FAST && choice.reason == MB_MEMORY_REASON_SMALL);
    choice = choose(MB_MEMORY_FORM_AUTO, 9000000, 11000000); /* nor where memory is small, too */
    assert_true(choice.form == MB_MEMORY_FORM_COMPACT && choice.reason == MB_MEMORY_REASON_SMALL);
    assert_false(choice.may_be_fast);
}

static void a_large_model_takes_what_memory_has_room_for(void **state)
{
    (void)state;
    const uint64_t gb = 1000000000;
    struct mb_form_choice choice = choose(MB_MEMORY_FORM_AUTO, 10 * gb, 20 * gb);
    assert_true(choice.form == MB_MEMORY_FORM_AUTO && choice.reason == MB_MEMORY_REASON_SPEED);
    assert_true(choice.may_be_fast);
    choice = choose(MB_MEMORY_FORM_AUTO, 10 * gb, 12 * gb);
    assert_true(choice.form == MB_MEMORY_FORM_AUTO && !choice.may_be_fast);
    choice = choose(MB_MEMORY_FORM_AUTO, 10 * gb, 11 * gb);
    assert_true(choice.form == MB_MEMORY_FORM_STORED && choice.reason == MB_MEMORY_REASON_ROOM);
    choice = choose(MB_MEMORY_FORM_AUTO, 1000, 1000); /* small, but so is memory */
    assert_true(choice.form == MB_MEMORY_FORM_STORED && choice.reason == MB_MEMORY_REASON_ROOM);
}

static void fewer_bytes_are_read_where_memory_is_slow(void **state)
{
    (void)state;
    const struct mb_kernels kernels = {.compact_nbytes_per_s = 7e9, .fast_nbytes_per_s = 9e9};
    assert_int_equal(mb_choose_form_by_speed(&kernels, 0, MB_SPEED_BITS, true), MB_MEMORY_FORM_STORED);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 6.9e9, MB_SPEED_BITS, true), MB_MEMORY_FORM_STORED);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 7.1e9, MB_SPEED_BITS, true), MB_MEMORY_FORM_COMPACT);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 20e9, MB_SPEED_BITS, true), MB_MEMORY_FORM_FAST);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 20e9, MB_SPEED_BITS, false), MB_MEMORY_FORM_COMPACT);
}

static void the_form_of_files_is_kept_where_only_one_bit_more_pays(void **state)
{
    (void)state;
    const struct mb_kernels kernels = {.compact_nbytes_per_s = INFINITY, .fast_nbytes_per_s = 14e9};
    assert_int_equal(mb_choose_form_by_speed(&kernels, 0, MB_SPEED_BITS, true), MB_MEMORY_FORM_STORED);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 13e9, MB_SPEED_BITS, true), MB_MEMORY_FORM_STORED);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 20e9, MB_SPEED_BITS, true), MB_MEMORY_FORM_FAST);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 20e9, MB_SPEED_BITS, false), MB_MEMORY_FORM_STORED);
}

static void narrower_weights_need_less_of_memory(void **state)
{
    (void)state;
    const struct mb_kernels kernels = {.compact_nbytes_per_s = 7e9, .fast_nbytes_per_s = 9e9};
    const double half = MB_SPEED_BITS / 2;
    assert_int_equal(mb_choose_form_by_speed(&kernels, 0, half, true), MB_MEMORY_FORM_STORED);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 3.4e9, half, true), MB_MEMORY_FORM_STORED);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 3.6e9, half, true), MB_MEMORY_FORM_COMPACT);
    assert_int_equal(mb_choose_form_by_speed(&kernels, 4.6e9, half, true), MB_MEMORY_FORM_FAST);
}

static void memory_is_measured(void **state)
{
    (void)state;
    struct mb_pool *pool;
    assert_int_equal(mb_pool_create(2, &pool, NULL), MB_OK);
    assert_true(mb_thread_bytes_per_s(pool) > 1e6);
    mb_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_another_form_matrices_stay_as_stored),
        cmocka_unit_test(what_is_wanted_is_taken),
        cmocka_unit_test(a_small_model_is_fast_without_a_measurement),
        cmocka_unit_test(a_large_model_takes_what_memory_has_room_for),
        cmocka_unit_test(fewer_bytes_are_read_where_memory_is_slow),
        cmocka_unit_test(the_form_of_files_is_kept_where_only_one_bit_more_pays),
        cmocka_unit_test(narrower_weights_need_less_of_memory),
        cmocka_unit_test(narrower_weights_need_less_of_memory),
        cmocka_unit_test(memory_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
