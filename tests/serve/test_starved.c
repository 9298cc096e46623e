/*
 * test_starved.c - the n-th allocation fails, for every n, where a scheduler is opened and requests are
 * submitted: it says so, leaks nothing, and every submitted request gets its end.
 */
#include "cmocka_all.h"
#include "starve.h"
#include <moebius/scheduler.h>
#include <stdlib.h>
#include <string.h>

#define SMALL MB_REPO "/tests/model/data/checkpoints/halves"

static struct mb_model *model;
static size_t n_done;

static bool count(void *ctx, const struct mb_event *event)
{
    (void)ctx;
    n_done += event->kind == MB_EVENT_DONE;
    return false;
}

static enum mb_status submit_two(struct mb_scheduler *scheduler, size_t *n_submitted, struct mb_error *err)
{
    static const int32_t prompt[3] = {1, 5, 9}, stop[2] = {2, 3};
    struct mb_request request = {.size = sizeof request,
                                 .prompt = prompt,
                                 .n_prompt = 3,
                                 .n_predict = 4,
                                 .stop_ids = stop,
                                 .n_stop_ids = 2,
                                 .event = count};
    enum mb_status status = MB_OK;
    for (*n_submitted = 0; *n_submitted < 2 && status == MB_OK; *n_submitted += status == MB_OK)
        status = mb_scheduler_submit(scheduler, &request, NULL, err);
    return status;
}

static enum mb_status run(struct mb_error *err)
{
    struct mb_scheduler *scheduler;
    struct mb_scheduler_options options = {.size = sizeof options, .n_slots = 3};
    size_t n_submitted;
    enum mb_status status = mb_scheduler_open(model, &options, &scheduler, err);
    if (status != MB_OK)
        return status;
    n_done = 0;
    status = submit_two(scheduler, &n_submitted, err);
    while (mb_scheduler_n_requests(scheduler) > 0)
        assert_int_equal(mb_scheduler_step(scheduler, err), MB_OK);
    assert_int_equal(n_done, n_submitted);
    mb_scheduler_close(scheduler);
    return status;
}

static void schedulers_starve(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 1};
    if (mb_model_open(SMALL, &options, &model, &err) != MB_OK || run(&err) != MB_OK)
        fail_msg("%s", err.msg);
    long n = 0;
    for (bool is_done = false; !is_done;) {
        struct starve_held before = starve_held();
        starve_begin(STARVE_MEMORY, ++n, false);
        enum mb_status status = run(&err);
        is_done = starve_end() < n;
        struct starve_held after = starve_held();
        if (is_done ? status != MB_OK : status != MB_NO_MEMORY || strstr(err.msg, "memory") == NULL)
            fail_msg("allocation %ld: status %d: %s", n, (int)status, err.msg);
        if (after.n_blocks != before.n_blocks || after.mapped_nbytes != before.mapped_nbytes)
            fail_msg("allocation %ld: leaked %ld blocks, %ld mapped bytes", n,
                     after.n_blocks - before.n_blocks, after.mapped_nbytes - before.mapped_nbytes);
    }
    print_message("%ld allocations\n", n - 1);
    assert_true(n > 10);
    mb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(schedulers_starve)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
