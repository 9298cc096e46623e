/*
 * test_config_text.c - one member of a JSON text is changed, and every other byte stays.
 */
#include "checkpoint/config_text.h"
#include "cmocka_all.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const texts[] = {
    "{}",
    " { } ",
    "{\"q\":1}",
    "{\"q\":{\"a\":[1,{\"q\":2}]}}",
    "{\"a\":1,\"q\":\"x\\\"}\",\"b\":2}",
    "{\"a\":{\"q\":1}, \"b\": [\"q\", {\"q\": []}]}",
    "{\"q\" : null , \"a\" : 1e-05}",
    "{\"a\" : 1.0000, \"q\":true}",
    "{\"\\u0071\":[[]],\"a\":\"\\\\\"}",
    "{\n  \"a\": 1e-05,\n  \"q\": [\n    1\n  ],\n  \"b\": 0.1\n}\n",
    "{\n  \"a\": 1e-05\n}\n",
    "{\"qq\":1,\"a\":\"q\",\"b\":\"\\\"q\\\":1\"}",
};
enum { N_TEXTS = sizeof texts / sizeof texts[0] };

static json_t *parse(const char *text)
{
    json_error_t where;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    if (json == NULL)
        fail_msg("%s: byte %d: %s", text, where.position, where.text);
    return json;
}

static void assert_same_as(const char *text, const json_t *expected)
{
    json_t *json = parse(text);
    if (!json_equal(json, expected))
        fail_msg("wrong: %s", text);
    json_decref(json);
}

static void a_member_is_set_and_removed(void **state)
{
    (void)state;
    json_t *value = json_pack("{s:s, s:[i, f]}", "method", "m\"}", "numbers", 1, 0.25);
    for (size_t i = 0; i < N_TEXTS; i++) {
        json_t *expected = parse(texts[i]);
        json_object_set(expected, "q", value);
        char *set = mb_config_text_set(texts[i], "q", value);
        assert_non_null(set);
        assert_same_as(set, expected);
        char *again = mb_config_text_set(set, "q", value);
        assert_string_equal(again, set);
        json_object_del(expected, "q");
        char *removed = mb_config_text_set(set, "q", NULL);
        assert_same_as(removed, expected);
        free(set);
        free(again);
        free(removed);
        json_decref(expected);
    }
    json_decref(value);
}

/* What transformers wrote as 1e-05 and 1.0000 is not printed anew. */
static void other_bytes_stay(void **state)
{
    (void)state;
    json_t *value = json_integer(7);
    static const char *const cases[][2] = {
        {"{\"a\" : 1.0000, \"q\":true}", "{\"a\" : 1.0000, \"q\":7}"},
        {"{\"q\" : null , \"a\" : 1e-05}", "{\"q\" : 7 , \"a\" : 1e-05}"},
        {"{\n  \"a\": 1e-05\n}\n", "{\n  \"a\": 1e-05,\n  \"q\": 7\n}\n"},
        {"{\"a\":2}", "{\"a\":2, \"q\": 7}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *set = mb_config_text_set(cases[i][0], "q", value);
        assert_string_equal(set, cases[i][1]);
        free(set);
    }
    char *removed = mb_config_text_set("{\"q\" : null , \"a\" : 1e-05}", "q", NULL);
    assert_string_equal(removed, "{\"a\" : 1e-05}");
    free(removed);
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_is_set_and_removed),
        cmocka_unit_test(other_bytes_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
