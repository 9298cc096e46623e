/*
 * test_streaming.c - "--memory" as a user gives it: the same text, a limit that is kept, and words about
 * both.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <stdio.h>
#include <string.h>

#define RUN "run coded -p 'Ali has 92 pears.' -n 20 -t 2"

static int begin(void **state)
{
    if (test_folder_begin(state) != 0)
        return -1;
    return run("compress " MB_REPO "/models/reference coded")->exit_status == 0 ? 0 : -1;
}

/* The lowest limit that works, as the refusal of a lower one says it, in MiB. */
static unsigned lowest_mib(const char *command)
{
    unsigned n_mib = 0;
    const struct ran *ran = run("%s --memory 3MiB", command);
    assert_fails(ran, 4, "are too little");
    const char *words = strstr(ran->err, "at least ");
    if (words == NULL || sscanf(words, "at least %u MiB", &n_mib) != 1)
        fail_msg("no limit that works: %s", ran->err);
    return n_mib;
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
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    peak = 0; /* it is the sanitizer's */
#endif
    if (peak > ((json_int_t)n_mib + 64) << 20)
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
    assert_int_equal(run("eval coded --tokens x --logits y --memory nothing")->exit_status, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_limit_is_kept_and_changes_no_text),
        cmocka_unit_test(a_model_that_fits_is_loaded_as_without_a_limit),
        cmocka_unit_test(sizes_that_are_none_are_refused),
        cmocka_unit_test(bench_and_eval_take_a_limit_too),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
