/*
 * utf8.c - a damaged model, or a reply cut inside a character, gives bytes that are not UTF-8.
 */
#include "utf8.h"

/* Bytes of the character that begins at p, or 0: overlong forms, surrogates and what is beyond U+10FFFF are
 * none. */
static size_t char_nbytes(const unsigned char *p, size_t n_left)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > n_left || p[0] == 0)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

void mb_lab_clean_utf8(char *text, size_t nbytes)
{
    for (size_t i = 0; i < nbytes;) {
        size_t n = char_nbytes((const unsigned char *)text + i, nbytes - i);
        if (n == 0)
            text[i] = '?';
        i += n == 0 ? 1 : n;
    }
}
