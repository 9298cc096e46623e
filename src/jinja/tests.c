/*
 * tests.c - the tests: value is name(argument).
 */
#include "builtins.h"
#include <ctype.h>

/* ---------------------------------------------------------------- tests of the value's kind alone */

#define KIND(name) (1u << MB_JINJA_##name)
#define ITERABLE (KIND(STRING) | KIND(LIST) | KIND(DICT) | KIND(UNDEFINED))
#define NUMBER (KIND(INT) | KIND(FLOAT) | KIND(BOOL))

static const struct {
    const char *name;
    unsigned kinds; /* those that pass */
} kind_tests[] = {
    {"defined", ~KIND(UNDEFINED)}, {"undefined", KIND(UNDEFINED)},
    {"none", KIND(NONE)},          {"string", KIND(STRING)},
    {"mapping", KIND(DICT)},       {"iterable", ITERABLE},
    {"float", KIND(FLOAT)},        {"number", NUMBER},
    {"integer", KIND(INT)},        {"safe", 0},
    {"boolean", KIND(BOOL)},       {"callable", KIND(FUNCTION) | KIND(METHOD) | KIND(MACRO)},
};

/* ---------------------------------------------------------------- other tests without argument */

static bool test_true(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)run;
    (void)args;
    *out = mb_jinja_bool(input->kind == MB_JINJA_BOOL && input->number != 0);
    return true;
}

static bool test_false(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)run;
    (void)args;
    *out = mb_jinja_bool(input->kind == MB_JINJA_BOOL && input->number == 0);
    return true;
}

/* What has a length and items by index, or so it seems to Jinja. */
static bool test_sequence(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)run;
    (void)args;
    bool is_list = input->kind == MB_JINJA_LIST && input->list->form <= MB_JINJA_RANGE;
    *out = mb_jinja_bool(is_list || input->kind == MB_JINJA_STRING || input->kind == MB_JINJA_DICT ||
                         input->kind == MB_JINJA_UNDEFINED);
    return true;
}

/* test_upper, test_lower: whether letters are there, all of that case. ASCII only. */
static bool test_case(run_t *run, const value_t *input, bool wants_upper, value_t *out)
{
    string_t text;
    bool has_letter = false, has_other = false;
    if (!mb_jinja_str(run, input, &text))
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c >= 0x80)
            return mb_jinja_fail(run, MB_UNSUPPORTED, "upper or lower case beyond ASCII is not supported");
        has_letter = has_letter || isalpha(c);
        has_other = has_other || (wants_upper ? islower(c) : isupper(c));
    }
    *out = mb_jinja_bool(has_letter && !has_other);
    return true;
}

static bool test_upper(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    return test_case(run, input, true, out);
}

static bool test_lower(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    return test_case(run, input, false, out);
}

static bool test_divisible(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    const value_t *by = &args->items[0];
    if (!mb_jinja_is_whole(input) || !mb_jinja_is_whole(by) || by->number == 0 || by->number == -1)
        return mb_jinja_bad_call(run, "divisibleby");
    *out = mb_jinja_bool(input->number % by->number == 0);
    return true;
}

static bool test_sameas(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    const value_t *other = &args->items[0];
    if (input->kind != MB_JINJA_BOOL && input->kind != MB_JINJA_NONE && other->kind != MB_JINJA_BOOL &&
        other->kind != MB_JINJA_NONE)
        return mb_jinja_bad_call(run, "sameas");
    *out = mb_jinja_bool(input->kind == other->kind && input->number == other->number);
    return true;
}

static bool test_odd(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    if (input->kind != MB_JINJA_INT)
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s is neither odd nor even",
                             mb_jinja_kind_name(input->kind));
    *out = mb_jinja_bool(input->number % 2 != 0);
    return true;
}

static bool test_even(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (!test_odd(run, input, args, out))
        return false;
    *out = mb_jinja_bool(!out->number);
    return true;
}

/* ---------------------------------------------------------------- comparisons: tests with one argument */

static bool test_equal(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    bool equal;
    if (!mb_jinja_equal(run, input, &args->items[0], &equal))
        return false;
    *out = mb_jinja_bool(equal);
    return true;
}

static bool test_unequal(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    bool equal;
    if (!mb_jinja_equal(run, input, &args->items[0], &equal))
        return false;
    *out = mb_jinja_bool(!equal);
    return true;
}

static bool test_in(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    bool answer;
    if (!mb_jinja_contains(run, &args->items[0], input, &answer))
        return false;
    *out = mb_jinja_bool(answer);
    return true;
}

static bool test_less(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    int order;
    if (!mb_jinja_order(run, input, &args->items[0], &order))
        return false;
    *out = mb_jinja_bool(order < 0);
    return true;
}

static bool test_at_most(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    int order;
    if (!mb_jinja_order(run, input, &args->items[0], &order))
        return false;
    *out = mb_jinja_bool(order <= 0);
    return true;
}

static bool test_greater(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    int order;
    if (!mb_jinja_order(run, input, &args->items[0], &order))
        return false;
    *out = mb_jinja_bool(order > 0);
    return true;
}

static bool test_at_least(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    int order;
    if (!mb_jinja_order(run, input, &args->items[0], &order))
        return false;
    *out = mb_jinja_bool(order >= 0);
    return true;
}

/* ---------------------------------------------------------------- by name */

static const struct mb_jinja_builtin plain_tests[] = {
    {"true", test_true},         {"false", test_false}, {"odd", test_odd},     {"even", test_even},
    {"sequence", test_sequence}, {"upper", test_upper}, {"lower", test_lower},
};

static const struct mb_jinja_builtin comparisons[] = {
    {"equalto", test_equal},
    {"eq", test_equal},
    {"==", test_equal},
    {"ne", test_unequal},
    {"!=", test_unequal},
    {"in", test_in},
    {"lessthan", test_less},
    {"lt", test_less},
    {"<", test_less},
    {"le", test_at_most},
    {"<=", test_at_most},
    {"greaterthan", test_greater},
    {"gt", test_greater},
    {">", test_greater},
    {"ge", test_at_least},
    {">=", test_at_least},
    {"divisibleby", test_divisible},
    {"sameas", test_sameas},
};

static bool test_kind(string_t name, const value_t *input, bool *answer)
{
    for (size_t i = 0; i < MB_JINJA_COUNT(kind_tests); i++) {
        if (mb_jinja_is(name, kind_tests[i].name)) {
            *answer = (kind_tests[i].kinds >> input->kind & 1) != 0;
            return true;
        }
    }
    return false;
}

bool mb_jinja_test(run_t *run, string_t name, const value_t *input, const args_t *args, bool *answer)
{
    if (!mb_jinja_steps(run, 1))
        return false;
    if (args->keywords.map->n > 0 || args->n > 1)
        return mb_jinja_bad_call(run, "a test");
    if (args->n == 0 && test_kind(name, input, answer))
        return true;
    const struct mb_jinja_builtin *test =
        args->n == 0 ? mb_jinja_find_in(plain_tests, MB_JINJA_COUNT(plain_tests), name)
                     : mb_jinja_find_in(comparisons, MB_JINJA_COUNT(comparisons), name);
    if (test == NULL)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "the test '%.*s' with %s argument is not supported",
                             (int)name.n, name.p, args->n == 0 ? "no" : "one");
    value_t out;
    if (!test->call(run, input, args, &out))
        return false;
    *answer = out.number != 0;
    return true;
}
