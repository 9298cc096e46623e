/*
 * test_tiktoken.c - folders with tiktoken.model: a small one against the tiktoken package, damaged ones, and
 * what is reported where a folder has another tokenizer or none.
 */
#include "base/buf.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "goldens.h"
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void the_small_one_equals_the_package(void **state)
{
    (void)state;
    check_goldens("kimi", TOKENIZER_DATA "/kimi", NULL);
}

static char *read_data(const char *name)
{
    char path[600];
    size_t nbytes;
    snprintf(path, sizeof path, TOKENIZER_DATA "/kimi/%s", name);
    uint8_t *bytes = test_read(path, &nbytes);
    char *text = realloc(bytes, nbytes + 1);
    assert_non_null(text);
    text[nbytes] = '\0';
    return text;
}

/* A copy of the small folder's file with 'from' (NULL: nothing) replaced; the copy is opened. */
static enum mb_status open_with(const char *name, const char *from, const char *to, const char *more,
                                struct mb_tokenizer **tokenizer, struct mb_error *err)
{
    static const char *const names[] = {"tiktoken.model", "tokenizer_config.json"};
    for (size_t i = 0; i < 2; i++) {
        char *text = read_data(names[i]), *at = NULL;
        struct mb_bytes changed = {0};
        if (strcmp(name, names[i]) == 0 && from != NULL) {
            at = strstr(text, from);
            assert_non_null(at);
            assert_true(mb_bytes_put(&changed, text, (size_t)(at - text)));
            assert_true(mb_bytes_put(&changed, to, strlen(to)));
        }
        const char *rest = at == NULL ? text : at + strlen(from);
        assert_true(mb_bytes_put(&changed, rest, strlen(rest)));
        if (strcmp(name, names[i]) == 0)
            assert_true(mb_bytes_put(&changed, more, strlen(more)));
        test_write(test_path(names[i]), changed.p, changed.n);
        free(changed.p);
        free(text);
    }
    *tokenizer = NULL;
    *err = (struct mb_error){0};
    return mb_tokenizer_open(test_path("."), tokenizer, err);
}

/* The first lines are "AA== 0", "AQ== 1", "Ag== 2"; there are 700. */
static void faults_are_named_with_their_place(void **state)
{
    (void)state;
    static const char RANKS[] = "tiktoken.model", CONFIG[] = "tokenizer_config.json";
    static const struct {
        const char *name, *from, *to, *more;
        enum mb_status status;
        const char *message;
    } cases[] = {
        {RANKS, "AQ== 1\n", "AQ== 700\n", "", MB_BAD_DATA,
         "line 2: its rank '700' is not a number below 700, which is how many tokens the file has"},
        {RANKS, "AQ== 1\n", "", "", MB_BAD_DATA, "line 699: its rank '699' is not a number below 699"},
        {RANKS, "AQ== 1\n", "AQ== 1000000000\n", "", MB_BAD_DATA, "line 2: its rank '1000000000' is not"},
        {RANKS, "AQ== 1\n", "AQ== 99999999999999999999999999\n", "", MB_BAD_DATA, "line 2: its rank"},
        {RANKS, "AQ== 1\n", "AQ== -1\n", "", MB_BAD_DATA, "line 2: its rank '-1' is not"},
        {RANKS, "AQ== 1\n", "AQ==\n", "", MB_BAD_DATA, "line 2: its rank '' is not"},
        {RANKS, "AQ== 1\n", "AQ== 2\n", "", MB_BAD_DATA, "line 3: the same rank is on an earlier line"},
        {RANKS, "AQ== 1\n", "AA== 1\n", "", MB_BAD_DATA, "line 2: the same token is on an earlier line"},
        {RANKS, "AQ== 1\n", "AQ= 1\n", "", MB_BAD_DATA, "line 2: not a token in base64 and its rank"},
        {RANKS, "AQ== 1\n", "A=Q= 1\n", "", MB_BAD_DATA, "line 2: not a token in base64"},
        {RANKS, "AQ== 1\n", "==== 1\n", "", MB_BAD_DATA, "line 2: not a token in base64"},
        {RANKS, "AQ== 1\n", "\xc3\xa9== 1\n", "", MB_BAD_DATA, "line 2: not a token in base64"},
        {RANKS, "AQ== 1\n", " AQ== 1\n", "", MB_BAD_DATA, "line 2: not a token in base64"},
        {RANKS, "AQ== 1\n", "YWJjYWJjYWJj 1\n", "", MB_BAD_DATA, "has no token for the byte 0x01"},
        {RANKS, NULL, NULL, "AAAAAAAA", MB_BAD_DATA, "line 701: its rank ''"},
        {CONFIG, "tokenization_moonshot.", "tokenization_kimia.", "", MB_UNSUPPORTED,
         "this is 'tokenization_kimia.TikTokenTokenizer'"},
        {CONFIG, "\"tokenizer_class\": \"TikTokenTokenizer\"", "\"tokenizer_class\": \"GLMTokenizer\"", "",
         MB_UNSUPPORTED, "this is 'GLMTokenizer'"},
        {CONFIG, "\"auto_map\"", "\"auto_maps\"", "", MB_UNSUPPORTED, "this is 'TikTokenTokenizer'"},
        {CONFIG, "\"702\"", "\"699\"", "", MB_BAD_DATA,
         "added_tokens_decoder: '699' is not among the 256 ids after the ranks of tiktoken.model, 700 to "
         "955"},
        {CONFIG, "\"702\"", "\"956\"", "", MB_BAD_DATA, "'956' is not among the 256 ids"},
        {CONFIG, "\"702\"", "\"0702\"", "", MB_BAD_DATA, "'0702' is not among"},
        {CONFIG, "\"<|im_user|>\"", "\"[EOS]\"", "", MB_BAD_DATA, "token '[EOS]' comes twice"},
        {CONFIG, "\"lstrip\": false", "\"lstrip\": true", "", MB_UNSUPPORTED, "'lstrip' is not supported"},
        {CONFIG, "\"bos_token\": \"[BOS]\"", "\"bos_token\": \"<s>\"", "", MB_BAD_DATA,
         "bos_token: there is no special token '<s>'"},
        {CONFIG, "\"additional_special_tokens\": [", "\"additional_special_tokens\": [\"?\",", "",
         MB_BAD_DATA, "additional_special_tokens[0]: there is no special token '?'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        enum mb_status status =
            open_with(cases[i].name, cases[i].from, cases[i].to, cases[i].more, &tokenizer, &err);
        if (status != cases[i].status || strstr(err.msg, cases[i].message) == NULL ||
            strstr(err.msg, cases[i].name) == NULL || strchr(err.msg, '\n') != NULL)
            fail_msg("case %zu: status %d: %s", i, status, err.msg);
    }
}

/* As Python reads the file: empty lines, lines in any order, ends of Windows. */
static void harmless_differences_are_taken(void **state)
{
    (void)state;
    static const char *const changes[][2] = {
        {"AQ== 1\n", "AQ== 1\r\n"},
        {"AQ== 1\n", "\n\nAQ== \t1 \n"},
        {"AQ== 1\nAg== 2\n", "Ag== 2\nAQ== 1\n"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        if (open_with("tiktoken.model", changes[i][0], changes[i][1], "", &tokenizer, &err) != MB_OK)
            fail_msg("%s", err.msg);
        assert_int_equal(mb_tokenizer_id(tokenizer, "<|im_user|>"), 703);
        assert_int_equal(mb_tokenizer_id(tokenizer, "<|reserved_token_800|>"), 800);
        assert_int_equal(mb_tokenizer_n_vocab(tokenizer), 956);
        mb_tokenizer_close(tokenizer);
    }
}

/* The class of the folder cuts before runs of 25,001 characters; without the cut ids would differ. */
static void long_runs_are_cut(void **state)
{
    (void)state;
    enum { N = 60001, RUN = 25000 };
    struct mb_tokenizer *tokenizer;
    struct mb_error err;
    int32_t *ids, *parts[3];
    size_t n, n_parts[3], done = 0;
    assert_int_equal(open_with("", NULL, NULL, NULL, &tokenizer, &err), MB_OK);
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, '=', N);
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, N, true, &ids, &n, &err), MB_OK);
    for (size_t i = 0; i < 3; i++) {
        size_t nbytes = N - i * RUN < RUN ? N - i * RUN : RUN;
        assert_int_equal(mb_tokenizer_encode(tokenizer, text, nbytes, true, &parts[i], &n_parts[i], &err),
                         MB_OK);
        assert_memory_equal(ids + done, parts[i], n_parts[i] * sizeof *ids);
        done += n_parts[i];
        free(parts[i]);
    }
    assert_int_equal(n, done);
    free(ids);
    free(text);
    mb_tokenizer_close(tokenizer);
}

static void what_is_there_instead_is_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "there is no tokenizer: neither tokenizer.json nor tiktoken.model"},
        {"tokenizer.model", "SentencePiece's tokenizer.model alone is not supported"},
        {"vocab.json", "vocab.json and merges.txt alone are not supported"},
        {"tiktoken.model", "there is no tokenizer_config.json beside it"},
    };
    test_make_folder(test_path("other"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err = {0};
        if (cases[i][0][0] != '\0')
            test_write_text(test_path("other"), cases[i][0], "x");
        enum mb_status status = mb_tokenizer_open(test_path("other"), &tokenizer, &err);
        if ((status != MB_BAD_DATA && status != MB_UNSUPPORTED) || strstr(err.msg, cases[i][1]) == NULL)
            fail_msg("%s: %s", cases[i][0], err.msg);
        if (cases[i][0][0] != '\0')
            unlink(test_path("other/tokenizer.model")), unlink(test_path("other/vocab.json"));
    }
    struct mb_tokenizer *tokenizer;
    struct mb_error err = {0};
    assert_int_equal(mb_tokenizer_open(test_path("other/tiktoken.model"), &tokenizer, &err), MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "give the folder"));
}

static void a_conversation_has_its_special_tokens(void **state)
{
    (void)state;
    static const struct mb_chat_message messages[] = {{"user", "a"}};
    struct mb_tokenizer *tokenizer;
    struct mb_error err;
    char *text;
    int32_t *ids;
    size_t n;
    assert_int_equal(open_with("", NULL, NULL, NULL, &tokenizer, &err), MB_OK);
    assert_int_equal(mb_tokenizer_chat(tokenizer, messages, 1, true, &text, &err), MB_OK);
    assert_string_equal(text, "<|im_user|>user<|im_middle|>a<|im_end|>");
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, strlen(text), false, &ids, &n, &err), MB_OK);
    assert_int_equal(ids[0], 703);
    assert_int_equal(ids[n - 1], 702);
    free(ids);
    free(text);
    mb_tokenizer_close(tokenizer);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_small_one_equals_the_package),
        cmocka_unit_test(faults_are_named_with_their_place),
        cmocka_unit_test(harmless_differences_are_taken),
        cmocka_unit_test(long_runs_are_cut),
        cmocka_unit_test(what_is_there_instead_is_named),
        cmocka_unit_test(a_conversation_has_its_special_tokens),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
