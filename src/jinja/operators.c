/*
 * operators.c - sums, comparisons and the like of values.
 */
#include "operators.h"
#include "safe_text.h"
#include <math.h>

bool mb_jinja_fail_operands(run_t *run, const char *what, const value_t *a, const value_t *b)
{
    const value_t *undefined = a->kind == MB_JINJA_UNDEFINED ? a : b;
    if (undefined->kind == MB_JINJA_UNDEFINED)
        return mb_jinja_fail_undefined(run, undefined);
    return mb_jinja_fail(run, MB_BAD_DATA, "%s of a %s and a %s is not defined", what,
                         mb_jinja_kind_name(a->kind), mb_jinja_kind_name(b->kind));
}

static bool join_lists(run_t *run, const list_t *a, const list_t *b, value_t *out)
{
    if (a->form != b->form || (a->form != MB_JINJA_PLAIN && a->form != MB_JINJA_TUPLE))
        return mb_jinja_fail(run, MB_BAD_DATA,
                             "the sum of a list and something that is no list is not defined");
    if (!mb_jinja_new_form(run, a->form, out) || !mb_jinja_steps(run, a->n + b->n))
        return false;
    for (size_t i = 0; i < a->n + b->n; i++)
        if (!mb_jinja_append(run, out->list, i < a->n ? a->items[i] : b->items[i - a->n]))
            return false;
    return true;
}

/* Python rounds quotients down, and remainders take the divisor's sign. */
static bool divide(run_t *run, int64_t a, int64_t b, int64_t *quotient, int64_t *remainder)
{
    if (b == 0 || (a == INT64_MIN && b == -1))
        return mb_jinja_fail(run, MB_BAD_DATA, "a division by zero or beyond 64 bits");
    *quotient = a / b;
    *remainder = a % b;
    if (*remainder != 0 && (*remainder < 0) != (b < 0)) {
        *quotient -= 1;
        *remainder += b;
    }
    return true;
}

static bool fail_float(run_t *run)
{
    return mb_jinja_fail(run, MB_BAD_DATA, "a division by zero, or a number that no float can hold");
}

static bool compute_floats(run_t *run, enum mb_jinja_op op, double a, double b, value_t *out)
{
    double result = 0, rest;
    if (op >= MB_JINJA_DIV && op <= MB_JINJA_MOD && b == 0)
        return fail_float(run);
    switch (op) {
    case MB_JINJA_ADD:
        result = a + b;
        break;
    case MB_JINJA_SUB:
        result = a - b;
        break;
    case MB_JINJA_MUL:
        result = a * b;
        break;
    case MB_JINJA_DIV:
        result = a / b;
        break;
    case MB_JINJA_POWER:
        result = pow(a, b);
        break;
    default: /* Python: the remainder has the divisor's sign, and the quotient is rounded from what it leaves
              */
        rest = fmod(a, b);
        result = (a - rest) / b;
        if (rest != 0 && (b < 0) != (rest < 0)) {
            rest += b;
            result -= 1;
        }
        if (op == MB_JINJA_MOD)
            result = rest != 0 ? rest : copysign(0, b);
        else if (result == 0)
            result = copysign(0, a / b);
        else
            result = floor(result) + (result - floor(result) > 0.5 ? 1 : 0);
    }
    if (!isfinite(result))
        return fail_float(run);
    *out = mb_jinja_float(result);
    return true;
}

static bool power(run_t *run, int64_t base, int64_t exponent, value_t *out)
{
    int64_t result = 1;
    if (exponent < 0)
        return compute_floats(run, MB_JINJA_POWER, (double)base, (double)exponent, out);
    if (exponent > 64 && (base > 1 || base < -1))
        return mb_jinja_fail(run, MB_UNSUPPORTED, "a number over 64 bits is not supported");
    if (exponent > 64) /* 0, 1 and -1 */
        exponent = exponent % 2 == 0 ? 2 : 1;
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(result, base, &result))
            return mb_jinja_fail(run, MB_UNSUPPORTED, "a number over 64 bits is not supported");
    *out = mb_jinja_int(result);
    return true;
}

static bool compute(run_t *run, enum mb_jinja_op op, int64_t a, int64_t b, value_t *out)
{
    if (op == MB_JINJA_DIV)
        return compute_floats(run, op, (double)a, (double)b, out);
    if (op == MB_JINJA_POWER)
        return power(run, a, b, out);
    int64_t result = 0, other = 0;
    bool overflows = false;
    if (op == MB_JINJA_ADD)
        overflows = __builtin_add_overflow(a, b, &result);
    else if (op == MB_JINJA_SUB)
        overflows = __builtin_sub_overflow(a, b, &result);
    else if (op == MB_JINJA_MUL)
        overflows = __builtin_mul_overflow(a, b, &result);
    else if (!divide(run, a, b, &result, &other))
        return false;
    if (overflows)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "a number over 64 bits is not supported");
    *out = mb_jinja_int(op == MB_JINJA_MOD ? other : result);
    return true;
}

/* 'ab' * 3, [1] * 3. */
static bool repeat(run_t *run, const value_t *value, int64_t n, value_t *out)
{
    struct mb_bytes bytes = {0};
    bool ok = true;
    if (value->kind == MB_JINJA_STRING && value->is_safe)
        return mb_jinja_fail_safe(run, "the product");
    if (value->kind == MB_JINJA_STRING) {
        for (; ok && n > 0 && value->string.n > 0; n--)
            ok = mb_jinja_write(run, &bytes, value->string.p, value->string.n);
        return mb_jinja_finish_text(run, &bytes, ok, out);
    }
    if (value->kind != MB_JINJA_LIST || value->list->form > MB_JINJA_TUPLE)
        return mb_jinja_fail_operands(run, "the product", value, value);
    if (!mb_jinja_new_form(run, value->list->form, out))
        return false;
    for (; n > 0 && value->list->n > 0; n--)
        for (size_t i = 0; i < value->list->n; i++)
            if (!mb_jinja_steps(run, 1) || !mb_jinja_append(run, out->list, value->list->items[i]))
                return false;
    return true;
}

bool mb_jinja_binary(run_t *run, enum mb_jinja_op op, const value_t *a, const value_t *b, value_t *out)
{
    string_t left, right;
    if (op == MB_JINJA_CONCAT)
        return mb_jinja_str(run, a, &left) && mb_jinja_str(run, b, &right) &&
               mb_jinja_join(run, left, right, out);
    if (mb_jinja_is_number(a) && mb_jinja_is_number(b) && !(mb_jinja_is_whole(a) && mb_jinja_is_whole(b)))
        return compute_floats(run, op, mb_jinja_real(a), mb_jinja_real(b), out);
    if (mb_jinja_is_number(a) && mb_jinja_is_number(b))
        return compute(run, op, a->number, b->number, out);
    if (op == MB_JINJA_ADD && a->kind == MB_JINJA_STRING && b->kind == MB_JINJA_STRING)
        return a->is_safe || b->is_safe ? mb_jinja_add_safe(run, a, b, out)
                                        : mb_jinja_join(run, a->string, b->string, out);
    if (op == MB_JINJA_ADD && a->kind == MB_JINJA_LIST && b->kind == MB_JINJA_LIST)
        return join_lists(run, a->list, b->list, out);
    if (op == MB_JINJA_MUL && mb_jinja_is_whole(b))
        return repeat(run, a, b->number, out);
    if (op == MB_JINJA_MUL && mb_jinja_is_whole(a))
        return repeat(run, b, a->number, out);
    static const char *const names[] = {"the sum",      "the difference", "the product", "the quotient",
                                        "the quotient", "the remainder",  "the power"};
    return mb_jinja_fail_operands(run, names[op], a, b);
}

bool mb_jinja_compare(run_t *run, enum mb_jinja_op op, const value_t *a, const value_t *b, bool *answer)
{
    int order;
    switch (op) {
    case MB_JINJA_EQ:
    case MB_JINJA_NE:
        if (!mb_jinja_equal(run, a, b, answer))
            return false;
        *answer = *answer == (op == MB_JINJA_EQ);
        return true;
    case MB_JINJA_IN:
    case MB_JINJA_NOT_IN:
        if (!mb_jinja_contains(run, b, a, answer))
            return false;
        *answer = *answer == (op == MB_JINJA_IN);
        return true;
    default:
        if (a->kind == MB_JINJA_UNDEFINED || b->kind == MB_JINJA_UNDEFINED)
            return mb_jinja_fail_operands(run, "the order", a, b);
        if (!mb_jinja_order(run, a, b, &order))
            return false;
        *answer = op == MB_JINJA_LT   ? order < 0
                  : op == MB_JINJA_LE ? order <= 0
                  : op == MB_JINJA_GT ? order > 0
                                      : order >= 0;
        return true;
    }
}

bool mb_jinja_negative(run_t *run, const value_t *operand, value_t *out)
{
    if (!mb_jinja_is_number(operand))
        return mb_jinja_fail_operands(run, "the negative", operand, operand);
    if (operand->kind == MB_JINJA_FLOAT) {
        *out = mb_jinja_float(-operand->real);
        return true;
    }
    return compute(run, MB_JINJA_SUB, 0, operand->number, out);
}
