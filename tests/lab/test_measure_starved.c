/*
 * test_measure_starved.c - measuring when each allocation in turn fails: a clean error, and nothing left
 * behind.
 */
#include "cmocka_all.h"
#include "starve.h"
#include <jansson.h>
#include <moebius/measure.h>
#include <string.h>

#define CHECKPOINT MB_REPO "/tests/model/data/checkpoints/groups"

static enum mb_status add_windows(struct mb_windows *windows, struct mb_error *err)
{
    static const int32_t tokens[] = {1, 5, 9, 2, 7, 3, 8, 4};
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < 70 && status == MB_OK; i++) /* the list of windows grows once */
        status = mb_windows_add(windows, tokens, 4 + i % 5, i % 3, err);
    return status;
}

static enum mb_status run(struct mb_model *model, double *kl, struct mb_error *err)
{
    struct mb_windows windows = {0};
    struct mb_measure *measure = NULL;
    struct mb_comparison c;
    struct mb_measure_change change = {.first_layer = 1};
    enum mb_status status = add_windows(&windows, err);
    if (status == MB_OK)
        status = mb_measure_open(model, &windows, NULL, &measure, err);
    if (status == MB_OK) {
        status = mb_measure_run(measure, &change, &c, err);
        *kl = c.nll.value;
        mb_measure_close(measure);
    }
    if (status == MB_OK)
        status = mb_measure_models(model, model, MB_CACHE_F32, &windows, NULL, &c, err);
    mb_windows_free(&windows);
    return status;
}

static void measurements_starve(void **state)
{
    (void)state;
    struct mb_error err = {0};
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 1};
    double right = 0, kl = 0;
    long n = 0;
    if (mb_model_open(CHECKPOINT, &options, &model, &err) != MB_OK || run(model, &right, &err) != MB_OK)
        fail_msg("%s", err.msg);
    for (bool is_done = false; !is_done;) {
        struct starve_held before = starve_held();
        starve_begin(STARVE_MEMORY, ++n, false);
        enum mb_status status = run(model, &kl, &err);
        is_done = starve_end() < n;
        struct starve_held after = starve_held();
        if (is_done ? status != MB_OK : status != MB_NO_MEMORY || strstr(err.msg, "memory") == NULL)
            fail_msg("allocation %ld: status %d: %s", n, (int)status, err.msg);
        if (after.n_blocks != before.n_blocks || after.mapped_nbytes != before.mapped_nbytes)
            fail_msg("allocation %ld: left behind %ld blocks, %ld mapped bytes", n,
                     after.n_blocks - before.n_blocks, after.mapped_nbytes - before.mapped_nbytes);
    }
    print_message("%ld allocations\n", n - 1);
    assert_true(n > 100 && kl == right);
    mb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(measurements_starve)};
    json_set_alloc_funcs(starve_spared_malloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
