/*
 * number.c - find decimal numbers and write them in canonical form.
 */
#include "number.h"
#include <string.h>

bool mb_lab_is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* One minus and one dollar sign (LaTeX writes "\$"), in any order. */
static const char *skip_signs(const char *p, const char *end, bool *is_negative)
{
    bool has_dollar = false;
    *is_negative = false;
    for (;; p++) {
        if (p < end && *p == '-' && !*is_negative) {
            *is_negative = true;
        } else if (p < end && *p == '$' && !has_dollar) {
            has_dollar = true;
        } else if (p + 1 < end && *p == '\\' && p[1] == '$' && !has_dollar) {
            has_dollar = true;
            p++;
        } else {
            return p;
        }
    }
}

/* Puts the digits of "1,234" at text[*n]; a comma belongs to the number when a digit follows. NULL: too long.
 */
static const char *copy_integer(const char *p, const char *end, char *text, size_t *n)
{
    for (; is_digit(p, end) || (p < end && *p == ',' && is_digit(p + 1, end)); p++) {
        if (*p == ',' || (*p == '0' && *n == 0)) /* leading zeros go */
            continue;
        if (*n == MB_LAB_NUMBER_MAX / 2 - 2)
            return NULL;
        text[(*n)++] = *p;
    }
    return p;
}

static const char *copy_fraction(const char *p, const char *end, char *text, size_t *n)
{
    for (; is_digit(p, end); p++) {
        if (*n == MB_LAB_NUMBER_MAX / 2 - 2)
            return NULL;
        text[(*n)++] = *p;
    }
    while (*n > 0 && text[*n - 1] == '0')
        --*n;
    return p;
}

static void write_canonical(bool is_negative, const char *integer, size_t n_integer, const char *fraction,
                            size_t n_fraction, char *text)
{
    if (is_negative && n_integer + n_fraction > 0)
        *text++ = '-';
    if (n_integer == 0)
        *text++ = '0';
    memcpy(text, integer, n_integer);
    text += n_integer;
    if (n_fraction > 0) {
        *text++ = '.';
        memcpy(text, fraction, n_fraction);
        text += n_fraction;
    }
    *text = '\0';
}

const char *mb_lab_number_read(const char *begin, const char *end, struct mb_lab_number *number)
{
    char integer[MB_LAB_NUMBER_MAX / 2], fraction[MB_LAB_NUMBER_MAX / 2];
    size_t n_integer = 0, n_fraction = 0;
    bool is_negative;
    const char *p = skip_signs(begin, end, &is_negative);
    bool has_point = p < end && *p == '.';
    if (!is_digit(p, end) && !(has_point && is_digit(p + 1, end)))
        return NULL;
    p = copy_integer(p, end, integer, &n_integer);
    if (p != NULL && p < end && *p == '.' && is_digit(p + 1, end))
        p = copy_fraction(p + 1, end, fraction, &n_fraction);
    if (p != NULL)
        write_canonical(is_negative, integer, n_integer, fraction, n_fraction, number->text);
    return p;
}

bool mb_lab_number_only(const char *begin, const char *end, struct mb_lab_number *number)
{
    while (begin < end && mb_lab_is_space(*begin))
        begin++;
    while (begin < end && mb_lab_is_space(end[-1]))
        end--;
    const char *p = mb_lab_number_read(begin, end, number);
    return p != NULL && (p == end || (p + 1 == end && *p == '.'));
}

/* "10-5" is 10 and 5, and "3.5.2" is 3.5 and 2: a sign or point behind a letter, digit or point begins
 * nothing. */
static bool may_begin(const char *begin, const char *p)
{
    return p == begin || (*p != '-' && *p != '.') || !(is_word(p[-1]) || (*p == '.' && p[-1] == '.'));
}

/* Behind a number that is too long: its rest is not a number of its own. */
static const char *skip_digits(const char *p, const char *end)
{
    while (p < end && (is_digit(p, end) || *p == ',' || *p == '.'))
        p++;
    return p;
}

bool mb_lab_number_last(const char *begin, const char *end, struct mb_lab_number *number)
{
    bool is_found = false;
    for (const char *p = begin; p < end;) {
        struct mb_lab_number found;
        const char *next = may_begin(begin, p) ? mb_lab_number_read(p, end, &found) : NULL;
        if (next != NULL) {
            *number = found;
            is_found = true;
            p = next;
        } else if (is_digit(p, end)) {
            is_found = false;
            p = skip_digits(p, end);
        } else {
            p++;
        }
    }
    return is_found;
}
