/*
 * test_calibration.c - calibration texts: what becomes of them, and those that are refused.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <moebius/calibrate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFERENCE MB_REPO "/models/reference"

static struct mb_tokenizer *tokenizer;
static const int32_t eos_id = 3;
static const struct mb_model_info info = {
    .n_vocab = 2048, .n_ctx_train = 256, .bos_id = 0, .eos_ids = &eos_id, .n_eos_ids = 1};

static enum mb_status read_options(const char *path, const struct mb_calibration_options *options,
                                   struct mb_calibration *calibration, struct mb_error *err)
{
    return mb_calibration_read(path, &info, tokenizer, options, calibration, err);
}

static void must_read(const char *name, const char *text, struct mb_calibration *calibration)
{
    struct mb_error err;
    test_write(test_path(name), text, strlen(text));
    if (read_options(test_path(name), NULL, calibration, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

static void refused(const char *name, const void *text, size_t nbytes, const char *expected)
{
    struct mb_error err;
    struct mb_calibration calibration;
    test_write(test_path(name), text, nbytes);
    assert_int_equal(read_options(test_path(name), NULL, &calibration, &err), MB_BAD_DATA);
    if (strstr(err.msg, expected) == NULL || strstr(err.msg, name) == NULL)
        fail_msg("\"%s\" instead of \"%s\"", err.msg, expected);
    assert_int_equal(calibration.windows.n, 0);
}

#define REFUSED(name, text, expected) refused(name, text, sizeof(text) - 1, expected)

static void texts_that_say_nothing_are_refused_by_line(void **state)
{
    (void)state;
    REFUSED("a.txt", "", "empty");
    REFUSED("a.txt", " \n\n \t\n", "empty");
    REFUSED("a.txt", "Three words only.", "a window needs 256");
    REFUSED("a.txt", "one\ntwo\nthree \xff four\n", "line 3: byte 14 of the file: not UTF-8");
    REFUSED("a.txt", "one\ntwo \0 three", "a zero");
    REFUSED("a.jsonl", "\n\n", "empty");
    REFUSED("a.jsonl", "{\"text\": \"fine\"}\n{\"txt\": 1}\n", "line 2: no text 'text'");
    REFUSED("a.jsonl", "{\"text\": \"fine\"}\n\n{\"text\": \"\"}\n", "line 3: 'text' is empty");
    REFUSED("a.jsonl", "{\"question\": \"what?\"}\n", "line 1: no text 'text'");
    REFUSED("a.jsonl", "{\"text\": \"fine\"\n", "line 1: ");
    REFUSED("a.jsonl", "[1]\n", "line 1: ");
}

static void a_long_text_is_cut_and_begins_with_bos(void **state)
{
    (void)state;
    char text[6000] = "{\"text\": \"";
    struct mb_calibration calibration;
    for (size_t i = 0; i < 500; i++)
        strcat(text, "apples and ");
    strcat(text, "\"}\n\n{\"text\": \"pears\"}\n");
    must_read("b.jsonl", text, &calibration);
    assert_true(calibration.windows.n > 3);
    size_t n = 0;
    for (size_t w = 0; w < calibration.windows.n; w++) {
        const struct mb_window *window = &calibration.windows.at[w];
        assert_int_equal(window->tokens[0], 0);
        assert_true(window->n_tokens <= 256 && window->n_tokens >= 2);
        n += window->n_tokens;
    }
    assert_int_equal(n, calibration.windows.n_tokens);
    assert_int_equal(calibration.n_strange, 0);
    mb_calibration_free(&calibration);
}

/* What the tokenizer spells byte by byte is counted, and the line that has most of it is named. */
static void a_text_that_the_tokenizer_hardly_knows_is_counted(void **state)
{
    (void)state;
    struct mb_calibration calibration;
    must_read("c.jsonl",
              "{\"text\": \"Tom has 12 apples.\"}\n{\"text\": \"\u6c34\u5728\u96f6\u5ea6\u7ed3\u51b0\"}\n"
              "{\"text\": \"\u6c34 and water\"}\n",
              &calibration);
    assert_true(calibration.n_strange >= 18 && calibration.n_strange < calibration.n_read);
    assert_int_equal(calibration.strange_line, 2);
    mb_calibration_free(&calibration);
}

static void a_limit_takes_the_first_windows(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_calibration all, part;
    struct mb_calibration_options options = {.size = sizeof options, .n_tokens_max = 1000};
    assert_int_equal(read_options(NULL, NULL, &all, &err), MB_OK);
    assert_int_equal(read_options(NULL, &options, &part, &err), MB_OK);
    assert_true(part.windows.n_tokens >= 1000 && part.windows.n_tokens < 1256);
    assert_true(all.windows.n_tokens > 20000);
    for (size_t w = 0; w < part.windows.n; w++)
        assert_memory_equal(part.windows.at[w].tokens, all.windows.at[w].tokens,
                            part.windows.at[w].n_tokens * sizeof(int32_t));
    mb_calibration_free(&all);
    mb_calibration_free(&part);
}

static void a_limit_holds_within_a_line(void **state)
{
    (void)state;
    char text[12000] = "{\"text\": \"";
    struct mb_error err;
    struct mb_calibration calibration;
    struct mb_calibration_options options = {.size = sizeof options, .n_tokens_max = 300};
    for (size_t i = 0; i < 1000; i++)
        strcat(text, "apples and ");
    strcat(text, "\"}\n");
    test_write(test_path("long.jsonl"), text, strlen(text));
    assert_int_equal(read_options(test_path("long.jsonl"), &options, &calibration, &err), MB_OK);
    assert_int_equal(calibration.windows.n, 2);
    assert_true(calibration.windows.n_tokens >= 300);
    mb_calibration_free(&calibration);
}

/* Each window's tokens are in the key, and so are the tokenizer's files and the weights. */
static void a_key_tells_texts_apart(void **state)
{
    (void)state;
    struct mb_error err;
    struct mb_calibration one, other;
    struct mb_moments_key key_one, key_other;
    char hash[MB_HASH_NBYTES];
    must_read("one.jsonl", "{\"text\": \"apples and pears\"}\n", &one);
    must_read("other.jsonl", "{\"text\":  \"apples and pears\"}\n", &other);
    assert_int_equal(mb_moments_key_of(REFERENCE, &one, &key_one, &err), MB_OK);
    assert_int_equal(mb_moments_key_of(REFERENCE, &other, &key_other, &err), MB_OK);
    assert_int_equal(mb_model_hash(REFERENCE, hash, &err), MB_OK);
    assert_string_equal(key_one.model, hash);
    assert_string_equal(key_one.tokenizer, key_other.tokenizer);
    assert_string_equal(key_one.tokens, key_other.tokens);
    assert_string_not_equal(key_one.text, key_other.text);
    mb_calibration_free(&one);
    mb_calibration_free(&other);
}

int main(void)
{
    struct mb_error err;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_that_say_nothing_are_refused_by_line),
        cmocka_unit_test(a_long_text_is_cut_and_begins_with_bos),
        cmocka_unit_test(a_text_that_the_tokenizer_hardly_knows_is_counted),
        cmocka_unit_test(a_limit_takes_the_first_windows),
        cmocka_unit_test(a_limit_holds_within_a_line),
        cmocka_unit_test(a_key_tells_texts_apart),
    };
    if (mb_tokenizer_open(REFERENCE, &tokenizer, &err) != MB_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
    mb_tokenizer_close(tokenizer);
    return failed;
}
