/*
 * test_run.c - "moebius run" and "moebius bench MODEL" as a user calls them, on the reference model.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REFERENCE MB_REPO "/models/reference"
#define SMALL MB_REPO "/tests/model/data/checkpoints/groups"
#define QUESTION                                                                                           \
    "'Ali has 92 pears. A friend gives Ali 43 pears. How many pears does Ali have now? End with #### and " \
    "the answer.'"

static void a_question_is_answered(void **state)
{
    (void)state;
    const char *text = run_well("run %s --chat -p %s", REFERENCE, QUESTION);
    if (strstr(text, "#### 135") == NULL)
        fail_msg("%s", text);
}

/* What is streamed is the text of the tokens that -o json names. */
static void the_stream_is_the_tokens_text(void **state)
{
    (void)state;
    char *streamed = strdup(run_well("run %s --chat -p %s", REFERENCE, QUESTION));
    json_t *json = run_json("run %s --chat -p %s -o json", REFERENCE, QUESTION);
    const char *text = json_string_value(json_object_get(json, "text"));
    assert_non_null(text);
    assert_int_equal(strncmp(streamed, text, strlen(text)), 0);
    size_t n_ids = json_array_size(json_object_get(json, "tokens"));
    assert_int_equal(json_integer_value(json_object_get(json, "n_tokens")), n_ids);
    char ids[4096] = "";
    for (size_t i = 0; i < n_ids; i++)
        snprintf(ids + strlen(ids), sizeof ids - strlen(ids), "%lld ",
                 (long long)json_integer_value(json_array_get(json_object_get(json, "tokens"), i)));
    test_write(test_path("ids.txt"), ids, strlen(ids));
    const struct ran *ran = run_after("", "tokenize %s --decode --skip-special <ids.txt", REFERENCE);
    assert_string_equal(ran->out, text);
    json_decref(json);
    free(streamed);
}

/* Once, on stderr, by every verb that runs the model; and not for folders in which all is used. */
static void what_nobody_uses_is_noted(void **state)
{
    (void)state;
    static const char NOTE[] = "note: 1 setting of config.json is not used: brand_new_gate\n";
    assert_null(strstr(run("run %s -p x -n 1", REFERENCE)->err, "note"));
    run_after("mkdir noted && ln -s " REFERENCE "/[mtge]* noted/ && "
              "sed 's/^{/{\"brand_new_gate\": 0.5,/' " REFERENCE "/config.json >noted/config.json && ",
              "--version");
    test_write(test_path("ids.txt"), "0 1 2", 5);
    static const char *const commands[] = {"run noted -p x -n 1", "bench noted -p 4 -n 1 -r 1 -t 1,2",
                                           "eval noted --tokens ids.txt --logits logits.npy",
                                           "chat noted -n 1 </dev/null"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct ran *ran = run("%s", commands[i]);
        const char *note = strstr(ran->err, NOTE);
        if (ran->exit_status != 0 || note == NULL || strstr(note + 1, "note: ") != NULL)
            fail_msg("%s: exit status %d: %s", commands[i], ran->exit_status, ran->err);
        assert_null(strstr(ran->out, "note"));
    }
}

static void a_seed_gives_its_text(void **state)
{
    (void)state;
    char *first = strdup(run_well("run %s -p 'The ' -n 20 --temp 1.5 -s 1", REFERENCE));
    assert_string_equal(run_well("run %s -p 'The ' -n 20 --temp 1.5 -s 1 -t 1", REFERENCE), first);
    assert_string_not_equal(run_well("run %s -p 'The ' -n 20 --temp 1.5 -s 2", REFERENCE), first);
    free(first);
}

static void a_prompt_comes_from_stdin_and_file(void **state)
{
    (void)state;
    char *given = strdup(run_well("run %s -p 'Once upon' -n 5", REFERENCE));
    const struct ran *ran = run_after("printf 'Once upon' |", "run %s -p - -n 5", REFERENCE);
    assert_string_equal(ran->out, given);
    test_write(test_path("prompt.txt"), "Once upon", 9);
    assert_string_equal(run_well("run -m %s -f prompt.txt -n 5", REFERENCE), given);
    free(given);
}

static void templates_can_be_replaced(void **state)
{
    (void)state;
    const char template[] =
        "{{ '<|begin|>' }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + "
        "'<|end|>' }}{% endfor %}{{ '<|assistant|>' }}";
    test_write(test_path("own.jinja"), template, sizeof template - 1);
    char *usual = strdup(run_well("run %s --chat -p %s", REFERENCE, QUESTION));
    assert_string_equal(run_well("run %s --chat-template own.jinja -p %s", REFERENCE, QUESTION), usual);
    run_well("run %s --chat-template plain -p hello -n 3", REFERENCE);
    test_write(test_path("bad.jinja"), "{% nonsense %}", 14);
    assert_fails(run("run %s --chat-template bad.jinja -p x", REFERENCE), 3, "bad.jinja");
    assert_fails(run("run %s --chat-template . -p x", REFERENCE), 3, "directory");
    test_write(test_path("zero.jinja"), "a\0b", 3);
    assert_fails(run("run %s --chat-template zero.jinja -p x", REFERENCE), 3, "zero.jinja: not a text");
    free(usual);
}

static void of_several_templates_the_used_one_is_named(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                        "model.safetensors"};
    test_make_folder(test_path("several"));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char from[512], to[64];
        snprintf(from, sizeof from, "%s/%s", REFERENCE, files[i]);
        snprintf(to, sizeof to, "several/%s", files[i]);
        assert_int_equal(symlink(from, test_path(to)), 0);
    }
    test_make_folder(test_path("several/additional_chat_templates"));
    test_write_text(test_path("several"), "chat_template.jinja", "{{ messages[0].content }}");
    test_write_text(test_path("several"), "additional_chat_templates/tool_use.jinja", "tools");
    test_write_text(test_path("several"), "tools.json", "[]");
    const struct ran *ran = run("run several --chat -p hello -n 1");
    assert_int_equal(ran->exit_status, 0);
    assert_non_null(strstr(ran->err, "of 2 chat templates this is used: several/chat_template.jinja\n"));
    ran = run("run several --tools several/tools.json -p hello -n 1");
    assert_non_null(strstr(ran->err, "this is used: several/additional_chat_templates/tool_use.jinja\n"));
    assert_null(strstr(run("run %s --chat -p hello -n 1", REFERENCE)->err, "chat templates"));
}

/* Given as an option, it is the message that the template would get first. */
static void a_system_message_goes_before_the_prompt(void **state)
{
    (void)state;
    static const char template[] = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
    test_write(test_path("roles.jinja"), template, sizeof template - 1);
    static const char options[] = "--system 'Be brief.' --chat-template roles.jinja -p hello -n 3 -o json";
    json_t *json = run_json("run %s %s", REFERENCE, options);
    json_t *same = run_json("run %s -p '[system]Be brief.[user]hello' -n 3 -o json", REFERENCE);
    assert_true(json_equal(json_object_get(json, "prompt_tokens"), json_object_get(same, "prompt_tokens")));
    json_decref(json);
    json_decref(same);
    json = run_json("run %s --system x -p hello -n 0 -o json", REFERENCE); /* --chat is implied */
    same = run_json("run %s --chat -p hello -n 0 -o json", REFERENCE);
    assert_true(json_integer_value(json_object_get(json, "n_prompt_tokens")) >
                json_integer_value(json_object_get(same, "n_prompt_tokens")));
    json_decref(json);
    json_decref(same);
}

static void tools_and_variables_reach_the_template(void **state)
{
    (void)state;
    static const char template[] =
        "{{ tools[0].function.name }}{{ enable_thinking }}{{ messages[0].content }}";
    static const char tools[] = "[{\"type\": \"function\", \"function\": {\"name\": \"look\"}}]";
    test_write(test_path("tools.jinja"), template, sizeof template - 1);
    test_write(test_path("tools.json"), tools, sizeof tools - 1);
    test_write(test_path("object.json"), "{}", 2);
    test_write(test_path("broken.json"), "[1", 2);
    json_t *json = run_json("run %s --chat-template tools.jinja --tools tools.json --chat-template-kwargs "
                            "'{\"enable_thinking\": false}' -p hello -n 0 -o json",
                            REFERENCE);
    json_t *same = run_json("run %s -p lookFalsehello -n 0 -o json", REFERENCE);
    assert_true(json_equal(json_object_get(json, "prompt_tokens"), json_object_get(same, "prompt_tokens")));
    json_decref(json);
    json_decref(same);
    assert_fails(run("run %s --tools object.json -p x", REFERENCE), 3, "object.json: not a JSON array");
    assert_fails(run("run %s --tools broken.json -p x", REFERENCE), 3, "broken.json: byte");
    assert_fails(run("run %s --tools missing.json -p x", REFERENCE), 3, "missing.json");
    assert_fails(run("run %s --chat-template-kwargs x -p x", REFERENCE), 2, "--chat-template-kwargs: ");
    assert_fails(run("run %s --chat-template-kwargs '{\"tools\": 1}' -p x", REFERENCE), 2, "'tools'");
    assert_fails(run("run %s --chat-template plain --tools tools.json -p x", REFERENCE), 2, "plain format");
}

static void wrong_calls_are_told(void **state)
{
    (void)state;
    assert_int_equal(run("run %s", REFERENCE)->exit_status, 2);
    assert_int_equal(run("run %s -p x --nonsense", REFERENCE)->exit_status, 2);
    assert_int_equal(run("run %s -p x --top-p 2", REFERENCE)->exit_status, 2);
    assert_int_equal(run("run %s -p x -n", REFERENCE)->exit_status, 2);
    assert_fails(run("run missing -p x"), 3, "missing");
    assert_int_equal(run("bench %s -p 1,x", REFERENCE)->exit_status, 2);
    assert_int_equal(run("bench %s -t 0", REFERENCE)->exit_status, 2);
    assert_int_equal(run("bench %s -p 0 -n 0", REFERENCE)->exit_status, 2);
    assert_int_equal(run("bench")->exit_status, 2);
    assert_fails(run("bench missing"), 3, "missing");
    assert_int_equal(run("bench %s -n -1", REFERENCE)->exit_status, 2);
    assert_int_equal(run("bench %s -b 0", REFERENCE)->exit_status, 2);
    assert_int_equal(run("bench %s -d x", REFERENCE)->exit_status, 2);
    assert_int_equal(
        run("bench %s -p 1,1,1,1,1,1,1,1 -d 0,0,0,0,0,0,0,0 -n 1,1,1,1,1,1,1,1 -b 1,1,1,1,1,1,1,1 "
            "-t 1,1,1,1",
            REFERENCE)
            ->exit_status,
        2);
    assert_int_equal(run("bench %s --cache-type f8", REFERENCE)->exit_status, 2);
    assert_int_equal(run("run %s -p x --cache-type f8", REFERENCE)->exit_status, 2);
    assert_int_equal(run("bench %s --activations short", REFERENCE)->exit_status, 2);
    assert_int_equal(run("run %s -p x --activations short", REFERENCE)->exit_status, 2);
    assert_int_equal(run("eval %s --task t.jsonl --activations short", REFERENCE)->exit_status, 2);
    assert_fails(run("run %s -p ''", REFERENCE), 2, "empty");
    assert_fails(run("run %s -p x -c 257", REFERENCE), 2, "the model's context has 256 tokens");
    assert_fails(run("run %s -p %s -c 3", REFERENCE, QUESTION), 2, "the context has 3");
    assert_fails(run("run %s -f missing.txt", REFERENCE), 3, "missing.txt");
    assert_fails(run("run %s -f .", REFERENCE), 3, "directory");
    test_write(test_path("zero.txt"), "a\0b", 3);
    assert_fails(run("run %s -f zero.txt", REFERENCE), 3, "zero.txt: not a text");
    const struct ran *ran = run_after("", "run %s -p x -n 3 >/dev/full", REFERENCE);
    assert_int_equal(ran->exit_status, 4);
    assert_non_null(strstr(ran->err, "standard output"));
}

/* A folder with another model's tokenizer, and without a template. */
static void parts_that_do_not_fit_are_told(void **state)
{
    (void)state;
    static const char links[] = "ln -s " REFERENCE "/tokenizer.json mixed; ln -s " SMALL "/model* mixed;";
    size_t nbytes;
    uint8_t *bytes = test_read(SMALL "/config.json", &nbytes);
    test_make_folder(test_path("mixed"));
    test_write(test_path("mixed/config.json"), bytes, nbytes);
    free(bytes);
    assert_fails(run_after(links, "run mixed -p 'Ali has'"), 3, "is not in the model's vocabulary of 80");
    assert_fails(run("run mixed -p x --chat"), 3, "no chat template");
}

/* Unlikely tokens are bytes that are no characters: streamed, they are replaced as Python does. */
static void what_is_no_character_is_replaced(void **state)
{
    (void)state;
    static const char python[] =
        "python3 -c 'import sys; b = sys.stdin.buffer.read(); sys.stdout.buffer.write(b.decode(\"utf-8\", "
        "\"replace\").encode())'";
    static const char options[] = "-p x -n 200 --temp 50 --top-k 0 --top-p 1 --min-p 0 -s 3";
    json_t *json = run_json("run %s %s -o json", REFERENCE, options);
    const char *text = json_string_value(json_object_get(json, "text"));
    assert_non_null(text);
    assert_non_null(strstr(text, "\xef\xbf\xbd"));
    assert_int_equal(strncmp(run_well("run %s %s", REFERENCE, options), text, strlen(text)), 0);
    const json_t *tokens = json_object_get(json, "tokens");
    char ids[8192] = "";
    for (size_t i = 0; i < json_array_size(tokens); i++)
        snprintf(ids + strlen(ids), sizeof ids - strlen(ids), "%lld ",
                 (long long)json_integer_value(json_array_get(tokens, i)));
    test_write(test_path("ids.txt"), ids, strlen(ids));
    assert_string_equal(run_well("tokenize %s --decode --skip-special <ids.txt | %s", REFERENCE, python),
                        text);
    json_decref(json);
}

/* On a terminal, and nowhere else. */
static void progress_is_shown_and_removed(void **state)
{
    (void)state;
    char before[1024];
    snprintf(before, sizeof before,
             "script -qec '%s compress %s shown' /dev/null >terminal.txt </dev/null || exit 9;", MB_PROGRAM,
             REFERENCE);
    assert_int_equal(run_after(before, "verify shown")->exit_status, 0);
    size_t nbytes;
    char *text = (char *)test_read(test_path("terminal.txt"), &nbytes);
    text = realloc(text, nbytes + 1);
    assert_non_null(text);
    text[nbytes] = '\0';
    const char *first = strstr(text, "\r\033[K"), *last = first;
    assert_true(first != NULL && strstr(first, "\xe2\x96\x91") != NULL && strchr(first, '%') != NULL);
    for (const char *next = first; (next = strstr(next + 1, "\r\033[K")) != NULL;)
        last = next;
    assert_true(last != first && strstr(last, "\xe2\x96\x91") == NULL); /* gone at the end */
    free(text);
    const struct ran *ran = run("compress %s hidden", REFERENCE);
    assert_null(strstr(ran->err, "\r"));
}

static void bench_prints_every_test(void **state)
{
    (void)state;
    json_t *rows = run_json("bench %s -p 16,32 -n 4 -b 1,2 -t 1,2 -r 2 -o json", REFERENCE);
    static const char *const tests[] = {"pp16", "pp32", "tg4", "tg4 x 2"};
    assert_int_equal(json_array_size(rows), 8);
    for (size_t i = 0; i < 8; i++) {
        const json_t *row = json_array_get(rows, i);
        assert_string_equal(json_string_value(json_object_get(row, "test")), tests[i % 4]);
        assert_int_equal(json_integer_value(json_object_get(row, "n_threads")), 1 + i / 4);
        assert_int_equal(json_array_size(json_object_get(row, "samples_ts")), 2);
        assert_true(json_real_value(json_object_get(row, "avg_ts")) > 0);
        assert_true(json_real_value(json_object_get(json_object_get(row, "ms_a_token"), "experts")) > 0);
    }
    json_decref(rows);
    rows = run_json("bench %s -p 4 -n 2 -d 0,200 -b 1,2 -r 2 -o json", REFERENCE);
    static const char *const deep[] = {"pp4", "tg2", "tg2 x 2", "pp4 @ d200", "tg2 @ d200", "tg2 x 2 @ d200"};
    assert_int_equal(json_array_size(rows), 6);
    for (size_t i = 0; i < 6; i++) {
        const json_t *row = json_array_get(rows, i);
        assert_string_equal(json_string_value(json_object_get(row, "test")), deep[i]);
        assert_int_equal(json_integer_value(json_object_get(row, "n_depth")), i < 3 ? 0 : 200);
    }
    json_decref(rows);
    const char *csv = run_well("bench %s -p 16 -n 0 -r 1 -o csv", REFERENCE);
    assert_non_null(strstr(csv, "\"pp16\""));
    const char *lines = run_well("bench %s -p 4,8 -n 0 -r 1 -o jsonl", REFERENCE), *second;
    json_t *line = json_loads(lines, JSON_DISABLE_EOF_CHECK, NULL);
    assert_string_equal(json_string_value(json_object_get(line, "test")), "pp4");
    json_decref(line);
    second = strchr(lines, '\n');
    assert_true(second != NULL && strstr(second, "\"pp8\"") != NULL);
    const char *table = run_well("bench %s -p 0 -n 4 -r 1", REFERENCE);
    assert_non_null(strstr(table, "| tg4 "));
    assert_non_null(strstr(table, "of memory read"));
}

static void bench_kernels_measures_every_kernel(void **state)
{
    (void)state;
    static const char *const kernels[] = {"fused", "matmul", "encode", "read"};
    size_t counts[4] = {0};
    json_t *json = run_json("bench kernels -r 1 --dram-mb 16 -o json");
    const json_t *rows = json_object_get(json, "rows");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        for (size_t k = 0; k < 4; k++)
            counts[k] += strcmp(json_string_value(json_object_get(row, "kernel")), kernels[k]) == 0;
        assert_true(json_real_value(json_object_get(row, "gbytes_per_s")) > 0);
    }
    assert_true(counts[0] >= 8 && counts[1] >= 1 && counts[2] >= 1 && counts[3] >= 1);
    json_decref(json);
    const char *table = run_well("bench kernels -r 1 --dram-mb 16");
    assert_non_null(strstr(table, "| scalar "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_is_answered),
        cmocka_unit_test(the_stream_is_the_tokens_text),
        cmocka_unit_test(what_nobody_uses_is_noted),
        cmocka_unit_test(a_seed_gives_its_text),
        cmocka_unit_test(a_prompt_comes_from_stdin_and_file),
        cmocka_unit_test(templates_can_be_replaced),
        cmocka_unit_test(of_several_templates_the_used_one_is_named),
        cmocka_unit_test(a_system_message_goes_before_the_prompt),
        cmocka_unit_test(tools_and_variables_reach_the_template),
        cmocka_unit_test(wrong_calls_are_told),
        cmocka_unit_test(bench_prints_every_test),
        cmocka_unit_test(bench_kernels_measures_every_kernel),
        cmocka_unit_test(parts_that_do_not_fit_are_told),
        cmocka_unit_test(what_is_no_character_is_replaced),
        cmocka_unit_test(progress_is_shown_and_removed),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
