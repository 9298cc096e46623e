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

/* ---------------------------------------------------------------- minus signs, spaces, separators */

static bool starts_with(const char *p, const char *end, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(end - p) >= n && memcmp(p, text, n) == 0;
}

/* Bytes of the first of 'texts' (NULL ends them) that is at p; 0: none is. */
static size_t first_of(const char *p, const char *end, const char *const *texts)
{
    for (; *texts != NULL; texts++)
        if (starts_with(p, end, *texts))
            return strlen(*texts);
    return 0;
}

/* Bytes of the minus sign at p: ASCII's, or U+2212, which typeset text has. */
static size_t minus_nbytes(const char *p, const char *end)
{
    static const char *const minus_signs[] = {"-", "\xe2\x88\x92", NULL};
    return first_of(p, end, minus_signs);
}

/* Unicode's spaces other than ASCII's: U+00A0, U+2000 to U+200A, U+202F, U+205F, U+3000. */
static size_t wide_space_nbytes(const char *p, const char *end)
{
    static const char *const spaces[] = {"\xc2\xa0", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80", NULL};
    if (starts_with(p, end, "\xe2\x80") && end - p >= 3 && (unsigned char)p[2] - 0x80u <= 0x0a)
        return 3;
    return first_of(p, end, spaces);
}

const char *mb_lab_skip_space(const char *p, const char *end)
{
    size_t n;
    while ((n = p < end && mb_lab_is_space(*p) ? 1 : wide_space_nbytes(p, end)) > 0)
        p += n;
    return p;
}

/* Three digits and no fourth: what follows a separator of thousands. */
static bool is_group(const char *p, const char *end)
{
    return end - p >= 3 && is_digit(p, end) && is_digit(p + 1, end) && is_digit(p + 2, end) &&
           !is_digit(p + 3, end);
}

/*
 * Bytes of a separator between two digits of a number, 0: none is here.  A comma separates any digits, as in
 * GSM8K's own rule; LaTeX's and typeset spaces only whole thousands, since they may also part two numbers.
 */
static size_t separator_nbytes(const char *p, const char *end)
{
    static const char *const latex[] = {"{,}", ",\\!", "\\,", "\\;", "\\:", "\\ ", "{\\,}", "~", NULL};
    if (p < end && *p == ',' && is_digit(p + 1, end))
        return 1;
    size_t n = first_of(p, end, latex);
    if (n == 0)
        n = wide_space_nbytes(p, end);
    return n > 0 && is_group(p + n, end) ? n : 0;
}

/* Bytes of the currency sign at p: "$", LaTeX's "\\$", or one of four others. */
static size_t currency_nbytes(const char *p, const char *end)
{
    static const char *const signs[] = {"$", "\\$", "\xe2\x82\xac", "\xc2\xa3", "\xc2\xa5", "\xe2\x82\xb9",
                                        NULL};
    return first_of(p, end, signs);
}

/* One minus and one currency sign, in any order. */
static const char *skip_signs(const char *p, const char *end, bool *is_negative)
{
    bool has_currency = false;
    *is_negative = false;
    for (;;) {
        size_t n_minus = *is_negative ? 0 : minus_nbytes(p, end);
        size_t n_currency = has_currency ? 0 : currency_nbytes(p, end);
        if (n_minus + n_currency == 0)
            return p;
        *is_negative = *is_negative || n_minus > 0;
        has_currency = has_currency || n_currency > 0;
        p += n_minus + n_currency;
    }
}

/* ---------------------------------------------------------------- reading */

/* Puts the digits of "1,234" at text[*n]. NULL: too long. */
static const char *copy_integer(const char *p, const char *end, char *text, size_t *n)
{
    while (is_digit(p, end)) {
        if (*p != '0' || *n > 0) { /* leading zeros go */
            if (*n == MB_LAB_NUMBER_MAX / 2 - 2)
                return NULL;
            text[(*n)++] = *p;
        }
        p++;
        p += separator_nbytes(p, end);
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
    const char *p = mb_lab_number_read(mb_lab_skip_space(begin, end), end, number);
    if (p == NULL)
        return false;
    const char *rest = mb_lab_skip_space(p, end);
    if (rest == p && p < end && *p == '.')
        rest = mb_lab_skip_space(p + 1, end);
    return rest == end;
}

/* A sign or point after a letter, digit or point begins no number: "10-5" is 10 and 5. */
static bool may_begin(const char *begin, const char *end, const char *p)
{
    if (p == begin || (*p != '.' && minus_nbytes(p, end) == 0))
        return true;
    return !(is_word(p[-1]) || (*p == '.' && p[-1] == '.'));
}

/* After a number that is too long: the rest of its digits is not a number of its own. */
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
        const char *next = may_begin(begin, end, p) ? mb_lab_number_read(p, end, &found) : NULL;
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
