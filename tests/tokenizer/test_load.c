/*
 * test_load.c - tokenizer.json, tokenizer_config.json and chat_template.jinja with one thing wrong: what is
 * said, and where.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <ctype.h>
#include <jansson.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char SOUND[] =
    "{'added_tokens': [{'id': 5, 'content': '<s>', 'special': true}],"
    " 'normalizer': {'type': 'Sequence', 'normalizers': [{'type': 'NFC'}, {'type': 'Prepend', 'prepend': "
    "'_'},"
    "  {'type': 'Replace', 'pattern': {'String': 'x'}, 'content': 'y'}]},"
    " 'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [{'type': 'Digits'}, {'type': 'Split', "
    "'behavior':"
    "  'Isolated', 'pattern': {'Regex': 'z+'}}, {'type': 'Metaspace'}]},"
    " 'post_processor': {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': '<s>'}}, "
    "{'Sequence':"
    "  {'id': 'A'}}], 'special_tokens': {'<s>': {'ids': [5]}}},"
    " 'decoder': {'type': 'Sequence', 'decoders': [{'type': 'Replace', 'pattern': {'String': '_'}, "
    "'content': ' '},"
    "  {'type': 'ByteFallback'}, {'type': 'Fuse'}, {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': "
    "0}]},"
    " 'model': {'type': 'BPE', 'vocab': {'a': 0, 'b': 1, 'ab': 2, '<unk>': 3, 'c': 7}, 'merges': ['a b'],"
    "  'unk_token': '<unk>'}}";

/* JSON with ' for ". */
static json_t *parse(const char *text)
{
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *p = copy; *p != 0; p++)
        if (*p == '\'')
            *p = '"';
    json_t *value = json_loads(copy, JSON_DECODE_ANY, NULL);
    if (value == NULL)
        fail_msg("not JSON: %s", copy);
    free(copy);
    return value;
}

/* Sets what stands at "a.b.2.c" (numbers: elements of arrays). */
static void set(json_t *root, const char *path, json_t *value)
{
    char key[64];
    size_t n = strcspn(path, ".");
    snprintf(key, sizeof key, "%.*s", (int)n, path);
    bool is_last = path[n] == 0, is_array = json_is_array(root);
    assert_true(is_array || json_is_object(root));
    size_t i = strtoul(key, NULL, 10);
    if (!is_last)
        set(is_array ? json_array_get(root, i) : json_object_get(root, key), path + n + 1, value);
    else
        assert_int_equal(
            is_array ? json_array_set_new(root, i, value) : json_object_set_new(root, key, value), 0);
}

static enum mb_status open_changed(const char *path, const char *value, struct mb_tokenizer **tokenizer,
                                   struct mb_error *err)
{
    json_t *root = parse(SOUND);
    if (path != NULL)
        set(root, path, parse(value));
    char *text = json_dumps(root, JSON_COMPACT);
    test_write_text(test_path("."), "tokenizer.json", text);
    free(text);
    json_decref(root);
    *tokenizer = NULL;
    *err = (struct mb_error){0};
    return mb_tokenizer_open(test_path("."), tokenizer, err);
}

static void assert_ids(const struct mb_tokenizer *tokenizer, const char *text, const char *expected)
{
    struct mb_error err = {0};
    int32_t *ids;
    size_t n;
    char got[256] = "";
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &n, &err), MB_OK);
    for (size_t i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i == 0 ? "" : " ", ids[i]);
    assert_string_equal(got, expected);
    free(ids);
}

static void the_sound_file_is_taken(void **state)
{
    (void)state;
    struct mb_tokenizer *tokenizer;
    struct mb_error err;
    if (open_changed(NULL, NULL, &tokenizer, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_ids(tokenizer, "<s>bab", "5 5 3 3 1 2");
    mb_tokenizer_close(tokenizer);
}

/* A single_word token inside a word: the package looks words up in the model's vocabulary alone. */
static void added_tokens_are_no_pieces_of_words(void **state)
{
    (void)state;
    static const char *const models[][2] = {
        {"'ignore_merges': true, 'vocab': {'x': 0, 'y': 1}", "0 2 0 1"},
        {"'vocab': {'x': 0, 'y': 1}", "0 2 0 1"},
    };
    for (size_t i = 0; i < 2; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        char text[512];
        snprintf(text, sizeof text,
                 "{'model': {'merges': [], %s}, 'decoder': {'type': 'Fuse'},"
                 " 'added_tokens': [{'id': 2, 'content': 'z', 'single_word': true}]}",
                 models[i][0]);
        json_t *root = parse(text);
        char *json = json_dumps(root, 0);
        test_write_text(test_path("."), "tokenizer.json", json);
        free(json);
        json_decref(root);
        if (mb_tokenizer_open(test_path("."), &tokenizer, &err) != MB_OK)
            fail_msg("%s", err.msg);
        assert_ids(tokenizer, "x z xzy", models[i][1]); /* there is no token for a space */
        mb_tokenizer_close(tokenizer);
    }
}

/* Tokens of no bytes, and merges of them, are never met in a text. */
static void an_empty_token_is_taken(void **state)
{
    (void)state;
    struct mb_tokenizer *tokenizer;
    struct mb_error err;
    test_write_text(test_path("."), "tokenizer.json",
                    "{\"model\": {\"vocab\": {\"\": 0}, \"merges\": [\" \"]}, "
                    "\"decoder\": {\"type\": \"Fuse\"}}");
    if (mb_tokenizer_open(test_path("."), &tokenizer, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_ids(tokenizer, "", "");
    mb_tokenizer_close(tokenizer);
}

/* 'n' times 'item' with 'between' between them. */
static char *repeated(const char *item, const char *between, int n)
{
    size_t cap = (size_t)n * (strlen(item) + strlen(between)) + 1, at = 0;
    char *text = malloc(cap);
    assert_non_null(text);
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, cap - at, "%s%s", i == 0 ? "" : between, item);
    return text;
}

/* More of them than the vocabulary has room for at first. */
static void many_added_tokens_are_found(void **state)
{
    (void)state;
    struct mb_tokenizer *tokenizer;
    struct mb_error err;
    char text[64], expected[64];
    json_t *root = parse(SOUND), *added = json_array();
    for (int i = 0; i < 200; i++) {
        snprintf(text, sizeof text, "<%d>", i);
        json_array_append_new(added, json_pack("{s:i,s:s}", "id", 8 + i, "content", text));
    }
    set(root, "model.vocab.c", json_integer(4));
    set(root, "model.vocab.d", json_integer(5));
    set(root, "model.vocab.e", json_integer(6));
    set(root, "model.vocab.f", json_integer(7));
    set(root, "added_tokens", added);
    set(root, "post_processor", json_null());
    char *field = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    test_write_text(test_path("."), "tokenizer.json", field);
    free(field);
    if (mb_tokenizer_open(test_path("."), &tokenizer, &err) != MB_OK)
        fail_msg("%s", err.msg);
    for (int i = 0; i < 200; i++) {
        snprintf(text, sizeof text, "<%d>", i);
        snprintf(expected, sizeof expected, "%d", 8 + i);
        assert_ids(tokenizer, text, expected);
    }
    mb_tokenizer_close(tokenizer);
}

static const struct {
    const char *path, *value;
    enum mb_status status;
    const char *words;
} faults[] = {
    {"model", "5", MB_BAD_DATA, "model: not an object"},
    {"model.type", "'Unigram'", MB_UNSUPPORTED, "'Unigram'"},
    {"model.type", "5", MB_BAD_DATA, "model.type"},
    {"model.dropout", "0.5", MB_UNSUPPORTED, "dropout"},
    {"model.end_of_word_suffix", "'</w>'", MB_UNSUPPORTED, "'</w>'"},
    {"model.continuing_subword_prefix", "5", MB_BAD_DATA, "model.continuing_subword_prefix"},
    {"model.vocab", "[]", MB_BAD_DATA, "model.vocab: not an object"},
    {"model.vocab.b", "-1", MB_BAD_DATA, "token 'b': its id"},
    {"model.vocab.b", "1.0", MB_BAD_DATA, "token 'b': its id"},
    {"model.vocab.b", "4294967297", MB_BAD_DATA, "token 'b': its id"},
    {"model.vocab.b", "99999", MB_BAD_DATA, "token 'b': its id"},
    {"model.vocab.b", "0", MB_BAD_DATA, "id 0 is already another token's"},
    {"model.merges", "{}", MB_BAD_DATA, "model.merges: not an array"},
    {"model.merges.0", "'ab'", MB_BAD_DATA, "model.merges[0]: not a pair"},
    {"model.merges.0", "'a b c'", MB_BAD_DATA, "model.merges[0]: not a pair"},
    {"model.merges.0", "['a']", MB_BAD_DATA, "model.merges[0]: not a pair"},
    {"model.merges.0", "['a', 5]", MB_BAD_DATA, "model.merges[0]: not a pair"},
    {"model.merges.0", "5", MB_BAD_DATA, "model.merges[0]: not a pair"},
    {"model.merges.0", "'a d'", MB_BAD_DATA, "'ad' is made of a token"},
    {"model.merges.0", "'b a'", MB_BAD_DATA, "makes 'ba', which"},
    {"model.merges", "['a b', ['a', 'b']]", MB_BAD_DATA, "model.merges[1]: 'ab': the same pair"},
    {"model.unk_token", "'?'", MB_BAD_DATA, "model.unk_token: '?' is not in the vocabulary"},
    {"model.byte_fallback", "5", MB_BAD_DATA, "model.byte_fallback"},
    {"added_tokens", "{}", MB_BAD_DATA, "added_tokens: not an array"},
    {"added_tokens.0", "5", MB_BAD_DATA, "added_tokens[0]: not an object"},
    {"added_tokens.0.id", "6", MB_BAD_DATA, "has id 6, but the next free one is 5"},
    {"added_tokens.0.id", "'5'", MB_BAD_DATA, "added_tokens[0].id"},
    {"added_tokens.0.content", "''", MB_BAD_DATA, "0 bytes"},
    {"added_tokens.0.content", "'a'", MB_BAD_DATA, "the vocabulary says 0"},
    {"added_tokens", "[{'id': 5, 'content': 'q'}, {'id': 5, 'content': 'q'}]", MB_BAD_DATA, "comes twice"},
    {"added_tokens", "[{'id': 5, 'content': 'q'}, {'id': 6, 'content': 'r'}, {'id': 7, 'content': 't'}]",
     MB_BAD_DATA, "id 7 is already another token's"},
    {"normalizer", "5", MB_BAD_DATA, "normalizer"},
    {"normalizer.type", "'NFKC'", MB_UNSUPPORTED, "'NFKC'"},
    {"normalizer.normalizers", "5", MB_BAD_DATA, "normalizer.normalizers"},
    {"normalizer.normalizers.2.pattern", "'x'", MB_BAD_DATA, "pattern: not an object"},
    {"normalizer.normalizers.2.pattern", "{'Regex': 'x'}", MB_UNSUPPORTED, "Regex"},
    {"normalizer.normalizers.2.pattern.String", "''", MB_BAD_DATA, "an empty String"},
    {"normalizer.normalizers.2.pattern.String", "5", MB_BAD_DATA, "pattern.String"},
    {"normalizer.normalizers.1.prepend", "5", MB_BAD_DATA, "prepend"},
    {"pre_tokenizer", "{}", MB_BAD_DATA, "pre_tokenizer"},
    {"pre_tokenizer.type", "'Whitespace'", MB_UNSUPPORTED, "'Whitespace'"},
    {"pre_tokenizer.pretokenizers.0.individual_digits", "5", MB_BAD_DATA, "individual_digits"},
    {"pre_tokenizer.pretokenizers.0.type", "'ByteLevel'", MB_UNSUPPORTED, "after ByteLevel"},
    {"pre_tokenizer.pretokenizers",
     "[{'type': 'ByteLevel', 'add_prefix_space': false, 'use_regex': false}, {'type': 'ByteLevel', "
     "'add_prefix_space': false, 'use_regex': false}]",
     MB_UNSUPPORTED, "a second ByteLevel"},
    {"pre_tokenizer.pretokenizers.1.pattern", "{}", MB_BAD_DATA, "neither a Regex nor a String"},
    {"pre_tokenizer.pretokenizers.1.pattern", "{'String': ''}", MB_BAD_DATA, "neither a Regex nor a String"},
    {"pre_tokenizer.pretokenizers.1.pattern", "5", MB_BAD_DATA, "not an object"},
    {"pre_tokenizer.pretokenizers.1.pattern.Regex", "'(a'", MB_UNSUPPORTED, "pretokenizers[1]"},
    {"pre_tokenizer.pretokenizers.1.behavior", "'Sideways'", MB_UNSUPPORTED, "'Sideways'"},
    {"pre_tokenizer.pretokenizers.1.invert", "5", MB_BAD_DATA, "invert"},
    {"pre_tokenizer.pretokenizers.2.replacement", "'ab'", MB_BAD_DATA, "not one character"},
    {"pre_tokenizer.pretokenizers.2.prepend_scheme", "'last'", MB_UNSUPPORTED, "'last'"},
    {"post_processor.type", "'RobertaProcessing'", MB_UNSUPPORTED, "'RobertaProcessing'"},
    {"post_processor.single", "5", MB_UNSUPPORTED, "post_processor.single"},
    {"post_processor.single.0", "{'Other': {}}", MB_BAD_DATA, "neither a SpecialToken nor a Sequence"},
    {"post_processor.single", "[{'Sequence': {'id': 'A'}}, {'Sequence': {'id': 'A'}}]", MB_UNSUPPORTED,
     "the text twice"},
    {"post_processor.single", "[]", MB_UNSUPPORTED, "without the text"},
    {"post_processor.special_tokens", "{}", MB_BAD_DATA, "has no ids"},
    {"post_processor.special_tokens.<s>.ids.0", "8", MB_BAD_DATA, "an id that no token has"},
    {"post_processor.special_tokens.<s>.ids.0", "4", MB_BAD_DATA, "an id that no token has"}, /* a hole */
    {"post_processor.special_tokens.<s>.ids.0", "-1", MB_BAD_DATA, "an id that no token has"},
    {"post_processor.special_tokens.<s>.ids.0", "'5'", MB_BAD_DATA, "an id that no token has"},
    {"decoder", "null", MB_UNSUPPORTED, "decoder"},
    {"decoder.type", "'WordPiece'", MB_UNSUPPORTED, "'WordPiece'"},
    {"decoder.decoders.2.type", "'ByteLevel'", MB_UNSUPPORTED, "a decoder in this place"},
    {"decoder.decoders.3.content", "'ab'", MB_BAD_DATA, "not one character"},
    {"decoder.decoders.3.start", "-1", MB_BAD_DATA, "start"},
    {"decoder.decoders.3.stop", "'x'", MB_BAD_DATA, "stop"},
    {"decoder.decoders.0", "{'type': 'Metaspace', 'replacement': ''}", MB_BAD_DATA, "replacement is empty"},
};

static void a_fault_is_named_with_its_place(void **state)
{
    (void)state;
    size_t n_wrong = 0;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        enum mb_status status = open_changed(faults[i].path, faults[i].value, &tokenizer, &err);
        mb_tokenizer_close(tokenizer);
        if (status == faults[i].status && strstr(err.msg, faults[i].words) != NULL &&
            strstr(err.msg, "tokenizer.json: ") != NULL && strchr(err.msg, '\n') == NULL)
            continue;
        print_error("%s = %s: status %d: %s\n", faults[i].path, faults[i].value, (int)status, err.msg);
        n_wrong++;
    }
    assert_int_equal(n_wrong, 0);
}

/* Long lists and long names, which no table can hold. */
static void limits_are_kept(void **state)
{
    (void)state;
    static const struct {
        const char *path, *open, *item, *close, *words;
        int n;
    } cases[] = {
        {"normalizer", "{'type': 'Sequence', 'normalizers': [", "{'type': 'NFC'}", "]}", "more than", 40},
        {"pre_tokenizer", "{'type': 'Sequence', 'pretokenizers': [", "{'type': 'Digits'}", "]}", "more than",
         99},
        {"decoder", "{'type': 'Sequence', 'decoders': [",
         "{'type': 'Replace', 'pattern': {'String': 'a'}, 'content': ''}", "]}", "more than", 99},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        char *items = repeated(cases[i].item, ", ", cases[i].n), *value = NULL;
        assert_true(asprintf(&value, "%s%s%s", cases[i].open, items, cases[i].close) > 0);
        free(items);
        assert_int_equal(open_changed(cases[i].path, value, &tokenizer, &err), MB_UNSUPPORTED);
        if (strstr(err.msg, cases[i].words) == NULL)
            fail_msg("%s", err.msg);
        free(value);
    }
    char *open = repeated("{'type': 'Sequence', 'normalizers': [", "", 40), *close = repeated("]}", "", 40),
         *deep = NULL;
    assert_true(asprintf(&deep, "%s%s", open, close) > 0);
    struct mb_tokenizer *tokenizer;
    struct mb_error err;
    assert_int_not_equal(open_changed("normalizer", deep, &tokenizer, &err), MB_OK);
    assert_non_null(strstr(err.msg, "normalizers[0]"));
    free(open);
    free(close);
    free(deep);
}

/* Parts that each make a text a little longer make it much longer together: that is told before a text is. */
static void texts_that_would_explode_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *path, *open, *item, *close;
        int n_taken;
    } cases[] = {
        {"normalizer", "{'type': 'Sequence', 'normalizers': [",
         "{'type': 'Replace', 'pattern': {'String': 'a'}, 'content': 'aaaa'}", "]}", 4},
        {"normalizer", "{'type': 'Sequence', 'normalizers': [", "{'type': 'Prepend', 'prepend': 'aaa'}", "]}",
         4},
        {"decoder", "{'type': 'Sequence', 'decoders': [",
         "{'type': 'Replace', 'pattern': {'String': 'a'}, 'content': 'aaaa'}", "]}", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int more = 0; more < 2; more++) {
            struct mb_tokenizer *tokenizer;
            struct mb_error err;
            char *items = repeated(cases[i].item, ", ", cases[i].n_taken + more), *value = NULL;
            assert_true(asprintf(&value, "%s%s%s", cases[i].open, items, cases[i].close) > 0);
            free(items);
            assert_int_equal(open_changed(cases[i].path, value, &tokenizer, &err),
                             more == 0 ? MB_OK : MB_UNSUPPORTED);
            if (more == 1 && strstr(err.msg, "s[4]: makes a text more than 256 times as long") == NULL)
                fail_msg("%s", err.msg);
            mb_tokenizer_close(tokenizer);
            free(value);
        }
}

/* ---------------------------------------------------------------- the files beside it */

static enum mb_status open_beside(const char *config, const void *template_text, size_t nbytes,
                                  struct mb_tokenizer **tokenizer, struct mb_error *err)
{
    test_write_text(test_path("."), "tokenizer_config.json", config);
    unlink(test_path("chat_template.jinja"));
    if (template_text != NULL)
        test_write(test_path("chat_template.jinja"), template_text, nbytes);
    enum mb_status status = open_changed(NULL, NULL, tokenizer, err);
    unlink(test_path("tokenizer_config.json"));
    unlink(test_path("chat_template.jinja"));
    return status;
}

static void links_to_nothing_are_no_missing_files(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json",     "chat_template.jinja",
                                        "chat_template.json",    "tokenizer.json"};
    enum { N = sizeof names / sizeof *names };
    for (size_t i = 0; i < N; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        assert_int_equal(open_changed(NULL, NULL, &tokenizer, &err), MB_OK);
        mb_tokenizer_close(tokenizer);
        unlink(test_path(names[i]));
        assert_int_equal(symlink("../blobs/none", test_path(names[i])), 0);
        assert_int_equal(mb_tokenizer_open(test_path("."), &tokenizer, &err), MB_BAD_DATA);
        if (strstr(err.msg, names[i]) == NULL || strstr(err.msg, "half a download") == NULL)
            fail_msg("%s: %s", names[i], err.msg);
        unlink(test_path(names[i]));
    }
}

static void faults_beside_it_are_named(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"{", "tokenizer_config.json: "},
        {"[]", "tokenizer_config.json: "},
        {"{\"bos_token\": 5}", "bos_token: neither a string nor an object"},
        {"{\"eos_token\": {\"content\": 5}}", "eos_token.content"},
        {"{\"eos_token\": {}}", "eos_token: neither a string nor an object"},
        {"{\"pad_token\": {\"content\": \"p\", \"lstrip\": 1}}", "pad_token.lstrip: not true or false"},
        {"{\"added_tokens_decoder\": []}", "added_tokens_decoder: not an object"},
        {"{\"added_tokens_decoder\": {\"5\": \"x\"}}", "added_tokens_decoder.5: not an object"},
        {"{\"added_tokens_decoder\": {\"5x\": {}}}", "added_tokens_decoder: '5x': its id is not an integer"},
        {"{\"added_tokens_decoder\": {\"5\": {\"content\": 5}}}", "added_tokens_decoder.5.content"},
        {"{\"extra_special_tokens\": 5}", "extra_special_tokens: neither a list nor an object"},
        {"{\"extra_special_tokens\": [5]}", "extra_special_tokens[0]: neither a string"},
        {"{\"extra_special_tokens\": {\"x_token\": 5}}", "extra_special_tokens.x_token: neither a string"},
        {"{\"additional_special_tokens\": [{}]}", "additional_special_tokens[0]: neither a string"},
        {"{\"chat_template\": 5}", "chat_template: neither a string nor a list"},
        {"{\"chat_template\": [{\"name\": 5}]}", "chat_template[0].name"},
        {"{\"chat_template\": [{\"name\": \"default\", \"template\": 5}]}", "chat_template[0].template"},
        {"{\"chat_template\": [{\"name\": \"default\"}]}", "chat_template[0]: has no name or no template"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        assert_int_equal(open_beside(lines[i][0], NULL, 0, &tokenizer, &err), MB_BAD_DATA);
        if (strstr(err.msg, lines[i][1]) == NULL)
            fail_msg("%s: %s", lines[i][0], err.msg);
    }
}

static void assert_chat(const char *config, const char *template_text, const char *expected)
{
    static const struct mb_chat_message messages[] = {{"user", "U"}};
    struct mb_tokenizer *tokenizer;
    struct mb_error err;
    char *text;
    size_t n = template_text == NULL ? 0 : strlen(template_text);
    if (open_beside(config, template_text, n, &tokenizer, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(mb_tokenizer_chat(tokenizer, messages, 1, false, &text, &err), MB_OK);
    assert_string_equal(text, expected);
    free(text);
    mb_tokenizer_close(tokenizer);
}

static void chat_templates_are_found(void **state)
{
    (void)state;
    static const char list[] = "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"},"
                               "{\"name\": \"default\", \"template\": \"{{ messages[0].content }}!\"}]}";
    assert_chat("{\"chat_template\": \"c\", \"bos_token\": null}", NULL, "c");
    assert_chat(list, NULL, "U!");
    assert_chat(list, "{{ messages[0].role }}", "user"); /* the file wins */
    struct mb_tokenizer *tokenizer;
    struct mb_error err;
    assert_int_equal(open_beside("{}", "a\0b", 3, &tokenizer, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "chat_template.jinja: holds a zero byte"));
    size_t n = (1 << 20) + 1;
    char *large = calloc(1, n + 64);
    assert_non_null(large);
    memset(large, 'x', n);
    assert_int_equal(open_beside("{}", large, n, &tokenizer, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "chat_template.jinja"));
    json_t *config = json_pack("{s:s}", "chat_template", large);
    char *text = json_dumps(config, 0);
    assert_int_equal(open_beside(text, NULL, 0, &tokenizer, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "chat_template: 1048577 bytes"));
    free(text);
    json_decref(config);
    free(large);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sound_file_is_taken),
        cmocka_unit_test(added_tokens_are_no_pieces_of_words),
        cmocka_unit_test(an_empty_token_is_taken),
        cmocka_unit_test(many_added_tokens_are_found),
        cmocka_unit_test(a_fault_is_named_with_its_place),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(texts_that_would_explode_are_refused),
        cmocka_unit_test(links_to_nothing_are_no_missing_files),
        cmocka_unit_test(faults_beside_it_are_named),
        cmocka_unit_test(chat_templates_are_found),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
