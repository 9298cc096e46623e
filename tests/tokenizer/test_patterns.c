/*
 * test_patterns.c - patterns of pre-tokenizers that backtrack for ever are stopped, and unknown syntax is
 * refused.
 */
#include "base/buf.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "tokenizer/pattern.h"
#include <jansson.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static enum mb_status open_with(const char *pattern, struct mb_tokenizer **tokenizer, struct mb_error *err)
{
    char json[1024];
    snprintf(
        json, sizeof json,
        "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", "
        "\"behavior\": "
        "\"Isolated\", \"pattern\": {\"Regex\": \"%s\"}}, {\"type\": \"ByteLevel\", \"add_prefix_space\": "
        "false, "
        "\"use_regex\": false}]}, \"decoder\": {\"type\": \"ByteLevel\"}, "
        "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"x\": 1, \"aa\": 2}, \"merges\": [\"a a\"]}}",
        pattern);
    test_write_text(test_path("."), "tokenizer.json", json);
    return mb_tokenizer_open(test_path("tokenizer.json"), tokenizer, err);
}

/* 'n' times a, then x. Returns the seconds of CPU time. */
static double encode(const struct mb_tokenizer *tokenizer, size_t n, enum mb_status *status,
                     struct mb_error *err)
{
    struct timespec begun, ended;
    int32_t *ids = NULL;
    size_t n_ids;
    char *text = malloc(n + 1);
    assert_non_null(text);
    memset(text, 'a', n);
    text[n] = 'x';
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
    *status = mb_tokenizer_encode(tokenizer, text, n + 1, false, &ids, &n_ids, err);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
    free(ids);
    free(text);
    return (double)(ended.tv_sec - begun.tv_sec) + 1e-9 * (double)(ended.tv_nsec - begun.tv_nsec);
}

static void patterns_that_backtrack_are_stopped(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "(a+)+[bc]",
        "(a|aa)+[bc]",
        "(a*)*[bc]",
        "(a|a)*?[bc]",
        "(?=(a+)+[bc])a",
        "(a?){100}a{100}[bc]",
        /* not slow enough anywhere for the limit of steps, but slow everywhere */
        "a{0,300}a{0,300}[bc]",
        "a{0,99}a{0,99}a{0,9}[bc]",
    };
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        enum mb_status status;
        if (open_with(patterns[i], &tokenizer, &err) != MB_OK)
            fail_msg("%s: %s", patterns[i], err.msg);
        double seconds = encode(tokenizer, 200000, &status, &err);
        mb_tokenizer_close(tokenizer);
        if (status != MB_UNSUPPORTED || strstr(err.msg, "too many steps") == NULL)
            fail_msg("%s: status %d after %.1f s", patterns[i], status, seconds);
        print_message("%-28s stopped after %.2f s\n", patterns[i], seconds);
        if (seconds > 60) /* far above what is allowed, for sanitizers; a hang is longer */
            fail_msg("%s: took %.1f s", patterns[i], seconds);
    }
}

static void ordinary_patterns_are_not(void **state)
{
    (void)state;
    static const char *const patterns[] = {"a+", "\\\\s*[\\\\r\\\\n]+|a+(?!\\\\S)|a+", "[bc]", "a{1,3}",
                                           "(?i:A)"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err = {0};
        enum mb_status status;
        if (open_with(patterns[i], &tokenizer, &err) != MB_OK)
            fail_msg("%s: %s", patterns[i], err.msg);
        encode(tokenizer, 500000, &status, &err);
        mb_tokenizer_close(tokenizer);
        if (status != MB_OK)
            fail_msg("%s: %s", patterns[i], err.msg);
    }
}

static void unknown_syntax_is_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {"(?<n>a)\\\\k<n>",
                                           "\\\\p{Greekish}",
                                           "[[:alpha:]]",
                                           "a{2}+",
                                           "\\\\h",
                                           "(?R)",
                                           "[a",
                                           "(a",
                                           "(?i)\u00e9",
                                           "(?i:\u017f)",
                                           "[a&&\\\\D]",
                                           "\\\\p{}",
                                           "\\\\x{110000}",
                                           "\\\\ud800",
                                           "\\\\xff",
                                           "[b-a]",
                                           "[a-\\\\d]",
                                           "[\\\\d-a]",
                                           "a(?i)b",
                                           "\\\\"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err = {0};
        enum mb_status status = open_with(patterns[i], &tokenizer, &err);
        if (status == MB_OK)
            fail_msg("%s was taken", patterns[i]);
        assert_non_null(strstr(err.msg, "tokenizer.json: pre_tokenizer.pretokenizers[0]"));
    }
}

/* The pieces between matches that have any bytes. */
static json_t *left_of(const struct mb_pattern *pattern, const char *text)
{
    struct mb_matcher matcher;
    struct mb_match match = {0};
    struct mb_error err;
    size_t n = strlen(text), done = 0;
    json_t *pieces = json_array();
    assert_int_equal(mb_matcher_init(&matcher, n, &err), MB_OK);
    do {
        if (mb_match_next(&matcher, pattern, text, n, &match, &err) != MB_OK)
            fail_msg("%s", err.msg);
        size_t end = match.is_found ? match.begin : n;
        if (end > done)
            json_array_append_new(pieces, json_stringn(text + done, end - done));
        done = match.end;
    } while (match.is_found);
    mb_matcher_free(&matcher);
    return pieces;
}

/* data/goldens/patterns.json is written by tools/tokenizer-goldens/make_pattern_goldens.py. */
static void patterns_equal_the_package(void **state)
{
    (void)state;
    json_t *goldens = json_load_file(MB_REPO "/tests/tokenizer/data/goldens/patterns.json", 0, NULL);
    const json_t *texts = json_object_get(goldens, "texts"), *patterns = json_object_get(goldens, "patterns");
    size_t n_wrong = 0;
    assert_true(json_array_size(patterns) >= 50 && json_array_size(texts) >= 3);
    for (size_t i = 0; i < json_array_size(patterns); i++) {
        const json_t *golden = json_array_get(patterns, i);
        const char *source = json_string_value(json_array_get(golden, 0));
        struct mb_bytes translated = {0};
        struct mb_pattern pattern;
        struct mb_error err;
        if (mb_pattern_translate(source, strlen(source), false, &translated, &err) != MB_OK ||
            mb_pattern_compile(translated.p, &pattern, &err) != MB_OK)
            fail_msg("%s: %s", source, err.msg);
        for (size_t k = 0; k < json_array_size(texts); k++) {
            json_t *left = left_of(&pattern, json_string_value(json_array_get(texts, k)));
            if (!json_equal(left, json_array_get(golden, 1 + k))) {
                char *got = json_dumps(left, 0), *expected = json_dumps(json_array_get(golden, 1 + k), 0);
                print_error("%s, text %zu:\nexpected %s\ngot      %s\n", source, k, expected, got);
                free(got);
                free(expected);
                n_wrong++;
            }
            json_decref(left);
        }
        mb_pattern_free(&pattern);
        free(translated.p);
    }
    json_decref(goldens);
    assert_int_equal(n_wrong, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_equal_the_package),
        cmocka_unit_test(patterns_that_backtrack_are_stopped),
        cmocka_unit_test(ordinary_patterns_are_not),
        cmocka_unit_test(unknown_syntax_is_refused),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
