/*
 * number.h - numbers read and written with a decimal point, whatever the locale of the program.
 *
 * A library must not depend on its host's setlocale(): where a comma separates decimals, strtod() stops at
 * the point of "0.5" and printf() writes "0,5".  Any thread.
 */
#ifndef MB_BASE_NUMBER_H
#define MB_BASE_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The finite number that all n bytes of 'text' spell, at most 127: decimal, with or without sign, fraction
 * and exponent.  false: there is none ("", " 1", "0x10", "inf", "1,5"), and *value is left alone.
 */
bool mb_number_parse(const char *text, size_t n, double *value);

/* snprintf with a decimal point. */
int mb_number_format(char *out, size_t out_nbytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
