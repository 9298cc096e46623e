/*
 * test_eval_verb.c - `moebius eval` as a user calls it: files written whole or not at all, exit statuses,
 * JSON.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "npy.h"
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SMALL MB_REPO "/tests/model/data/checkpoints/groups"
#define GOLDEN MB_REPO "/tests/model/data/goldens/groups"
#define REFERENCE MB_REPO "/models/reference"

/* Runs the program inside the folder; returns its exit status and what it printed, errors included. */
static int run(const char *arguments, char *output, size_t cap)
{
    char line[2048];
    snprintf(line, sizeof line, "cd '%s' && '%s' eval %s 2>&1", test_path("."), MB_PROGRAM, arguments);
    FILE *pipe = popen(line, "r"); /* NOLINT(cert-env33-c): our own words */
    assert_non_null(pipe);
    size_t n = fread(output, 1, cap - 1, pipe);
    output[n] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void logits_are_those_of_the_golden(void **state)
{
    char output[4096], text[4096] = "";
    struct npy tokens = npy_read(GOLDEN "/tokens.npy", "<i4"), truth = npy_read(GOLDEN "/logits.npy", "<f4");
    (void)state;
    for (size_t i = 0; i < tokens.n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d%s", ((int32_t *)tokens.data)[i],
                 i % 5 == 0 ? "\n" : " ");
    test_write_text(test_path("."), "tokens.txt", text);
    if (run("--tokens tokens.txt " SMALL " --logits logits.npy --cache-type f32", output, sizeof output) != 0)
        fail_msg("%s", output);
    struct npy ours = npy_read(test_path("logits.npy"), "<f4");
    assert_int_equal(ours.shape[0], truth.shape[0]);
    assert_int_equal(ours.shape[1], truth.shape[1]);
    float max = 0, diff = 0;
    for (size_t i = 0; i < truth.n; i++) {
        max = fmaxf(max, fabsf(((float *)truth.data)[i]));
        diff = fmaxf(diff, fabsf(((float *)truth.data)[i] - ((float *)ours.data)[i]));
    }
    assert_true(diff / max < 1e-3F);
    assert_false(test_exists(test_path("logits.npy.tmp")));
    free(tokens.data);
    free(truth.data);
    free(ours.data);
}

static void bad_tokens_leave_no_file(void **state)
{
    static const struct {
        const char *text, *message;
        int exit_status;
    } bad[] = {
        {"1 2 x 3", "token 3, 'x', is not a token id", 3},
        {"1 -2", "token 2, '-2'", 3},
        {"99999999999", "token 1", 3},
        {"", "no token ids", 3},
        {"1 2 80", "token 3, 80, is not in the vocabulary of 80", 3},
    };
    char output[4096];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_write_text(test_path("."), "bad.txt", bad[i].text);
        assert_int_equal(run(SMALL " --tokens bad.txt --logits bad.npy", output, sizeof output),
                         bad[i].exit_status);
        if (strstr(output, bad[i].message) == NULL)
            fail_msg("'%s' does not say '%s'", output, bad[i].message);
        assert_false(test_exists(test_path("bad.npy")) || test_exists(test_path("bad.npy.tmp")));
    }
}

/* A device, a pipe or the input itself is not replaced by a file. */
static void what_is_no_file_is_written_to(void **state)
{
    char output[4096];
    struct stat pipe;
    size_t n_file, n_pipe;
    (void)state;
    test_write_text(test_path("."), "few.txt", "1 2 3");
    if (run(SMALL " --tokens few.txt --logits few.npy", output, sizeof output) != 0 ||
        run("--help >/dev/null; mkfifo pipe && { cat pipe >piped.npy & '" MB_PROGRAM "' eval " SMALL
            " --tokens few.txt --logits pipe && wait; }",
            output, sizeof output) != 0)
        fail_msg("%s", output);
    assert_int_equal(stat(test_path("pipe"), &pipe), 0);
    assert_true(S_ISFIFO(pipe.st_mode));
    uint8_t *file = test_read(test_path("few.npy"), &n_file),
            *piped = test_read(test_path("piped.npy"), &n_pipe);
    assert_true(n_file > 500 && n_file == n_pipe && memcmp(file, piped, n_file) == 0);
    free(file);
    free(piped);
    assert_int_equal(symlink("/dev/full", test_path("full")),
                     0); /* a link: the device itself is not at risk */
    assert_int_equal(run(SMALL " --tokens few.txt --logits full", output, sizeof output), 4);
    assert_non_null(strstr(output, "full: write: No space left"));
    assert_int_equal(
        run(REFERENCE " --task " REFERENCE "/eval.jsonl --limit 1 --replies full", output, sizeof output), 4);
    assert_int_equal(run(SMALL " --tokens few.txt --logits few.txt", output, sizeof output), 2);
    assert_non_null(strstr(output, "few.txt: is the input"));
    assert_int_equal(run(SMALL " --tokens few.txt --logits .", output, sizeof output), 3);
    assert_non_null(strstr(output, "directory"));
}

static void wrong_usage_is_told(void **state)
{
    static const char *const wrong[] = {
        "",
        SMALL,
        SMALL " --tokens tokens.txt",
        SMALL " --logits x.npy",
        SMALL " --task a --perplexity b",
        SMALL " --task a --cache-type f64",
        SMALL " --perplexity a --replies b",
        SMALL " --task a -c 64",
        SMALL " --task a --limit 0",
        SMALL " --task a --no-such-option",
        SMALL " --kl-divergence " SMALL,
        SMALL " --kl-divergence " SMALL " --tokens a --logits b",
        SMALL " --kl-divergence " SMALL " --task a --replies b",
        SMALL " --kl-divergence " SMALL " --task a --few-shot 1",
        SMALL " --perplexity a --few-shot 1",
        SMALL " --task a --examples b",
        SMALL " --task a --few-shot 0",
    };
    char output[4096];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (run(wrong[i], output, sizeof output) != 2)
            fail_msg("eval %s: '%s'", wrong[i], output);
}

static void bad_input_is_told(void **state)
{
    char output[4096];
    (void)state;
    test_write_text(test_path("."), "task.jsonl",
                    "{\"question\": \"Q\", \"answer\": \"#### 1\"}\nnonsense\n");
    test_write_text(test_path("."), "short.txt", "too short");
    assert_int_equal(
        run(REFERENCE " --task task.jsonl --strict --replies replies.jsonl", output, sizeof output), 3);
    assert_non_null(strstr(output, "task.jsonl: line 2"));
    assert_false(test_exists(test_path("replies.jsonl")) || test_exists(test_path("replies.jsonl.tmp")));
    assert_int_equal(run(REFERENCE " --task task.jsonl", output, sizeof output), 0);
    assert_non_null(strstr(output, "left out: task.jsonl: line 2"));
    assert_non_null(strstr(output, "1 malformed line left out, 1 question read"));
    assert_int_equal(run(REFERENCE " --task missing.jsonl", output, sizeof output), 3);
    assert_int_equal(run(REFERENCE " --perplexity short.txt", output, sizeof output), 3);
    assert_int_equal(run("missing-model --perplexity short.txt", output, sizeof output), 3);
    test_write(test_path("zero.txt"), "1 2", 4);
    assert_int_equal(run(SMALL " --tokens zero.txt --logits x.npy", output, sizeof output), 3);
    assert_non_null(strstr(output, "zero.txt: not a text of token ids"));
    assert_int_equal(run("--help >help.txt && mkdir bare && ln -s " REFERENCE "/[!Rt]* " REFERENCE
                         "/tokenizer.json bare && '" MB_PROGRAM "' eval bare --task " REFERENCE
                         "/eval.jsonl --limit 1",
                         output, sizeof output),
                     3);
    assert_non_null(strstr(output, "no chat template"));
    assert_int_equal(run(REFERENCE " --task " REFERENCE "/eval.jsonl --limit 1 --replies no/folder/x", output,
                         sizeof output),
                     3);
}

static void task_report_and_replies_agree(void **state)
{
    char output[8192];
    json_error_t why;
    (void)state;
    if (run(REFERENCE " --task " REFERENCE "/eval.jsonl --limit 6 --replies replies.jsonl -o json", output,
            sizeof output) != 0)
        fail_msg("%s", output);
    json_t *report = json_loads(output, 0, &why);
    assert_non_null(report);
    assert_int_equal(json_integer_value(json_object_get(report, "n")), 6);
    assert_false(json_is_true(json_object_get(report, "coded")));
    FILE *file = fopen(test_path("replies.jsonl"), "r");
    assert_non_null(file);
    json_int_t n_lines = 0, n_ica = 0;
    for (json_t *line; (line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL; n_lines++) {
        assert_int_equal(json_integer_value(json_object_get(line, "index")), n_lines);
        assert_true(json_string_length(json_object_get(line, "reply")) > 0);
        n_ica += json_is_true(json_object_get(line, "ica"));
        json_decref(line);
    }
    fclose(file);
    assert_int_equal(n_lines, 6);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(report, "ica"), "n")), n_ica);
    json_decref(report);
}

/* A reply is that of a chat in which the example came before; its prompt is longer by the example. */
static void examples_are_named_and_come_before_each_question(void **state)
{
    char output[8192];
    (void)state;
    assert_int_equal(
        run(REFERENCE " --task " REFERENCE "/eval.jsonl --limit 3 --few-shot 1", output, sizeof output), 0);
    assert_non_null(strstr(output, "1 example before each question, the first of " REFERENCE
                                   "/eval.jsonl, which are not asked"));
    assert_int_equal(run(REFERENCE " --task " REFERENCE
                                   "/eval.jsonl --limit 3 --few-shot 1 --replies few.jsonl "
                                   "-o json",
                         output, sizeof output),
                     0);
    json_t *report = json_loads(strchr(output, '{'), JSON_DISABLE_EOF_CHECK, NULL);
    const json_t *few = json_object_get(report, "few_shot");
    assert_int_equal(json_integer_value(json_object_get(few, "n")), 1);
    assert_int_equal(json_integer_value(json_object_get(few, "n_not_asked")), 1);
    assert_string_equal(json_string_value(json_object_get(few, "examples")), REFERENCE "/eval.jsonl");
    json_int_t n_prompt = json_integer_value(json_object_get(report, "n_prompt_tokens"));
    json_decref(report);
    test_write_text(test_path("."), "one.jsonl",
                    "{\"question\": \"What is 1 + 1?\", \"answer\": 2, \"format\": \"hash\"}\n");
    assert_int_equal(
        run(REFERENCE " --task few.jsonl --few-shot 1 --examples one.jsonl -o json", output, sizeof output),
        0);
    report = json_loads(strchr(output, '{'), JSON_DISABLE_EOF_CHECK, NULL);
    assert_int_equal(json_integer_value(json_object_get(report, "n")), 3);
    json_int_t n_short = json_integer_value(json_object_get(report, "n_prompt_tokens"));
    assert_true(n_short > 0 && n_short < n_prompt); /* the shorter example, in each of three */
    json_decref(report);
}

static void tables_say_what_json_says(void **state)
{
    char output[8192], expected[128];
    (void)state;
    if (run(REFERENCE " --task " REFERENCE "/eval.jsonl --limit 4", output, sizeof output) != 0)
        fail_msg("%s", output);
    assert_non_null(strstr(output, "| ICA (in the asked format) "));
    assert_non_null(strstr(output, "| PIA (in any format) "));
    assert_non_null(strstr(output, "0 replies cut"));
    if (run(REFERENCE " --perplexity " REFERENCE "/README.md -c 64 -o json", output, sizeof output) != 0)
        fail_msg("%s", output);
    json_t *report = json_loads(output, 0, NULL);
    double ppl = json_real_value(json_object_get(report, "ppl")),
           nll = json_real_value(json_object_get(report, "nll_mean"));
    json_int_t n_windows = json_integer_value(json_object_get(report, "n_windows")),
               n_scored = json_integer_value(json_object_get(report, "n_tokens_scored"));
    assert_true(ppl > 1 && fabs(ppl - exp(nll)) < 1e-9 * ppl);
    assert_true(n_windows > 4 && n_scored == 31 * n_windows); /* the second half, less its last token */
    snprintf(expected, sizeof expected, "PPL = %.4f +/- %.4f\n\n%lld tokens scored in %lld windows", ppl,
             json_real_value(json_object_get(report, "ppl_stderr")), (long long)n_scored,
             (long long)n_windows);
    json_decref(report);
    if (run(REFERENCE " --perplexity " REFERENCE "/README.md -c 64", output, sizeof output) != 0 ||
        strstr(output, expected) == NULL)
        fail_msg("%s, not %s", output, expected);
    assert_int_equal(
        run(REFERENCE " --perplexity " REFERENCE "/README.md -c 64 --limit 2 -o json", output, sizeof output),
        0);
    assert_non_null(strstr(output, "\"n_windows\": 2"));
}

static json_t *run_json(const char *arguments)
{
    char output[16384];
    if (run(arguments, output, sizeof output) != 0)
        fail_msg("%s", output);
    json_t *report = json_loads(output, 0, NULL);
    if (report == NULL)
        fail_msg("%s", output);
    return report;
}

#define EVAL REFERENCE " --task " REFERENCE "/eval.jsonl "

static void runs_are_compared_question_by_question(void **state)
{
    char output[8192];
    const char *verdict;
    json_int_t n, n_better, n_worse;
    (void)state;
    json_decref(run_json(EVAL "--limit 40 --replies whole.jsonl -o json"));
    json_t *report = run_json(EVAL "--limit 40 --against whole.jsonl -o json");
    assert_int_equal(json_unpack(report, "{s:{s:I, s:{s:I, s:I, s:s}}}", "against", "n", &n, "ica",
                                 "n_better", &n_better, "n_worse", &n_worse, "verdict", &verdict),
                     0);
    assert_true(n == 40 && n_better == 0 && n_worse == 0);
    assert_string_equal(verdict, "no difference seen (n = 40)");
    json_decref(report);
    report = run_json(EVAL "--limit 30 --predict 8 --against whole.jsonl --replies cut.jsonl -o json");
    assert_int_equal(json_unpack(report, "{s:{s:I, s:{s:I, s:I, s:s}}}", "against", "n", &n, "pia",
                                 "n_better", &n_better, "n_worse", &n_worse, "verdict", &verdict),
                     0);
    assert_true(n == 30 && n_better == 0 && n_worse > 20);
    assert_string_equal(verdict, "worse");
    assert_true(json_integer_value(json_object_get(json_object_get(report, "dead"), "cut")) > 20);
    assert_true(json_number_value(json_object_get(json_object_get(report, "reply_tokens"), "mean")) == 8);
    json_decref(report);
    assert_int_equal(run(EVAL "--limit 40 --against cut.jsonl", output, sizeof output), 0);
    assert_non_null(strstr(output, "| better |"));
    assert_non_null(strstr(output, "Only the first 30 questions are in both runs."));
    assert_int_equal(run(EVAL "--limit 2 --against task.jsonl", output, sizeof output), 3);
    assert_int_equal(run(REFERENCE " --task " MB_REPO "/tests/lab/data/choices.jsonl --against cut.jsonl",
                         output, sizeof output),
                     3);
    assert_non_null(strstr(output, "cut.jsonl: line 1: question 0 is another one"));
}

static void choices_are_reported_and_written(void **state)
{
    char output[8192];
    (void)state;
    json_t *report = run_json(REFERENCE " --task " MB_REPO
                                        "/tests/lab/data/choices.jsonl --replies choices.jsonl -o json");
    assert_int_equal(json_integer_value(json_object_get(report, "n")), 6);
    json_int_t n_acc = json_integer_value(json_object_get(json_object_get(report, "acc"), "n"));
    json_decref(report);
    FILE *file = fopen(test_path("choices.jsonl"), "r");
    assert_non_null(file);
    for (json_t *line; (line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL;) {
        assert_true(json_array_size(json_object_get(line, "log_likelihoods")) >= 2);
        n_acc -= json_is_true(json_object_get(line, "acc"));
        json_decref(line);
    }
    fclose(file);
    assert_int_equal(n_acc, 0);
    assert_int_equal(run(REFERENCE " --task " MB_REPO "/tests/lab/data/choices.jsonl --against choices.jsonl",
                         output, sizeof output),
                     0);
    assert_non_null(strstr(output, "| acc (likeliest choice) "));
    assert_non_null(strstr(output, "no difference seen (n = 6)"));
}

static void long_questions_are_named(void **state)
{
    char text[8192] = "{\"question\": \"Q\", \"answer\": 1}\n{\"question\": \"", output[8192];
    (void)state;
    for (size_t i = 0; i < 300; i++)
        strcat(text, "pears and ");       /* NOLINT(clang-analyzer-security.insecureAPI.strcpy): 3000 bytes */
    strcat(text, "\", \"answer\": 2}\n"); /* NOLINT(clang-analyzer-security.insecureAPI.strcpy) */
    test_write_text(test_path("."), "long.jsonl", text);
    assert_int_equal(run(REFERENCE " --task long.jsonl", output, sizeof output), 0);
    assert_non_null(strstr(output,
                           "1 question does not fit in the model's context of 256 tokens and counts as "
                           "wrong: line 2\n"));
    assert_non_null(strstr(output, "1 no room"));
}

static double mean_of(const json_t *report, const char *name, const char *member)
{
    return json_real_value(json_object_get(json_object_get(report, name), member));
}

static void a_coded_model_is_compared_with_its_original(void **state)
{
    char output[8192];
    (void)state;
    if (run("--help >/dev/null; '" MB_PROGRAM "' compress " REFERENCE " kl-coded --bound 30%", output,
            sizeof output) != 0)
        fail_msg("%s", output);
    static const char text[] = " --perplexity " REFERENCE "/README.md -c 64 --limit 6";
    char line[1024];
    snprintf(line, sizeof line, "kl-coded --kl-divergence " REFERENCE "%s -o json", text);
    json_t *report = run_json(line);
    assert_int_equal(json_integer_value(json_object_get(report, "n_scored")), 6 * 31);
    double kl = mean_of(report, "kl", "mean"), ratio = mean_of(report, "ln_ratio", "mean");
    assert_true(kl > 1e-4 && kl < 1 && mean_of(report, "kl", "low") < kl &&
                mean_of(report, "kl", "high") > kl);
    assert_true(fabs(log(json_real_value(json_object_get(report, "ppl")) /
                         json_real_value(json_object_get(report, "ppl_original"))) -
                     ratio) < 1e-9);
    assert_false(json_is_true(json_object_get(report, "floor")));
    /* The perplexities are those that each model has alone. */
    snprintf(line, sizeof line, REFERENCE "%s -o json", text);
    json_t *alone = run_json(line);
    assert_true(fabs(json_real_value(json_object_get(alone, "ppl")) -
                     json_real_value(json_object_get(report, "ppl_original"))) <
                1e-8 * json_real_value(json_object_get(report, "ppl_original")));
    assert_true(fabs(json_real_value(json_object_get(alone, "ppl_stderr")) -
                     json_real_value(json_object_get(report, "ppl_original_stderr"))) <
                1e-8 * json_real_value(json_object_get(report, "ppl_original")));
    json_decref(alone);
    json_decref(report);
    snprintf(line, sizeof line, "kl-coded --kl-divergence " REFERENCE "%s", text);
    assert_int_equal(run(line, output, sizeof output), 0);
    assert_non_null(strstr(output, "| KLD "));
    assert_non_null(strstr(output, "| same top p, % "));
    assert_non_null(strstr(output, "| 99.9 % "));
    assert_non_null(strstr(output, "186 of 384 tokens scored in 6 windows"));
}

static void the_floor_of_a_model_is_far_below_its_errors(void **state)
{
    (void)state;
    json_t *report = run_json(REFERENCE " --kl-divergence " REFERENCE " --task " REFERENCE
                                        "/eval.jsonl --limit 3 -o json");
    assert_true(json_is_true(json_object_get(report, "floor")));
    assert_int_equal(json_integer_value(json_object_get(report, "n_windows")), 3);
    assert_true(mean_of(report, "kl", "mean") > 0 && mean_of(report, "kl", "mean") < 1e-5);
    json_decref(report);
}

static void models_that_cannot_be_compared_are_refused(void **state)
{
    char output[4096];
    (void)state;
    assert_int_equal(
        run(REFERENCE " --kl-divergence missing --perplexity " REFERENCE "/README.md", output, sizeof output),
        3);
    assert_int_equal(run("--help >/dev/null; mkdir other && ln -s " REFERENCE "/[!Rt]* other && sed "
                         "'s/\"#\": [0-9]*,//; s/\"pre_tokenizer\"/\"none\"/' " REFERENCE
                         "/tokenizer.json >other/tokenizer.json && '" MB_PROGRAM
                         "' eval other --kl-divergence " REFERENCE " --perplexity " REFERENCE
                         "/README.md -c 64",
                         output, sizeof output),
                     3);
    test_write_text(test_path("."), "odd.jsonl",
                    "{\"question\": \"Q\", \"reply\": \"R\"}\n\n{\"question\": 1}\n");
    assert_int_equal(run(REFERENCE " --kl-divergence " REFERENCE " --task odd.jsonl", output, sizeof output),
                     3);
    assert_non_null(strstr(output, "odd.jsonl: line 3: no text 'question'"));
    test_write_text(test_path("."), "none.jsonl", " \n");
    assert_int_equal(run(REFERENCE " --kl-divergence " REFERENCE " --task none.jsonl", output, sizeof output),
                     3);
    assert_non_null(strstr(output, "no replies"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_the_golden),
        cmocka_unit_test(bad_tokens_leave_no_file),
        cmocka_unit_test(what_is_no_file_is_written_to),
        cmocka_unit_test(wrong_usage_is_told),
        cmocka_unit_test(bad_input_is_told),
        cmocka_unit_test(task_report_and_replies_agree),
        cmocka_unit_test(runs_are_compared_question_by_question),
        cmocka_unit_test(choices_are_reported_and_written),
        cmocka_unit_test(long_questions_are_named),
        cmocka_unit_test(examples_are_named_and_come_before_each_question),
        cmocka_unit_test(tables_say_what_json_says),
        cmocka_unit_test(a_coded_model_is_compared_with_its_original),
        cmocka_unit_test(the_floor_of_a_model_is_far_below_its_errors),
        cmocka_unit_test(models_that_cannot_be_compared_are_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
