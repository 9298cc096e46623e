/*
 * number.c - numbers with a decimal point in every locale.
 */
#include "base/number.h"
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 127 };

/* glibc and musl have this locale built in: it costs nothing to make and cannot fail for want of memory. */
static locale_t plain_locale(void)
{
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/* strtod() also takes hexadecimal digits, "inf", "nan" and white space. */
static bool is_spelling(const char *text, size_t n)
{
    if (n == 0 || n > TEXT_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((text[i] < '0' || text[i] > '9') && (text[i] == '\0' || strchr("+-.eE", text[i]) == NULL))
            return false;
    return true;
}

bool mb_number_parse(const char *text, size_t n, double *value)
{
    char copy[TEXT_MAX + 1], *end;
    if (!is_spelling(text, n))
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    locale_t plain = plain_locale();
    double number = strtod_l(copy, &end, plain);
    freelocale(plain);
    if (end != copy + n || !isfinite(number))
        return false;
    *value = number;
    return true;
}

int mb_number_format(char *out, size_t out_nbytes, const char *format, ...)
{
    va_list args;
    locale_t plain = plain_locale(), before = uselocale(plain);
    va_start(args, format);
    int n = vsnprintf(out, out_nbytes, format, args);
    va_end(args);
    uselocale(before);
    freelocale(plain);
    return n;
}
