/*
 * scene.c - a command that writes a folder, and what may come of it when one of its calls does not happen.
 */
#include "scene.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct scene scene_fresh = {"compress plain out", "coded", NULL, false},
                   scene_replaced = {"compress plain out --force", "coded", "other", false},
                   scene_plain = {"decompress coded out", "back", NULL, false},
                   scene_inside = {"compress plain out", "coded", "empty", true};

int scene_begin_group(void **state)
{
    struct test_model model = {
        .dtype = MB_BF16, .is_bare = true, .n_hidden = 48, .n_inner = 40, .n_shards = 1};
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    run_well("compress plain coded");
    run_well("compress plain other --bound 10%%");
    run_well("decompress coded back");
    test_make_folder(test_path("empty"));
    return 0;
}

static void copy_folder(const char *from, const char *to)
{
    char line[2400];
    snprintf(line, sizeof line, "cp -r '%s' '%s'", test_path(from), test_path(to));
    assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): our own words */
}

void scene_begin(const struct scene *scene)
{
    test_remove(test_path("out"));
    test_remove(test_path("out.partial"));
    if (scene->before != NULL)
        copy_folder(scene->before, "out");
}

const struct ran *scene_run(const struct scene *scene, const char *how, int at)
{
    char before[1400];
    snprintf(before, sizeof before, "LD_PRELOAD='%s' ASAN_OPTIONS=verify_asan_link_order=0 CRASH_AT=%d %s",
             MB_CRASH_LIBRARY, at, how);
    return run_after(before, "%s", scene->command);
}

long scene_count_calls(const struct scene *scene, const char *how)
{
    size_t nbytes;
    scene_begin(scene);
    assert_int_equal(scene_run(scene, how, 1 << 30)->exit_status, 0);
    char *text = (char *)test_read(test_path("calls.txt"), &nbytes);
    long n = atol(text);
    free(text);
    return n;
}

bool scene_exists(const char *name)
{
    return test_exists(test_path(name));
}

static bool out_is(const char *folder)
{
    return folder == NULL ? !scene_exists("out")
                          : scene_exists("out") && test_equal_folders(test_path("out"), test_path(folder));
}

/* OUT is what it was, or what it is to be. Never anything between that looks like a model. */
static void check_out(const struct scene *scene, long at)
{
    if (scene->is_inside &&
        (!scene_exists("out/config.json") || test_holds_folder(test_path("out"), test_path(scene->whole))))
        return;
    if (!out_is(scene->before) && !out_is(scene->whole))
        fail_msg("%s: stopped at call %ld: OUT is neither", scene->command, at);
}

static void finish(const struct scene *scene, long at)
{
    bool was_there = scene->is_inside ? out_is(scene->whole) : scene->before == NULL && scene_exists("out");
    const struct ran *ran = run("%s", scene->command);
    if (ran->exit_status != 0 && !(was_there && ran->exit_status == 2))
        fail_msg("%s: stopped at call %ld, then: exit status %d: %s", scene->command, at, ran->exit_status,
                 ran->err);
    if (!test_same_folders(test_path("out"), test_path(scene->whole)) ||
        (!was_there && scene_exists("out.partial")))
        fail_msg("%s: stopped at call %ld, and finished wrongly", scene->command, at);
}

void assert_survives(const struct scene *scene, const char *how, int exit_status, const char *words)
{
    char tell[100];
    snprintf(tell, sizeof tell, "%s CRASH_TELL=calls.txt", how);
    long n = scene_count_calls(scene, tell), n_stopped = 0;
    assert_true(n > 20);
    for (int at = 1; at <= n; at++) {
        scene_begin(scene);
        const struct ran *ran = scene_run(scene, how, at);
        if (ran->exit_status != exit_status && ran->exit_status != 0)
            fail_msg("%s: call %d: exit status %d: %s", scene->command, at, ran->exit_status, ran->err);
        n_stopped += ran->exit_status != 0;
        if (ran->exit_status == 4)
            assert_fails(ran, 4, words);
        check_out(scene, at);
        finish(scene, at);
    }
    assert_true(n_stopped > n / 4); /* what comes at the very end need not matter */
}

/* ---------------------------------------------------------------- files */

void assert_said_last(const struct ran *ran, const char *words)
{
    size_t n = strlen(ran->err), at = n > 0 ? n - 1 : 0;
    while (at > 0 && ran->err[at - 1] != '\n')
        at--;
    if (strncmp(ran->err + at, "moebius", 7) != 0 || strstr(ran->err + at, words) == NULL)
        fail_msg("the last line is not about '%s': %s", words, ran->err);
}

static const char old_text[] = "what was there before\n";

/* What OUT is, malloc'ed; NULL: nothing. */
static char *read_out(const struct file_scene *scene)
{
    size_t nbytes;
    return scene_exists(scene->out) ? (char *)test_read(test_path(scene->out), &nbytes) : NULL;
}

static bool is_whole(const struct file_scene *scene, const char *text, const char *whole)
{
    if (scene->end == NULL)
        return strcmp(text, whole) == 0;
    size_t n = strlen(text), n_end = strlen(scene->end);
    return n > n_end && strcmp(text + n - n_end, scene->end) == 0;
}

static void begin_file(const struct file_scene *scene, bool was_there)
{
    char partial[64];
    snprintf(partial, sizeof partial, "%s.tmp", scene->out);
    test_remove(test_path(partial));
    test_remove(test_path(scene->out));
    if (was_there)
        test_write_text(test_path("."), scene->out, old_text);
}

static void check_file(const struct file_scene *scene, const char *whole, bool was_there, bool must_be_whole,
                       int at)
{
    char *text = read_out(scene);
    bool is_right = text == NULL ? !was_there && !must_be_whole
                                 : is_whole(scene, text, whole) ||
                                       (was_there && !must_be_whole && strcmp(text, old_text) == 0);
    if (!is_right)
        fail_msg("%s: call %d: OUT is neither what it was nor whole: %.200s", scene->command, at,
                 text == NULL ? "nothing" : text);
    free(text);
}

static void assert_nothing_beside(const struct file_scene *scene, int at)
{
    char partial[64];
    snprintf(partial, sizeof partial, "%s.tmp", scene->out);
    if (scene_exists(partial))
        fail_msg("%s: call %d: %s is left", scene->command, at, partial);
}

void assert_file_survives(const struct file_scene *scene, const char *how, int exit_status, const char *words)
{
    const struct scene plain = {.command = scene->command};
    char tell[200];
    snprintf(tell, sizeof tell, "%s CRASH_TELL=calls.txt", how);
    begin_file(scene, false);
    long n = scene_count_calls(&plain, tell), n_stopped = 0;
    char *whole = read_out(scene);
    assert_non_null(whole);
    assert_true(n >= 3 && n < 30);
    for (int at = 1; at <= n; at++) {
        bool was_there = at % 2 == 0;
        begin_file(scene, was_there);
        const struct ran *ran = scene_run(&plain, how, at);
        if (ran->exit_status != exit_status && ran->exit_status != 0)
            fail_msg("%s: call %d: exit status %d: %s", scene->command, at, ran->exit_status, ran->err);
        n_stopped += ran->exit_status != 0;
        if (ran->exit_status == 4)
            assert_said_last(ran, words);
        check_file(scene, whole, was_there, ran->exit_status == 0, at);
        if (ran->exit_status <= 4 && strstr(how, "CRASH_LASTS") == NULL) /* else nothing can be removed */
            assert_nothing_beside(scene, at);
        assert_int_equal(run("%s", scene->command)->exit_status, 0);
        check_file(scene, whole, was_there, true, at);
        assert_nothing_beside(scene, at);
    }
    assert_true(n_stopped > 1);
    free(whole);
}
