/*
 * test_json.c - JSON in and out: places of errors, and nothing lost where memory is out, whatever the
 * lengths of numbers, strings and keys.
 */
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
        {"", 0, "byte 0: ends too early"},
        {"{\"a\": 1", 0, "byte 7: ends too early"},
        {"{\"a\": [1, 2}", 0, "byte 12: "},
        {"{\"a\": [1, 2}", 8, "byte 20: "},
        {"{\n \"a\": x\n}", 0, "line 2: byte 9: "},
        {"{} {}", 0, "byte 4: "},
        {"{}]", 0, "byte 3: "},
        {"{}, {}", 0, "byte 0: not one object or array"},
        {"{}], [{}", 0, "byte "},
        {"12", 8, "byte 8: not one object or array"},
        {"{\"a\": 1, \"a\": 2}", 0, "byte 12: duplicate object key"},
        {"[\"\xff\"]", 0, "byte "},
        {"[\"\\\"]", 0, "byte 5: ends too early"},
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

/* Parses and writes again while allocation n fails. true: none did, and the text is the same. */
static bool survives(const char *text, long n)
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
    if (is_struck ? again != NULL || (status != MB_OK && status != MB_NO_MEMORY)
                  : again == NULL || nbytes != strlen(text) || strcmp(again, text) != 0)
        fail_msg("%s: allocation %ld: status %d, '%s': %s", text, n, (int)status, err.msg,
                 again == NULL ? "" : again);
    free(again);
    json_decref(root);
    assert_int_equal(starve_held().n_blocks, before.n_blocks);
    return !is_struck;
}

static void nothing_is_lost_without_memory(void **state)
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
            while (!survives(text, n))
                n++;
            assert_true(n > 5);
        }
}

/* A number's digits cannot be written back, but the number is right or not there. */
static void long_numbers_are_right_or_not_there(void **state)
{
    (void)state;
    char text[LENGTH_MAX + 8] = "[0.";
    for (size_t length = 1; length < LENGTH_MAX; length++) {
        bool is_struck = true;
        memset(text + 3, '3', length);
        strcpy(text + 3 + length, "]");
        for (long n = 1; is_struck; n++) {
            json_t *root = NULL;
            starve_begin(STARVE_MEMORY, n, false);
            enum mb_status status = mb_json_parse(text, length + 4, 0, &root, NULL);
            is_struck = starve_end() >= n;
            assert_int_equal(status, is_struck ? MB_NO_MEMORY : MB_OK);
            if (!is_struck)
                assert_true(json_real_value(json_array_get(root, 0)) == strtod(text + 1, NULL));
            json_decref(root);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_have_places),
        cmocka_unit_test(nothing_is_lost_without_memory),
        cmocka_unit_test(long_numbers_are_right_or_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
