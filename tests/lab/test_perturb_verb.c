/*
 * test_perturb_verb.c - errors and usage profiles as a user of `moebius eval` and `inspect` meets them.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define REFERENCE MB_REPO "/models/reference"
#define TASK " --task " REFERENCE "/eval.jsonl --limit 4 "
#define GROUPS MB_REPO "/tests/model/data/checkpoints/groups"

static char output[1 << 18];

/* Runs the program inside the folder; returns its exit status. 'output': what it printed, errors included. */
static int run(const char *arguments)
{
    char line[2048];
    snprintf(line, sizeof line, "cd '%s' && '%s' %s 2>&1", test_path("."), MB_PROGRAM, arguments);
    FILE *pipe = popen(line, "r"); /* NOLINT(cert-env33-c): our own words */
    assert_non_null(pipe);
    size_t n = fread(output, 1, sizeof output - 1, pipe);
    output[n] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void must_run(const char *arguments)
{
    if (run(arguments) != 0)
        fail_msg("%s: %s", arguments, output);
}

static void check_refused(const char *arguments, int expected, const char *reason)
{
    int status = run(arguments);
    if (status != expected || strstr(output, reason) == NULL)
        fail_msg("%s: exit status %d, '%s'; not '%s'", arguments, status, output, reason);
}

static json_t *parse(void)
{
    json_error_t why;
    json_t *json = json_loads(output, 0, &why);
    if (json == NULL)
        fail_msg("%s: %s", why.text, output);
    return json;
}

static double number_of(const json_t *json, const char *key)
{
    json_t *value = json_object_get(json, key);
    if (!json_is_number(value))
        fail_msg("'%s' is no number", key);
    return json_number_value(value);
}

/* A profile of a run; the most used expert of each layer by it, with an error; the profile beside experts. */
static void a_profile_is_made_and_chooses_experts(void **state)
{
    (void)state;
    must_run("eval " REFERENCE TASK "--profile-out p.json");
    assert_non_null(strstr(output, "usage of 8 layers"));
    must_run("eval " REFERENCE TASK
             "--profile p.json --perturb 'layers=1-4 experts=top1: normal 80%' --seed 3 -o json");
    json_t *json = parse(), *one = json_array_get(json_object_get(json, "perturbed"), 0);
    assert_int_equal(json_array_size(json_object_get(json, "perturbed")), 1);
    assert_string_equal(json_string_value(json_object_get(json, "activations")), "auto");
    assert_true(number_of(one, "n_matrices") == 12 && number_of(one, "seed") == 3);
    assert_true(number_of(one, "n_weights") == 4 * 3 * 128 * 256);
    assert_true(fabs(number_of(one, "err_rms") - 1) < 0.01 &&
                fabs(number_of(one, "share_beyond") - 0.317) < 0.01);
    json_decref(json);
    must_run("inspect " REFERENCE " --experts --profile p.json -o json");
    json = parse();
    json_t *experts = json_object_get(json, "expert_list");
    double n = 0;
    for (size_t i = 0; i < 16; i++)
        n += number_of(json_array_get(experts, i), "n_tokens");
    assert_true(n > 0 && fmod(n, 3) == 0); /* three experts a token */
    json_decref(json);
    must_run("inspect " REFERENCE " --experts --profile p.json");
    assert_non_null(strstr(output, "mean weight"));
    check_refused("inspect " GROUPS " --experts --profile p.json", 3, "of another model");
    check_refused("inspect " REFERENCE " --profile p.json", 2, "goes with --experts");
}

/* No error is no difference, to the last bit; a large one is seen; both as with a second model. */
static void a_model_is_compared_with_itself_before_the_error(void **state)
{
    (void)state;
    must_run("eval " REFERENCE TASK "--kl-divergence " REFERENCE " --perturb 'experts=all: none' -o json");
    json_t *json = parse();
    assert_true(number_of(json_object_get(json, "kl"), "mean") == 0);
    json_decref(json);
    must_run("eval " REFERENCE TASK "--kl-divergence " REFERENCE
             " --perturb 'layer=7 experts=all: uniform 300%' -o json");
    json = parse();
    double kl = number_of(json_object_get(json, "kl"), "mean");
    assert_true(kl > 1e-4 && json_is_false(json_object_get(json, "floor")));
    json_decref(json);
    must_run("eval " REFERENCE "/. " TASK "--kl-divergence " REFERENCE
             " --perturb 'layer=7 experts=all: uniform 300%' -o json"); /* another spelling: two models */
    json = parse();
    assert_true(number_of(json_object_get(json, "kl"), "mean") == kl);
    json_decref(json);
}

static void what_was_done_is_printed(void **state)
{
    (void)state;
    must_run("eval " REFERENCE TASK "--perturb 'layer=4 experts=0 proj=down: codec 50%' "
             "--perturb 'layer=5 experts=1: drop'");
    assert_non_null(strstr(output, "beyond e, %"));
    assert_non_null(strstr(output, "layer=4 experts=0 proj=down: codec 50%"));
    assert_non_null(strstr(output, "PIA"));
}

static void what_cannot_be_done_is_said(void **state)
{
    (void)state;
    check_refused("eval " REFERENCE TASK "--perturb 'layer=99 experts=0: zero'", 2, "layers are 0 to 8");
    check_refused("eval " REFERENCE TASK "--perturb 'experts=0 zero'", 2, "no colon");
    check_refused("eval " REFERENCE TASK "--perturb 'experts=0: zero' --perturb 'experts=0: drop'", 2,
                  "has an error already");
    check_refused("eval " REFERENCE TASK "--perturb 'experts=top1: zero'", 2, "--profile");
    check_refused("eval " REFERENCE TASK "--perturb 'experts=top1: zero' --profile none.json", 3,
                  "none.json");
    check_refused("eval " REFERENCE TASK "--seed 3", 2, "go with --perturb");
    check_refused("eval " REFERENCE TASK "--kl-divergence " REFERENCE " --profile-out p.json", 2,
                  "does not go with");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_profile_is_made_and_chooses_experts),
        cmocka_unit_test(a_model_is_compared_with_itself_before_the_error),
        cmocka_unit_test(what_was_done_is_printed),
        cmocka_unit_test(what_cannot_be_done_is_said),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
