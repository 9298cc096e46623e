/*
 * test_output_file.c - files that appear when they are complete, or not at all.
 */
#include "../../cli/output_file.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { N_LINES = 4000 };

static void open_out(struct cli_output_file *output)
{
    struct mb_error err;
    *output = (struct cli_output_file){0};
    if (cli_output_open(output, test_path("out"), "", &err) != MB_OK)
        fail_msg("%s", err.msg);
}

static void write_lines(const struct cli_output_file *output, int n)
{
    for (int i = 0; i < n; i++)
        fprintf(output->file, "line %d\n", i);
}

static void assert_lines(int n)
{
    size_t nbytes;
    char *text = (char *)test_read(test_path("out"), &nbytes), *at = text, line[32];
    for (int i = 0; i < n; i++) {
        snprintf(line, sizeof line, "line %d\n", i);
        assert_memory_equal(at, line, strlen(line));
        at += strlen(line);
    }
    assert_int_equal(at - text, nbytes);
    free(text);
    assert_false(test_exists(test_path("out.tmp")));
}

static void limit_files(rlim_t nbytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = nbytes < limit.rlim_max ? nbytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The last write finds room: what did not before is missing. */
static void a_write_that_failed_in_between_is_not_forgotten(void **state)
{
    (void)state;
    struct cli_output_file output;
    struct mb_error err;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    test_write_text(test_path("."), "out", "old");
    open_out(&output);
    assert_int_equal(sigaction(SIGXFSZ, &ignore, &before), 0);
    limit_files(8192);
    write_lines(&output, N_LINES);
    limit_files(RLIM_INFINITY);
    assert_int_equal(sigaction(SIGXFSZ, &before, NULL), 0);
    assert_int_equal(cli_output_close(&output, MB_OK, &err), MB_IO);
    assert_non_null(strstr(err.msg, "out: write: not everything was written"));
    assert_false(test_exists(test_path("out.tmp")));
    open_out(&output);
    write_lines(&output, N_LINES);
    assert_int_equal(cli_output_close(&output, MB_OK, &err), MB_OK);
    assert_lines(N_LINES);
}

static void what_a_kill_has_left_is_not_in_the_file(void **state)
{
    (void)state;
    struct cli_output_file output;
    struct mb_error err;
    test_write_text(test_path("."), "out.tmp", "more text than will be in the file");
    open_out(&output);
    write_lines(&output, 1);
    assert_int_equal(cli_output_close(&output, MB_OK, &err), MB_OK);
    assert_lines(1);
}

static void a_second_writer_is_refused_until_the_first_is_done(void **state)
{
    (void)state;
    struct cli_output_file first, second = {0};
    struct mb_error err;
    open_out(&first);
    write_lines(&first, N_LINES / 2);
    assert_int_equal(cli_output_open(&second, test_path("out"), "", &err), MB_IO);
    assert_non_null(strstr(err.msg, "out.tmp: another process is writing there"));
    assert_int_equal(mb_write_file(test_path("out"), "x", 1, &err), MB_IO);
    assert_int_equal(cli_output_close(&first, MB_OK, &err), MB_OK);
    assert_lines(N_LINES / 2);
    open_out(&second);
    write_lines(&second, 2);
    assert_int_equal(cli_output_close(&second, MB_OK, &err), MB_OK);
    assert_lines(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_that_failed_in_between_is_not_forgotten),
        cmocka_unit_test(what_a_kill_has_left_is_not_in_the_file),
        cmocka_unit_test(a_second_writer_is_refused_until_the_first_is_done),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
