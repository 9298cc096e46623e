/*
 * test_starved.c - the n-th allocation fails, for every n, in everything that reads or writes a folder: it
 * says so, leaks nothing, leaves nothing that looks finished, and then does the same work as if nothing had
 * been.
 */
#include "cmocka_all.h"
#include "folder.h"
#include "starve.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A piece of work that can be done again and again. */
struct act {
    const char *name;
    void (*prepare)(void);                       /* NULL: nothing to do before */
    enum mb_status (*run)(struct mb_error *err); /* frees what it has made */
    const char *out, *whole; /* the folder that it writes, and what that must be; NULL: none */
    const char *before;      /* what 'out' is before; NULL: nothing */
    bool lasts;              /* tried too: all allocations from the n-th on fail */
};

/* ---------------------------------------------------------------- the folders */

static int begin(void **state)
{
    struct test_model model = {.dtype = MB_BF16, .is_bare = true, .n_hidden = 3, .n_inner = 2, .n_shards = 1};
    struct mb_compress_options options = {.size = sizeof options, .n_threads = 1};
    struct mb_compress_report report;
    struct mb_decompress_report plain_report;
    struct mb_error err;
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    model.n_shards = 2;
    test_write_model(test_path("dealt"), &model);
    options.tensor_bounds = &(struct mb_tensor_bound){"q_proj", {MB_BOUND_MEAN_ABS, 0.5}};
    options.n_tensor_bounds = 1;
    assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err), MB_OK);
    options.n_tensor_bounds = 0;
    assert_int_equal(mb_compress(test_path("plain"), test_path("other"), &options, &report, &err), MB_OK);
    assert_int_equal(mb_decompress(test_path("coded"), test_path("back"), MB_BF16, false, 1, NULL, NULL,
                                   &plain_report, &err),
                     MB_OK);
    return 0;
}

static void copy_folder(const char *from, const char *to)
{
    char line[2400];
    snprintf(line, sizeof line, "cp -r '%s' '%s'", test_path(from), test_path(to));
    assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): our own words */
}

/* ---------------------------------------------------------------- acts */

static enum mb_status open_folder(const char *name, struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    enum mb_status status = mb_checkpoint_open(test_path(name), &ckpt, err);
    if (status == MB_OK)
        mb_checkpoint_close(ckpt);
    return status;
}

static enum mb_status open_plain(struct mb_error *err)
{
    return open_folder("plain", err);
}

static enum mb_status open_dealt(struct mb_error *err)
{
    return open_folder("dealt", err);
}

static enum mb_status open_coded(struct mb_error *err)
{
    return open_folder("coded", err);
}

static enum mb_status load(const char *name, int n_threads, struct mb_error *err)
{
    struct mb_checkpoint *ckpt;
    struct mb_weights *weights;
    enum mb_status status = mb_checkpoint_open(test_path(name), &ckpt, err);
    if (status != MB_OK)
        return status;
    status = mb_weights_load(ckpt, n_threads, &weights, err);
    if (status == MB_OK)
        mb_weights_free(weights);
    mb_checkpoint_close(ckpt);
    return status;
}

static enum mb_status load_plain(struct mb_error *err)
{
    return load("dealt", 1, err);
}

static enum mb_status load_coded(struct mb_error *err)
{
    return load("coded", 1, err);
}

static enum mb_status load_with_threads(struct mb_error *err)
{
    return load("coded", 3, err);
}

static enum mb_status compress(struct mb_compress_options options, struct mb_error *err)
{
    static const struct mb_tensor_bound wide = {"q_proj", {MB_BOUND_MEAN_ABS, 0.5}};
    struct mb_compress_report report;
    options.size = sizeof options;
    options.tensor_bounds = &wide;
    options.n_tensor_bounds = 1;
    if (options.n_threads == 0)
        options.n_threads = 1;
    return mb_compress(test_path("plain"), test_path("out"), &options, &report, err);
}

static enum mb_status compress_fresh(struct mb_error *err)
{
    return compress((struct mb_compress_options){0}, err);
}

static enum mb_status compress_with_threads(struct mb_error *err)
{
    return compress((struct mb_compress_options){.n_threads = 2}, err);
}

static enum mb_status compress_over(struct mb_error *err)
{
    return compress((struct mb_compress_options){.force = true}, err);
}

static enum mb_status compress_dry(struct mb_error *err)
{
    return compress((struct mb_compress_options){.dry_run = true}, err);
}

static bool stop_at_second_shard(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    (void)ctx, (void)what;
    return done > total / 2;
}

static void stop_in_between(void)
{
    struct mb_error err;
    struct mb_compress_options options = {.progress = stop_at_second_shard};
    assert_int_equal(compress(options, &err), MB_CANCELLED);
}

static enum mb_status decompress(struct mb_error *err)
{
    struct mb_decompress_report report;
    return mb_decompress(test_path("coded"), test_path("out"), MB_BF16, false, 1, NULL, NULL, &report, err);
}

static void count_tensor(void *ctx, const struct mb_verify_tensor *tensor)
{
    (void)tensor;
    ++*(size_t *)ctx;
}

static enum mb_status verify_against(const char *original, struct mb_error *err)
{
    size_t n = 0;
    struct mb_verify_report report;
    enum mb_status status =
        mb_verify(test_path("coded"), original, 1, count_tensor, &n, NULL, NULL, &report, err);
    if (status == MB_OK)
        assert_true(report.n_broken == 0 && n > 3);
    return status;
}

static enum mb_status verify(struct mb_error *err)
{
    return verify_against(test_path("plain"), err);
}

static enum mb_status verify_alone(struct mb_error *err)
{
    return verify_against(NULL, err);
}

/* ---------------------------------------------------------------- every n */

static void put_before(const struct act *act)
{
    if (act->out != NULL) {
        test_remove(test_path(act->out));
        test_remove(test_path("out.partial"));
        test_remove(test_path("out.partial.json"));
        if (act->before != NULL)
            copy_folder(act->before, act->out);
    }
    if (act->prepare != NULL)
        act->prepare();
}

static void run_well(const struct act *act, long n)
{
    struct mb_error err;
    if (act->run(&err) != MB_OK)
        fail_msg("%s, after call %ld had failed: %s", act->name, n, err.msg);
    if (act->out != NULL && act->whole != NULL &&
        (!test_same_folders(test_path(act->out), test_path(act->whole)) ||
         test_exists(test_path("out.partial")) || test_exists(test_path("out.partial.json"))))
        fail_msg("%s, after call %ld had failed, gave something else", act->name, n);
}

/* OUT is what it was, or what it is to be. */
static bool out_is_sound(const struct act *act)
{
    bool exists = act->out != NULL && test_exists(test_path(act->out));
    if (!exists)
        return act->before == NULL;
    return test_equal_folders(test_path(act->out), test_path(act->whole)) ||
           (act->before != NULL && test_equal_folders(test_path(act->out), test_path(act->before)));
}

static bool same_held(struct starve_held a, struct starve_held b)
{
    return a.n_blocks == b.n_blocks && a.mapped_nbytes == b.mapped_nbytes && a.n_files == b.n_files;
}

static void fail_at(const struct act *act, long n, bool lasts)
{
    struct mb_error err = {0};
    put_before(act);
    struct starve_held before = starve_held();
    starve_begin(STARVE_MEMORY, n, lasts);
    enum mb_status status = act->run(&err);
    starve_end();
    struct starve_held after = starve_held();
    if (status != MB_NO_MEMORY || (strstr(err.msg, "memory") == NULL && strstr(err.msg, "thread") == NULL))
        fail_msg("%s: allocation %ld%s failed: status %d: %s", act->name, n, lasts ? " and later" : "",
                 (int)status, err.msg);
    if (!same_held(before, after))
        fail_msg("%s: allocation %ld%s failed: left behind %ld blocks, %ld mapped bytes, %ld files",
                 act->name, n, lasts ? " and later" : "", after.n_blocks - before.n_blocks,
                 after.mapped_nbytes - before.mapped_nbytes, after.n_files - before.n_files);
    if (!out_is_sound(act))
        fail_msg("%s: allocation %ld failed: left something that looks finished", act->name, n);
    run_well(act, n);
}

static void starve(const struct act *act)
{
    struct mb_error err;
    put_before(act);
    run_well(act, 0); /* what is made once in a process is made now */
    put_before(act);
    starve_begin(STARVE_MEMORY, 0, false);
    assert_int_equal(act->run(&err), MB_OK);
    long n_allocations = starve_end();
    print_message("%s: %ld allocations\n", act->name, n_allocations);
    assert_true(n_allocations > 5);
    for (long n = 1; n <= n_allocations; n++) {
        fail_at(act, n, false);
        if (act->lasts)
            fail_at(act, n, true);
    }
}

#define ACT(act_name, ...)                                                      \
    static void act_name##_starves(void **state)                                \
    {                                                                           \
        (void)state;                                                            \
        starve(&(struct act){.name = #act_name, .run = act_name, __VA_ARGS__}); \
    }

ACT(open_plain)
ACT(open_dealt, .lasts = true)
ACT(open_coded)
ACT(load_plain)
ACT(load_coded, .lasts = true)
ACT(load_with_threads)
ACT(compress_fresh, .lasts = true, .out = "out", .whole = "coded")
ACT(compress_with_threads, .out = "out", .whole = "coded")
ACT(compress_over, .out = "out", .whole = "coded", .before = "other")
ACT(compress_dry)
ACT(decompress, .lasts = true, .out = "out", .whole = "back")
ACT(verify, .lasts = true)
ACT(verify_alone)

static void compress_on_starves(void **state)
{
    (void)state;
    starve(&(struct act){.name = "compress_on",
                         .prepare = stop_in_between,
                         .run = compress_fresh,
                         .out = "out",
                         .whole = "coded"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_plain_starves),     cmocka_unit_test(open_dealt_starves),
        cmocka_unit_test(open_coded_starves),     cmocka_unit_test(load_plain_starves),
        cmocka_unit_test(load_coded_starves),     cmocka_unit_test(load_with_threads_starves),
        cmocka_unit_test(compress_fresh_starves), cmocka_unit_test(compress_with_threads_starves),
        cmocka_unit_test(compress_over_starves),  cmocka_unit_test(compress_on_starves),
        cmocka_unit_test(compress_dry_starves),   cmocka_unit_test(decompress_starves),
        cmocka_unit_test(verify_starves),         cmocka_unit_test(verify_alone_starves),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
