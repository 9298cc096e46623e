/*
 * test_crash.c - compress and decompress killed before every single call that changes files, and the same
 * with a call that fails, or an interrupt: OUT is never there unless it is whole, and the same command then
 * gives the same bytes.
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
    };
#ifdef MB_EMULATED
    puts("skipped: LD_PRELOAD reaches the emulator, not the program");
    return 77;
#endif
    return cmocka_run_group_tests(tests, scene_begin_group, test_folder_end);
}
