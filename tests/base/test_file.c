/*
 * test_file.c - reads that end early, writes that appear whole or not at all, and what failures are called.
 */
#include "base/error.h"
#include "base/file.h"
#include "cmocka_all.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/mb-test-file-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[MB_PATH_MAX];
    assert_int_equal(mb_join_path(path, folder, name, NULL), MB_OK);
    return path;
}

static void written_files_read_back(void **state)
{
    (void)state;
    const char *path = in_folder("a");
    assert_int_equal(mb_write_file(path, "hello", 5, NULL), MB_OK);
    assert_int_equal(mb_write_file(path, "hello, again", 12, NULL), MB_OK);
    char *bytes;
    size_t nbytes;
    assert_int_equal(mb_read_file(path, 12, &bytes, &nbytes, NULL), MB_OK);
    assert_int_equal(nbytes, 12);
    assert_string_equal(bytes, "hello, again");
    free(bytes);
    struct mb_error err;
    assert_int_equal(mb_read_file(path, 11, &bytes, &nbytes, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "limit of 11"));
    assert_int_equal(access(in_folder("a.tmp"), F_OK), -1);
}

static void short_files_are_truncated(void **state)
{
    (void)state;
    const char *path = in_folder("short");
    assert_int_equal(mb_write_file(path, "0123456789", 10, NULL), MB_OK);
    int fd = open(path, O_RDONLY);
    char bytes[8];
    struct mb_error err;
    assert_int_equal(mb_read_at(fd, path, 2, bytes, 8, &err), MB_OK);
    assert_memory_equal(bytes, "23456789", 8);
    assert_int_equal(mb_read_at(fd, path, 3, bytes, 8, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "byte 10: truncated, 1 bytes are missing"));
    close(fd);
}

static void odd_paths_are_refused(void **state)
{
    (void)state;
    char *bytes;
    size_t nbytes;
    struct mb_error err;
    assert_int_equal(mb_read_file(in_folder("missing"), 10, &bytes, &nbytes, &err), MB_BAD_DATA);
    assert_int_equal(mb_read_file(folder, 10, &bytes, &nbytes, &err), MB_BAD_DATA);
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_int_equal(mb_read_file(in_folder("fifo"), 10, &bytes, &nbytes, &err), MB_BAD_DATA);
    char *name = malloc(MB_PATH_MAX + 1), joined[MB_PATH_MAX];
    memset(name, 'x', MB_PATH_MAX);
    name[MB_PATH_MAX] = '\0';
    assert_int_equal(mb_join_path(joined, folder, name, &err), MB_BAD_DATA);
    assert_int_equal(mb_write_file(name, "", 0, &err), MB_BAD_DATA);
    free(name);
}

/* A file size limit stands for a full disk: the write fails, and nothing that looks finished is left. */
static void failed_writes_leave_nothing(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, low = {4096, 4096};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low.rlim_max = old.rlim_max;
    char *bytes = calloc(1, 10000);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    struct mb_error err;
    enum mb_status status = mb_write_file(in_folder("large"), bytes, 10000, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    free(bytes);
    assert_int_equal(status, MB_NO_SPACE);
    assert_int_equal(mb_status_exit_code(status), 4);
    assert_int_equal(access(in_folder("large"), F_OK), -1);
    assert_int_equal(access(in_folder("large.tmp"), F_OK), -1);
}

static void errors_keep_their_place(void **state)
{
    (void)state;
    struct mb_error err;
    assert_int_equal(mb_fail(&err, MB_BAD_DATA, "byte %d: bad", 7), MB_BAD_DATA);
    assert_int_equal(mb_fail_in(&err, MB_BAD_DATA, "file %s", "x"), MB_BAD_DATA);
    assert_string_equal(err.msg, "file x: byte 7: bad");
    mb_error_set(&err, MB_BAD_DATA, "a\n\x7f\xc2\x9b[31m \xc2\xa0\xc3\x9b \xc2");
    assert_string_equal(err.msg, "a????[31m \xc2\xa0\xc3\x9b \xc2"); /* other letters stay */
    assert_int_equal(mb_fail(NULL, MB_IO, "nobody listens"), MB_IO);
    errno = ENOSPC;
    assert_int_equal(mb_fail_errno(&err, "p", "write"), MB_NO_SPACE);
    errno = EACCES;
    assert_int_equal(mb_fail_errno(&err, "p", "open"), MB_IO);
    static const int codes[] = {0, 3, 4, 4, 4, 3, 2, 4};
    for (int status = 0; status <= MB_CANCELLED; status++)
        assert_int_equal(mb_status_exit_code((enum mb_status)status), codes[status]);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "short", "fifo"};
    for (size_t i = 0; i < 3; i++)
        unlink(in_folder(names[i]));
    return rmdir(folder); /* fails when something was left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_files_read_back), cmocka_unit_test(short_files_are_truncated),
        cmocka_unit_test(odd_paths_are_refused),   cmocka_unit_test(failed_writes_leave_nothing),
        cmocka_unit_test(errors_keep_their_place),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
