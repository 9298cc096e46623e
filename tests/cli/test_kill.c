/*
 * test_kill.c - compress and decompress killed or interrupted at many moments: the same command then gives
 * the same bytes as an undisturbed run, and nothing looks finished before.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char REFERENCE[] = MB_REPO "/models/reference";

enum { N_MOMENTS = 12 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Runs to the end; returns the seconds that it took. */
static double run_whole(const char *const *argv)
{
    int status;
    double begun = now();
    pid_t child = start(argv);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    size_t nbytes;
    char *words = (char *)test_read(test_path("stderr.txt"), &nbytes);
    if (WEXITSTATUS(status) != 0)
        fail_msg("%s: exit status %d: %s", argv[1], WEXITSTATUS(status), words);
    free(words);
    return now() - begun;
}

/* Sends a signal after a while; returns the status of waitpid. */
static int run_and_signal(const char *const *argv, double seconds, int number)
{
    int status;
    pid_t child = start(argv);
    usleep((useconds_t)(seconds * 1e6));
    kill(child, number);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static bool was_killed(int status)
{
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Killed once at each moment, and then again and again until a run is quicker than the knife. */
static void kill_often(const char *const *argv, const char *out, const char *whole, double seconds)
{
    size_t n_killed = 0;
    for (int i = 0; i < N_MOMENTS; i++) {
        bool is_killed = was_killed(run_and_signal(argv, seconds * (i + 0.5) / N_MOMENTS, SIGKILL));
        n_killed += is_killed;
        if (is_killed && !test_exists(test_path(out)))
            run_whole(argv);
        assert_true(test_same_folders(test_path(whole), test_path(out)));
        char partial[64];
        snprintf(partial, sizeof partial, "%s.partial", out);
        assert_false(test_exists(test_path(partial)));
        test_remove(test_path(out));
    }
    assert_true(n_killed > N_MOMENTS / 3);
    double wait = seconds / 8;
    while (was_killed(run_and_signal(argv, wait, SIGKILL)) && !test_exists(test_path(out)))
        wait *= 1.1;
    assert_true(test_same_folders(test_path(whole), test_path(out)));
}

static void compress_survives_kills(void **state)
{
    (void)state;
    static const char *const whole[] = {"moebius", "compress", REFERENCE, "whole", "-t", "2", NULL},
                             *const again[] = {"moebius", "compress", REFERENCE, "again", "-t", "2", NULL};
    double seconds = run_whole(whole);
    kill_often(again, "again", "whole", seconds);
}

/*
 * An edited plan over a folder with feedback, which lends its blobs: until the new folder is whole the old
 * one stays, and what comes out is what a fresh run makes, its errors of outputs included.
 */
static void coding_again_survives_kills(void **state)
{
    (void)state;
    static const char *const whole[] = {"moebius", "compress", REFERENCE, "whole", "--moments",
                                        "m",       "--plan",   "b.json",  NULL},
                             *const again[] = {"moebius", "compress", REFERENCE, "again", "--moments", "m",
                                               "--plan",  "b.json",   "--force", "-t",    "2",         NULL};
    long long n_reused = 0, n_resumed = 0;
    size_t n_killed = 0;
    test_write_text(test_path("."), "a.json",
                    "{\"bounds\": [{\"pattern\": \"experts\", \"bound\": \"80%\"}]}");
    test_write_text(test_path("."), "b.json",
                    "{\"bounds\": [{\"pattern\": \"experts[.]([0-9]|shared)\", \"bound\": \"80%\"}, "
                    "{\"tensor\": \"model.layers.4.mlp.experts.3.up_proj.weight\", \"bound\": \"60%\"}]}");
    run_well("compress '%s' old --calibrate default --calibrate-tokens 700 --moments m --plan a.json",
             REFERENCE);
    run_whole(whole);
    run_after("cp -r old again;", "--version");
    double seconds = run_whole(again);
    assert_true(test_same_folders(test_path("whole"), test_path("again")));
    for (int i = 0; i < N_MOMENTS / 2; i++) {
        run_after("rm -r again; cp -r old again;", "--version");
        n_killed += was_killed(run_and_signal(again, 2 * seconds * (i + 0.5) / N_MOMENTS, SIGKILL));
        assert_true(test_same_folders(test_path("old"), test_path("again")) ||
                    test_same_folders(test_path("whole"), test_path("again")));
        json_t *json = run_json("compress '%s' again --moments m --plan b.json --force -o json", REFERENCE);
        n_reused += json_integer_value(json_object_get(json, "n_blobs_reused"));
        n_resumed += json_integer_value(json_object_get(json, "n_shards_resumed"));
        json_decref(json);
        assert_true(test_same_folders(test_path("whole"), test_path("again")));
        assert_false(test_exists(test_path("again.partial")));
    }
    assert_true(n_killed > 1 && n_reused > 0 && n_resumed > 0);
}

static void decompress_survives_kills(void **state)
{
    (void)state;
    static const char *const coded[] = {"moebius", "compress", REFERENCE, "coded", NULL},
                             *const whole[] = {"moebius", "decompress", "coded", "whole", NULL},
                             *const again[] = {"moebius", "decompress", "coded", "again", NULL};
    run_whole(coded);
    double seconds = run_whole(whole);
    kill_often(again, "again", "whole", seconds);
}

/* Work done before the kill is not done again: the resumed run says how many shards it found. */
static void work_before_the_kill_is_kept(void **state)
{
    (void)state;
    static const char *const argv[] = {"moebius", "compress", REFERENCE, "coded", "-t", "1", NULL};
    double seconds = run_whole(argv);
    long long n_resumed = 0;
    for (int percent = 50; percent < 99 && n_resumed == 0; percent += 5) {
        test_remove(test_path("coded"));
        run_and_signal(argv, seconds * percent / 100, SIGKILL);
        if (test_exists(test_path("coded")))
            break;
        json_t *json = run_json("compress '%s' coded -t 1 -o json", REFERENCE);
        n_resumed = json_integer_value(json_object_get(json, "n_shards_resumed"));
        json_decref(json);
    }
    assert_true(n_resumed > 0);
}

static void an_interrupt_ends_cleanly(void **state)
{
    (void)state;
    static const char *const argv[] = {"moebius", "compress", REFERENCE, "coded", "-t", "1", NULL};
    double seconds = run_whole(argv);
    int status = 0;
    for (int percent = 60; percent > 10; percent -= 10) {
        test_remove(test_path("coded"));
        test_remove(test_path("coded.partial"));
        status = run_and_signal(argv, seconds * percent / 100, SIGINT);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 4)
            break;
    }
    size_t nbytes;
    char *words = (char *)test_read(test_path("stderr.txt"), &nbytes);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 4);
    assert_string_equal(words, "moebius: interrupted; the same command resumes\n");
    assert_false(test_exists(test_path("coded")));
    assert_true(test_exists(test_path("coded.partial")));
    free(words);
    run_whole(argv);
    assert_false(test_exists(test_path("coded.partial")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_folder_begin, test_folder_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(compress_survives_kills),   TEST(coding_again_survives_kills),
        TEST(decompress_survives_kills), TEST(work_before_the_kill_is_kept),
        TEST(an_interrupt_ends_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
