/*
 * utf8.h - UTF-8: one character at a time, checking, and replacing what is not UTF-8.
 */
#ifndef MB_BASE_UTF8_H
#define MB_BASE_UTF8_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The bytes of the character at p (n >= 1 bytes are there), or, where it is not well formed (Unicode, table
 * 3-7), of the longest start of one: the bytes that one U+FFFD replaces.
 */
size_t mb_utf8_span(const char *p, size_t n, bool *valid);

/* Of text that is known to be valid. */
static inline size_t mb_utf8_nbytes(char first)
{
    uint8_t c = (uint8_t)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

uint32_t mb_utf8_get(const char *p);            /* of valid text */
size_t mb_utf8_put(char out[4], uint32_t code); /* returns the bytes */

/* The first byte that is not part of a valid character, or n. */
size_t mb_utf8_valid_prefix(const char *p, size_t n);

/* n without the bytes at its end that begin a character and may still become one. */
size_t mb_utf8_whole(const char *p, size_t n);

/* Appends p with U+FFFD for each span that is not UTF-8, as Python's errors="replace". false: no memory. */
bool mb_utf8_replace(struct mb_bytes *out, const char *p, size_t n);

/* Replaces in place by '?' each byte that is not part of a valid character, and each 0. */
void mb_utf8_clean(char *text, size_t n);

/* Unicode's White_Space, the same set in every version since 6.3. */
bool mb_is_white_space(uint32_t code);

#endif
