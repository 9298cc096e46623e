/*
 * count_by_width.h - defines MB_COUNT_NAME, a count_full_codes of a table, by a count_full_codes(p, n, width)
 * for a width that is a constant; a file that includes this has both.
 */
#include "by_width.h"

#define COUNT(a)                                             \
    static size_t count_full_##a(const uint8_t *p, size_t n) \
    {                                                        \
        return count_full_codes(p, n, a);                    \
    }
MB_WIDTHS_1_TO_8(COUNT)

static size_t (*const count_of_width[])(const uint8_t *p, size_t n) = {NULL, MB_NAMES_1_TO_8(count_full)};

size_t MB_COUNT_NAME(const uint8_t *stream, size_t n, unsigned width)
{
    return count_of_width[width](stream, n);
}
