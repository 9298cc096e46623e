/*
 * test_offload.c - trace, simulate and doctor.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REFERENCE MB_REPO "/models/reference"
#define TRACE "trace " REFERENCE " --chat -p 'Ali has 92 pears.' "
#define RANDOM "--random 'experts=16 used=2 layers=3 tokens=200 seed=1' --expert-bytes 1MB "

/* malloc'ed and terminated. */
static char *read_text(const char *path)
{
    size_t n;
    uint8_t *bytes = test_read(path, &n);
    char *text = calloc(1, n + 1);
    memcpy(text, bytes, n);
    free(bytes);
    return text;
}

static void a_trace_has_a_row_for_each_token_and_layer(void **state)
{
    (void)state;
    assert_non_null(strstr(run(TRACE "-n 5 -o t.csv")->err, "8 layers of 16 experts, 3 used"));
    char *text = read_text(test_path("t.csv"));
    size_t n_prompt = 0, n_generated = 0;
    for (const char *p = text; (p = strstr(p, ",prompt,")) != NULL; p++)
        n_prompt++;
    for (const char *p = text; (p = strstr(p, ",generated,")) != NULL; p++)
        n_generated++;
    free(text);
    assert_int_equal(n_prompt % 8, 0);
    assert_in_range(n_prompt, 8, 80 * 8);
    assert_int_equal(n_generated, 5 * 8);
}

static void both_formats_of_a_trace_are_replayed_alike(void **state)
{
    (void)state;
    run_well(TRACE "-n 20 -o t.csv");
    run_well(TRACE "-n 20 -o t.jsonl -t 1");
    char *csv = strdup(run_well("simulate t.csv --sizes " REFERENCE " -o json"));
    assert_string_equal(csv, run_well("simulate t.jsonl --sizes " REFERENCE " -o json"));
    free(csv);
}

static void a_task_is_a_sequence_for_each_question(void **state)
{
    (void)state;
    run_well("trace " REFERENCE " --task " REFERENCE "/eval.jsonl --limit 2 -n 3 -o task.csv");
    char *text = read_text(test_path("task.csv"));
    assert_non_null(strstr(text, "\n1,"));
    assert_null(strstr(text, "\n2,"));
    free(text);
}

static void the_optimum_is_the_best_of_all_policies(void **state)
{
    (void)state;
    json_t *json = run_json("simulate " RANDOM "-o json --chart chart.svg --link 1GB,10us,4 --compute 1GB"),
           *row;
    double best[3] = {0};
    size_t i, n = 0;
    json_array_foreach(json_object_get(json, "rows"), i, row)
    {
        double hits = json_number_value(json_object_get(row, "hit_rate"));
        if (strcmp(json_string_value(json_object_get(row, "policy")), "belady") == 0)
            assert_true(hits >= best[n++ % 3]);
        else if (hits > best[i % 3])
            best[i % 3] = hits;
        assert_true(json_number_value(json_object_get(row, "tokens_per_s")) > 0);
    }
    assert_int_equal(n, 3);
    json_decref(json);
    char *svg = read_text(test_path("chart.svg"));
    assert_non_null(strstr(svg, "belady"));
    free(svg);
}

static void a_profile_of_the_model_begins_its_policy(void **state)
{
    (void)state;
    run_well("eval " REFERENCE " --task " REFERENCE "/eval.jsonl --limit 4 --profile-out profile.json");
    run_well(TRACE "-n 20 -o t.csv");
    assert_non_null(
        strstr(run_well("simulate t.csv --sizes " REFERENCE " --expert-profile profile.json"), "| profile"));
}

static void what_cannot_be_traced_or_replayed_is_refused(void **state)
{
    (void)state;
    test_write_text(test_path("."), "bad.csv", "# moebius_trace 1\n");
    run_well(TRACE "-n 1 -o t.csv");
    assert_fails(run("trace " REFERENCE " -p x"), 2, "give -o FILE");
    assert_fails(run("trace " REFERENCE " -o x.csv"), 2, "give one of");
    assert_fails(run("trace nowhere -p x -o x.csv"), 3, "nowhere");
    assert_fails(run("simulate"), 2, "give a TRACE");
    assert_fails(run("simulate t.csv"), 2, "--sizes");
    assert_fails(run("simulate bad.csv --expert-bytes 1MB"), 3, "bad.csv: line 1");
    assert_fails(run("simulate t.csv --sizes " MB_REPO "/models/reference-qwen3"), 3, "another model");
    assert_fails(run("simulate " RANDOM "--memory 0%%"), 2, "--memory");
    assert_fails(run("simulate " RANDOM "--memory 1MB"), 2, "need 2000000");
    assert_fails(run("simulate " RANDOM "--link fast"), 2, "--link");
    assert_fails(run("simulate " RANDOM "--link 1GB,1us,0"), 2, "--link");
    assert_fails(run("simulate " RANDOM "--policy fifo"), 2, "fifo");
    assert_fails(run("simulate " RANDOM "--policy profile"), 2, "usage profile");
    assert_fails(run("simulate " RANDOM "--compute x"), 2, "--compute");
    assert_fails(run("simulate " RANDOM "--lookahead 2"), 2, "--lookahead");
    assert_fails(run("simulate t.csv --expert-bytes 1MB --chart t.csv"), 2, "t.csv: is the input");
    run_well("simulate t.csv --expert-bytes 1MB");
    assert_fails(run("simulate " RANDOM "--pass-tokens 0"), 2, "--pass-tokens");
    assert_false(test_exists(test_path("x.csv")));
}

/* Of models/reference at 30 %: experts have 5.8 MB. */
static void doctor_says_what_fits_and_how_fast_it_would_be(void **state)
{
    (void)state;
    run_well("compress " REFERENCE " coded --bound 30%%");
    json_t *json = run_json("doctor coded --memory 1GiB -o json");
    assert_string_equal(json_string_value(json_object_get(json, "mode")), "in memory");
    assert_true(json_number_value(json_object_get(json, "tokens_per_s")) > 0);
    json_decref(json);

    /* From the lowest limit on, where passes are small, all experts soon have room. */
    unsigned lowest_mib = 0;
    const struct ran *ran = run("doctor coded --memory 5MiB");
    assert_int_equal(ran->exit_status, 1);
    assert_non_null(strstr(ran->out, "mode: cannot run"));
    const char *words = strstr(ran->out, "to run at all: --memory ");
    assert_true(words != NULL && sscanf(words, "to run at all: --memory %uMiB", &lowest_mib) == 1);
    json = run_json("doctor coded --memory %uMiB -o json", lowest_mib);
    const json_t *expected = json_object_get(json, "expected");
    assert_string_equal(json_string_value(json_object_get(json, "mode")), "streaming");
    assert_true(json_number_value(json_object_get(expected, "hit_rate")) > 0.3);
    assert_true(json_number_value(json_object_get(expected, "nbytes_per_token")) > 0);
    assert_true(json_number_value(json_object_get(json, "experts_memory_nbytes")) > 1e6);
    assert_in_range(json_integer_value(json_object_get(json_object_get(json, "needs"), "pass_tokens")), 16,
                    128);
    json_decref(json);
    assert_non_null(strstr(run_well("doctor coded --memory %uMiB --dry-run", lowest_mib), "mode: streaming"));
}

/*
 * Over a slow link its reads are what takes time, in the engine as in the simulation: the engine is never
 * faster than the link; how much later it is depends on the machine.
 */
static void a_slow_link_gives_what_was_predicted(void **state)
{
    (void)state;
    unsigned lowest_mib = 0;
    const char *words = strstr(run("bench coded -p 0 -n 1 -r 1 -t 2 --memory 3MiB")->err, "at least ");
    assert_true(words != NULL && sscanf(words, "at least %u MiB", &lowest_mib) == 1);
    json_t *rows = run_json("bench coded -p 0 -n 8 -r 1 -t 2 -o json --memory %uMiB --link 10MB,1ms,2 "
                            "--no-lookahead --trace used.csv",
                            lowest_mib + 2);
    const json_t *row = json_array_get(rows, 0);
    double held = json_number_value(json_object_get(row, "n_experts_held")) * 45000;
    json_t *json = run_json("simulate used.csv --sizes coded --memory %.0f --warm 8 --policy blend "
                            "--link 10MB,1ms,2 -o json",
                            held);
    const json_t *simulated = json_array_get(json_object_get(json, "rows"), 0);
    double seconds = 8 / json_number_value(json_object_get(simulated, "tokens_per_s"));
    double nbytes = 8 * json_number_value(json_object_get(simulated, "nbytes_per_token"));
    double read_nbytes = json_number_value(json_object_get(row, "read_nbytes"));
    if (read_nbytes < 0.8 * nbytes || read_nbytes > 1.25 * nbytes)
        fail_msg("%.0f bytes read, %.0f simulated", read_nbytes, nbytes);
    if (json_number_value(json_object_get(row, "seconds")) < 0.8 * seconds)
        fail_msg("faster than the link: %.3f s", seconds);
    json_decref(json);
    json_decref(rows);

    json = run_json("doctor coded --memory %uMiB --link 10MB,1ms,2 --trace used.csv --warm 8 -o json",
                    lowest_mib + 3);
    double predicted = json_number_value(json_object_get(json, "tokens_per_s"));
    assert_true(predicted > 0 &&
                predicted < 10e6 / json_number_value(json_object_get(json_object_get(json, "expected"),
                                                                     "nbytes_per_token")));
    json_decref(json);
    assert_fails(run("bench coded -p 8 -n 8 --trace used.csv"), 2, "--trace is of one test");
    assert_fails(run("doctor coded --link soon"), 2, "--link 'soon'");
    assert_fails(run("doctor coded --lookahead 2"), 2, "--lookahead");
    assert_fails(run("doctor coded --experts some"), 2, "--experts");
    assert_non_null(
        strstr(run_well("doctor coded --experts 2MB --dry-run"), "mode: streaming, 2.0 MB of 5.8 MB"));
}

static void doctor_refuses_what_cannot_be(void **state)
{
    (void)state;
    const struct ran *ran = run("doctor " REFERENCE " --memory 10MB --dry-run");
    assert_int_equal(ran->exit_status, 1);
    assert_non_null(strstr(ran->out, "only coded ones are streamed"));
    assert_fails(run("doctor " REFERENCE " -c 257"), 2, "more than the model's 256");
    assert_fails(run("doctor " REFERENCE " --memory lots"), 2, "--memory");
    assert_fails(run("doctor " REFERENCE " --memory 0"), 2, "--memory");
    assert_fails(run("doctor nowhere"), 3, "nowhere");
    run_well(TRACE "-n 1 -o t.csv");
    assert_fails(run("doctor coded --memory %d --trace bad.csv --dry-run", 100 << 20), 3, "bad.csv");
}

/* A bit of every expert, which headers do not tell. */
static void damage_experts(void)
{
    struct mb_checkpoint *ckpt;
    struct mb_error err;
    if (mb_checkpoint_open(test_path("coded"), &ckpt, &err) != MB_OK)
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < mb_checkpoint_n_tensors(ckpt); i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        uint8_t byte;
        if (mb_role_of(tensor->name).role != MB_ROLE_EXPERT)
            continue;
        int fd = open(mb_tensor_path(ckpt, tensor), O_RDWR | O_CLOEXEC);
        off_t pos = (off_t)(tensor->file_pos + tensor->nbytes / 2);
        assert_int_equal(pread(fd, &byte, 1, pos), 1);
        byte ^= 4;
        assert_int_equal(pwrite(fd, &byte, 1, pos), 1);
        close(fd);
    }
    mb_checkpoint_close(ckpt);
}

static void damaged_experts_are_named(void **state)
{
    (void)state;
    static const char words[] = ".safetensors: tensor model.layers.1.mlp.experts.";
    damage_experts();
    assert_fails(run("doctor coded --memory 1GiB"), 3, words);
    assert_fails(run("trace coded -p x -n 1 -o x.csv"), 3, words);
    const struct ran *ran = run("doctor coded --memory 10MiB");
    unsigned lowest_mib = 0;
    const char *at = strstr(ran->out, "to run at all: --memory ");
    assert_true(at != NULL && sscanf(at, "to run at all: --memory %uMiB", &lowest_mib) == 1);
    ran = run("run coded -p x -n 4 --memory %uMiB", lowest_mib + 2);
    assert_int_equal(ran->exit_status, 3);
    assert_non_null(strstr(ran->err, words));
    assert_non_null(strstr(ran->err, "checksum does not match"));
    assert_string_equal(ran->out, "");
    assert_false(test_exists(test_path("x.csv")));
}

static void files_of_the_model_are_not_replaced(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "run own -p x -n 1 --timeline own/config.json", "bench own -p 0 -n 1 -r 1 --trace own/config.json",
        "trace own -p x -n 1 -o own/config.json", "plan own --target-bpw 4 -o own/config.json",
        "eval own --task own/eval.jsonl --limit 1 -n 2 --profile-out own/config.json"};
    run_after("cp -r " REFERENCE " own;", "--version");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        assert_fails(run("%s", commands[i]), 2, "own/config.json: is a file of the model");
    run_well("run own -p x -n 1 --timeline own/time.json"); /* a new one */
    assert_fails(run("run own -p x -n 1 --timeline ''"), 2, "is empty");
    assert_fails(run("trace own -p x -n 1 -o ''"), 2, "is empty");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trace_has_a_row_for_each_token_and_layer),
        cmocka_unit_test(both_formats_of_a_trace_are_replayed_alike),
        cmocka_unit_test(a_task_is_a_sequence_for_each_question),
        cmocka_unit_test(the_optimum_is_the_best_of_all_policies),
        cmocka_unit_test(a_profile_of_the_model_begins_its_policy),
        cmocka_unit_test(what_cannot_be_traced_or_replayed_is_refused),
        cmocka_unit_test(doctor_says_what_fits_and_how_fast_it_would_be),
        cmocka_unit_test(a_slow_link_gives_what_was_predicted),
        cmocka_unit_test(doctor_refuses_what_cannot_be),
        cmocka_unit_test(damaged_experts_are_named),
        cmocka_unit_test(files_of_the_model_are_not_replaced),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
