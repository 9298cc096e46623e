/*
 * test_starved.c - the machine gives nothing: a folder that cannot be written, reads and allocations that
 * fail one by one, and two commands that want the same folder.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "scene.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void an_unwritable_folder_is_named(void **state)
{
    (void)state;
    char how[64];
    const struct scene *const scenes[] = {&scene_fresh, &scene_plain};
    snprintf(how, sizeof how, "CRASH_LASTS=1 CRASH_ERRNO=%d", EACCES);
    for (size_t i = 0; i < 2; i++) {
        scene_begin(scenes[i]);
        assert_fails(scene_run(scenes[i], how, 1), 4, "moebius: out.partial: create: Permission denied\n");
        assert_false(scene_exists("out") || scene_exists("out.partial") || scene_exists("out.partial.json"));
    }
}

/* Each call of a kind fails in a command that writes nothing. It may do without, but never tell less. */
static void assert_starves(const char *command, const char *how, const char *words)
{
    const struct scene scene = {.command = command};
    char *whole = strdup(run_well("%s", command)), tell[100];
    snprintf(tell, sizeof tell, "%s CRASH_TELL=calls.txt", how);
    assert_non_null(whole);
    long n = scene_count_calls(&scene, tell), n_failed = 0;
    assert_true(n > 5);
    for (int at = 1; at <= n; at++) {
        const struct ran *ran = scene_run(&scene, how, at);
        bool is_same = ran->exit_status == 0 && strcmp(ran->out, whole) == 0;
        bool is_said = ran->exit_status == 4 && strncmp(ran->err, "moebius: ", 9) == 0 &&
                       strstr(ran->err, words) != NULL && strchr(ran->err, '\n')[1] == '\0';
        if (!is_same && !is_said)
            fail_msg("%s: call %d of %ld: exit status %d: %s\n%s", command, at, n, ran->exit_status, ran->err,
                     ran->out);
        n_failed += is_said;
    }
    assert_true(n_failed > n / 2);
    free(whole);
}

#define REPLAY \
    "simulate t.csv --expert-bytes 1MB --memory 2MB --policy blend --link 1GB,1us,2 --lookahead 0.5 -o csv"
static const char *const readers[] = {"inspect coded --experts", "verify coded plain -t 1 -o json"};
enum { N_READERS = sizeof readers / sizeof readers[0] };

static void a_failing_read_is_named(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_CALLS=reads CRASH_ERRNO=%d", EIO);
    for (size_t i = 0; i < N_READERS; i++)
        assert_starves(readers[i], how, "Input/output error");
    assert_survives(&scene_fresh, how, 4, "Input/output error");
    assert_survives(&scene_plain, how, 4, "Input/output error");
}

/* compress and decompress: test_crash. */
static void verify_is_interrupted(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_CALLS=reads CRASH_SIGNAL=%d", SIGINT);
    assert_starves("verify coded plain -t 1", how, "interrupted; nothing is known about the rest of coded");
}

/* A trace that is replayed: cut short nowhere, and named where it cannot be read. */
static void a_trace_that_cannot_be_read_is_named(void **state)
{
    (void)state;
    char how[64];
    test_write_text(test_path("."), "t.csv",
                    "# moebius_trace 1 n_experts 4 n_experts_used 1 layers 0\n"
                    "sequence,token,kind,layer,experts,gates\n0,0,generated,0,1,1\n0,1,generated,0,2,1\n");
    snprintf(how, sizeof how, "CRASH_CALLS=reads CRASH_ERRNO=%d", EIO);
    const struct scene scene = {.command = REPLAY};
    const struct ran *ran = scene_run(&scene, how, 1);
    for (int at = 1; ran->exit_status != 0; ran = scene_run(&scene, how, ++at)) {
        assert_fails(ran, 4, "Input/output error");
        assert_true(at < 50);
    }
}

static void a_failing_allocation_is_told(void **state)
{
    (void)state;
#ifdef MB_CRASH_MEMORY
    static const char simulate[] =
        "simulate --random 'experts=4 used=1 layers=2 tokens=20 seed=1' --expert-bytes 1MB "
        "--memory 3MB --policy blend,belady -o csv";
    char how[64];
    snprintf(how, sizeof how, "CRASH_CALLS=memory CRASH_ERRNO=%d", ENOMEM);
    for (size_t i = 0; i < N_READERS; i++)
        assert_starves(readers[i], how, "memory");
    assert_starves(simulate, how, "memory");
    assert_starves(REPLAY, how, "memory");
#else
    skip(); /* the sanitizer's allocator cannot be put behind ours this way; test_starved has its own */
#endif
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
    long n = scene_count_calls(&scene_fresh, "CRASH_TELL=calls.txt");
    for (int at = 3; at < n / 2; at += 4) { /* 1: mkdir; the lock comes behind it */
        scene_begin(&scene_fresh);
        pid_t child = start_stopping(argv, at);
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            assert_fails(run("%s", others[i]), 4, refusal);
        assert_int_equal(go_on(child), 0);
        assert_true(test_same_folders(test_path("out"), test_path("coded")));
        assert_false(scene_exists("out.partial") || scene_exists("out.partial.json"));
    }
}

/* Stopped before the call 'at'. The second comes too late, and the first is not disturbed. */
static void assert_second_waits(const char *const *argv, int at, const char *second, const char *out,
                                const char *words)
{
    size_t n, n_alone;
    pid_t child = start_stopping(argv, at);
    const struct ran *ran = run("%s", second);
    assert_int_equal(ran->exit_status, 4);
    assert_said_last(ran, words);
    assert_int_equal(go_on(child), 0);
    char *text = (char *)test_read(test_path(out), &n);
    test_remove(test_path(out));
    assert_int_equal(waitpid(start(argv), NULL, 0) > 0, 1);
    char *alone = (char *)test_read(test_path(out), &n_alone);
    assert_int_equal(n, n_alone);
    assert_memory_equal(text, alone, n);
    free(text);
    free(alone);
}

static void the_second_writer_of_a_file_is_refused(void **state)
{
    (void)state;
    static const char reference[] = MB_REPO "/models/reference";
    static const char *const trace[] = {"moebius", "trace", reference, "-p", "x",       "-n",
                                        "2",       "-t",    "1",       "-o", "two.csv", NULL},
                             *const plan[] = {"moebius", "plan", "plain",    "--target-bpw",
                                              "4",       "-o",   "two.json", NULL};
    for (int at = 2; at <= 4; at++)
        assert_second_waits(trace, at, "trace " MB_REPO "/models/reference -p yes -n 9 -t 1 -o two.csv",
                            "two.csv", "two.csv.tmp: another process is writing there");
    for (int at = 3; at <= 9; at += 3)
        assert_second_waits(plan, at, "plan plain --target-bpw 8 -o two.json", "two.json",
                            "two.json.partial: another process is writing there");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unwritable_folder_is_named),          cmocka_unit_test(a_failing_read_is_named),
        cmocka_unit_test(a_trace_that_cannot_be_read_is_named),   cmocka_unit_test(verify_is_interrupted),
        cmocka_unit_test(a_failing_allocation_is_told),           cmocka_unit_test(the_second_is_refused),
        cmocka_unit_test(the_second_writer_of_a_file_is_refused),
    };
#ifdef MB_EMULATED
    puts("skipped: LD_PRELOAD reaches the emulator, not the program");
    return 77;
#endif
    return cmocka_run_group_tests(tests, scene_begin_group, test_folder_end);
}
