/*
 * number.h - decimal numbers in text, as docs/scoring.md reads them.
 */
#ifndef MB_LAB_NUMBER_H
#define MB_LAB_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/* Longer ones exist only in broken replies: they are no numbers here. */
enum { MB_LAB_NUMBER_MAX = 80 };

/* Canonical: no separators, '$', leading or trailing zeros, no minus zero. Equal numbers are equal texts. */
struct mb_lab_number {
    char text[MB_LAB_NUMBER_MAX];
};

/* Reads the number that begins at 'begin'. Returns its end, or NULL when none begins there. */
const char *mb_lab_number_read(const char *begin, const char *end, struct mb_lab_number *number);

/* Whether [begin, end) is one number, white space and one final dot aside. */
bool mb_lab_number_only(const char *begin, const char *end, struct mb_lab_number *number);

/* The last number anywhere in [begin, end). */
bool mb_lab_number_last(const char *begin, const char *end, struct mb_lab_number *number);

bool mb_lab_is_space(char c); /* ASCII's */

/* The first byte from p on that is no white space, ASCII's or Unicode's. */
const char *mb_lab_skip_space(const char *p, const char *end);

#endif
