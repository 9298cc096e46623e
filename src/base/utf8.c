/*
 * utf8.c - UTF-8 after Unicode's table 3-7.
 */
#include "base/utf8.h"
#include "base/bytes.h"
#include <string.h>

/* Bytes of a character by its first byte (0: no character begins with it), and the range of its second. */
static size_t expected(uint8_t first, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    if (first == 0xe0)
        *low = 0xa0; /* else overlong */
    if (first == 0xed)
        *high = 0x9f; /* else a surrogate */
    if (first == 0xf0)
        *low = 0x90;
    if (first == 0xf4)
        *high = 0x8f; /* else over U+10FFFF */
    return mb_utf8_nbytes((char)first);
}

size_t mb_utf8_span(const char *p, size_t n, bool *valid)
{
    uint8_t low, high;
    size_t nbytes = expected((uint8_t)p[0], &low, &high);
    *valid = nbytes == 1;
    if (nbytes <= 1)
        return 1;
    for (size_t i = 1; i < nbytes; i++) {
        uint8_t c = i < n ? (uint8_t)p[i] : 0;
        if (c < low || c > high)
            return i;
        low = 0x80;
        high = 0xbf;
    }
    *valid = true;
    return nbytes;
}

uint32_t mb_utf8_get(const char *p)
{
    const uint8_t *u = (const uint8_t *)p;
    switch (mb_utf8_nbytes(p[0])) {
    case 1:
        return u[0];
    case 2:
        return (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
    case 3:
        return (u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
    default:
        return (u[0] & 0x07u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 | (u[3] & 0x3fu);
    }
}

size_t mb_utf8_put(char out[4], uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t nbytes = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = nbytes - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[nbytes] | code);
    return nbytes;
}

size_t mb_utf8_valid_prefix(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        if (n - i >= 8 && (mb_load_u64(p + i) & 0x8080808080808080u) == 0) {
            i += 8;
            continue;
        }
        bool valid;
        size_t span = mb_utf8_span(p + i, n - i, &valid);
        if (!valid)
            return i;
        i += span;
    }
    return n;
}

size_t mb_utf8_whole(const char *p, size_t n)
{
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        const char *last = p + n - k;
        uint8_t low, high;
        bool valid;
        if (((uint8_t)*last & 0xc0) == 0x80)
            continue; /* inside a character */
        bool is_begun = expected((uint8_t)*last, &low, &high) > k && mb_utf8_span(last, k, &valid) == k;
        return is_begun ? n - k : n;
    }
    return n;
}

bool mb_utf8_replace(struct mb_bytes *out, const char *p, size_t n)
{
    while (n > 0) {
        size_t good = mb_utf8_valid_prefix(p, n);
        if (!mb_bytes_put(out, p, good))
            return false;
        if (good == n)
            return true;
        bool valid;
        size_t bad = mb_utf8_span(p + good, n - good, &valid);
        if (!mb_bytes_put(out, "\xef\xbf\xbd", 3))
            return false;
        p += good + bad;
        n -= good + bad;
    }
    return true;
}

void mb_utf8_clean(char *text, size_t n)
{
    for (size_t i = 0, span; i < n; i += span) {
        bool valid;
        span = mb_utf8_span(text + i, n - i, &valid);
        if (!valid || text[i] == '\0')
            memset(text + i, '?', span);
    }
}

bool mb_is_white_space(uint32_t code)
{
    if (code < 0x80)
        return code == ' ' || (code >= 9 && code <= 13);
    return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
           code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}
