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

/* ---------------------------------------------------------------- models, streamed and not */

enum { N_SAMPLES = 24 };

/* A command with a model has too many calls to let each fail. */
struct sampled {
    const char *command;
    const char *out;       /* a file that it writes; NULL: none */
    bool has_measurements; /* it prints what differs from run to run */
};

static unsigned limit_mib; /* of the commands that have one: few experts are in memory */

#define REFERENCE MB_REPO "/models/reference"
static const struct sampled sampled[] = {
    {"run model -p x -n 3 -t 1 -c 16 --memory %uMiB", NULL, false},
    {"bench model -p 0 -n 3 -r 1 -t 1 --no-warmup --memory %uMiB", NULL, true},
    {"doctor model --dry-run -c 16 --memory %uMiB", NULL, true},
    {"trace " REFERENCE " -p x -n 1 -t 1 -o s.csv", "s.csv", false},
    {"plan plain --target-bpw 4 -t 1 -o s.json", "s.json", false},
};

static char *read_if_there(const char *name)
{
    size_t nbytes;
    return name != NULL && scene_exists(name) ? (char *)test_read(test_path(name), &nbytes) : strdup("");
}

/*
 * A reply comes token by token: a run that fails has printed a part of it.  A file is there if what failed is
 * the folder's fsync.
 */
static void check_sampled(const struct sampled *s, const struct ran *ran, int at, const char *whole,
                          const char *whole_file, const char *words)
{
    char *file = read_if_there(s->out);
    bool is_said = ran->exit_status == 4, is_right = is_said || ran->exit_status == 0;
    if (is_said) {
        assert_said_last(ran, words);
        is_right = (file[0] == '\0' || strcmp(file, whole_file) == 0) &&
                   (s->has_measurements || strncmp(ran->out, whole, strlen(ran->out)) == 0);
    } else if (is_right && !s->has_measurements) {
        is_right = strcmp(ran->out, whole) == 0 && strcmp(file, whole_file) == 0;
    }
    if (!is_right)
        fail_msg("%s: call %d: exit status %d: %s\n%s", s->command, at, ran->exit_status, ran->err, ran->out);
    free(file);
}

static void starve_sampled(const struct sampled *s, const char *how, const char *words)
{
    char command[300], tell[160];
    const struct scene scene = {.command = command};
    snprintf(command, sizeof command, s->command, limit_mib); /* NOLINT: a format of ours */
    snprintf(tell, sizeof tell, "%s CRASH_TELL=calls.txt", how);
    long n = scene_count_calls(&scene, tell), n_failed = 0, n_tried = n < N_SAMPLES ? n : N_SAMPLES;
    char *whole = strdup(run_well("%s", command)), *whole_file = read_if_there(s->out);
    for (long i = 0; i < n_tried; i++) {
        int at = (int)(1 + (n - 1) * i / (n_tried - 1));
        if (s->out != NULL)
            test_remove(test_path(s->out));
        const struct ran *ran = scene_run(&scene, how, at);
        check_sampled(s, ran, at, whole, whole_file, words);
        n_failed += ran->exit_status == 4;
    }
    if (n_tried < 8 || n_failed < n_tried / 4)
        fail_msg("%s: %ld calls, of %ld tried %ld failed", s->command, n, n_tried, n_failed);
    free(whole);
    free(whole_file);
}

static void begin_sampled(void)
{
    run_well("compress " REFERENCE " model --force");
    const char *words = strstr(run("run model -p x -n 3 -t 1 -c 16 --memory 3MiB")->err, "at least ");
    assert_true(words != NULL && sscanf(words, "at least %u MiB", &limit_mib) == 1);
    limit_mib += 2;
}

static void models_whose_reads_fail_are_told(void **state)
{
    (void)state;
    char how[64];
    begin_sampled();
    snprintf(how, sizeof how, "CRASH_NO_URING=1 CRASH_CALLS=reads CRASH_ERRNO=%d", EIO);
    for (size_t i = 0; i < sizeof sampled / sizeof *sampled; i++)
        starve_sampled(&sampled[i], how, "Input/output error");
}

static void models_without_memory_are_told(void **state)
{
    (void)state;
#ifdef MB_CRASH_MEMORY
    char how[64];
    begin_sampled();
    snprintf(how, sizeof how, "CRASH_CALLS=memory CRASH_ERRNO=%d", ENOMEM);
    for (size_t i = 0; i < sizeof sampled / sizeof *sampled; i++)
        starve_sampled(&sampled[i], how, "memory");
#else
    skip(); /* as above */
#endif
}

/* Its experts are there when it opens the model, and cannot be read when it measures the disk. */
static void a_disk_that_fails_while_it_is_measured_is_named(void **state)
{
    (void)state;
    enum { N_EXPERTS = 128 };
    char how[100];
    const struct scene dry = {.command = "doctor model --dry-run"}, whole = {.command = "doctor model -t 1"};
    begin_sampled();
    long n = scene_count_calls(&dry, "CRASH_CALLS=reads CRASH_TELL=calls.txt");
    snprintf(how, sizeof how, "CRASH_CALLS=reads CRASH_LASTS=1 CRASH_ERRNO=%d", EIO);
    const struct ran *ran = scene_run(&whole, how, (int)n + N_EXPERTS + 20);
    assert_fails(ran, 4, ".safetensors: read: Input/output error");
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
    static const char reference[] = REFERENCE;
    static const char *const trace[] = {"moebius", "trace", reference, "-p", "x",       "-n",
                                        "2",       "-t",    "1",       "-o", "two.csv", NULL},
                             *const plan[] = {"moebius", "plan", "plain",    "--target-bpw",
                                              "4",       "-o",   "two.json", NULL};
    for (int at = 2; at <= 4; at++)
        assert_second_waits(trace, at, "trace " REFERENCE " -p yes -n 9 -t 1 -o two.csv", "two.csv",
                            "two.csv.tmp: another process is writing there");
    for (int at = 3; at <= 9; at += 3)
        assert_second_waits(plan, at, "plan plain --target-bpw 8 -o two.json", "two.json",
                            "two.json.partial: another process is writing there");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unwritable_folder_is_named),
        cmocka_unit_test(a_failing_read_is_named),
        cmocka_unit_test(a_trace_that_cannot_be_read_is_named),
        cmocka_unit_test(verify_is_interrupted),
        cmocka_unit_test(a_failing_allocation_is_told),
        cmocka_unit_test(the_second_is_refused),
        cmocka_unit_test(the_second_writer_of_a_file_is_refused),
        cmocka_unit_test(models_whose_reads_fail_are_told),
        cmocka_unit_test(models_without_memory_are_told),
        cmocka_unit_test(a_disk_that_fails_while_it_is_measured_is_named),
    };
#ifdef MB_EMULATED
    puts("skipped: LD_PRELOAD reaches the emulator, not the program");
    return 77;
#endif
    return cmocka_run_group_tests(tests, scene_begin_group, test_folder_end);
}
