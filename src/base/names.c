/*
 * names.c - long lists of names in few words.
 */
#include "base/names.h"
#include "base/error.h"
#include <stdio.h>

enum { NAME_NBYTES = 140 };
_Static_assert(MB_NAMES_SHOWN *(NAME_NBYTES + 2) + 40 < MB_NAMES_NBYTES, "all that is shown fits");

void mb_names_text(const char *const *names, size_t n, char text[MB_NAMES_NBYTES])
{
    size_t at = 0;
    for (size_t i = 0; i < n && i < MB_NAMES_SHOWN; i++)
        at += (size_t)snprintf(text + at, MB_NAMES_NBYTES - at, "%s%.*s", i == 0 ? "" : ", ", NAME_NBYTES,
                               names[i]);
    if (n > MB_NAMES_SHOWN)
        snprintf(text + at, MB_NAMES_NBYTES - at, " and %zu more", n - MB_NAMES_SHOWN);
    mb_make_printable(text);
}
