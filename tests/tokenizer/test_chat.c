/*
 * test_chat.c - conversations by chat templates against `transformers`, and the plain format.
 *
 * data/chat/goldens.json and families.json are written by tools/tokenizer-goldens/make_chat_goldens.py.
 */
#include "cmocka_all.h"
#include "goldens.h"
#include "tokenizer/tokenizer_impl.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MESSAGES_MAX = 8 };

static struct mb_tokenizer *reference;
static json_t *goldens;

static int begin(void **state)
{
    struct mb_error err;
    (void)state;
    goldens = json_load_file(TOKENIZER_DATA "/chat/goldens.json", 0, NULL);
    if (goldens == NULL ||
        mb_tokenizer_open(MB_REPO "/models/reference/tokenizer.json", &reference, &err) != MB_OK)
        return -1;
    reference->names = calloc(2, sizeof *reference->names);
    if (reference->names == NULL)
        return -1;
    reference->names[0] = (struct mb_name){strdup("bos_token"), strdup("<s>")};
    reference->names[1] = (struct mb_name){strdup("eos_token"), strdup("</s>")};
    reference->n_names = 2;
    return 0;
}

static int end(void **state)
{
    (void)state;
    mb_tokenizer_close(reference);
    json_decref(goldens);
    return 0;
}

static size_t messages_of(const json_t *golden, struct mb_chat_message messages[MESSAGES_MAX])
{
    const json_t *list = json_object_get(golden, "messages");
    size_t n = json_array_size(list);
    assert_true(n > 0 && n <= MESSAGES_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(list, i);
        messages[i].role = json_string_value(json_object_get(message, "role"));
        messages[i].content = json_string_value(json_object_get(message, "content"));
    }
    return n;
}

/* 'template_text' NULL: the tokenizer's own. Returns how many conversations are not as transformers has them.
 */
static size_t count_wrong(const struct mb_tokenizer *tokenizer, const char *name, const char *template_text,
                          const json_t *cases)
{
    size_t n_wrong = 0;
    assert_true(json_array_size(cases) >= 20);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *golden = json_array_get(cases, i);
        const char *expected = json_string_value(json_object_get(golden, "text"));
        bool prompt = json_is_true(json_object_get(golden, "add_generation_prompt"));
        struct mb_chat_message messages[MESSAGES_MAX];
        struct mb_error err = {0};
        char *text = NULL;
        size_t n = messages_of(golden, messages);
        enum mb_status status =
            template_text == NULL
                ? mb_tokenizer_chat(tokenizer, messages, n, prompt, &text, &err)
                : mb_tokenizer_chat_with(tokenizer, template_text, name, messages, n, prompt, &text, &err);
        bool is_right = expected == NULL ? status != MB_OK : status == MB_OK && strcmp(text, expected) == 0;
        if (!is_right) {
            print_error("%s, case %zu:\nexpected: %s\ngot: %s\n", name, i,
                        expected == NULL ? "(an error)" : expected, status == MB_OK ? text : err.msg);
            n_wrong++;
        }
        free(text);
    }
    return n_wrong;
}

static char *read_template(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, TOKENIZER_DATA "/chat/%s.jinja", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 1 << 16);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    return text;
}

static void templates_equal_transformers(void **state)
{
    (void)state;
    size_t n_wrong = 0;
    const char *name;
    json_t *cases;
    assert_true(json_object_size(json_object_get(goldens, "templates")) >= 7);
    json_object_foreach(json_object_get(goldens, "templates"), name, cases)
    {
        char *text = read_template(name);
        n_wrong += count_wrong(reference, name, text, cases);
        free(text);
    }
    assert_int_equal(n_wrong, 0);
}

/* The scene's i-th text: without and with the generation prompt. */
static bool is_scene_right(const char *name, const char *template_text, const json_t *scene, size_t prompt,
                           const json_t *expected)
{
    char *messages = json_dumps(json_object_get(scene, "messages"), 0);
    char *tools = json_dumps(json_object_get(scene, "tools"), 0);
    char *variables = json_dumps(json_object_get(scene, "variables"), 0), *text = NULL;
    struct mb_error err = {0};
    struct mb_chat_options options = {.size = sizeof options,
                                      .template_text = template_text,
                                      .place = name,
                                      .add_generation_prompt = prompt == 1,
                                      .messages = messages,
                                      .tools = tools,
                                      .variables = variables,
                                      .now = 1789000000};
    enum mb_status status = mb_tokenizer_chat_text(reference, NULL, 0, &options, &text, &err);
    bool is_right = json_is_null(expected)
                        ? status != MB_OK
                        : status == MB_OK && strcmp(text, json_string_value(expected)) == 0;
    if (!is_right)
        print_error("%s, %s\nexpected: %s\ngot: %s\n", name, messages,
                    json_is_null(expected) ? "(an error)" : json_string_value(expected),
                    status == MB_OK ? text : err.msg);
    free(messages);
    free(tools);
    free(variables);
    free(text);
    return is_right;
}

static void tools_calls_and_variables_equal_transformers(void **state)
{
    (void)state;
    json_t *families = json_load_file(TOKENIZER_DATA "/chat/families.json", 0, NULL), *texts;
    const json_t *scenes = json_object_get(families, "scenes");
    const char *name;
    size_t n_wrong = 0;
    assert_true(json_array_size(scenes) >= 10 && json_object_size(json_object_get(families, "texts")) >= 16);
    json_object_foreach(json_object_get(families, "texts"), name, texts)
    {
        char stem[128];
        snprintf(stem, sizeof stem, "%.*s", (int)(strlen(name) - strlen(".jinja")), name);
        char *text = read_template(stem);
        for (size_t i = 0; i < json_array_size(scenes); i++)
            for (size_t prompt = 0; prompt < 2; prompt++)
                n_wrong += !is_scene_right(name, text, json_array_get(scenes, i), prompt,
                                           json_array_get(json_array_get(texts, i), prompt));
        free(text);
    }
    json_decref(families);
    assert_int_equal(n_wrong, 0);
}

static void bad_options_are_named(void **state)
{
    (void)state;
    static const struct mb_chat_message one[] = {{"user", "U"}};
    static const struct {
        struct mb_chat_options options;
        size_t n_messages;
        const char *message;
    } cases[] = {
        {{.template_text = "", .messages = "[]"}, 1, "messages: given as an array and as JSON"},
        {{.template_text = "", .messages = "{}"}, 0, "messages: not a JSON array"},
        {{.template_text = "", .messages = "[1]"}, 0, "messages: the one at 0 is not a JSON object"},
        {{.template_text = "", .tools = "[{]"}, 1, "tools: byte"},
        {{.template_text = "", .tools = "{}"}, 1, "tools: not a JSON array"},
        {{.template_text = "", .variables = "[]"}, 1, "template variables: not a JSON object"},
        {{.template_text = "", .variables = "{\"tools\": 1}"}, 1, "'tools' has an option of its own"},
        {{.is_plain = true, .tools = "[]"}, 1, "the plain chat format has no"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mb_chat_options options = cases[i].options;
        struct mb_error err = {0};
        char *text;
        options.size = sizeof options;
        enum mb_status status =
            mb_tokenizer_chat_text(reference, one, cases[i].n_messages, &options, &text, &err);
        if (status != MB_USAGE || strstr(err.msg, cases[i].message) == NULL)
            fail_msg("case %zu: status %d: %s", i, status, err.msg);
    }
    char deep[400] = {0};
    struct mb_chat_options options = {.size = sizeof options, .template_text = "", .tools = deep};
    struct mb_error err = {0};
    char *text;
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    assert_int_equal(mb_tokenizer_chat_text(reference, one, 1, &options, &text, &err), MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "nested more than 64 deep"));
}

static void published_templates_equal_transformers(void **state)
{
    (void)state;
    size_t n_wrong = 0;
    const char *name;
    json_t *cases;
    json_object_foreach(json_object_get(goldens, "published"), name, cases)
    {
        char folder[600];
        struct mb_tokenizer *tokenizer;
        struct mb_error err;
        snprintf(folder, sizeof folder, "%.500s/tokenizers/%s", test_data_folder(), name);
        if (access(folder, R_OK) != 0) {
            print_message("skipped: %s is not there (MOEBIUS_TEST_DATA names the folder)\n", folder);
            skip();
        }
        if (mb_tokenizer_open(folder, &tokenizer, &err) != MB_OK)
            fail_msg("%s", err.msg);
        n_wrong += count_wrong(tokenizer, name, NULL, cases);
        mb_tokenizer_close(tokenizer);
    }
    assert_int_equal(n_wrong, 0);
}

static void a_template_is_text(void **state)
{
    (void)state;
    static const struct mb_chat_message messages[] = {{"user", "Hello"}};
    struct mb_error err = {0};
    char *text;
    assert_int_equal(mb_tokenizer_chat_with(reference, "a\xff", "t.jinja", messages, 1, true, &text, &err),
                     MB_BAD_DATA);
    assert_string_equal(err.msg, "t.jinja: not UTF-8");
    assert_int_equal(mb_tokenizer_chat(reference, NULL, 0, true, &text, &err), MB_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "no chat template"));
}

static void the_plain_format(void **state)
{
    (void)state;
    static const struct mb_chat_message messages[] = {{"system", "S"}, {"user", "U"}, {"assistant", "A"}},
                                        strange[] = {{"tool", "T"}};
    struct mb_error err;
    char *text;
    assert_int_equal(mb_tokenizer_chat_with(reference, NULL, NULL, messages, 3, true, &text, &err), MB_OK);
    assert_string_equal(text, "S\n\nUser: U\n\nAssistant: A\n\nAssistant:");
    free(text);
    assert_int_equal(mb_tokenizer_chat_with(reference, NULL, NULL, strange, 1, true, &text, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "no role 'tool'"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates_equal_transformers),
        cmocka_unit_test(published_templates_equal_transformers),
        cmocka_unit_test(tools_calls_and_variables_equal_transformers),
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(a_template_is_text),
        cmocka_unit_test(the_plain_format),
    };
    setenv("TZ", "UTC", 1); /* where the goldens' clock is */
    return cmocka_run_group_tests(tests, begin, end);
}
