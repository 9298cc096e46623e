/*
 * test_plan.c - the verb plan: targets, policies, sources, and what compress makes of its plans.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REFERENCE MB_REPO "/models/reference"
#define OTHER MB_REPO "/tests/model/data/checkpoints/groups"

static double number(const json_t *json, const char *key)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_number(value))
        fail_msg("no number '%s'", key);
    return json_number_value(value);
}

/* Codes with the plan: what was predicted is within 1 % of what comes out. */
static void check_size(const json_t *predicted, const char *options)
{
    json_t *coded = run_json("compress " REFERENCE " coded --force --plan plan.json %s -o json", options);
    double n = number(json_object_get(coded, "coded"), "out_nbytes");
    assert_true(fabs(number(predicted, "coded_nbytes") / n - 1) < 0.01);
    assert_true(fabs(number(predicted, "nbytes") / number(coded, "out_nbytes") - 1) < 0.01);
    json_decref(coded);
}

static void a_plan_meets_its_bits(void **state)
{
    (void)state;
    static const char *const policies[] = {"uniform", "depth"};
    for (int i = 0; i < 2; i++) {
        json_t *json = run_json("plan " REFERENCE " --target-bpw 3.2 --policy %s -o plan.json --format json",
                                policies[i]);
        assert_true(fabs(number(json, "bits") / 3.2 - 1) < 0.002);
        assert_string_equal(json_string_value(json_object_get(json, "policy")), policies[i]);
        check_size(json, "");
        json_decref(json);
    }
    assert_false(test_exists(test_path("plan.json.partial")));
}

static void a_plan_meets_its_size(void **state)
{
    (void)state;
    json_t *json =
        run_json("plan " REFERENCE " --target-size 9MB --dense-bound 10%% -o plan.json --format json");
    assert_true(number(json, "nbytes") <= 9.01e6 && number(json, "nbytes") > 8.3e6); /* blobs fill pages */
    check_size(json, "--dense-bound 10%");
    json_decref(json);
}

static void a_profile_needs_no_target(void **state)
{
    (void)state;
    json_t *json = run_json("plan " REFERENCE
                            " --profile shallow=40%%,middle=20%%,deep=60%% -o plan.json --format json");
    assert_string_equal(json_string_value(json_object_get(json, "policy")), "depth");
    assert_true(fabs(number(json, "fraction_min") - 0.2) < 1e-9);
    assert_true(fabs(number(json, "fraction_max") - 0.6) < 1e-9);
    json_decref(json);
}

static void moments_say_which_experts_of_a_layer_may_be_coarser(void **state)
{
    (void)state;
    run_well("compress " REFERENCE " made --force --calibrate default --calibrate-tokens 700 --moments m");
    json_t *json = run_json("plan " REFERENCE " --moments m --target-bpw 3 -o plan.json --format json");
    assert_string_equal(json_string_value(json_object_get(json, "policy")), "waterfill");
    assert_true(number(json, "fraction_max") > 2 * number(json, "fraction_min"));
    assert_true(json_is_null(json_object_get(json, "kl"))); /* moments alone are no nats */
    check_size(json, "--moments m");
    json_decref(json);
}

static void a_sweep_says_what_a_plan_loses(void **state)
{
    (void)state;
    run_well("sweep " REFERENCE " --task " REFERENCE "/eval.jsonl --limit 8 --target 'experts=all' "
             "--target 'layer=1 experts=all' --target 'layer=8 experts=all' --bound 80%% -o r.db");
    json_t *json =
        run_json("plan " REFERENCE " --sensitivity r.db --target-bpw 4 -o plan.json --format json");
    assert_string_equal(json_string_value(json_object_get(json, "policy")), "waterfill");
    assert_int_equal(number(json, "n_measured"), 384 + 24); /* shared experts by the router's use of others */
    assert_true(number(json, "kl_low") < number(json, "kl") && number(json, "kl") < number(json, "kl_high"));
    double kl = number(json, "kl_high"), bits = number(json, "bits");
    json_decref(json);
    json = run_json("plan " REFERENCE " --sensitivity r.db --max-kl %g -o plan.json --format json", 4 * kl);
    assert_true(number(json, "bits") < bits && number(json, "kl_high") <= 4.001 * kl);
    json_decref(json);
    json = run_json("plan " REFERENCE " --sensitivity r.db --policy search --target-bpw 4 -o plan.json "
                    "--format json");
    assert_true(fabs(number(json, "bits") / 4 - 1) < 0.02);
    json_decref(json);
}

static double uniform_kl(const char *sources)
{
    const struct ran *ran =
        run("plan " REFERENCE " --policy uniform --target-bpw 3 -o plan.json --format json %s", sources);
    json_t *json = json_loads(ran->out, 0, NULL);
    bool is_told = strstr(ran->err, "24 of the planned matrices were not measured") != NULL;
    assert_true(is_told == (number(json, "n_measured") == 384));
    double kl = number(json, "kl");
    json_decref(json);
    return kl;
}

/*
 * What was measured of some matrices and moments of the others are brought to one unit: a shared expert,
 * which all tokens go through, costs about as much as the experts of its layer together, not orders more or
 * less. Without factors of columns, with which down costs less than what was measured.
 */
static void sources_are_of_one_unit(void **state)
{
    (void)state;
    json_t *experts = json_array();
    for (int layer = 1; layer <= 8; layer++)
        for (int expert = 0; expert < 16; expert++)
            json_array_append_new(
                experts, json_pack("{s:i, s:i, s:f}", "layer", layer, "expert", expert, "fisher", 100.0));
    json_t *fisher = json_pack("{s:o}", "experts", experts);
    assert_int_equal(json_dump_file(fisher, test_path("fisher.json"), 0), 0);
    json_decref(fisher);
    double routed = uniform_kl("--sensitivity fisher.json");
    double all = uniform_kl("--sensitivity fisher.json --moments m --feedback 0.5 --no-column-factors");
    double swept = uniform_kl("--sensitivity fisher.json --sensitivity r.db");
    assert_true(routed > 0 && all > 1.2 * routed && all < 5 * routed);
    assert_true(swept > 0);
}

/* The bound of a tensor in plan.json, in %. */
static double bound_in_plan(const char *tensor)
{
    json_t *plan = json_load_file(test_path("plan.json"), 0, NULL);
    const json_t *entry;
    size_t i;
    double bound = NAN;
    json_array_foreach(json_object_get(plan, "bounds"), i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "tensor"));
        if (name != NULL && strcmp(name, tensor) == 0)
            bound = strtod(json_string_value(json_object_get(entry, "bound")), NULL);
    }
    json_decref(plan);
    return bound;
}

static void traces_may_be_of_each_projection_and_of_shared_experts(void **state)
{
    (void)state;
    json_t *experts = json_array();
    for (int layer = 1; layer <= 8; layer++)
        for (int expert = -1; expert < 16; expert++)
            json_array_append_new(experts,
                                  json_pack("{s:i, s:i, s:f, s:f, s:f, s:f}", "layer", layer, "expert",
                                            expert, "fisher", 100.0, "gate", 20.0, "up", 20.0, "down", 60.0));
    json_t *fisher = json_pack("{s:o}", "experts", experts);
    assert_int_equal(json_dump_file(fisher, test_path("each.json"), 0), 0);
    json_decref(fisher);
    json_t *json =
        run_json("plan " REFERENCE " --sensitivity each.json --target-bpw 3 -o plan.json --format json");
    assert_int_equal(number(json, "n_measured"), 384 + 24);
    json_decref(json);
    double up = bound_in_plan("model.layers.1.mlp.experts.0.up_proj.weight");
    double down = bound_in_plan("model.layers.1.mlp.experts.0.down_proj.weight");
    assert_true(fabs(up / down - sqrt(3)) < 0.01); /* bounds are as trace^-1/2 */
    assert_true(bound_in_plan("model.layers.1.mlp.shared_experts.down_proj.weight") > 0);
}

static void a_plan_that_is_no_better_than_a_uniform_one_is_not_written(void **state)
{
    (void)state;
    json_t *json = run_json("plan " REFERENCE " --profile shallow=20%%,middle=300%%,deep=20%% -o plan.json "
                            "--check " REFERENCE "/eval.jsonl --check-limit 16 --format json");
    const json_t *check = json_object_get(json, "check");
    assert_true(json_is_true(json_object_get(check, "fell_back")));
    assert_true(number(check, "kl") > number(check, "kl_uniform"));
    assert_string_equal(json_string_value(json_object_get(json, "policy")), "uniform");
    json_decref(json);
    json_t *plan = json_load_file(test_path("plan.json"), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(plan, "policy")), "uniform");
    json_decref(plan);
    assert_false(test_exists(test_path("plan.json.check")));
    assert_false(test_exists(test_path("plan.json.uniform")));
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    test_write_text(test_path("."), "other.json", "{\"model_hash\": \"00\", \"experts\": []}");
    test_write_text(test_path("."), "bad.json",
                    "{\"experts\": [{\"layer\": 1, \"expert\": 99, \"fisher\": 1}]}");
    assert_fails(run("plan " REFERENCE " --target-bpw 3"), 2, "-o FILE.json is missing");
    assert_fails(run("plan " REFERENCE " -o none.json"), 2, "no target");
    assert_fails(run("plan " REFERENCE " --target-bpw 3 --target-size 9MB -o none.json"), 2, "more than one");
    assert_fails(run("plan " REFERENCE " --target-size 9 -o none.json"), 2, "is not a size");
    assert_fails(run("plan " REFERENCE " --target-size 1MB -o none.json"), 2, "no bounds between");
    assert_fails(run("plan " REFERENCE " --profile shallow=4%% -o none.json"), 2, "have to be there");
    assert_fails(run("plan " REFERENCE " --policy best --target-bpw 3 -o none.json"), 2, "is no policy");
    assert_fails(run("plan " REFERENCE " --policy waterfill --target-bpw 3 -o none.json"), 2, "needs");
    assert_fails(run("plan " REFERENCE " --policy frequency --target-bpw 3 -o none.json"), 2,
                 "usage profile");
    assert_fails(run("plan " REFERENCE " --max-kl 0.1 -o none.json"), 2, "needs sensitivities");
    assert_fails(run("plan " REFERENCE " --target-bpw 3 --sensitivity r.json -o none.json"), 3, "r.json");
    assert_fails(run("plan " REFERENCE " --target-bpw 3 --sensitivity other.json -o none.json"), 3,
                 "another model");
    assert_fails(run("plan " REFERENCE " --target-bpw 3 --sensitivity r.db --moments m -o none.json "
                     "--feedback 9"),
                 2, "feedback");
    assert_fails(run("plan " OTHER " --target-bpw 3 --sensitivity r.db -o none.json"), 3, "another model");
    assert_fails(run("plan " OTHER " --target-bpw 3 --moments m -o none.json"), 3, "another model");
    assert_fails(run("plan coded --target-bpw 3 -o none.json"), 3, "coded already");
    assert_int_equal(
        run("plan " REFERENCE " --target-bpw 3 --sensitivity bad.json -o none.json")->exit_status, 3);
    test_write_text(test_path("."), "bad.json",
                    "{\"experts\": [{\"layer\": 1, \"expert\": 0, \"fisher\": 1, \"up\": -1}]}");
    assert_fails(run("plan " REFERENCE " --target-bpw 3 --sensitivity bad.json -o none.json"), 3, "\"up\"");
    assert_false(test_exists(test_path("none.json")) || test_exists(test_path("none.json.partial")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_meets_its_bits),
        cmocka_unit_test(a_plan_meets_its_size),
        cmocka_unit_test(a_profile_needs_no_target),
        cmocka_unit_test(moments_say_which_experts_of_a_layer_may_be_coarser),
        cmocka_unit_test(a_sweep_says_what_a_plan_loses),
        cmocka_unit_test(sources_are_of_one_unit),
        cmocka_unit_test(traces_may_be_of_each_projection_and_of_shared_experts),
        cmocka_unit_test(a_plan_that_is_no_better_than_a_uniform_one_is_not_written),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
