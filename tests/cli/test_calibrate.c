/*
 * test_calibrate.c - compress --calibrate, --moments and --feedback.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <stdlib.h>
#include <string.h>

#define REFERENCE MB_REPO "/models/reference"
#define OTHER MB_REPO "/tests/model/data/checkpoints/groups"
#define CALIBRATE "--calibrate default --calibrate-tokens 700 "

static void a_calibrated_folder_keeps_its_bound(void **state)
{
    (void)state;
    json_t *json = run_json("compress " REFERENCE " one --bound 60%% " CALIBRATE "-o json");
    const json_t *calibration = json_object_get(json, "calibration");
    assert_true(json_integer_value(json_object_get(calibration, "n_tokens")) >= 700);
    assert_true(json_integer_value(json_object_get(calibration, "n_matrices")) > 300);
    assert_int_equal(json_integer_value(json_object_get(calibration, "n_experts")), 128);
    json_decref(json);
    assert_false(test_exists(test_path("one.moments"))); /* nobody asked to keep them */
    assert_false(test_exists(test_path("one.moments.states")));
    run_well("verify one " REFERENCE);
}

/* Several encodings share one run of the model. */
static void moments_are_kept_and_used_again(void **state)
{
    (void)state;
    assert_non_null(strstr(run("compress " REFERENCE " two --bound 60%% " CALIBRATE "--moments kept")->err,
                           "calibrated with"));
    assert_true(test_exists(test_path("kept")));
    assert_true(test_equal_folders(test_path("one"), test_path("two")));
    json_t *json = run_json("verify two " REFERENCE " --moments kept -o json");
    assert_true(json_is_true(json_object_get(json, "ok")));
    assert_true(json_integer_value(json_object_get(json, "n_output_errors")) > 300);
    assert_int_equal(json_integer_value(json_object_get(json, "n_output_errors_broken")), 0);
    assert_int_equal(json_integer_value(json_object_get(json, "n_measured")),
                     json_integer_value(json_object_get(json, "n_output_errors")));
    json_decref(json);
    assert_non_null(strstr(run("verify two")->out, "--moments measures them"));
    assert_non_null(strstr(run("inspect two")->out, "Errors of outputs"));
    run_well("compress " REFERENCE " three --bound 60%% --moments kept -t 1");
    assert_true(test_equal_folders(test_path("one"), test_path("three")));
    assert_true(test_exists(test_path("kept")));
}

/* A short text in a script that the tokenizer spells byte by byte: of use to few experts. */
static void a_text_that_says_little_is_reported(void **state)
{
    (void)state;
    test_write_text(test_path("."), "strange.jsonl",
                    "{\"text\": \"Tom has\"}\n{\"text\": \"\u6c34\u5728\u96f6\u5ea6\u7ed3\u51b0\"}\n");
    const char *said = run("compress " REFERENCE " little --bound 60%% --calibrate strange.jsonl")->err;
    assert_non_null(strstr(said, "most of them on line 2: the tokenizer hardly knows it"));
    assert_non_null(strstr(said, "experts had fewer tokens than columns"));
    assert_non_null(strstr(said, "experts, which are rounded plainly: layer 1 expert "));
    run_well("verify little " REFERENCE);
}

/* Taken from the old folder they are still proved, beside those that are coded again. */
static void reused_blobs_keep_their_errors_of_outputs(void **state)
{
    (void)state;
    json_t *json = run_json("compress " REFERENCE " two --force --bound 60%% --moments kept --tensor-bound "
                            "'layers[.]3[.]mlp[.]experts[.]2[.]=50%%' -o json");
    long long n_reused = json_integer_value(json_object_get(json, "n_blobs_reused"));
    json_decref(json);
    assert_true(n_reused > 100);
    run_well("compress " REFERENCE " fresh --bound 60%% --moments kept --tensor-bound "
             "'layers[.]3[.]mlp[.]experts[.]2[.]=50%%'");
    assert_true(test_equal_folders(test_path("fresh"), test_path("two")));
    json = run_json("verify two " REFERENCE " --moments kept -o json");
    assert_true(json_integer_value(json_object_get(json, "n_output_errors")) > 300);
    assert_int_equal(json_integer_value(json_object_get(json, "n_output_errors_broken")), 0);
    json_decref(json);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    test_write_text(test_path("."), "empty.txt", "\n");
    test_write_text(test_path("."), "short.txt", "three words only");
    test_write_text(test_path("."), "bad.jsonl", "{\"text\": \"fine\"}\n{\"question\": \"why?\"}\n");
    test_write_text(test_path("."), "nonsense", "nonsense");
    assert_fails(run("compress " REFERENCE " out --feedback 1"), 2, "need --calibrate");
    assert_fails(run("compress " REFERENCE " out --calibrate-tokens 9 --moments kept"), 2,
                 "needs --calibrate");
    assert_fails(run("compress " REFERENCE " out --dry-run --calibrate default"), 2, "writes nothing");
    assert_fails(run("compress " REFERENCE " out --calibrate missing.txt"), 3, "missing.txt");
    assert_fails(run("compress " REFERENCE " out --calibrate empty.txt"), 3, "empty");
    assert_fails(run("compress " REFERENCE " out --calibrate short.txt"), 3, "a window needs");
    assert_fails(run("compress " REFERENCE " out --calibrate bad.jsonl"), 3, "line 2");
    assert_fails(run("compress " REFERENCE " out --moments missing"), 3, "--calibrate TEXT makes it");
    assert_fails(run("compress " REFERENCE " out --moments nonsense"), 3, "truncated");
    assert_fails(run("compress " REFERENCE " out --calibrate default --moments kept"), 2, "another text");
    assert_fails(run("compress " OTHER " out --moments kept"), 3, "another model");
    assert_fails(run("verify two --moments kept"), 2, "needs ORIGINAL");
    assert_fails(run("verify two " REFERENCE " --moments nonsense"), 3, "truncated");
    assert_fails(run("compress " REFERENCE " one --calibrate default"), 2, "exists");
    assert_false(test_exists(test_path("out")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_calibrated_folder_keeps_its_bound),
        cmocka_unit_test(moments_are_kept_and_used_again),
        cmocka_unit_test(a_text_that_says_little_is_reported),
        cmocka_unit_test(reused_blobs_keep_their_errors_of_outputs),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
