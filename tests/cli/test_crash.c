/*
 * test_crash.c - compress and decompress killed before every single call that
 * changes files, and the same with a call that fails, or an interrupt: OUT is
 * never there unless it is whole, and the same command then gives the same
 * bytes.  So do the verbs that write one file.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "scene.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>

static const char INTERRUPTED[] = "moebius: interrupted; the same command resumes\n";

enum { KILLED = 128 + SIGKILL }; /* as the shell says it */

static void compress_is_killed(void **state)
{
    (void)state;
    assert_survives(&scene_fresh, "", KILLED, NULL);
}

static void a_replacement_is_killed(void **state)
{
    (void)state;
    assert_survives(&scene_replaced, "", KILLED, NULL);
}

static void decompress_is_killed(void **state)
{
    (void)state;
    assert_survives(&scene_plain, "", KILLED, NULL);
}

static void compress_to_an_empty_folder_is_killed(void **state)
{
    (void)state;
    assert_survives(&scene_inside, "", KILLED, NULL);
}

static void compress_fails_to_write(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_ERRNO=%d", EIO);
    assert_survives(&scene_fresh, how, 4, "out");
    assert_survives(&scene_replaced, how, 4, "out");
    assert_survives(&scene_inside, how, 4, "out");
}

static void the_disk_is_full(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_LASTS=1 CRASH_ERRNO=%d", ENOSPC);
    assert_survives(&scene_fresh, how, 4, "out");
    assert_survives(&scene_plain, how, 4, "out");
}

/* ---------------------------------------------------------------- files */

#define REFERENCE MB_REPO "/models/reference"
#define TASK "--task " REFERENCE "/eval.jsonl --limit 1 -n 3 -t 1 "

static const struct file_scene files[] = {
    {"plan plain --target-bpw 4 -t 1 -o plan.json", "plan.json", NULL},
    {"trace " REFERENCE " -p x -n 2 -t 1 -o trace.csv", "trace.csv", NULL},
    {"simulate --random 'experts=4 used=1 layers=2 tokens=20 seed=1' "
     "--expert-bytes 1MB --chart c.svg",
     "c.svg", NULL},
    {"eval " REFERENCE " " TASK "--profile-out profile.json", "profile.json", NULL},
    {"eval " REFERENCE " " TASK "--replies replies.jsonl", "replies.jsonl", NULL},
    {"run " REFERENCE " -p x -n 2 -t 1 --timeline time.json", "time.json", "\n]}\n"},
};
enum { N_FILES = sizeof files / sizeof files[0] };

static void a_file_that_is_written_is_killed(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FILES; i++)
        assert_file_survives(&files[i], "", KILLED, NULL);
}

static void a_file_cannot_be_written(void **state)
{
    (void)state;
    char how[64];
    for (size_t i = 0; i < N_FILES; i++) {
        snprintf(how, sizeof how, "CRASH_ERRNO=%d", EIO);
        assert_file_survives(&files[i], how, 4, "Input/output error");
        snprintf(how, sizeof how, "CRASH_LASTS=1 CRASH_ERRNO=%d", ENOSPC);
        assert_file_survives(&files[i], how, 4, "No space left");
    }
}

/* No file may have more than 512 or 1024 bytes: what stdio writes fails in the
 * middle. */
static void a_file_that_has_no_room_is_named_and_gone(void **state)
{
    (void)state;
    static const char *const commands[] = {"run " REFERENCE " -p x -n 2 -t 1 --timeline none.out",
                                           "simulate --random 'experts=4 used=1 layers=2 tokens=20 seed=1' "
                                           "--expert-bytes 1MB --chart none.out",
                                           "trace " REFERENCE " -p x -n 9 -t 1 -o none.out"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const struct ran *ran = run_after("trap '' XFSZ; ulimit -f 1;", "%s", commands[i]);
        assert_int_equal(ran->exit_status, 4);
        assert_said_last(ran, "none.out");
        assert_said_last(ran, "File too large");
        assert_false(scene_exists("none.out") || scene_exists("none.out.tmp"));
    }
}

static void an_interrupt_ends_cleanly(void **state)
{
    (void)state;
    char how[64];
    snprintf(how, sizeof how, "CRASH_SIGNAL=%d", SIGINT);
    assert_survives(&scene_fresh, how, 4, INTERRUPTED);
    assert_survives(&scene_replaced, how, 4, INTERRUPTED);
    assert_survives(&scene_plain, how, 4, INTERRUPTED);
    snprintf(how, sizeof how, "CRASH_SIGNAL=%d", SIGTERM);
    assert_survives(&scene_fresh, how, 4, INTERRUPTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compress_to_an_empty_folder_is_killed),
        cmocka_unit_test(compress_is_killed),
        cmocka_unit_test(a_replacement_is_killed),
        cmocka_unit_test(decompress_is_killed),
        cmocka_unit_test(compress_fails_to_write),
        cmocka_unit_test(the_disk_is_full),
        cmocka_unit_test(an_interrupt_ends_cleanly),
        cmocka_unit_test(a_file_that_is_written_is_killed),
        cmocka_unit_test(a_file_cannot_be_written),
        cmocka_unit_test(a_file_that_has_no_room_is_named_and_gone),
    };
#ifdef MB_EMULATED
    puts("skipped: LD_PRELOAD reaches the emulator, not the program");
    return 77;
#endif
    return cmocka_run_group_tests(tests, scene_begin_group, test_folder_end);
}
