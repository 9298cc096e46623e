/*
 * test_starved.c - the n-th allocation fails, for every n, while a folder is coded with feedback: it says so,
 * leaks nothing, and then codes the same folder as if nothing had been.
 */
#include "../checkpoint/folder.h"
#include "../starve.h"
#include "cmocka_all.h"
#include <jansson.h>
#include <moebius/feedback.h>
#include <stdlib.h>

static enum mb_status get(void *context, const char *tensor, size_t n_cols, struct mb_moments_info *info,
                          float *moments, struct mb_error *err)
{
    (void)context;
    (void)tensor;
    (void)err;
    *info = (struct mb_moments_info){true, 100, 100, n_cols};
    for (size_t i = 0; i < n_cols * n_cols && moments != NULL; i++)
        moments[i] = i % (n_cols + 1) == 0 ? 4 : 1;
    return MB_OK;
}

static enum mb_status compress(const char *out, struct mb_error *err)
{
    static const struct mb_moments_source source = {NULL, 7, get};
    struct mb_feedback *feedback;
    struct mb_compress_report report;
    enum mb_status status = mb_feedback_create(&source, NULL, &feedback, err);
    if (status != MB_OK)
        return status;
    const struct mb_compress_options options = {
        .size = sizeof options, .n_threads = 1, .rounder = mb_feedback_rounder(feedback)};
    status = mb_compress(test_path("plain"), out, &options, &report, err);
    mb_feedback_free(feedback);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    const struct test_model model = {
        .dtype = MB_BF16, .is_bare = true, .n_hidden = 20, .n_inner = 9, .n_shards = 1};
    struct mb_error err;
    test_write_model(test_path("plain"), &model);
    assert_int_equal(compress(test_path("whole"), &err), MB_OK);
    struct starve_held before = starve_held();
    long n_failed = 0;
    for (long n = 1;; n++) {
        test_remove(test_path("coded"));
        test_remove(test_path("coded.partial"));
        before = starve_held();
        err = (struct mb_error){0};
        starve_begin(STARVE_MEMORY, n, false);
        enum mb_status status = compress(test_path("coded"), &err);
        long n_calls = starve_end();
        struct starve_held after = starve_held();
        assert_true(before.n_blocks == after.n_blocks && before.mapped_nbytes == after.mapped_nbytes &&
                    before.n_files == after.n_files);
        if (status == MB_OK && n > n_calls)
            break;
        if (status != MB_OK) {
            assert_int_equal(status, MB_NO_MEMORY);
            assert_true(err.msg[0] != '\0');
            n_failed++;
        }
    }
    assert_true(n_failed > 100);
    assert_true(test_same_folders(test_path("whole"), test_path("coded")));
}

int main(void)
{
    json_set_alloc_funcs(starve_spared_malloc, free);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
