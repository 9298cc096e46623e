/*
 * test_verbs.c - inspect, compress, verify and decompress as a user calls them: exit statuses, one-line
 * errors, and outputs that programs can read.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* "plain" and "coded" lie in the test's folder. */
static int begin(void **state)
{
    struct test_model model = test_model_small();
    if (test_folder_begin(state) != 0)
        return -1;
    test_write_model(test_path("plain"), &model);
    return run("compress plain coded")->exit_status;
}

static double number(const json_t *json, const char *a, const char *b)
{
    const json_t *value = json_object_get(json, a);
    if (b != NULL)
        value = json_object_get(value, b);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

/* ---------------------------------------------------------------- usage: 2 */

static void wrong_usage_is_2(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"nonsense", "unknown verb 'nonsense'"},
        {"inspect", "usage: moebius inspect"},
        {"inspect plain coded", "one too many"},
        {"inspect plain --nonsense", "--nonsense"},
        {"inspect plain -o csv", "-o"},
        {"inspect plain -o", "needs a value"},
        {"compress plain", "usage: moebius compress"},
        {"compress plain out --bound 30", "'30'"},
        {"compress plain out --bound -5%", "'-5%'"},
        {"compress plain out --bound nan%", "'nan%'"},
        {"compress plain out --dense-bound abs:", "'abs:'"},
        {"compress plain out --dense-bound inf%", "'inf%'"},
        {"compress plain out --tensor-bound experts", "REGEX=BOUND"},
        {"compress plain out --tensor-bound =5%", "REGEX=BOUND"},
        {"compress plain out --tensor-bound experts=much", "'much'"},
        {"compress plain out --tensor-bound '(=5%'", "pattern '('"},
        {"compress plain out --plan", "needs a value"},
        {"compress plain out -t 0", "'0'"},
        {"compress plain out -t two", "'two'"},
        {"compress plain coded", "--force"},
        {"verify", "usage: moebius verify"},
        {"verify coded plain more", "one too many"},
        {"decompress coded", "usage: moebius decompress"},
        {"decompress coded out --dtype f64", "'f64'"},
        {"decompress coded plain", "--force"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        const struct ran *ran = run("%s", lines[i][0]);
        if (strcmp(lines[i][0], "inspect plain -o csv") == 0)
            assert_int_equal(ran->exit_status, 2);
        else
            assert_fails(ran, 2, lines[i][1]);
        assert_false(test_exists(test_path("out")));
        assert_false(test_exists(test_path("out.partial")));
    }
    const struct ran *ran = run_after("", "%s", "");
    assert_int_equal(ran->exit_status, 2);
    assert_int_equal(ran->out[0], '\0');
}

static void an_unknown_cpu_feature_is_2(void **state)
{
    (void)state;
    assert_fails(run_after("MOEBIUS_CPU=-sse9", "inspect plain"), 2, "sse9");
    assert_int_equal(run_after("MOEBIUS_CPU=-avx512,-avx2", "inspect plain")->exit_status, 0);
}

static void help_is_on_stdout(void **state)
{
    (void)state;
    static const char *const verbs[] = {"inspect", "compress", "verify", "decompress"};
    for (size_t i = 0; i < 4; i++) {
        char words[64];
        snprintf(words, sizeof words, "usage: moebius %s ", verbs[i]);
        const char *out = run_well("%s --help", verbs[i]);
        assert_non_null(strstr(out, words));
        snprintf(words, sizeof words, "\n  moebius %s ", verbs[i]); /* an example */
        assert_non_null(strstr(out, words));
        assert_non_null(strstr(run_well("--help"), verbs[i]));
    }
    assert_non_null(strstr(run_well("--version"), "moebius "));
}

/* ---------------------------------------------------------------- bad input: 3, the machine: 4 */

static void bad_input_is_3(void **state)
{
    (void)state;
    assert_fails(run("inspect nothing"), 3, "nothing");
    assert_fails(run("inspect plain/config.json"), 3, "give the folder that it is in");
    assert_fails(run("compress nothing out"), 3, "nothing");
    assert_fails(run("compress coded out"), 3, "coded");
    assert_fails(run("verify plain"), 3, "plain");
    assert_fails(run("verify coded nothing"), 3, "nothing");
    assert_fails(run("decompress plain out"), 3, "plain");
    assert_false(test_exists(test_path("out")));
    assert_false(test_exists(test_path("out.partial")));
}

/* Whatever a verb opens first. */
static void what_is_no_model_is_named_by_every_verb(void **state)
{
    (void)state;
    static const char *const verbs[] = {"run %s -p x", "eval %s --perplexity plain/config.json",
                                        "bench %s",    "chat %s",
                                        "inspect %s",  "compress %s out",
                                        "verify %s",   "decompress %s out"};
    static const struct {
        const char *path, *words;
    } others[] = {
        {"x-Q4_K_M.gguf", "is a GGUF file"},
        {"owner/model-1B", "download it first"},
        {"text.txt", "not a folder"},
        {"files", "has no config.json"},
    };
    test_write_text(test_path(""), "x-Q4_K_M.gguf", "GGUF\003");
    test_write_text(test_path(""), "text.txt", "words");
    test_make_folder(test_path("files"));
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
            char line[100];
            snprintf(line, sizeof line, verbs[i], others[k].path);
            assert_fails(run("%s", line), 3, others[k].words);
        }
    test_remove(test_path("files"));
}

static void a_nan_weight_is_3_with_its_place(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    model.odd_name = "model.layers.0.mlp.up_proj.weight";
    model.odd_index = 2 * 48 + 5;
    model.odd_value = NAN;
    test_write_model(test_path("nan"), &model);
    const struct ran *ran = run("compress nan out");
    assert_fails(ran, 3, "model.safetensors: tensor model.layers.0.mlp.up_proj.weight");
    assert_fails(ran, 3, "[2, 5]");
    assert_false(test_exists(test_path("out.partial")));
    test_remove(test_path("nan"));
}

/* One damaged weight (1e30) in an expert: a bound of 30 % of the mean would zero the rest without a word. */
static void a_weight_that_spoils_a_bound_is_warned_of(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    model.odd_name = "model.layers.1.mlp.experts.1.up_proj.weight";
    model.odd_index = 2 * 48 + 5;
    model.odd_value = 1e30F;
    test_write_model(test_path("odd"), &model);
    const struct ran *ran = run("compress odd out --dry-run");
    assert_int_equal(ran->exit_status, 0);
    assert_non_null(strstr(ran->err, "warning: tensor model.layers.1.mlp.experts.1.up_proj.weight: weight"));
    assert_non_null(strstr(ran->err, "[2, 5]"));
    /* The advice works. */
    char pattern[200];
    const char *begin = strstr(ran->err, "--tensor-bound '");
    assert_non_null(begin);
    snprintf(pattern, sizeof pattern, "%.*s", (int)strcspn(begin, "\n"), begin);
    json_t *json = run_json("compress odd out -o json");
    assert_int_equal(number(json, "extreme_weights", "n_tensors"), 1);
    json_decref(json);
    ran = run("compress odd out --force %s", pattern);
    assert_int_equal(ran->exit_status, 0);
    assert_null(strstr(ran->err, "warning"));
    test_remove(test_path("odd"));
    test_remove(test_path("out"));
}

/* Only where this user may mount a file system; elsewhere there is nothing to see. */
static void a_mount_point_is_filled_and_not_replaced(void **state)
{
    (void)state;
    static const char MOUNT[] = "unshare -rm sh -c 'mount -t tmpfs none volume && exec \"$@\"' sh";
    test_make_folder(test_path("volume"));
    if (run_after(MOUNT, "--version")->exit_status == 0) {
        assert_int_equal(run_after(MOUNT, "compress plain volume")->exit_status, 0);
        assert_fails(run_after("unshare -rm sh -c 'mount -t tmpfs none volume && cp plain/* volume && "
                               "exec \"$@\"' sh",
                               "compress plain volume --force"),
                     2, "is a mount point and cannot be replaced");
    }
    test_remove(test_path("volume"));
}

static void damage_is_found(void **state)
{
    (void)state;
    run_well("compress plain damaged");
    char shard[64] = "damaged/model-00002-of-00003.safetensors";
    size_t nbytes;
    uint8_t *bytes = test_read(test_path(shard), &nbytes);
    bytes[nbytes / 2] ^= 4;
    test_write(test_path(shard), bytes, nbytes);
    assert_fails(run("verify damaged"), 3, "tensor ");
    assert_fails(run("verify damaged plain"), 3, "model-00002-of-00003.safetensors");
    assert_fails(run("decompress damaged out"), 3, "model-00002-of-00003.safetensors");
    assert_false(test_exists(test_path("out")));
    bytes[nbytes / 2] ^= 4;
    test_write(test_path(shard), bytes, nbytes - 1);
    assert_fails(run("inspect damaged"), 3, "truncated");
    test_remove(test_path(shard));
    assert_fails(run("inspect damaged"), 3, "No such file");
    free(bytes);
    test_remove(test_path("damaged"));
}

static void a_full_disk_is_4(void **state)
{
    (void)state;
    assert_fails(run_after("ulimit -f 8;", "compress plain out"), 4, "out.partial");
    assert_false(test_exists(test_path("out")));
    run_well("compress plain out");
    assert_true(test_same_folders(test_path("coded"), test_path("out")));
    test_remove(test_path("out"));
    const struct ran *ran = run_after("", "inspect plain >/dev/full");
    assert_int_equal(ran->exit_status, 4);
    assert_non_null(strstr(ran->err, "standard output"));
}

/* A model in more files than a shell allows a program at first; one that nobody may open is told. */
static void a_hundred_files_are_opened(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    model.n_layers = 20;
    model.n_shards = 100;
    test_write_model(test_path("dealt"), &model);
    const struct ran *ran = run_after("ulimit -S -n 32;", "compress dealt out");
    if (ran->exit_status != 0)
        fail_msg("%s", ran->err);
    assert_int_equal(run_after("ulimit -S -n 32;", "verify out dealt")->exit_status, 0);
    assert_fails(run_after("ulimit -n 32;", "verify out dealt"), 4, "Too many open files");
    test_remove(test_path("dealt"));
    test_remove(test_path("out"));
}

/* A folder's name is bytes, JSON is UTF-8: a long evaluation must not end without its report for that. */
static void paths_need_not_be_utf8(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "bench models/\xff -p 2 -n 1 -r 1 -o json",
        "run models/\xff -p a -n 1 -o json",
        "eval models/\xff --task models/\xff/eval.jsonl --limit 1 -o json",
        "eval models/\xff --perplexity models/\xff/README.md --limit 1 -o json",
        "inspect models/\xff -o json",
    };
    static const char *const keys[] = {"model", "task", "text", "path"};
    test_make_folder(test_path("models"));
    assert_int_equal(symlink(MB_REPO "/models/reference", test_path("models/\xff")), 0);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        json_t *json = run_json("%s", lines[i]);
        const json_t *object = json_is_array(json) ? json_array_get(json, 0) : json;
        size_t n_paths = 0;
        for (size_t k = 0; k < 4; k++) {
            const char *text = json_string_value(json_object_get(object, keys[k]));
            n_paths += text != NULL && strstr(text, "models/\xef\xbf\xbd") == text;
        }
        if (n_paths == 0)
            fail_msg("%s: no path", lines[i]);
        json_decref(json);
    }
    test_remove(test_path("models/\xff"));
    test_remove(test_path("models"));
}

/* ---------------------------------------------------------------- answers: 0 and 1 */

static void inspect_counts_the_parts(void **state)
{
    (void)state;
    json_t *plain = run_json("inspect plain -o json"),
           *coded = run_json("inspect -m coded --experts -o json");
    const json_t *a = json_object_get(plain, "parts"), *b = json_object_get(coded, "parts");
    assert_false(json_is_true(json_object_get(plain, "coded")));
    assert_true(json_is_true(json_object_get(coded, "coded")));
    assert_string_equal(json_string_value(json_object_get(plain, "architecture")), "DeepseekV3ForCausalLM");
    assert_int_equal(number(json_object_get(a, "experts"), "n_tensors", NULL), 6);
    assert_int_equal(number(json_object_get(a, "shared_experts"), "n_tensors", NULL), 3);
    assert_int_equal(number(json_object_get(a, "other_linear"), "n_tensors", NULL), 8);
    assert_int_equal(number(json_object_get(a, "embedding"), "n_tensors", NULL), 1);
    assert_int_equal(number(json_object_get(a, "router"), "n_tensors", NULL), 1);
    assert_int_equal(number(json_object_get(a, "other"), "n_tensors", NULL), 3);
    const char *part;
    json_t *sum;
    json_object_foreach((json_t *)a, part, sum)
    {
        assert_true(number(sum, "n_weights", NULL) == number(b, part, "n_weights"));
        assert_true(number(sum, "n_tensors", NULL) == number(b, part, "n_tensors"));
        assert_true(number(sum, "bits_per_weight", NULL) == 16);
    }
    assert_true(number(b, "experts", "n_outliers") > 0);
    assert_true(number(b, "experts", "bits_per_weight") < 10);
    assert_int_equal(json_array_size(json_object_get(coded, "expert_list")), 2);
    assert_non_null(json_object_get(coded, "quantization_config"));
    json_decref(plain);
    json_decref(coded);
    assert_non_null(strstr(run_well("inspect coded --experts"), "| other linear "));
}

static void tables_show_no_control_characters(void **state)
{
    (void)state;
    const struct test_model model = test_model_small();
    test_write_model(test_path("odd"), &model);
    test_write_text(test_path("odd"), "config.json",
                    "{\"architectures\": [\"A\\u001b[31m\\u009b31m\\u00e9\"], \"model_type\": \"x\"}");
    assert_non_null(strstr(run_well("inspect odd"), "| A?[31m??31m\xc3\xa9 "));
    test_remove(test_path("odd"));
}

static void compress_reports_what_it_wrote(void **state)
{
    (void)state;
    json_t *predicted = run_json("compress plain out --dry-run -o json");
    assert_false(test_exists(test_path("out")));
    json_t *done = run_json("compress plain out -t 2 -o json");
    json_t *seen = run_json("inspect out -o json");
    assert_true(json_is_true(json_object_get(predicted, "predicted")));
    assert_false(json_is_true(json_object_get(done, "predicted")));
    assert_true(number(done, "out_nbytes", NULL) == number(seen, "file_nbytes", NULL));
    assert_true(number(done, "padding_nbytes", NULL) == number(seen, "total", "padding_nbytes"));
    assert_true(number(done, "coded", "out_nbytes") == number(seen, "total", "coded_nbytes"));
    assert_true(number(done, "n_outliers", NULL) == number(seen, "total", "n_outliers"));
    assert_true(number(done, "n_raw_groups", NULL) == number(seen, "total", "n_raw_groups"));
    assert_true(number(predicted, "coded", "n_weights") == number(done, "coded", "n_weights"));
    json_decref(predicted);
    json_decref(done);
    json_decref(seen);
    test_remove(test_path("out"));
    assert_non_null(strstr(run_well("compress plain out --dry-run"), "predicted"));
    assert_non_null(strstr(run_well("compress plain out --bound abs:0.01"), "| experts "));
    test_remove(test_path("out"));
}

static void a_plan_names_tensors(void **state)
{
    (void)state;
    static const char plan[] = "{\"bounds\": [{\"tensor\": \"lm_head.weight\", \"bound\": \"abs:0.01\"}]}";
    test_write(test_path("plan.json"), plan, sizeof plan - 1);
    run_well("compress plain out --plan plan.json --dense-bound abs:0.002");
    json_t *json = run_json("verify out plain -o json");
    json_t *tensor;
    size_t i, n_seen = 0;
    json_array_foreach(json_object_get(json, "tensors"), i, tensor)
    {
        if (strcmp(json_string_value(json_object_get(tensor, "name")), "lm_head.weight") == 0) {
            n_seen++;
            assert_true(number(tensor, "eps", NULL) == 0.01);
        }
    }
    assert_int_equal(n_seen, 1);
    json_decref(json);
    test_remove(test_path("out"));
}

/* The pattern has an '=' of its own: the last one splits. */
static void tensor_bounds_are_taken(void **state)
{
    (void)state;
    run_well("compress plain out --tensor-bound 'experts\\.1|a=b=abs:0.01' --tensor-bound 'lm_head=0'");
    json_t *json = run_json("verify out plain -o json");
    json_t *tensor;
    size_t i, n_seen = 0;
    json_array_foreach(json_object_get(json, "tensors"), i, tensor)
    {
        const char *name = json_string_value(json_object_get(tensor, "name"));
        assert_string_not_equal(name, "lm_head.weight");
        if (strstr(name, ".experts.1.") != NULL) {
            n_seen++;
            assert_true(number(tensor, "eps", NULL) == 0.01);
        }
    }
    assert_int_equal(n_seen, 3);
    json_decref(json);
    test_remove(test_path("out"));
}

static void verify_says_yes_or_no(void **state)
{
    (void)state;
    json_t *json = run_json("verify coded plain -o json");
    assert_true(json_is_true(json_object_get(json, "ok")));
    assert_true(json_is_true(json_object_get(json, "bounds_proved")));
    assert_true(number(json, "worst_ratio", NULL) <= 1 && number(json, "worst_ratio", NULL) > 0.9);
    assert_int_equal(json_array_size(json_object_get(json, "tensors")), 18);
    json_decref(json);
    json = run_json("verify coded -o json");
    assert_true(json_is_true(json_object_get(json, "ok")));
    assert_false(json_is_true(json_object_get(json, "bounds_proved")));
    assert_true(number(json, "n_files", NULL) > 2);
    json_decref(json);
    assert_non_null(strstr(run_well("verify coded plain"), "\nProved: "));
    assert_non_null(strstr(run_well("verify coded plain --all"), "experts.1.up_proj.weight"));
    assert_non_null(strstr(run_well("verify coded"), "\nSound: "));
    assert_non_null(strstr(run_well("verify coded"), "other files are as compress wrote them"));
    struct test_model model = test_model_small();
    model.odd_name = "model.layers.1.mlp.experts.1.up_proj.weight"; /* NaN is no error within a bound */
    model.odd_index = 3;
    model.odd_value = NAN;
    test_write_model(test_path("other"), &model);
    const struct ran *ran = run("verify coded other");
    assert_int_equal(ran->exit_status, 1);
    assert_non_null(strstr(ran->out, "\nBROKEN: 1 "));
    ran = run("verify coded other -o json");
    assert_int_equal(ran->exit_status, 1);
    json = json_loads(ran->out, 0, NULL);
    assert_non_null(json);
    assert_false(json_is_true(json_object_get(json, "ok")));
    assert_int_equal(number(json, "n_broken", NULL), 1);
    assert_true(json_is_null(json_object_get(json, "worst_ratio"))); /* infinite */
    json_decref(json);
    test_remove(test_path("other"));
}

static void decompress_says_what_rounding_costs(void **state)
{
    (void)state;
    static const char *const types[] = {"f32", "f16", "bf16"};
    for (size_t i = 0; i < 3; i++) {
        json_t *json = run_json("decompress coded back --dtype %s -o json", types[i]);
        assert_int_equal(number(json, "n_weights_changed", NULL) > 0, i > 0);
        assert_int_equal(number(json, "err_enlarged_ratio", NULL) > 0, i > 0);
        assert_true(number(json, "err_enlarged_ratio", NULL) < 1);
        json_decref(json);
        test_remove(test_path("back"));
    }
    assert_non_null(strstr(run_well("decompress coded back"), "No weight was rounded"));
    assert_non_null(strstr(run_well("verify coded back"), "\nProved: "));
    assert_non_null(strstr(run_well("decompress coded back --force --dtype bf16"), "Rounding to bf16"));
    test_remove(test_path("back"));
}

/* ---------------------------------------------------------------- a model of text and images */

static void write_multimodal(void)
{
    static const uint8_t zeros[1024];
    test_make_folder(test_path("multimodal"));
    test_write_text(
        test_path("multimodal"), "config.json",
        "{\"architectures\": [\"X\"], \"text_config\": {\"model_type\": \"qwen3_moe\", \"hidden_size\": 6, "
        "\"moe_intermediate_size\": 4, \"num_experts\": 2, \"num_experts_per_tok\": 1, "
        "\"num_hidden_layers\": 1}}");
    test_write_safetensors(
        test_path("multimodal"), "model.safetensors",
        "{\"model.language_model.layers.0.mlp.experts.gate_up_proj\":{\"dtype\":\"F32\",\"shape\":[2,8,6],"
        "\"data_offsets\":[0,384]},\"model.language_model.layers.0.mlp.experts.down_proj\":{\"dtype\":"
        "\"F32\","
        "\"shape\":[2,6,4],\"data_offsets\":[384,576]},\"model.visual.blocks.0.o_proj.weight\":{\"dtype\":"
        "\"F32\","
        "\"shape\":[2,8],\"data_offsets\":[576,640]}}",
        zeros, 640);
}

static void fused_experts_are_shown_one_by_one(void **state)
{
    (void)state;
    write_multimodal();
    json_t *report = run_json("inspect multimodal -o json");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(report, "config"), "num_experts")),
                     2);
    assert_int_equal(number(report, "parameters", "not_used"), 16);
    json_decref(report);
    assert_non_null(strstr(run("inspect multimodal")->err, "(0.0 MB) are of towers"));
    run_well("compress multimodal multimodal-coded");
    const char *shown = run_well("inspect multimodal-coded --experts");
    assert_non_null(strstr(shown, "experts a token"));
    assert_null(strstr(shown, "original_tensors")); /* a list of all of them */
    assert_int_equal(run("verify multimodal-coded multimodal")->exit_status, 0);
    test_remove(test_path("multimodal"));
    test_remove(test_path("multimodal-coded"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_experts_are_shown_one_by_one),
        cmocka_unit_test(wrong_usage_is_2),
        cmocka_unit_test(an_unknown_cpu_feature_is_2),
        cmocka_unit_test(help_is_on_stdout),
        cmocka_unit_test(bad_input_is_3),
        cmocka_unit_test(what_is_no_model_is_named_by_every_verb),
        cmocka_unit_test(a_nan_weight_is_3_with_its_place),
        cmocka_unit_test(a_weight_that_spoils_a_bound_is_warned_of),
        cmocka_unit_test(a_mount_point_is_filled_and_not_replaced),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(a_full_disk_is_4),
        cmocka_unit_test(a_hundred_files_are_opened),
        cmocka_unit_test(paths_need_not_be_utf8),
        cmocka_unit_test(inspect_counts_the_parts),
        cmocka_unit_test(tables_show_no_control_characters),
        cmocka_unit_test(compress_reports_what_it_wrote),
        cmocka_unit_test(tensor_bounds_are_taken),
        cmocka_unit_test(a_plan_names_tensors),
        cmocka_unit_test(verify_says_yes_or_no),
        cmocka_unit_test(decompress_says_what_rounding_costs),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
