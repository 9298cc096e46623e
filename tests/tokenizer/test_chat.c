/*
 * test_chat.c - chat templates against `transformers`, what is refused by name, and templates that would
 * never end.
 *
 * data/chat/goldens.json is written by tools/tokenizer-goldens/make_chat_goldens.py.
 */
#include "cmocka_all.h"
#include "goldens.h"
#include "tokenizer/tokenizer_impl.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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
    reference->bos_token = strdup("<s>");
    reference->eos_token = strdup("</s>");
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

/* ---------------------------------------------------------------- what is refused */

static enum mb_status render(const char *template_text, char **text, struct mb_error *err)
{
    static const struct mb_chat_message messages[] = {{"user", "Hello"}};
    *text = NULL;
    return mb_tokenizer_chat_with(reference, template_text, "t.jinja", messages, 1, true, text, err);
}

/* Each line of data/chat/expressions.txt: the same text, or an error where transformers has one. */
static void expressions_equal_transformers(void **state)
{
    (void)state;
    const json_t *list = json_object_get(goldens, "expressions");
    size_t n_wrong = 0;
    assert_true(json_array_size(list) >= 100);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *line = json_string_value(json_array_get(json_array_get(list, i), 0)),
                   *expected = json_string_value(json_array_get(json_array_get(list, i), 1));
        struct mb_error err = {0};
        char *text;
        enum mb_status status = render(line, &text, &err);
        bool is_right = expected != NULL ? status == MB_OK && strcmp(text, expected) == 0
                                         : status != MB_OK && strncmp(err.msg, "t.jinja: line 1: ", 17) == 0;
        if (!is_right) {
            print_error("%s\nexpected: %s\ngot: %s\n", line, expected == NULL ? "(an error)" : expected,
                        status == MB_OK ? text : err.msg);
            n_wrong++;
        }
        free(text);
    }
    assert_int_equal(n_wrong, 0);
}

static void what_is_not_there_is_named(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"{% macro f(x) %}{{ x }}{% endmacro %}", "macro"},
        {"{% include 'other' %}", "include"},
        {"{% extends 'other' %}", "extends"},
        {"{{ 1 | nonsense }}", "nonsense"},
        {"{{ 1 is nonsense }}", "nonsense"},
        {"{{ 'a'.nonsense() }}", "nonsense"},
        {"{{ undefined_function() }}", "undefined_function"},
        {"a\nb\n{% nonsense %}", "line 3"},
        {"{{ raise_exception('no such role') }}", "no such role"},
        {"{% if true %}", "endif"},
        {"{{ 'abc }}", "t.jinja"},
        {"{{ [1] }}", "printing a list"},
        {"{% for a in [1] %}{{ loop }}{% endfor %}", "printing a loop"},
        {"{% for a in [1] %}{{ loop.cycle('a') }}{% endfor %}", "loop.cycle"},
        {"{% for a in [1] recursive %}{% endfor %}", "recursive"},
        {"{{ 5[1:2] }}", "a slice of a number"},
        {"{{ 'abc'[::2] }}", "a slice of a string with a step"},
        {"{{ [1]['a':] }}", "a slice by a string"},
        {"{{ [1] < [2] }}", "a list and a list"},
        {"{{ [[1]][0] | reverse }}", "printing a list"},
        {"{{ 'ab' | reverse }}", "reverse of a string"},
        {"{{ '7' | int }}", "int"},
        {"{{ {1: 2} }}", "a mapping's key that is a number"},
        {"{{ '\u00e9'.upper() }}", "beyond ASCII"},
        {"{{ 'a'.title() }}", "the method 'title' of strings"},
        {"{{ {}.update({}) }}", "the method 'update' of mappings"},
        {"{{ strftime_now('%Y') }}", "strftime_now"},
        {"{{ 1.5 }}", "no plain integer"},
        {"{{ 9223372036854775808 }}", "over 64 bits"},
        {"{{ 9223372036854775807 + 1 }}", "over 64 bits"},
        {"{{ 3037000500 * 3037000500 }}", "over 64 bits"},
        {"{{ '\\ud800' }}", "no character"},
        {"{{ '\\xzz' }}", "broken escape"},
        {"{{ [] | tojson(indent=17) }}", "tojson"},
        {"{{ [] | tojson(ensure_ascii=true) }}", "tojson"},
        {"{{ range | tojson }}", "tojson of a function"},
        {"{{ [{'a': 1}] | selectattr('a.b') | list }}", "selectattr"},
        {"{{ [1] | map('int', attribute='a') | list }}", "map"},
        {"{{ dict([1]) }}", "dict"},
        {"{{ range(*[1]) }}", "t.jinja"},
        {"{{ range == range }}", "comparing a function"},
        {"{% set a, b = [1, 2] %}", "','"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct mb_error err = {0};
        char *text;
        enum mb_status status = render(lines[i][0], &text, &err);
        if (status == MB_OK || strstr(err.msg, lines[i][1]) == NULL || strncmp(err.msg, "t.jinja", 7) != 0)
            fail_msg("%s: status %d: %s", lines[i][0], status, status == MB_OK ? text : err.msg);
    }
}

/* 'n' times a, then b, then n times c. */
static char *nested(const char *a, const char *b, const char *c, size_t n)
{
    size_t n_a = strlen(a), n_b = strlen(b), n_c = strlen(c);
    char *text = malloc(n * (n_a + n_c) + n_b + 1), *p = text;
    assert_non_null(text);
    for (size_t i = 0; i < n; i++, p += n_a)
        memcpy(p, a, n_a);
    memcpy(p, b, n_b);
    p += n_b;
    for (size_t i = 0; i < n; i++, p += n_c)
        memcpy(p, c, n_c);
    *p = '\0';
    return text;
}

static void check_stopped(const char *template_text)
{
    struct timespec begun, ended;
    struct mb_error err = {0};
    char *text;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
    enum mb_status status = render(template_text, &text, &err);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
    if (status == MB_OK || strncmp(err.msg, "t.jinja", 7) != 0)
        fail_msg("%.80s: status %d: %s", template_text, status, err.msg);
    if (ended.tv_sec - begun.tv_sec > 20) /* of CPU time: a hang, also with sanitizers */
        fail_msg("%.80s: took %ld s", template_text, (long)(ended.tv_sec - begun.tv_sec));
}

static void bombs_are_stopped(void **state)
{
    (void)state;
    static const char *const bombs[] = {
        "{% for a in range(1000000000000) %}{% endfor %}",
        "{{ range(999999999) | list | length }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for i in range(64) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='aa') %}{%for i in range(9)%}{%set n.s = n.s.replace('a', n.s)%}{%endfor%}",
        "{% for a in range(99999) %}{% for b in range(999) %}xxxxxxxxxx{% endfor %}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof bombs / sizeof bombs[0]; i++)
        check_stopped(bombs[i]);
    static const char *const deep[][3] = {
        {"(", "1", ")"}, {"[", "", "]"}, {"not ", "1", ""}, {"-", "1", ""}, {"{'a':", "1", "}"},
    };
    for (size_t i = 0; i < sizeof deep / sizeof deep[0]; i++) {
        char *inner = nested(deep[i][0], deep[i][1], deep[i][2], 100000), *text = malloc(strlen(inner) + 16);
        assert_non_null(text);
        sprintf(text, "{{ %s }}", inner);
        check_stopped(text);
        free(text);
        free(inner);
    }
    char *text = nested("{% if 1 %}", "x", "{% endif %}", 30000);
    check_stopped(text);
    free(text);
}

static void values_nested_without_end_are_stopped(void **state)
{
    (void)state;
    static const char start[] = "{% set n = namespace(a=[], b=[]) %}{% for i in range(999) %}{% set n.a = "
                                "[n.a] %}{% set n.b = [n.b] %}"
                                "{% endfor %}";
    static const char *const ends[][2] = {{"{{ n.a == n.b }}", "deep"}, {"{{ n.a | tojson }}", "tojson"}};
    for (size_t i = 0; i < 2; i++) {
        struct mb_error err = {0};
        char line[512], *text;
        snprintf(line, sizeof line, "%s%s", start, ends[i][0]);
        assert_int_equal(render(line, &text, &err), MB_UNSUPPORTED);
        if (strstr(err.msg, ends[i][1]) == NULL)
            fail_msg("%s", err.msg);
    }
}

static void a_template_is_text(void **state)
{
    (void)state;
    struct mb_error err = {0};
    char *text;
    assert_int_equal(render("a\xff", &text, &err), MB_BAD_DATA);
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
        cmocka_unit_test(expressions_equal_transformers),
        cmocka_unit_test(what_is_not_there_is_named),
        cmocka_unit_test(bombs_are_stopped),
        cmocka_unit_test(values_nested_without_end_are_stopped),
        cmocka_unit_test(a_template_is_text),
        cmocka_unit_test(the_plain_format),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
