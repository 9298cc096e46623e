/*
 * test_crash.c - compress and decompress killed before every single call that changes files, and the same
 * with a call that fails, or an interrupt: OUT is never there unless it is whole, and the same command then
 * gives the same bytes.  Two at once into one folder: the second is refused.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A command that writes the folder "out", and what that must be. */
struct scene {
    const char *command;
    const char *whole;
    const char *before; /* what "out" is before; NULL: nothing */
};

static const char INTERRUPTED[] = "moebius: interrupted; the same command resumes\n";

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

/* The program ends with exit_status, or 0 where it could do without; a line with these words when that is 4.
 */
static void assert_survives(const struct scene *scene, const char *how, int exit_status, const char *words)
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
            assert_fails(ran, 4, words);
        check_out(scene, at);
        finish(scene, at);
    }
    assert_true(n_stopped > n / 2); /* what comes at the very end need not matter */
}

static const struct scene fresh = {"compress plain out", "coded", NULL},
                          replaced = {"compress plain out --force", "coded", "other"},
                          plain = {"decompress coded out", "back", NULL};

enum { KILLED = 128 + SIGKILL }; /* as the shell says it */

static void compress_is_killed(void **state)
{
    (void)state;
    assert_survives(&fresh, "", KILLED, NULL);
}

static void a_replacement_is_killed(void **state)
{
    (void)state;
    assert_survives(&replaced, "", KILLED, NULL);
}

static void decompress_is_killed(void **state)
{
    (void)state;
    assert_survives(&plain, "", KILLED, NULL);
}

static void compress_fails_to_write(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_ERRNO=%d", EIO);
    assert_survives(&fresh, how, 4, "out");
    assert_survives(&replaced, how, 4, "out");
}

static void the_disk_is_full(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_LASTS=1 CRASH_ERRNO=%d", ENOSPC);
    assert_survives(&fresh, how, 4, "out");
    assert_survives(&plain, how, 4, "out");
}

static void an_interrupt_ends_cleanly(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_SIGNAL=%d", SIGINT);
    assert_survives(&fresh, how, 4, INTERRUPTED);
    assert_survives(&replaced, how, 4, INTERRUPTED);
    assert_survives(&plain, how, 4, INTERRUPTED);
    snprintf(how, sizeof how, "CRASH_SIGNAL=%d", SIGTERM);
    assert_survives(&fresh, how, 4, INTERRUPTED);
}

/* ---------------------------------------------------------------- two at once */

/* Starts a command that stops itself (SIGSTOP) before a call that changes files, and waits until it has. */
static pid_t start_stopping(const char *const *argv, int at)
{
    char text[32];
    snprintf(text, sizeof text, "%d", at);
    setenv("CRASH_AT", text, 1);
    snprintf(text, sizeof text, "%d", SIGSTOP);
    setenv("CRASH_SIGNAL", text, 1);
    setenv("LD_PRELOAD", MB_CRASH_LIBRARY, 1);
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
    pid_t child = start(argv);
    unsetenv("ASAN_OPTIONS");
    unsetenv("LD_PRELOAD");
    unsetenv("CRASH_SIGNAL");
    unsetenv("CRASH_AT");
    int status;
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    return child;
}

static int go_on(pid_t child)
{
    int status;
    assert_int_equal(kill(child, SIGCONT), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void the_second_is_refused(void **state)
{
    (void)state;
    static const char *const argv[] = {"moebius", "compress", "plain", "out", NULL};
    static const char *const others[] = {"compress plain out", "compress plain out --force",
                                         "compress plain out --bound 10%", "decompress coded out"};
    static const char refusal[] = "moebius: out.partial: another process is writing there\n";
    long n = count_calls(&fresh);
    for (int at = 3; at < n / 2; at += 4) { /* 1: mkdir; the lock comes behind it */
        begin_scene(&fresh);
        pid_t child = start_stopping(argv, at);
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            assert_fails(run("%s", others[i]), 4, refusal);
        assert_int_equal(go_on(child), 0);
        assert_true(test_same_folders(test_path("out"), test_path("coded")));
        assert_false(exists("out.partial") || exists("out.partial.json"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compress_is_killed),    cmocka_unit_test(a_replacement_is_killed),
        cmocka_unit_test(decompress_is_killed),  cmocka_unit_test(compress_fails_to_write),
        cmocka_unit_test(the_disk_is_full),      cmocka_unit_test(an_interrupt_ends_cleanly),
        cmocka_unit_test(the_second_is_refused),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
