/*
 * test_resume.c - work that is stopped: nothing looks finished, the same call goes on, other work is refused.
 */
#include "cmocka_all.h"
#include "folder.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void begin_model(struct mb_compress_options *options)
{
    struct test_model model = test_model_small();
    model.n_layers = 4;
    test_write_model(test_path("plain"), &model);
    *options = (struct mb_compress_options){.size = sizeof *options, .n_threads = 2};
}

static enum mb_status compress(const char *out, const struct mb_compress_options *options,
                               struct mb_compress_report *report, struct mb_error *err)
{
    struct mb_compress_report unused;
    return mb_compress(test_path("plain"), test_path(out), options, report == NULL ? &unused : report, err);
}

static void assert_compressed(const char *out, const struct mb_compress_options *options,
                              struct mb_compress_report *report)
{
    struct mb_error err;
    if (compress(out, options, report, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

/* Stops at the n-th call of the progress function. */
static bool stop_after(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    int *n_left = ctx;
    assert_non_null(what);
    assert_true(done <= total);
    return (*n_left)-- <= 0;
}

static void stopped_work_is_resumed(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_compress_report report;
    struct mb_error err;
    begin_model(&options);
    assert_compressed("whole", &options, NULL);
    options.progress = stop_after;
    size_t n_stopped = 0, n_resumed_most = 0;
    for (int n = 0;; n++) {
        int n_left = n;
        options.progress_ctx = &n_left;
        enum mb_status status = compress("coded", &options, &report, &err);
        if (status == MB_OK)
            break;
        assert_int_equal(status, MB_CANCELLED);
        assert_false(test_exists(test_path("coded")));
        n_stopped++;
        n_left = 1 << 30;
        if (n % 2 == 1)
            continue; /* stopped again and again, at other places */
        assert_compressed("coded", &options, &report);
        assert_true(test_same_folders(test_path("whole"), test_path("coded")));
        assert_false(test_exists(test_path("coded.partial")));
        if (report.n_shards_resumed > n_resumed_most)
            n_resumed_most = report.n_shards_resumed;
        test_remove(test_path("coded"));
    }
    assert_true(n_stopped > 3);
    assert_true(n_resumed_most > 0);
    assert_true(test_same_folders(test_path("whole"), test_path("coded")));
}

/* What a resumed run reports is what an undisturbed one does, times aside. */
static void a_resumed_report_counts_everything(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_compress_report whole, resumed = {0};
    struct mb_error err;
    begin_model(&options);
    assert_compressed("whole", &options, &whole);
    options.progress = stop_after;
    for (int n = 1; resumed.n_shards_resumed == 0; n++) {
        int n_left = n;
        options.progress_ctx = &n_left;
        assert_int_equal(compress("coded", &options, &resumed, &err), MB_CANCELLED);
        n_left = 1 << 30;
        assert_compressed("coded", &options, &resumed);
        test_remove(test_path("coded"));
    }
    resumed.n_shards_resumed = 0;
    resumed.seconds = whole.seconds;
    assert_memory_equal(&resumed, &whole, sizeof whole);
}

static void finished_folders_are_kept(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    begin_model(&options);
    assert_compressed("coded", &options, NULL);
    size_t nbytes;
    free(test_read(test_path("coded/config.json"), &nbytes));
    assert_int_equal(compress("coded", &options, NULL, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "--force"));
    assert_false(test_exists(test_path("coded.partial")));
    assert_compressed("first", &options, NULL);
    options.has_bound = true;
    options.bound = (struct mb_bound){MB_BOUND_MEAN_ABS, 0.1};
    assert_compressed("other", &options, NULL);
    options.force = true;
    assert_compressed("coded", &options, NULL);
    assert_true(test_same_folders(test_path("coded"), test_path("other")));
    assert_false(test_exists(test_path("coded.partial")));
}

static void partial_work_is_kept_from_other_options(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    int n_left = 3;
    begin_model(&options);
    options.progress = stop_after;
    options.progress_ctx = &n_left;
    assert_int_equal(compress("coded", &options, NULL, &err), MB_CANCELLED);
    n_left = 1 << 30;
    struct mb_compress_options other = options;
    other.has_dense_bound = true;
    other.dense_bound = (struct mb_bound){MB_BOUND_MEAN_ABS, 0.1};
    assert_int_equal(compress("coded", &other, NULL, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "coded.partial"));
    assert_true(test_exists(test_path("coded.partial"))); /* still there for the first one */
    assert_compressed("other", &other, NULL);
    other.force = true;
    assert_compressed("coded", &other, NULL);
    assert_true(test_same_folders(test_path("coded"), test_path("other")));
}

static void partial_work_is_kept_from_other_input(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    struct test_model model = test_model_small();
    int n_left = 3;
    begin_model(&options);
    options.progress = stop_after;
    options.progress_ctx = &n_left;
    assert_int_equal(compress("coded", &options, NULL, &err), MB_CANCELLED);
    n_left = 1 << 30;
    model.n_layers = 5;
    test_remove(test_path("plain"));
    test_write_model(test_path("plain"), &model);
    assert_int_equal(compress("coded", &options, NULL, &err), MB_USAGE);
    options.force = true;
    assert_compressed("coded", &options, NULL);
}

/* The lock is the other process's: here a child that holds it. */
static void two_compressions_into_one_folder_are_refused(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    int n_left = 3;
    begin_model(&options);
    options.progress = stop_after;
    options.progress_ctx = &n_left;
    assert_int_equal(compress("coded", &options, NULL, &err), MB_CANCELLED);
    n_left = 1 << 30;
    int fd = open(test_path("coded.partial"), O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(compress("coded", &options, NULL, &err), MB_IO);
    assert_non_null(strstr(err.msg, "another process"));
    options.force = true;
    assert_int_equal(compress("coded", &options, NULL, &err), MB_IO);
    close(fd);
    options.force = false;
    assert_compressed("coded", &options, NULL);
}

/* ---------------------------------------------------------------- no room, no permission */

/* In a child with a limit on file sizes, which write() meets as it would a full disk. */
static int compress_with_limit(const struct mb_compress_options *options, rlim_t file_nbytes_max)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct mb_error err;
        struct rlimit limit = {file_nbytes_max, file_nbytes_max};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        _exit((int)compress("coded", options, NULL, &err));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_full_disk_leaves_nothing_finished(void **state)
{
    (void)state;
    static const rlim_t limits[] = {0, 1, 100, 4095, 4096, 5000, 8192, 10000, 12288};
    struct mb_compress_options options;
    begin_model(&options);
    assert_compressed("whole", &options, NULL);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        assert_int_equal(compress_with_limit(&options, limits[i]), MB_NO_SPACE);
        assert_false(test_exists(test_path("coded")));
    }
    assert_compressed("coded", &options, NULL);
    assert_true(test_same_folders(test_path("whole"), test_path("coded")));
}

static void impossible_places_are_refused(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    begin_model(&options);
    assert_int_not_equal(compress("none/coded", &options, NULL, &err), MB_OK);
    assert_non_null(strstr(err.msg, "none/coded"));
    assert_int_not_equal(compress("plain/config.json/coded", &options, NULL, &err), MB_OK);
    static const char *const none[] = {"", ".", "..", "./", "plain/.", "plain/..", "../."};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        struct mb_compress_report report;
        options.force = true;
        if (mb_compress(test_path("plain"), none[i], &options, &report, &err) != MB_USAGE)
            fail_msg("'%s': %s", none[i], err.msg);
    }
    options.force = false;
    assert_compressed("...", &options, NULL); /* a name like others */
}

/* As a fresh volume is mounted: the folder itself cannot be replaced. */
static void an_empty_folder_is_filled(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    struct stat before, after;
    begin_model(&options);
    assert_compressed("whole", &options, NULL);
    test_make_folder(test_path("out"));
    assert_int_equal(stat(test_path("out"), &before), 0);
    int n_left = 3;
    options.progress = stop_after;
    options.progress_ctx = &n_left;
    assert_int_equal(compress("out", &options, NULL, &err), MB_CANCELLED);
    assert_true(test_exists(test_path("out/moebius.partial")));
    assert_false(test_exists(test_path("out.partial")) || test_exists(test_path("out/config.json")));
    n_left = 1 << 30;
    struct mb_compress_options other = options;
    other.has_bound = true;
    other.bound = (struct mb_bound){MB_BOUND_MEAN_ABS, 0.1};
    assert_int_equal(compress("out", &other, NULL, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "unfinished work"));
    assert_compressed("out", &options, NULL);
    assert_true(test_same_folders(test_path("whole"), test_path("out")));
    assert_int_equal(stat(test_path("out"), &after), 0);
    assert_true(before.st_ino == after.st_ino);
    assert_int_equal(compress("out", &options, NULL, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "exists already"));
    options.force = true;
    assert_compressed("out", &options, NULL);
    assert_true(test_same_folders(test_path("whole"), test_path("out")));
}

static void what_a_new_file_system_has_does_not_count(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    begin_model(&options);
    test_make_folder(test_path("out"));
    test_make_folder(test_path("out/lost+found"));
    assert_compressed("out", &options, NULL);
    assert_true(test_exists(test_path("out/config.json")) && test_exists(test_path("out/lost+found")));
    test_make_folder(test_path("letters"));
    test_write_text(test_path("letters"), "to-mother.txt", "dear");
    assert_int_equal(compress("letters", &options, NULL, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "exists already"));
    assert_false(test_exists(test_path("letters/moebius.partial")));
}

/* Replacing the input by its own coded form would lose it; so would replacing what is no model. */
static void force_does_not_remove_what_is_no_output(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    begin_model(&options);
    options.force = true;
    assert_int_equal(compress("plain", &options, NULL, &err), MB_USAGE);
    assert_true(test_exists(test_path("plain/model.safetensors")));
    test_make_folder(test_path("letters"));
    test_write_text(test_path("letters"), "to-mother.txt", "dear");
    assert_int_equal(compress("letters", &options, NULL, &err), MB_USAGE);
    assert_true(test_exists(test_path("letters/to-mother.txt")));
    test_make_folder(test_path("coded.partial"));
    test_write_text(test_path("coded.partial"), "config.json.tmp", "{");
    test_write_text(test_path("coded.partial"), "to-mother.txt", "dear");
    assert_int_equal(compress("coded", &options, NULL, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "to-mother.txt, which is no file of a model"));
    assert_true(test_exists(test_path("coded.partial/to-mother.txt")));
    assert_int_equal(unlink(test_path("coded.partial/to-mother.txt")), 0);
    assert_compressed("coded", &options, NULL);
    assert_false(test_exists(test_path("coded/config.json.tmp")));
}

static void links_are_not_followed(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_error err;
    begin_model(&options);
    options.force = true;
    test_make_folder(test_path("real"));
    test_write_text(test_path("real"), "config.json", "{}");
    assert_int_equal(symlink("real", test_path("link")), 0);
    assert_int_equal(symlink("nothing", test_path("dangling")), 0);
    assert_int_equal(symlink("real", test_path("coded.partial")), 0);
    assert_int_equal(compress("link", &options, NULL, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "link: is a symbolic link"));
    assert_int_equal(compress("dangling", &options, NULL, &err), MB_USAGE);
    assert_int_equal(compress("coded", &options, NULL, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "coded.partial"));
    assert_true(test_exists(test_path("real/config.json")));
    assert_false(test_exists(test_path("link.partial")) || test_exists(test_path("dangling.partial")));
    assert_compressed("real", &options, NULL);
}

/* ---------------------------------------------------------------- decompress */

static void decompress_resumes_too(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_decompress_report report;
    struct mb_error err;
    begin_model(&options);
    assert_compressed("coded", &options, NULL);
    assert_int_equal(mb_decompress(test_path("coded"), test_path("whole"),
                                   DECOMPRESS_OPTIONS(.dtype = MB_BF16, .n_threads = 2), &report, &err),
                     MB_OK);
    size_t n_stopped = 0, n_kept = 0;
    struct stat first = {0}, now;
    for (int n = 0;; n++) {
        int n_left = n;
        enum mb_status status =
            mb_decompress(test_path("coded"), test_path("back"),
                          DECOMPRESS_OPTIONS(.dtype = MB_BF16, .n_threads = 2, .progress = stop_after,
                                             .progress_ctx = &n_left),
                          &report, &err);
        if (status == MB_OK)
            break;
        assert_int_equal(status, MB_CANCELLED);
        assert_false(test_exists(test_path("back")));
        n_stopped++;
        n_kept += first.st_ino != 0;
        if (first.st_ino == 0)
            stat(test_path("back.partial/model-00001-of-00005.safetensors"), &first);
    }
    assert_true(n_kept > 0); /* a shard that was finished is the same file in the end, not written again */
    assert_int_equal(stat(test_path("back/model-00001-of-00005.safetensors"), &now), 0);
    assert_true(now.st_ino == first.st_ino && now.st_mtim.tv_sec == first.st_mtim.tv_sec &&
                now.st_mtim.tv_nsec == first.st_mtim.tv_nsec);
    assert_true(n_stopped > 1);
    assert_true(test_same_folders(test_path("whole"), test_path("back")));
    assert_int_equal(mb_decompress(test_path("coded"), test_path("back"),
                                   DECOMPRESS_OPTIONS(.dtype = MB_BF16, .n_threads = 2), &report, &err),
                     MB_USAGE);
}

static void verify_can_be_stopped(void **state)
{
    (void)state;
    struct mb_compress_options options;
    struct mb_verify_report report;
    struct mb_error err;
    int n_left = 1;
    begin_model(&options);
    assert_compressed("coded", &options, NULL);
    assert_int_equal(
        mb_verify(test_path("coded"), test_path("plain"),
                  VERIFY_OPTIONS(.n_threads = 2, .progress = stop_after, .progress_ctx = &n_left), &report,
                  &err),
        MB_CANCELLED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_folder_begin, test_folder_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stopped_work_is_resumed),
        TEST(a_resumed_report_counts_everything),
        TEST(finished_folders_are_kept),
        TEST(partial_work_is_kept_from_other_options),
        TEST(partial_work_is_kept_from_other_input),
        TEST(two_compressions_into_one_folder_are_refused),
        TEST(a_full_disk_leaves_nothing_finished),
        TEST(impossible_places_are_refused),
        TEST(an_empty_folder_is_filled),
        TEST(what_a_new_file_system_has_does_not_count),
        TEST(force_does_not_remove_what_is_no_output),
        TEST(links_are_not_followed),
        TEST(decompress_resumes_too),
        TEST(verify_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
