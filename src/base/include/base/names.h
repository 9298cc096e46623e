/*
 * names.h - long lists of names in few words.
 */
#ifndef MB_BASE_NAMES_H
#define MB_BASE_NAMES_H

#include <stddef.h>

enum { MB_NAMES_SHOWN = 3, MB_NAMES_NBYTES = 512 };

/* "a, b, c and 9 more" of n > 0 names; long ones are cut. Only the first MB_NAMES_SHOWN are read. */
void mb_names_text(const char *const *names, size_t n, char text[MB_NAMES_NBYTES]);

#endif
