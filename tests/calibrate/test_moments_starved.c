/*
 * test_moments_starved.c - the n-th allocation or read fails, for every n, while moments are made and read:
 * it says so, leaks nothing, leaves no finished file, and then makes the same file as if nothing had been.
 */
#include "../checkpoint/folder.h"
#include "../starve.h"
#include "cmocka_all.h"
#include <jansson.h>
#include <moebius/calibrate.h>
#include <stdlib.h>
#include <string.h>

#define MODEL MB_REPO "/tests/model/data/checkpoints/groups"

static const struct mb_moments_key key = {
    "00112233445566778899aabbccddeeff", "00000000000000000000000000000001",
    "00000000000000000000000000000002", "00000000000000000000000000000003"};

static enum mb_status read_last(const char *path, struct mb_error *err)
{
    struct mb_moments *moments;
    size_t n;
    enum mb_status status = mb_moments_open(path, key.model, &moments, err);
    if (status != MB_OK)
        return status;
    const struct mb_moments_input *inputs = mb_moments_inputs(moments, &n);
    static float h[1 << 18];
    assert_true(inputs[n - 1].n_values <= 512);
    status = mb_moments_read(moments, &inputs[n - 1], h, err);
    mb_moments_close(moments);
    return status;
}

static enum mb_status make_and_read(struct mb_model *model, const struct mb_calibration *calibration,
                                    const char *path, struct mb_error *err)
{
    struct mb_moments_report report;
    struct mb_moments_options options = {.size = sizeof options, .n_threads = 1};
    enum mb_status status = mb_moments_make(path, model, calibration, &key, &options, &report, err);
    return status == MB_OK ? read_last(path, err) : status;
}

static void starve(struct mb_model *model, const struct mb_calibration *calibration, enum starve_kind kind,
                   enum mb_status expected, long n_failed_min)
{
    struct mb_error err;
    long n_failed = 0;
    for (long n = 1;; n++) {
        test_remove(test_path("hungry"));
        test_remove(test_path("hungry.partial"));
        test_remove(test_path("hungry.states"));
        struct starve_held before = starve_held();
        err = (struct mb_error){0};
        starve_begin(kind, n, false);
        enum mb_status status = make_and_read(model, calibration, test_path("hungry"), &err);
        long n_calls = starve_end();
        struct starve_held after = starve_held();
        assert_true(before.n_blocks == after.n_blocks && before.mapped_nbytes == after.mapped_nbytes &&
                    before.n_files == after.n_files);
        if (status == MB_OK && n > n_calls)
            break;
        if (status != MB_OK) {
            assert_int_equal(status, expected);
            assert_true(err.msg[0] != '\0');
            n_failed++;
        }
    }
    assert_true(n_failed >= n_failed_min);
    size_t n_whole, n_hungry;
    uint8_t *whole = test_read(test_path("whole"), &n_whole),
            *hungry = test_read(test_path("hungry"), &n_hungry);
    assert_int_equal(n_whole, n_hungry);
    assert_memory_equal(whole, hungry, n_whole);
    free(whole);
    free(hungry);
}

static void every_allocation_and_read_may_fail(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_model *model;
    struct mb_calibration calibration = {0};
    struct mb_model_options options = {.size = sizeof options, .n_threads = 1};
    const int32_t tokens[] = {1, 5, 9, 2, 7};
    assert_int_equal(mb_model_open(MODEL, &options, &model, &err), MB_OK);
    assert_int_equal(mb_windows_add(&calibration.windows, tokens, 5, 0, &err), MB_OK);
    assert_int_equal(make_and_read(model, &calibration, test_path("whole"), &err), MB_OK);
    starve(model, &calibration, STARVE_MEMORY, MB_NO_MEMORY, 100);
    starve(model, &calibration, STARVE_READ, MB_IO, 3);
    mb_calibration_free(&calibration);
    mb_model_close(model);
}

int main(void)
{
    json_set_alloc_funcs(starve_spared_malloc, free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_and_read_may_fail),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
