/*
 * test_jinja.c - small templates against `transformers`, what is refused by name, and templates that would
 * never end.
 *
 * data/goldens.json is written by tools/tokenizer-goldens/make_chat_goldens.py.
 */
#include "cmocka_all.h"
#include "jinja/jinja.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct mb_jinja_value text_value(const char *text)
{
    return mb_jinja_text(text, strlen(text));
}

static void put(struct mb_jinja_run *run, struct mb_jinja_map *map, const char *key,
                struct mb_jinja_value value)
{
    assert_true(mb_jinja_put(run, map, text_value(key).string, value));
}

/* The variables with which the goldens are made: one message of a user. */
static struct mb_jinja_value make_variables(struct mb_jinja_run *run)
{
    struct mb_jinja_value variables, messages, message;
    assert_true(mb_jinja_new_map(run, MB_JINJA_DICT, &variables) && mb_jinja_new_list(run, &messages) &&
                mb_jinja_new_map(run, MB_JINJA_DICT, &message));
    put(run, message.map, "role", text_value("user"));
    put(run, message.map, "content", text_value("Hello"));
    assert_true(mb_jinja_append(run, messages.list, message));
    put(run, variables.map, "messages", messages);
    put(run, variables.map, "tools", mb_jinja_none());
    put(run, variables.map, "documents", mb_jinja_none());
    put(run, variables.map, "add_generation_prompt", mb_jinja_bool(true));
    put(run, variables.map, "bos_token", text_value("<s>"));
    put(run, variables.map, "eos_token", text_value("</s>"));
    return variables;
}

/* *text is to be freed after success. */
static enum mb_status render(const char *template_text, char **text, struct mb_error *err)
{
    struct mb_jinja_run run = {.place = "t.jinja",
                               .line = 1,
                               .err = err,
                               .n_steps_max = 20000000,
                               .arena_nbytes_max = 64 << 20,
                               .out_nbytes_max = 16 << 20,
                               .now = 1789000000};
    struct mb_jinja_value variables = make_variables(&run);
    struct mb_bytes out = {0};
    const struct mb_jinja_node *tree = mb_jinja_parse(&run, template_text, strlen(template_text));
    enum mb_status status = tree == NULL ? run.status : mb_jinja_render(&run, tree, variables.map, &out);
    mb_jinja_run_free(&run);
    *text = NULL;
    if (status == MB_OK) {
        assert_true(mb_bytes_put(&out, "", 1));
        *text = out.p;
    } else {
        free(out.p);
    }
    return status;
}

/* Each line of data/expressions.txt: the same text, or an error where transformers has one. */
static void expressions_equal_transformers(void **state)
{
    (void)state;
    json_t *goldens = json_load_file(MB_REPO "/tests/jinja/data/goldens.json", 0, NULL);
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
    json_decref(goldens);
}

static void what_is_not_there_is_named(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"{% macro f() %}{% endmacro %}{{ f }}", "printing a macro"},
        {"{% macro f() %}\n{{ 1 // 0 }}{% endmacro %}{{ f() }}", "line 2"},
        {"{% macro f() %}{% endmacro %}{{ f(1) }}", "macro 'f' takes at most 0 arguments"},
        {"{% macro f(x) %}{% endmacro %}{{ f(y=1) }}", "macro 'f' has no parameter 'y'"},
        {"{% macro f() %}{% endmacro %}{% call f() %}{% endcall %}", "macro 'f' has no parameter 'caller'"},
        {"{% call range() %}{% endcall %}", "a call block of a function"},
        {"{% call 1 %}{% endcall %}", "a call"},
        {"{% macro f() %}{% endmacro %}{{ f.name }}", "an attribute of a macro"},
        {"{{ {}.items() }}", "printing an iterator"},
        {"{{ [1] | map('string') }}", "printing an iterator"},
        {"{{ [1] | select | length }}", "an iterator has no length"},
        {"{{ 1 in ([1] | select) }}", "'in' an iterator"},
        {"{{ '\u00df'.upper() }}", "U+00DF"},
        {"{{ 'a'.zfill(2) }}", "the method 'zfill' of strings"},
        {"{{ [1].append(2) }}", "the method 'append' of lists"},
        {"{{ [1] | groupby('a') }}", "groupby"},
        {"{{ 0x10 }}", "not decimal"},
        {"{{ 1e999 }}", "no float"},
        {"{{ [] | tojson(indent='x') }}", "tojson"},
        {"{{ [] | map(attribute='a', nonsense=1) }}", "map"},
        {"{{ strftime_now(1) }}", "strftime_now"},
        {"{% set a, b = [1] %}", "2 names for 1 values"},
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
        {"{% for a in [1] %}{{ loop }}{% endfor %}", "printing a loop"},
        {"{{ 5[1:2] }}", "a slice of a number"},
        {"{{ [1]['a':] }}", "a slice by a string"},
        {"{{ [1] < [2] }}", "a list and a list"},
        {"{{ {1.5: 2} }}", "a mapping's key that is a float"},
        {"{{ {}.update({}) }}", "the method 'update' of mappings"},
        {"{{ 9223372036854775808 }}", "over 64 bits"},
        {"{{ 9223372036854775807 + 1 }}", "over 64 bits"},
        {"{{ 3037000500 * 3037000500 }}", "over 64 bits"},
        {"{{ '\\ud800' }}", "no character"},
        {"{{ '\\xzz' }}", "broken escape"},
        {"{{ [] | tojson(indent=17) }}", "tojson"},
        {"{{ range | tojson }}", "tojson of a function"},
        {"{{ dict([1]) }}", "a number cannot be looped over"},
        {"{{ range(*[1]) }}", "t.jinja"},
        {"{{ range == range }}", "comparing a function"},
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
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{{ caller }}{% endmacro %}{{ f() }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set n = namespace(l=[1]) %}{% for i in range(64) %}{% set n.l = n.l + n.l %}{% endfor %}",
        "{{ 'ab' * 99999999999 }}",
        "{{ [1] * 99999999999 }}",
        ("{% for i in range(99999) %}{% macro f() %}{% endmacro %}{% for j in range(99) %}{% macro g() %}"
         "{% endmacro %}{% endfor %}{% endfor %}"),
        "{% macro f(n) %}{% for i in range(9) %}{{ f(n - 1) if n > 0 }}{% endfor %}{% endmacro %}{{ f(30) }}",
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
    static const char *const ends[][2] = {
        {"{{ n.a == n.b }}", "deep"}, {"{{ n.a | tojson }}", "tojson"}, {"{{ n.a }}", "printing"}};
    for (size_t i = 0; i < 3; i++) {
        struct mb_error err = {0};
        char line[512], *text;
        snprintf(line, sizeof line, "%s%s", start, ends[i][0]);
        assert_int_equal(render(line, &text, &err), MB_UNSUPPORTED);
        if (strstr(err.msg, ends[i][1]) == NULL)
            fail_msg("%s", err.msg);
    }
}

static void a_parsed_template_renders_in_another_run(void **state)
{
    (void)state;
    static const char text[] = "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}";
    struct mb_error err;
    struct mb_jinja_run parsing = {
        .place = "t.jinja", .err = &err, .n_steps_max = 1000, .arena_nbytes_max = 1 << 20};
    const struct mb_jinja_node *tree = mb_jinja_parse(&parsing, text, strlen(text));
    assert_non_null(tree);
    for (int i = 0; i < 2; i++) {
        struct mb_jinja_run run = parsing;
        struct mb_bytes out = {0};
        run.chunks = NULL;
        run.out_nbytes_max = 100;
        struct mb_jinja_value variables = make_variables(&run);
        assert_int_equal(mb_jinja_render(&run, tree, variables.map, &out), MB_OK);
        assert_int_equal(out.n, strlen("user: Hello"));
        assert_memory_equal(out.p, "user: Hello", out.n);
        mb_jinja_run_free(&run);
        free(out.p);
    }
    mb_jinja_run_free(&parsing);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_equal_transformers),
        cmocka_unit_test(what_is_not_there_is_named),
        cmocka_unit_test(bombs_are_stopped),
        cmocka_unit_test(values_nested_without_end_are_stopped),
        cmocka_unit_test(a_parsed_template_renders_in_another_run),
    };
    setenv("TZ", "UTC", 1); /* where the goldens' clock is */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
