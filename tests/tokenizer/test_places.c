/*
 * test_places.c - special tokens and chat templates of a folder, wherever its files have them, against
 * AutoTokenizer of `transformers`.
 *
 * data/places.json is written by tools/tokenizer-goldens/make_place_goldens.py.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "goldens.h"
#include <jansson.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *places;

static int begin(void **state)
{
    places = json_load_file(TOKENIZER_DATA "/places.json", 0, NULL);
    return places == NULL ? -1 : test_folder_begin(state);
}

static int end(void **state)
{
    json_decref(places);
    return test_folder_end(state);
}

static const char *member(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static json_t *variant_of(const char *name)
{
    json_t *variants = json_object_get(places, "variants"), *variant;
    size_t i;
    json_array_foreach(variants, i, variant) if (strcmp(member(variant, "name"), name) == 0) return variant;
    fail_msg("there is no variant '%s'", name);
    return NULL;
}

/* A folder of its own for the i-th variant. */
static const char *write_folder(const json_t *variant, size_t i)
{
    static char folder[512];
    char number[24], sub[600];
    snprintf(number, sizeof number, "v%zu", i);
    snprintf(folder, sizeof folder, "%s", test_path(number));
    test_make_folder(folder);
    json_t *tree = json_deep_copy(json_object_get(places, "base"));
    assert_int_equal(json_object_update(tree, json_object_get(variant, "changes")), 0);
    char *text = json_dumps(tree, JSON_COMPACT);
    test_write_text(folder, "tokenizer.json", text);
    free(text);
    json_decref(tree);
    const char *name;
    json_t *content;
    json_object_foreach(json_object_get(variant, "files"), name, content)
    {
        const char *slash = strchr(name, '/');
        if (slash != NULL) {
            snprintf(sub, sizeof sub, "%s/%.*s", folder, (int)(slash - name), name);
            if (access(sub, F_OK) != 0)
                test_make_folder(sub);
        }
        text = json_is_string(content) ? strdup(json_string_value(content)) : json_dumps(content, 0);
        assert_non_null(text);
        test_write_text(folder, name, text);
        free(text);
    }
    return folder;
}

static bool ids_are(const struct mb_tokenizer *tokenizer, const char *text, bool add_special,
                    const json_t *before, const json_t *ids, const json_t *after)
{
    struct mb_error err;
    int32_t *got;
    size_t n, n_before = json_array_size(before), n_ids = json_array_size(ids);
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, strlen(text), add_special, &got, &n, &err), MB_OK);
    bool ok = n == n_before + n_ids + json_array_size(after);
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *list = i < n_before ? before : i < n_before + n_ids ? ids : after;
        size_t k = i < n_before ? i : i < n_before + n_ids ? i - n_before : i - n_before - n_ids;
        ok = json_integer_value(json_array_get(list, k)) == got[i];
    }
    free(got);
    return ok;
}

static bool left_is(const struct mb_tokenizer *tokenizer, const json_t *ids, const char *expected)
{
    struct mb_error err;
    int32_t numbers[256];
    char *text;
    size_t n = json_array_size(ids), nbytes;
    assert_true(n <= 256);
    for (size_t i = 0; i < n; i++)
        numbers[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    if (mb_tokenizer_decode(tokenizer, numbers, n, true, &text, &nbytes, &err) != MB_OK)
        return false;
    bool ok = strcmp(text, expected) == 0;
    free(text);
    return ok;
}

/* The text of a conversation, or that there is none. */
static bool chat_is(const struct mb_tokenizer *tokenizer, const char *template_text, const char *tools,
                    const json_t *expected)
{
    static const struct mb_chat_message hello = {"user", "Hello"};
    const struct mb_chat_options options = {
        .size = sizeof options, .template_text = template_text, .tools = tools};
    struct mb_error err = {0};
    char *text;
    size_t n_templates;
    enum mb_status status = mb_tokenizer_chat_text(tokenizer, &hello, 1, &options, &text, &err);
    if (template_text == NULL &&
        (mb_tokenizer_chat_place(tokenizer, tools != NULL, &n_templates) != NULL) != (status == MB_OK))
        return false;
    if (status != MB_OK)
        return json_is_null(expected) && status == MB_UNSUPPORTED && strstr(err.msg, "chat template") != NULL;
    bool ok = json_is_string(expected) && strcmp(text, json_string_value(expected)) == 0;
    free(text);
    return ok;
}

/* What is not as in the golden; NULL: nothing. */
static const char *difference(const json_t *variant, const struct mb_tokenizer *tokenizer)
{
    const json_t *texts = json_object_get(variant, "texts"), *chat = json_object_get(variant, "chat"), *text;
    size_t i;
    json_array_foreach((json_t *)texts, i, text)
    {
        const char *content = json_string_value(json_array_get(text, 0));
        const json_t *ids = json_array_get(text, 1), *edges = json_array_get(text, 2);
        if (!ids_are(tokenizer, content, false, NULL, ids, NULL))
            return content;
        if (!ids_are(tokenizer, content, true, json_array_get(edges, 0), ids, json_array_get(edges, 1)))
            return "what is put around a text";
        if (!left_is(tokenizer, ids, json_string_value(json_array_get(text, 3))))
            return "what is left without special tokens";
    }
    if (mb_tokenizer_n_vocab(tokenizer) != (size_t)json_integer_value(json_object_get(variant, "n_vocab")))
        return "the number of tokens";
    if (!chat_is(tokenizer, member(places, "shown"), NULL, json_object_get(variant, "shown")))
        return "the names of special tokens";
    char *tools = json_dumps(json_object_get(places, "tools"), 0);
    bool ok = chat_is(tokenizer, NULL, NULL, json_array_get(chat, 0)) &&
              chat_is(tokenizer, NULL, tools, json_array_get(chat, 1));
    free(tools);
    return ok ? NULL : "the chat template";
}

static void folders_are_read_as_transformers_reads_them(void **state)
{
    (void)state;
    const json_t *variants = json_object_get(places, "variants"), *variant;
    size_t i, n_wrong = 0;
    assert_true(json_array_size(variants) >= 40);
    json_array_foreach((json_t *)variants, i, variant)
    {
        struct mb_tokenizer *tokenizer;
        struct mb_error err = {0};
        if (json_object_get(variant, "refused") != NULL)
            continue;
        const char *what = NULL;
        if (mb_tokenizer_open(write_folder(variant, i), &tokenizer, &err) != MB_OK) {
            what = err.msg;
        } else {
            what = difference(variant, tokenizer);
            mb_tokenizer_close(tokenizer);
        }
        if (what != NULL)
            print_error("%s: %s\n", member(variant, "name"), what);
        n_wrong += what != NULL;
    }
    assert_int_equal(n_wrong, 0);
}

/* transformers 5 refuses objects without "__type", which older versions wrote and read. */
static void older_objects_are_special_tokens(void **state)
{
    (void)state;
    static const char *const names[] = {"an object without __type",
                                        "special_tokens_map with additional ones"};
    for (size_t i = 0; i < 2; i++) {
        struct mb_tokenizer *tokenizer;
        struct mb_error err = {0};
        if (mb_tokenizer_open(write_folder(variant_of(names[i]), 1000 + i), &tokenizer, &err) != MB_OK)
            fail_msg("%s: %s", names[i], err.msg);
        assert_int_equal(mb_tokenizer_id(tokenizer, i == 0 ? "<s>" : "<z>"), i == 0 ? 1 : 303);
        mb_tokenizer_close(tokenizer);
    }
}

/* AutoTokenizer does not look at a processor's template; the processor does. */
static void a_processors_template_is_the_last_resort(void **state)
{
    (void)state;
    struct mb_tokenizer *tokenizer;
    struct mb_error err = {0};
    size_t n_templates;
    const char *folder = write_folder(variant_of("chat_template.json"), 2000);
    assert_int_equal(mb_tokenizer_open(folder, &tokenizer, &err), MB_OK);
    assert_non_null(strstr(mb_tokenizer_chat_place(tokenizer, false, &n_templates), "chat_template.json"));
    assert_int_equal(n_templates, 1);
    mb_tokenizer_close(tokenizer);
}

static void several_templates_without_a_default_are_named(void **state)
{
    (void)state;
    static const struct mb_chat_message hello = {"user", "Hello"};
    struct mb_tokenizer *tokenizer;
    struct mb_error err = {0};
    char *text;
    const char *folder = write_folder(variant_of("additional templates and one in the configuration"), 3000);
    assert_int_equal(mb_tokenizer_open(folder, &tokenizer, &err), MB_OK);
    assert_int_equal(mb_tokenizer_chat(tokenizer, &hello, 1, true, &text, &err), MB_UNSUPPORTED);
    assert_string_equal(err.msg,
                        "the model has several chat templates and none is the default (rag): give one "
                        "as a file");
    mb_tokenizer_close(tokenizer);
}

static void special_tokens_that_count_as_text_are_refused(void **state)
{
    (void)state;
    struct mb_tokenizer *tokenizer;
    struct mb_error err = {0};
    const char *folder = write_folder(variant_of("chat_template.json"), 4000);
    test_write_text(folder, "tokenizer_config.json", "{\"split_special_tokens\": false}");
    assert_int_equal(mb_tokenizer_open(folder, &tokenizer, &err), MB_OK);
    mb_tokenizer_close(tokenizer);
    test_write_text(folder, "tokenizer_config.json", "{\"split_special_tokens\": true}");
    assert_int_equal(mb_tokenizer_open(folder, &tokenizer, &err), MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "tokenizer_config.json: split_special_tokens: is true"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_are_read_as_transformers_reads_them),
        cmocka_unit_test(older_objects_are_special_tokens),
        cmocka_unit_test(a_processors_template_is_the_last_resort),
        cmocka_unit_test(several_templates_without_a_default_are_named),
        cmocka_unit_test(special_tokens_that_count_as_text_are_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
