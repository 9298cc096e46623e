/*
 * test_tokenize.c - "moebius tokenize" as a user calls it: ids and back through pipes, options, errors.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "program.h"
#include <stdio.h>
#include <string.h>

#define REFERENCE MB_REPO "/models/reference"

/* "t/tokenizer.json" adds special tokens around a text, t/tokenizer_config.json asks for others. */
static const char tokenizer_json[] =
    "{\"added_tokens\": [{\"id\": 4, \"content\": \"<s>\", \"special\": true},"
    "                    {\"id\": 5, \"content\": \"</s>\", \"special\": true}],"
    " \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true},"
    " \"post_processor\": {\"type\": \"TemplateProcessing\","
    "   \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}},"
    "                {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],"
    "   \"pair\": [], \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [4], \"tokens\": [\"<s>\"]}}},"
    " \"decoder\": {\"type\": \"ByteLevel\"},"
    " \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"c\": 3},"
    "             \"merges\": [\"a b\"]}}";

static int begin(void **state)
{
    if (test_folder_begin(state) != 0)
        return -1;
    test_make_folder(test_path("t"));
    test_write_text(test_path("t"), "tokenizer.json", tokenizer_json);
    test_write_text(test_path("t"), "tokenizer_config.json",
                    "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_bos_token\": false,"
                    " \"add_eos_token\": true, \"pad_token\": \"<pad>\"}");
    return 0;
}

/* What it prints for a text on stdin (printf's escapes). */
static const char *out_of(const char *text, const char *arguments)
{
    char before[512];
    snprintf(before, sizeof before, "printf '%s' |", text);
    const struct ran *ran = run_after(before, "tokenize %s", arguments);
    if (ran->exit_status != 0)
        fail_msg("tokenize %s: exit status %d: %s", arguments, ran->exit_status, ran->err);
    assert_string_equal(ran->err, "");
    return ran->out;
}

static void ids_of_a_text(void **state)
{
    (void)state;
    assert_string_equal(out_of("abca</s>b", "t"), "4 2 3 0 5 1\n");
    assert_string_equal(out_of("abc", "t/tokenizer.json"), "4 2 3\n");
    assert_string_equal(out_of("abc", "-m t"), "4 2 3\n");
}

static void special_tokens_around_a_text(void **state)
{
    (void)state;
    assert_string_equal(out_of("ab", "t --no-bos"), "2\n");
    assert_string_equal(out_of("ab", "t --config-bos"), "4 2\n");
    assert_string_equal(out_of("ab", "t/tokenizer.json --config-bos"), "4 2\n");
    assert_string_equal(out_of("a<pad>b", "t"), "4 0 6 1\n"); /* the configuration's */
    assert_string_equal(out_of("", "t"), "4\n");
    assert_string_equal(out_of("", "t --no-bos"), "");
}

static void text_of_ids(void **state)
{
    (void)state;
    assert_string_equal(out_of(" 4 2\\n\\t3  5\\n", "t --decode"), "<s>abc</s>");
    assert_string_equal(out_of("4 2 3 5", "t -d --skip-special"), "abc");
    assert_string_equal(out_of("", "t --decode"), "");
    assert_string_equal(out_of(" \\n", "t --decode"), "");
}

/* All bytes but those that are no UTF-8 come back; the zero byte is one of them. */
static void every_text_comes_back(void **state)
{
    (void)state;
    static const char text[] = "A\0b \r\n\t <|end|> caf\xc3\xa9 12345 \xf0\x9f\x98\x80  ";
    test_write(test_path("in.txt"), text, sizeof text - 1);
    const struct ran *ran = run_after("",
                                      "tokenize %s <in.txt >ids.txt && '%s' tokenize %s -d <ids.txt "
                                      ">out.txt && cmp in.txt out.txt",
                                      REFERENCE, MB_PROGRAM, REFERENCE);
    assert_int_equal(ran->exit_status, 0);
    assert_string_equal(ran->err, "");
    test_write(test_path("in.txt"), "a\xff\xe2\x82z", 5);
    assert_string_equal(run_well("tokenize %s <in.txt >ids.txt && '%s' tokenize %s -d <ids.txt", REFERENCE,
                                 MB_PROGRAM, REFERENCE),
                        "a\xef\xbf\xbd\xef\xbf\xbdz");
}

static void wrong_usage_is_2(void **state)
{
    (void)state;
    assert_fails(run("tokenize"), 2, "usage: moebius tokenize");
    assert_fails(run("tokenize t more"), 2, "one too many");
    assert_fails(run("tokenize t --nonsense"), 2, "--nonsense");
    assert_fails(run("tokenize t --decode --no-bos"), 2, "--decode");
    assert_fails(run("tokenize t --skip-special"), 2, "--skip-special");
    assert_fails(run("tokenize t --no-bos --config-bos"), 2, "--config-bos");
}

static void bad_input_is_3(void **state)
{
    (void)state;
    test_make_folder(test_path("empty"));
    assert_fails(run("tokenize nothing </dev/null"), 3, "nothing");
    assert_fails(run("tokenize empty </dev/null"), 3, "tokenizer.json");
    assert_fails(run("tokenize t/tokenizer_config.json </dev/null"), 3, "model");
    assert_fails(run_after("echo 1 2 x3 |", "tokenize t -d"), 3, "byte 4: 'x3' is not a token id");
    assert_fails(run_after("echo 1 -2 |", "tokenize t -d"), 3, "'-2' is not a token id");
    assert_fails(run_after("echo 4294967296 |", "tokenize t -d"), 3, "'4294967296'");
    assert_fails(run_after("echo 99999999999999999999 |", "tokenize t -d"), 3, "'99999999999999999999'");
    assert_fails(run_after("echo 1 7 |", "tokenize t -d"), 3, "7");
    assert_fails(run_after("printf '1\\0002' |", "tokenize t -d"), 3, "zero byte");
    assert_fails(run("tokenize t <."), 3, "standard input: read: Is a directory");
}

static void the_machines_faults_are_4(void **state)
{
    (void)state;
    const struct ran *ran = run_after("echo ab |", "tokenize t >/dev/full");
    assert_int_equal(ran->exit_status, 4);
    assert_non_null(strstr(ran->err, "standard output"));
}

static void help_is_on_stdout(void **state)
{
    (void)state;
    assert_non_null(strstr(run_well("tokenize --help"), "usage: moebius tokenize MODEL"));
    assert_non_null(strstr(run_well("--help"), "tokenize"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_a_text),
        cmocka_unit_test(special_tokens_around_a_text),
        cmocka_unit_test(text_of_ids),
        cmocka_unit_test(every_text_comes_back),
        cmocka_unit_test(wrong_usage_is_2),
        cmocka_unit_test(bad_input_is_3),
        cmocka_unit_test(the_machines_faults_are_4),
        cmocka_unit_test(help_is_on_stdout),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
