/*
 * test_json.c - JSON in and out: the places that errors name, and texts that come back as they were.
 */
#include "base/file.h"
#include "base/json.h"
#include "cmocka_all.h"
#include "starve.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_MAX = 140 }; /* jansson's buffers grow at 16, 32, 64 and 128 bytes */

static void errors_have_places(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t begin;
        const char *message;
    } cases[] = {
        {"", 0, "byte 0: the JSON text ends too early"},
        {"{\"a\": 1", 0, "byte 7: the JSON text ends too early"},
        {"{\"a\": [1, 2}", 0, "byte 12: "},
        {"{\"a\": [1, 2}", 8, "byte 20: "},
        {"{\n \"a\": x\n}", 0, "line 2: byte 9: "},
        {"{} {}", 0, "byte 4: "},
        {"{}]", 0, "byte 3: "},
        {"{}, {}", 0, "byte 3: "},
        {"{}], [{}", 0, "byte "},
        {"12", 8, "byte 8: not one object or array"},
        {"{\"a\": 1, \"a\": 2}", 0, "byte 12: bad JSON: duplicate object key"},
        {"[\"\xff\"]", 0, "byte "},
        {"]4", 0, "byte "},
        {"[\"\\\"]", 0, "byte 5: the JSON text ends too early"},
        {"\xef\xbb\xbf{}", 0, "byte 0: a byte order mark (EF BB BF); save the file as UTF-8 without one"},
        {"\xff\xfe{", 0, "byte 0: UTF-16; save the file as UTF-8"},
        {"\xfe\xff{", 8, "byte 8: UTF-16; save the file as UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *root;
        struct mb_error err = {0};
        enum mb_status status =
            mb_json_parse(cases[i].text, strlen(cases[i].text), cases[i].begin, &root, &err);
        if (status != MB_BAD_DATA || root != NULL ||
            strncmp(err.msg, cases[i].message, strlen(cases[i].message)) != 0)
            fail_msg("%s: status %d: %s", cases[i].text, (int)status, err.msg);
    }
}

/* Parses and writes again while our allocation n fails (0: none). true: one did. */
static bool fails_without_memory(const char *text, long n)
{
    json_t *root = NULL;
    struct mb_error err = {0};
    size_t nbytes = 0;
    char *again = NULL;
    struct starve_held before = starve_held();
    starve_begin(STARVE_MEMORY, n, false);
    enum mb_status status = mb_json_parse(text, strlen(text), 0, &root, &err);
    if (status == MB_OK)
        again = mb_json_text(root, JSON_COMPACT, &nbytes);
    bool is_struck = starve_end() >= n;
    if (status != MB_OK)
        fail_msg("%s: allocation %ld: status %d: %s", text, n, (int)status, err.msg);
    if (is_struck ? again != NULL : again == NULL || nbytes != strlen(text) || strcmp(again, text) != 0)
        fail_msg("%s: allocation %ld: '%s'", text, n, again == NULL ? "" : again);
    free(again);
    json_decref(root);
    assert_int_equal(starve_held().n_blocks, before.n_blocks);
    return is_struck;
}

static void texts_come_back_or_are_not_there(void **state)
{
    (void)state;
    static const char *const forms[] = {"[\"%s\"]", "{\"%s\":1}", "{\"%s\":{\"\\\"%s\":[]}}"};
    char digits[LENGTH_MAX + 1], text[3 * LENGTH_MAX];
    for (size_t form = 0; form < sizeof forms / sizeof forms[0]; form++)
        for (size_t length = 1; length < LENGTH_MAX; length++) {
            memset(digits, '3', length);
            digits[length] = '\0';
            snprintf(text, sizeof text, forms[form], digits, digits);
            long n = 1;
            while (fails_without_memory(text, n))
                n++;
            assert_true(n > 1);
        }
}

/* A number's digits cannot be written back, but the number is right. */
static void long_numbers_are_right(void **state)
{
    (void)state;
    char text[LENGTH_MAX + 8] = "[0.";
    for (size_t length = 1; length < LENGTH_MAX; length++) {
        json_t *root = NULL;
        memset(text + 3, '3', length);
        strcpy(text + 3 + length, "]");
        assert_int_equal(mb_json_parse(text, length + 4, 0, &root, NULL), MB_OK);
        assert_true(json_real_value(json_array_get(root, 0)) == strtod(text + 1, NULL));
        json_decref(root);
    }
}

static void numbers_that_python_takes_are_taken(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
        bool is_integer;
    } cases[] = {
        {"1000000000000000019884624838656", 1e30, false},
        {"-1000000000000000019884624838656", -1e30, false},
        {"9223372036854775807", 9223372036854775807.0, true},
        {"9223372036854775808", 9223372036854775808.0, false},
        {"1e400", 1e300, false},
        {"-12.5E+999", -1e300, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[128];
        json_t *root;
        struct mb_error err;
        int n = snprintf(text, sizeof text, "{\"-1e999\\\"\": %s, \"b\": [12, -3.5]}", cases[i].text);
        if (mb_json_parse(text, (size_t)n, 0, &root, &err) != MB_OK)
            fail_msg("%s: %s", text, err.msg);
        const json_t *value = json_object_get(root, "-1e999\"");
        assert_int_equal(json_is_integer(value), cases[i].is_integer);
        double ratio = json_number_value(value) / cases[i].value;
        assert_true(ratio > 1 - 1e-15 && ratio < 1 + 1e-15);
        assert_int_equal(json_integer_value(json_array_get(json_object_get(root, "b"), 0)), 12);
        json_decref(root);
    }
    json_t *root;
    struct mb_error err;
    static const char bad[] = "{\"a\": 1e999, \"b\": x}";
    assert_int_equal(mb_json_parse(bad, sizeof bad - 1, 0, &root, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "byte 19: "));
    char long_text[512];
    int n = snprintf(long_text, sizeof long_text, "{\"a\": 1%0400d, \"b\": 1}", 0);
    assert_int_equal(mb_json_parse(long_text, (size_t)n, 0, &root, &err), MB_OK);
    assert_true(json_real_value(json_object_get(root, "a")) == 1e300);
    json_decref(root);
}

static void literals_that_python_takes_are_no_numbers(void **state)
{
    (void)state;
    json_t *root;
    struct mb_error err;
    static const char text[] =
        "{\"a\": [0.0, Infinity], \"b\": NaN, \"c\": -Infinity, \"d\": \"\\\"NaN\", \"e\": 7}";
    assert_int_equal(mb_json_parse(text, sizeof text - 1, 0, &root, &err), MB_OK);
    assert_false(json_is_number(json_array_get(json_object_get(root, "a"), 1)));
    assert_false(json_is_number(json_object_get(root, "b")));
    assert_false(json_is_number(json_object_get(root, "c")));
    assert_string_equal(json_string_value(json_object_get(root, "d")), "\"NaN");
    assert_int_equal(json_integer_value(json_object_get(root, "e")), 7);
    json_decref(root);
    static const char bad[] = "{\"a\": -Infinity, \"b\": x}", worse[] = "{\"a\": Nan}";
    assert_int_equal(mb_json_parse(bad, sizeof bad - 1, 0, &root, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "byte 23: "));
    assert_int_equal(mb_json_parse(worse, sizeof worse - 1, 0, &root, &err), MB_BAD_DATA);
}

static void *no_memory(size_t nbytes)
{
    (void)nbytes;
    return NULL;
}

/* Only the first allocation is certain to be noticed. */
static void a_text_without_memory_is_no_bad_text(void **state)
{
    (void)state;
    json_t *root;
    struct mb_error err;
    json_set_alloc_funcs(no_memory, free);
    enum mb_status status = mb_json_parse("[]", 2, 0, &root, &err);
    json_set_alloc_funcs(starve_spared_malloc, free);
    assert_int_equal(status, MB_NO_MEMORY);
    assert_null(root);
    assert_string_equal(err.msg, "out of memory for a JSON text");
}

static void files_hold_one_object(void **state)
{
    (void)state;
    static const char path[] = MB_TEST_FOLDER "/object.json";
    static const struct {
        const char *text;
        enum mb_status status;
        const char *message;
    } cases[] = {
        {"{\"a\": 1}", MB_OK, ""},
        {"[1]", MB_BAD_DATA, "object.json: not a JSON object"},
        {"{\n\"a\": 1", MB_BAD_DATA, "object.json: byte 8: the JSON text ends too early"},
        {"{\"\x1b[31m\": 1}", MB_BAD_DATA, "object.json: byte "},
        {"{\"a\": 1, \"a long one\": 1}", MB_BAD_DATA, "limit of 20"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *object;
        struct mb_error err = {0};
        assert_int_equal(mb_write_file(path, cases[i].text, strlen(cases[i].text), NULL), MB_OK);
        assert_int_equal(mb_json_read(path, 20, &object, &err), cases[i].status);
        if (strstr(err.msg, cases[i].message) == NULL || strchr(err.msg, '\x1b') != NULL)
            fail_msg("case %zu: %s", i, err.msg);
        assert_true((object != NULL) == (cases[i].status == MB_OK));
        json_decref(object);
    }
    remove(path);
}

static void a_leading_object_may_be_followed_by_anything(void **state)
{
    (void)state;
    static const char text[] = "{\"answer\": \"\\u0000\"} and more";
    json_t *object = mb_json_leading(text, strlen(text));
    assert_int_equal(json_string_length(json_object_get(object, "answer")), 1);
    json_decref(object);
    assert_null(mb_json_leading("[1]", 3));
    assert_null(mb_json_leading("{\"a\"", 4));
    assert_null(mb_json_leading("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_have_places),
        cmocka_unit_test(texts_come_back_or_are_not_there),
        cmocka_unit_test(long_numbers_are_right),
        cmocka_unit_test(numbers_that_python_takes_are_taken),
        cmocka_unit_test(literals_that_python_takes_are_no_numbers),
        cmocka_unit_test(a_text_without_memory_is_no_bad_text),
        cmocka_unit_test(files_hold_one_object),
        cmocka_unit_test(a_leading_object_may_be_followed_by_anything),
    };
    json_set_alloc_funcs(starve_spared_malloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
