/*
 * test_link.c - times of reads on a link that can be computed by hand: 1 GB/s is one byte a nanosecond.
 */
#include "cmocka_all.h"
#include <moebius/offload.h>

static struct mb_link open_link(uint64_t latency_ns, unsigned depth)
{
    struct mb_link_options options = {sizeof options, 1000000000, latency_ns, depth};
    struct mb_link link;
    assert_int_equal(mb_link_init(&link, &options, NULL), MB_OK);
    return link;
}

static void a_read_takes_the_latency_and_its_bytes(void **state)
{
    (void)state;
    struct mb_link link = open_link(100, 1);
    assert_int_equal(mb_link_read(&link, 0, 1000), 1100);
    assert_int_equal(mb_link_read(&link, 5000, 1000), 6100);
    assert_int_equal(link.n_reads, 2);
    assert_int_equal(link.nbytes, 2000);
    assert_int_equal(link.busy_ns, 2000);
}

static void with_one_read_in_flight_latencies_add_up(void **state)
{
    (void)state;
    struct mb_link link = open_link(100, 1);
    for (uint64_t i = 1; i <= 10; i++)
        assert_int_equal(mb_link_read(&link, 0, 1000), i * 1100);
}

static void with_more_in_flight_latencies_overlap_and_bytes_do_not(void **state)
{
    (void)state;
    struct mb_link link = open_link(100, 2);
    assert_int_equal(mb_link_read(&link, 0, 1000), 1100);
    assert_int_equal(mb_link_read(&link, 0, 1000),
                     2100); /* ready at 100, on the wire when the first is done */
    assert_int_equal(mb_link_read(&link, 0, 1000), 3100); /* begins at 1100, ready at 1200 */
}

static void a_latency_longer_than_the_bytes_is_hidden_by_as_many_reads(void **state)
{
    (void)state;
    struct mb_link link = open_link(3000, 4);
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(mb_link_read(&link, 0, 1000), 4000 + i * 1000);
    assert_int_equal(mb_link_read(&link, 0, 1000), 8000); /* its place was free at 4000, ready at 7000 */
}

static void wrong_links_are_refused(void **state)
{
    (void)state;
    struct mb_link link;
    struct mb_error err;
    struct mb_link_options options = {sizeof options, 0, 0, 1};
    assert_int_equal(mb_link_init(&link, &options, &err), MB_USAGE);
    options.bytes_per_s = 1;
    options.depth = MB_LINK_DEPTH_MAX + 1;
    assert_int_equal(mb_link_init(&link, &options, &err), MB_USAGE);
    options.depth = 0;
    assert_int_equal(mb_link_init(&link, &options, &err), MB_OK);
    assert_int_equal(link.options.depth, 8);
    assert_true(mb_link_read(&link, 0, UINT64_MAX) >= UINT64_C(1) << 62);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_takes_the_latency_and_its_bytes),
        cmocka_unit_test(with_one_read_in_flight_latencies_add_up),
        cmocka_unit_test(with_more_in_flight_latencies_overlap_and_bytes_do_not),
        cmocka_unit_test(a_latency_longer_than_the_bytes_is_hidden_by_as_many_reads),
        cmocka_unit_test(wrong_links_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
