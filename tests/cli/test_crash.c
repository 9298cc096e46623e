/*
 * test_crash.c - compress and decompress killed before every single call that changes files, and the same
 * with a call that fails: OUT is never there unless it is whole, and the same command then gives the same
 * bytes.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A command that writes the folder "out", and what that must be. */
struct scene {
    const char *command;
    const char *whole;
    const char *before; /* what "out" is before; NULL: nothing */
};

static int begin(void **state)
{
    struct test_model model = test_model_small();
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    run_well("compress plain coded");
    run_well("compress plain other --bound 10%%");
    run_well("decompress coded back");
    return 0;
}

static void copy_folder(const char *from, const char *to)
{
    char line[2400];
    snprintf(line, sizeof line, "cp -r '%s' '%s'", test_path(from), test_path(to));
    assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): our own words */
}

static void begin_scene(const struct scene *scene)
{
    test_remove(test_path("out"));
    test_remove(test_path("out.partial"));
    if (scene->before != NULL)
        copy_folder(scene->before, "out");
}

static const struct ran *run_striking(const struct scene *scene, const char *how, int at)
{
    char before[1400];
    snprintf(before, sizeof before, "LD_PRELOAD='%s' ASAN_OPTIONS=verify_asan_link_order=0 CRASH_AT=%d %s",
             MB_CRASH_LIBRARY, at, how);
    return run_after(before, "%s", scene->command);
}

static long count_calls(const struct scene *scene)
{
    size_t nbytes;
    begin_scene(scene);
    assert_int_equal(run_striking(scene, "CRASH_TELL=calls.txt", 1 << 30)->exit_status, 0);
    char *text = (char *)test_read(test_path("calls.txt"), &nbytes);
    long n = atol(text);
    free(text);
    return n;
}

static bool exists(const char *name)
{
    return test_exists(test_path(name));
}

static bool out_is(const char *folder)
{
    return folder == NULL ? !exists("out")
                          : exists("out") && test_equal_folders(test_path("out"), test_path(folder));
}

/* OUT is what it was, or what it is to be. Never anything between. */
static void check_out(const struct scene *scene, long at)
{
    if (!out_is(scene->before) && !out_is(scene->whole))
        fail_msg("%s: stopped at call %ld: OUT is neither", scene->command, at);
}

static void finish(const struct scene *scene, long at)
{
    bool was_there = scene->before == NULL && exists("out");
    const struct ran *ran = run("%s", scene->command);
    if (ran->exit_status != 0 && !(was_there && ran->exit_status == 2))
        fail_msg("%s: stopped at call %ld, then: exit status %d: %s", scene->command, at, ran->exit_status,
                 ran->err);
    if (!test_same_folders(test_path("out"), test_path(scene->whole)) ||
        (!was_there && exists("out.partial")))
        fail_msg("%s: stopped at call %ld, and finished wrongly", scene->command, at);
}

static void assert_survives(const struct scene *scene, const char *how, int exit_status)
{
    long n = count_calls(scene), n_stopped = 0;
    assert_true(n > 20);
    for (int at = 1; at <= n; at++) {
        begin_scene(scene);
        const struct ran *ran = run_striking(scene, how, at);
        if (ran->exit_status != exit_status && ran->exit_status != 0)
            fail_msg("%s: call %d: exit status %d: %s", scene->command, at, ran->exit_status, ran->err);
        n_stopped += ran->exit_status != 0;
        if (ran->exit_status == 4)
            assert_fails(ran, 4, ": ");
        check_out(scene, at);
        finish(scene, at);
    }
    assert_true(n_stopped > n / 2); /* what fails at the very end need not matter */
}

static const struct scene fresh = {"compress plain out", "coded", NULL},
                          replaced = {"compress plain out --force", "coded", "other"},
                          plain = {"decompress coded out", "back", NULL};

enum { KILLED = 128 + SIGKILL }; /* as the shell says it */

static void compress_is_killed(void **state)
{
    (void)state;
    assert_survives(&fresh, "", KILLED);
}

static void a_replacement_is_killed(void **state)
{
    (void)state;
    assert_survives(&replaced, "", KILLED);
}

static void decompress_is_killed(void **state)
{
    (void)state;
    assert_survives(&plain, "", KILLED);
}

static void compress_fails_to_write(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_ERRNO=%d", EIO);
    assert_survives(&fresh, how, 4);
    assert_survives(&replaced, how, 4);
}

static void the_disk_is_full(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_LASTS=1 CRASH_ERRNO=%d", ENOSPC);
    assert_survives(&fresh, how, 4);
    assert_survives(&plain, how, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compress_is_killed),   cmocka_unit_test(a_replacement_is_killed),
        cmocka_unit_test(decompress_is_killed), cmocka_unit_test(compress_fails_to_write),
        cmocka_unit_test(the_disk_is_full),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
