/*
 * test_streaming.c - "--memory" as a user gives it: the same text, a limit that is kept, and words about
 * both.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN "run coded -p 'Ali has 92 pears.' -n 20 -t 2"

static int begin(void **state)
{
    if (test_folder_begin(state) != 0)
        return -1;
    return run("compress " MB_REPO "/models/reference coded")->exit_status == 0 ? 0 : -1;
}

/* A sanitizer's own memory differs from run to run, and the lowest limit with it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1, N_TRIES = 6 };
#else
enum { IS_SANITIZED = 0, N_TRIES = 1 };
#endif

/* The lowest limit that works, as the refusal of a lower one says it, in MiB: the largest of a few tries. */
static unsigned lowest_mib(const char *command)
{
    unsigned largest = 0;
    for (int i = 0; i < N_TRIES; i++) {
        unsigned n_mib = 0;
        const struct ran *ran = run("%s --memory 3MiB", command);
        assert_fails(ran, 4, "are too little");
        const char *words = strstr(ran->err, "at least ");
        if (words == NULL || sscanf(words, "at least %u MiB", &n_mib) != 1)
            fail_msg("no limit that works: %s", ran->err);
        largest = n_mib > largest ? n_mib : largest;
    }
    return largest;
}

static void a_limit_is_kept_and_changes_no_text(void **state)
{
    (void)state;
    char text[4096];
    unsigned n_mib = lowest_mib(RUN) + 2;
    snprintf(text, sizeof text, "%s", run_well(RUN));
    const struct ran *ran = run(RUN " --memory %uMiB", n_mib);
    assert_int_equal(ran->exit_status, 0);
    assert_string_equal(ran->out, text);
    assert_non_null(strstr(ran->err, "moebius: mode: streaming, "));
    assert_non_null(strstr(ran->err, "\nstreaming:  prompt: hits "));
    json_t *json = run_json(RUN " --memory %uMiB -o json", n_mib);
    json_int_t peak = json_integer_value(json_object_get(json_object_get(json, "memory"), "peak_nbytes"));
    json_int_t held =
        json_integer_value(json_object_get(json_object_get(json, "streaming"), "n_experts_held"));
    assert_true(held >= 3 && held < 128);
    if (!IS_SANITIZED && peak > ((json_int_t)n_mib + 64) << 20)
        fail_msg("a peak of %lld bytes with a limit of %u MiB", (long long)peak, n_mib);
    json_decref(json);
}

static void a_model_that_fits_is_loaded_as_without_a_limit(void **state)
{
    (void)state;
    char text[4096];
    snprintf(text, sizeof text, "%s", run_well(RUN));
    const struct ran *ran = run(RUN " --memory 2G");
    assert_string_equal(ran->out, text);
    assert_non_null(strstr(ran->err, "moebius: mode: in memory, "));
    assert_null(strstr(ran->err, "\nstreaming:"));
    assert_null(strstr(run(RUN)->err, "mode:"));
}

/* From now on the kernel makes rings and takes no reads. */
static bool make_rings_refuse(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_enter, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EBUSY),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

enum { NO_FILTER = 98 };

static int run_without_reads(unsigned limit_mib)
{
    char limit[32];
    snprintf(limit, sizeof limit, "%uMiB", limit_mib);
    const char *const argv[] = {"moebius", "run", "coded", "-p", "Ali has 92 pears.", "-n",  "20",
                                "-t",      "2",   "-c",    "64", "--memory",          limit, NULL};
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!make_rings_refuse())
            _exit(NO_FILTER);
        if (chdir(test_path(".")) != 0 || freopen("stdout.txt", "w", stdout) == NULL ||
            freopen("stderr.txt", "w", stderr) == NULL)
            _exit(99);
        execv(MB_PROGRAM, (char *const *)argv);
        _exit(99);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_kernel_that_takes_no_reads_is_reported_once_and_changes_no_text(void **state)
{
    (void)state;
    static const char words[] = "io_uring was given up";
    size_t nbytes;
    char expected[4096];
    snprintf(expected, sizeof expected, "%s", run_well(RUN " -c 64"));
    int exit_status = run_without_reads(lowest_mib(RUN " -c 64") + 2);
    char *text = (char *)test_read(test_path("stdout.txt"), &nbytes);
    char *errors = (char *)test_read(test_path("stderr.txt"), &nbytes);
    bool is_left_out = exit_status == NO_FILTER || strstr(errors, "experts are read by threads") != NULL;
    if (!is_left_out) {
        if (exit_status != 0)
            fail_msg("status %d: %s", exit_status, errors);
        assert_string_equal(text, expected);
        const char *first = strstr(errors, words);
        assert_non_null(first);
        assert_null(strstr(first + 1, words));
    }
    free(text);
    free(errors);
    if (is_left_out)
        skip(); /* an emulator, or a container that forbids io_uring */
}

static void sizes_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const sizes[] = {"", "x", "0", "-1G", "5 apples", "1e3G", "99999999999T", "nan"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct ran *ran = run(RUN " --memory '%s'", sizes[i]);
        if (ran->exit_status != 2)
            fail_msg("--memory '%s': status %d: %s", sizes[i], ran->exit_status, ran->err);
    }
}

static void bench_and_eval_take_a_limit_too(void **state)
{
    (void)state;
    static const char bench[] = "bench coded -p 0 -n 8 -r 1 -t 1";
    json_t *rows = run_json("%s --memory %uMiB -o json", bench, lowest_mib(bench) + 2);
    const json_t *row = json_array_get(rows, 0);
    assert_true(json_integer_value(json_object_get(row, "experts_missed")) > 0);
    assert_true(json_integer_value(json_object_get(row, "read_nbytes")) > 0);
    json_decref(rows);
    assert_int_equal(run("bench coded --memory nothing")->exit_status, 2);
    assert_fails(run("bench coded --link 3GB,soon"), 2, "--link '3GB,soon'");
    assert_non_null(
        strstr(run("bench coded -p 0 -n 1 -r 1 --link 3GB,80us,8")->err, "no expert is streamed"));
    assert_fails(run("bench coded -p 0 -n 1 -r 1 --expert-policy fifo"), 2, "--expert-policy 'fifo'");
    assert_fails(run("bench coded -p 0 -n 1 -r 1 --expert-policy belady"), 2, "no policy of a store");
    assert_fails(run("bench coded -p 0 -n 1 -r 1 --right-guesses 0.5"), 2, "--routing");
    assert_int_equal(run("eval coded --tokens x --logits y --memory nothing")->exit_status, 2);
}

static json_int_t missed_with(const char *options)
{
#define ROUTED "bench coded -p 0 -n 40 -r 1 -t 1 --no-warmup --no-lookahead"
    json_t *rows = run_json(ROUTED " --memory %uMiB -o json %s", lowest_mib(ROUTED) + 4, options);
    json_int_t n = json_integer_value(json_object_get(json_array_get(rows, 0), "experts_missed"));
    json_decref(rows);
    return n;
}

static void bench_takes_a_routing_by_its_statistics_or_from_a_file(void **state)
{
    (void)state;
    json_int_t n_even = missed_with("--routing 'seed=2'");
    assert_true(IS_SANITIZED || missed_with("--routing 'top8=90% overlap=60% seed=2'") < n_even);
    const struct ran *ran = run("bench coded -p 0 -n 2 -r 1 -t 1 --routing 'top8=80%%'");
    assert_int_equal(ran->exit_status, 0);
    assert_non_null(strstr(ran->err, "results are no model's: the 8 most used experts of a layer have "));
    run_well("trace coded -p 'Ali has 92 pears.' -n 4 -o own.csv");
    assert_int_equal(run("bench coded -p 0 -n 2 -r 1 -t 1 --routing own.csv")->exit_status, 0);
    test_write_text(test_path("."), "other.csv",
                    "# moebius_trace 1 n_experts 16 n_experts_used 3 layers 1 2\n"
                    "sequence,token,kind,layer,experts,gates\n"
                    "0,0,prompt,1,15 13 12,0.57 0.41 0.51\n");
    static const struct {
        const char *routing;
        int exit_status;
        const char *words;
    } bad[] = {{"'layers=8'", 2, "are the model's"},
               {"'top9=3'", 2, "top9=3"},
               {"nowhere.csv", 3, "nowhere.csv"},
               {"other.csv", 2, "other.csv: 2 layers"},
               {"'top8=44.5% overlap=0.1%'", 2, "no routing of 3 of 16"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[200];
        snprintf(line, sizeof line, "bench coded -p 0 -n 2 -r 1 -t 1 --routing %s", bad[i].routing);
        ran = run("%s", line);
        if (ran->exit_status != bad[i].exit_status || strstr(ran->err, bad[i].words) == NULL)
            fail_msg("%s: status %d: %s", bad[i].routing, ran->exit_status, ran->err);
    }
}

/* ---------------------------------------------------------------- the timeline */

static double number_of(const json_t *event, const char *key)
{
    return json_number_value(json_object_get(event, key));
}

static bool has_category(const json_t *event, const char *category)
{
    const char *text = json_string_value(json_object_get(event, "cat"));
    return text != NULL && strcmp(text, category) == 0;
}

/* Events come by their beginnings: each lies inside the last one of its track that has not ended, or after
 * it. */
static void assert_nest(const json_t *events)
{
    enum { N_TRACKS = 4000, DEPTH = 8 };
    static double ends[N_TRACKS][DEPTH];
    static size_t depths[N_TRACKS];
    double last = 0;
    memset(depths, 0, sizeof depths);
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);
        if (strcmp(json_string_value(json_object_get(event, "ph")), "X") != 0)
            continue;
        size_t track = (size_t)number_of(event, "tid");
        double begun = number_of(event, "ts"), ended = begun + number_of(event, "dur");
        assert_true(track < N_TRACKS && begun >= last && ended >= begun);
        last = begun;
        double *end = ends[track];
        size_t *n = &depths[track];
        while (*n > 0 && end[*n - 1] <= begun + 0.0005)
            --*n;
        if (*n == DEPTH || (*n > 0 && ended > end[*n - 1] + 0.0005))
            fail_msg("event %zu does not lie inside the one before", i);
        end[(*n)++] = ended;
    }
}

static void a_timeline_is_a_trace_whose_reads_are_those_that_are_counted(void **state)
{
    (void)state;
    static const char bench[] = "bench coded -p 0 -n 8 -r 1 -t 2 --no-warmup --no-lookahead";
    static const char *const categories[] = {"pass",   "embedding", "attention", "router", "experts", "dense",
                                             "logits", "wait",      "product",   "read",   "check"};
    json_t *rows = run_json("%s --memory %uMiB --timeline time.json -o json", bench, lowest_mib(bench) + 2);
    json_int_t n_bytes = json_integer_value(json_object_get(json_array_get(rows, 0), "read_nbytes"));
    json_error_t error;
    json_t *json = json_load_file(test_path("time.json"), 0, &error);
    if (json == NULL)
        fail_msg("line %d: %s", error.line, error.text);
    const json_t *events = json_object_get(json, "traceEvents");
    assert_nest(events);
    for (size_t k = 0; k < sizeof categories / sizeof *categories; k++) {
        size_t n = 0;
        for (size_t i = 0; i < json_array_size(events); i++)
            n += has_category(json_array_get(events, i), categories[k]);
        if (n == 0 || (k == 0 && n != 8))
            fail_msg("%zu events of the kind %s", n, categories[k]);
    }
    for (size_t i = 0; i < json_array_size(events); i++)
        if (has_category(json_array_get(events, i), "read"))
            n_bytes -= (json_int_t)number_of(json_object_get(json_array_get(events, i), "args"), "nbytes");
    assert_int_equal(n_bytes, 0);
    json_decref(json);
    json_decref(rows);
}

static void a_timeline_changes_no_text_and_is_there_after_chat_too(void **state)
{
    (void)state;
    char text[4096];
    snprintf(text, sizeof text, "%s", run_well(RUN));
    assert_string_equal(run_well(RUN " --timeline run.json"), text);
    run_after("echo Hello |", "chat coded -n 3 --timeline chat.json");
    run_well("eval coded --task " MB_REPO "/models/reference/eval.jsonl --limit 1 --timeline eval.json");
    static const char *const files[] = {"run.json", "chat.json", "eval.json"};
    for (size_t i = 0; i < 3; i++) {
        json_t *json = json_load_file(test_path(files[i]), 0, NULL);
        assert_true(json_array_size(json_object_get(json, "traceEvents")) > 100);
        json_decref(json);
    }
    assert_int_equal(run(RUN " --timeline no/such/folder/t.json")->exit_status, 3);
    assert_int_equal(run("run none -p x --timeline none.json")->exit_status, 3);
    assert_null(json_load_file(test_path("none.json"), 0, NULL));
}

/* Waits until the program has said in which mode it runs, and a little more. */
static void wait_for_mode(void)
{
    bool has_said = false;
    for (int i = 0; i < 3000 && !has_said; i++) {
        size_t nbytes;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        char *text = (char *)test_read(test_path("stderr.txt"), &nbytes);
        has_said = text != NULL && strstr(text, "mode: streaming") != NULL;
        free(text);
    }
    assert_true(has_said);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
}

/* Over a link on which the run would take minutes. */
static void an_interrupted_run_leaves_its_timeline(void **state)
{
    (void)state;
    static const char bench[] = "bench coded -p 0 -n 230 -r 1 -t 2 --no-warmup";
    char limit[32];
    snprintf(limit, sizeof limit, "%uMiB", lowest_mib(bench) + 1);
    const char *const argv[] = {"moebius", "bench",       "coded",    "-p",          "0",
                                "-n",      "230",         "-r",       "1",           "-t",
                                "2",       "--no-warmup", "--link",   "300kB,1ms,1", "--memory",
                                limit,     "--timeline",  "cut.json", NULL};
    test_write_text(test_path("."), "stderr.txt", "");
    pid_t child = start(argv);
    wait_for_mode();
    assert_int_equal(kill(child, SIGINT), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 4);
    json_t *json = json_load_file(test_path("cut.json"), 0, NULL);
    assert_non_null(json);
    const json_t *events = json_object_get(json, "traceEvents");
    size_t n_reads = 0;
    for (size_t i = 0; i < json_array_size(events); i++)
        n_reads += has_category(json_array_get(events, i), "read");
    assert_true(n_reads > 0);
    json_decref(json);
}

#define WITH_PROFILE " --expert-profile profile.json" /* which takes memory while it is read */

static json_int_t missed(const char *options)
{
#define BENCH "bench coded -p 0 -n 2 -r 1 -t 1 --no-warmup --no-lookahead"
    /* Room for more than half of the experts: what a process uses besides, and room with it, differs from run
     * to run by half a MiB. */
    json_t *rows = run_json(BENCH " --memory %uMiB -o json %s", lowest_mib(BENCH WITH_PROFILE) + 4, options);
    json_int_t n = json_integer_value(json_object_get(json_array_get(rows, 0), "experts_missed"));
    json_decref(rows);
    return n;
}

static void a_profile_fills_memory_and_changes_no_text(void **state)
{
    (void)state;
    char text[4096];
    run_well("eval " MB_REPO "/models/reference --task " MB_REPO
             "/models/reference/eval.jsonl --limit 4 --profile-out profile.json");
    snprintf(text, sizeof text, "%s", run_well(RUN));
    assert_string_equal(run_well(RUN WITH_PROFILE " --memory %uMiB", lowest_mib(RUN WITH_PROFILE) + 2), text);
    /* What is read for it before the prompt is not the prompt's, of which each token uses 24 of 45 kB. */
    const struct ran *ran = run("run coded -p x -n 1 -t 1 --memory %uMiB" WITH_PROFILE,
                                lowest_mib("run coded -p x -n 1 -t 1" WITH_PROFILE) + 4);
    double hits, read = 0;
    char unit = '\0';
    const char *at = strstr(ran->err, "prompt: hits ");
    assert_true(at != NULL && sscanf(at, "prompt: hits %lf %%, %lf %c", &hits, &read, &unit) == 3);
    assert_true(unit == 'k' || read < 1.2);
    json_int_t n_with = missed(WITH_PROFILE), n_without = missed("");
    assert_true(IS_SANITIZED || n_with < n_without);
    test_write_text(test_path("."), "bad.json", "{}");
    assert_fails(run(RUN " --expert-profile bad.json"), 3, "bad.json");
    assert_fails(run("bench coded --expert-profile nowhere.json"), 3, "nowhere.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_limit_is_kept_and_changes_no_text),
        cmocka_unit_test(a_model_that_fits_is_loaded_as_without_a_limit),
        cmocka_unit_test(a_kernel_that_takes_no_reads_is_reported_once_and_changes_no_text),
        cmocka_unit_test(sizes_that_are_none_are_refused),
        cmocka_unit_test(a_profile_fills_memory_and_changes_no_text),
        cmocka_unit_test(bench_and_eval_take_a_limit_too),
        cmocka_unit_test(bench_takes_a_routing_by_its_statistics_or_from_a_file),
        cmocka_unit_test(a_timeline_is_a_trace_whose_reads_are_those_that_are_counted),
        cmocka_unit_test(a_timeline_changes_no_text_and_is_there_after_chat_too),
        cmocka_unit_test(an_interrupted_run_leaves_its_timeline),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
