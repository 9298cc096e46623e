/*
 * utf8.h - replies as text that every reader takes.
 */
#ifndef MB_LAB_UTF8_H
#define MB_LAB_UTF8_H

#include <stddef.h>

/* Replaces each byte that is not part of valid UTF-8, and each 0, by '?'. */
void mb_lab_clean_utf8(char *text, size_t nbytes);

#endif
