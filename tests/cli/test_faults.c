/*
 * test_faults.c - a streamed model while things go wrong: interrupts, a disk that is slow, no io_uring, files
 * that change, and control groups that leave little memory.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include "slowed.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROMPT "Ali has 92 pears."
#define MODE "mode: streaming"

static bool has_slowed; /* reads of the program can be slowed */

static int begin(void **state)
{
    if (test_folder_begin(state) != 0)
        return -1;
    has_slowed = slowed_works();
    test_write_text(test_path("."), "typed.txt", PROMPT "\n");
    return run("compress " MB_REPO "/models/reference coded")->exit_status == 0 ? 0 : -1;
}

/* A limit that leaves room for few experts, as the refusal of a lower one says it. */
static const char *low_limit(const char *command)
{
    static char text[32];
    unsigned n_mib = 0;
    const struct ran *ran = run("%s --memory 3MiB <typed.txt", command);
    const char *words = strstr(ran->err, "at least ");
    if (words == NULL || sscanf(words, "at least %u MiB", &n_mib) != 1)
        fail_msg("no limit that works: %s", ran->err);
    snprintf(text, sizeof text, "%uMiB", n_mib + 2);
    return text;
}

static char *read_text(const char *name)
{
    size_t nbytes;
    return (char *)test_read(test_path(name), &nbytes);
}

static void assert_said(const char *name, const char *words)
{
    char *text = read_text(name);
    if (strstr(text, words) == NULL)
        fail_msg("not '%s' in %s: %s", words, name, text);
    free(text);
}

/* ---------------------------------------------------------------- slow reads, and no io_uring */

static void a_slow_disk_without_io_uring_changes_no_text(void **state)
{
    (void)state;
    static const char *const command = "run coded -p '" PROMPT "' -n 3 -t 2";
    const char *argv[] = {"moebius", "run", "coded", "-p",       PROMPT, "-n",
                          "3",       "-t",  "2",     "--memory", NULL,   NULL};
    if (!has_slowed)
        skip(); /* no filters of system calls here */
    char *expected = strdup(run_well("%s", command));
    argv[10] = low_limit(command);
    struct slowed_end end = slowed_run(argv, &(struct slowed){.delay_us = 2000});
    assert_int_equal(end.exit_status, 0);
    char *text = read_text("stdout.txt");
    assert_string_equal(text, expected);
    assert_said("stderr.txt", "experts are read by threads: io_uring is forbidden here");
    free(text);
    free(expected);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const double SECONDS_MAX = 4;
#else
static const double SECONDS_MAX = 0.7;
#endif

static void interrupt(int pid)
{
    kill(pid, SIGINT);
}

/* A read takes 10 ms, one after another: a token a tenth of a second, a prompt more than one. */
static void assert_interrupted(const char *const *words, unsigned n_reads, int exit_status, const char *said)
{
    const char *argv[24] = {"moebius"};
    char command[512] = "";
    size_t n = 1;
    for (; words[n - 1] != NULL; n++) {
        argv[n] = words[n - 1];
        size_t at = strlen(command);
        snprintf(command + at, sizeof command - at, "'%s' ", argv[n]);
    }
    argv[n++] = "--memory";
    argv[n] = low_limit(command);
    struct slowed_end end = slowed_run(
        argv,
        &(struct slowed){
            .input = "typed.txt", .words = MODE, .n_reads = n_reads, .act = interrupt, .delay_us = 10000});
    if (end.exit_status != exit_status || end.seconds == 0 || end.seconds > SECONDS_MAX)
        fail_msg("%s: status %d, %.1f s after the interrupt (0: never sent), %u reads", words[0],
                 end.exit_status, end.seconds, end.n_reads);
    assert_said("stderr.txt", said);
}

static const char task[] = MB_REPO "/models/reference/eval.jsonl";

static void an_interrupt_ends_a_streamed_generation(void **state)
{
    (void)state;
    static const char *const run_words[] = {"run", "coded", "-p", PROMPT, "-n", "100", "-t", "2", NULL},
                             *const chat_words[] = {"chat", "coded", "-t", "2", NULL},
                             *const bench_words[] = {"bench", "coded", "-p", "0", "-n",
                                                     "100",   "-r",    "2",  NULL},
                             *const eval_words[] = {"eval", "coded", "--task", task, "--limit", "20", NULL};
    if (!has_slowed)
        skip();
    assert_interrupted(run_words, 20, 4, "run: interrupted while reading the prompt");
    assert_interrupted(run_words, 160, 4, "; interrupted");
    assert_interrupted(chat_words, 20, 0, ", interrupted]"); /* it goes on, and its input has ended */
    assert_interrupted(chat_words, 160, 0, ", interrupted]");
    assert_interrupted(bench_words, 60, 4, "interrupted");
    assert_interrupted(eval_words, 60, 4, "interrupted");
}

/* To the first quarter of each file: headers stay, and whole pages. */
static void cut_files(int pid)
{
    glob_t files;
    struct stat file;
    (void)pid;
    assert_int_equal(glob(test_path("cut/*.safetensors"), 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        assert_int_equal(stat(files.gl_pathv[i], &file), 0);
        assert_int_equal(truncate(files.gl_pathv[i], file.st_size / 4 / 4096 * 4096), 0);
    }
    globfree(&files);
}

static void a_file_that_is_cut_meanwhile_ends_it_with_its_name(void **state)
{
    (void)state;
    const char *argv[] = {"moebius", "run", "cut", "-p", PROMPT, "-n", "100", "--memory", NULL, NULL};
    if (!has_slowed)
        skip();
    char line[2400];
    snprintf(line, sizeof line, "cp -r '%s' '%s'", test_path("coded"), test_path("cut"));
    assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): our own words */
    argv[8] = low_limit("run cut -p '" PROMPT "' -n 100");
    struct slowed_end end =
        slowed_run(argv, &(struct slowed){.words = MODE, .n_reads = 150, .act = cut_files, .delay_us = 1000});
    assert_int_equal(end.exit_status, 3);
    assert_said("stderr.txt", ".safetensors: tensor model.layers.");
    assert_said("stderr.txt", "truncated");
}

/* ---------------------------------------------------------------- control groups */

enum { MIB = 1 << 20, MARGIN_MIB = 64 };

/* A group of this test's own that limits memory; "": none can be made. */
static char group[256];
static bool is_v2;

static bool write_number(const char *name, uint64_t n)
{
    char path[512], text[32];
    snprintf(path, sizeof path, "%s/%s", group, name);
    int length = snprintf(text, sizeof text, "%llu", (unsigned long long)n), file = open(path, O_WRONLY);
    if (file < 0)
        return false;
    bool is_written = write(file, text, (size_t)length) == length;
    close(file);
    return is_written;
}

static bool limit_group(uint64_t nbytes)
{
    if (is_v2)
        return write_number("memory.max", nbytes) && write_number("memory.swap.max", 0);
    if (!write_number("memory.limit_in_bytes", nbytes))
        return false;
    write_number("memory.swappiness", 0);
    write_number("memory.memsw.limit_in_bytes", nbytes); /* not where swap is not counted */
    return true;
}

/* false: not here, as where tests have no privileges. */
static bool make_group(uint64_t nbytes)
{
    static const char *const roots[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"};
    for (size_t i = 0; i < 2; i++) {
        is_v2 = i == 1;
        snprintf(group, sizeof group, "%s/moebius-test-%d", roots[i], (int)getpid());
        if (mkdir(group, 0755) != 0)
            continue;
        if (limit_group(nbytes))
            return true;
        rmdir(group);
    }
    print_message("no control group can be made here\n");
    return false;
}

static void remove_group(void)
{
    for (int i = 0; i < 100 && rmdir(group) != 0 && errno == EBUSY; i++)
        usleep(20000);
}

/* "echo $$" is the shell that the program is started by. */
static const char *inside_group(void)
{
    static char text[400];
    snprintf(text, sizeof text, "echo $$ >'%s/cgroup.procs';", group);
    return text;
}

static bool has_sanitizer(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

static void a_control_group_of_the_limit_and_64_mib_is_enough(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "run coded -p '" PROMPT "' -n 30 -t 2", "bench coded -p 16 -n 16 -r 1 -t 2",
        "eval coded --task " MB_REPO "/models/reference/eval.jsonl --limit 4 -t 2"};
    if (has_sanitizer())
        skip(); /* it takes memory of its own */
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *limit = low_limit(commands[i]);
        if (!make_group(((uint64_t)atoi(limit) + MARGIN_MIB) * MIB))
            skip();
        const struct ran *ran = run_after(inside_group(), "%s --memory %s", commands[i], limit);
        remove_group();
        if (ran->exit_status != 0 || strstr(ran->err, MODE) == NULL)
            fail_msg("%s --memory %s: status %d: %s", commands[i], limit, ran->exit_status, ran->err);
    }
}

/* Without --memory the group's limit is the limit. */
static void a_control_group_without_a_limit_given_is_kept_too(void **state)
{
    (void)state;
    if (has_sanitizer() || !make_group(UINT64_C(96) * MIB))
        skip();
    const struct ran *ran = run_after(inside_group(), "run coded -p '" PROMPT "' -n 10 -t 2");
    remove_group();
    if (ran->exit_status != 0)
        fail_msg("status %d: %s", ran->exit_status, ran->err);
}

/* As far as the kernel lets a group shrink: what is in use stays. */
static void a_control_group_that_shrinks_meanwhile_changes_no_text(void **state)
{
    (void)state;
    static const char command[] = "run coded -p '" PROMPT "' -n 60 -t 2";
    if (has_sanitizer())
        skip();
    char expected[4096], shrink[900];
    snprintf(expected, sizeof expected, "%s", run_well("%s", command));
    const char *limit = low_limit(command);
    if (!make_group(UINT64_C(1024) * MIB))
        skip();
    snprintf(shrink, sizeof shrink, "%s { sleep 0.15; echo %d >'%s/%s'; } & ", inside_group(),
             (atoi(limit) + MARGIN_MIB) * MIB, group, is_v2 ? "memory.max" : "memory.limit_in_bytes");
    const struct ran *ran = run_after(shrink, "%s --memory %s", command, limit);
    remove_group();
    if (ran->exit_status != 0 || strcmp(ran->out, expected) != 0)
        fail_msg("status %d: %s", ran->exit_status, ran->err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_disk_without_io_uring_changes_no_text),
        cmocka_unit_test(an_interrupt_ends_a_streamed_generation),
        cmocka_unit_test(a_file_that_is_cut_meanwhile_ends_it_with_its_name),
        cmocka_unit_test(a_control_group_of_the_limit_and_64_mib_is_enough),
        cmocka_unit_test(a_control_group_without_a_limit_given_is_kept_too),
        cmocka_unit_test(a_control_group_that_shrinks_meanwhile_changes_no_text),
    };
#ifdef MB_EMULATED
    puts("skipped: filters of system calls and control groups are the emulator's");
    return 77;
#endif
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
