/*
 * words.c - texts compared as a reader would: ASCII case, white space and a final dot do not count.
 */
#include "words.h"
#include "number.h"
#include <string.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static struct mb_lab_span trimmed(struct mb_lab_span span)
{
    while (span.begin < span.end && mb_lab_is_space(*span.begin))
        span.begin++;
    while (span.end > span.begin && (mb_lab_is_space(span.end[-1]) || span.end[-1] == '.'))
        span.end--;
    return span;
}

static const char *skip_white(struct mb_lab_span span, const char *p)
{
    while (p < span.end && mb_lab_is_space(*p))
        p++;
    return p;
}

bool mb_lab_same_words(struct mb_lab_span a, struct mb_lab_span b)
{
    a = trimmed(a);
    b = trimmed(b);
    const char *p = a.begin, *q = b.begin;
    while (p < a.end && q < b.end) {
        bool is_white = mb_lab_is_space(*p);
        if (is_white != mb_lab_is_space(*q) || (!is_white && lower(*p) != lower(*q)))
            return false;
        p = is_white ? skip_white(a, p) : p + 1;
        q = is_white ? skip_white(b, q) : q + 1;
    }
    return p == a.end && q == b.end;
}

/* A letter, a digit or a byte of a character beyond ASCII. */
static bool is_word(char c)
{
    char small = lower(c);
    return (small >= 'a' && small <= 'z') || (c >= '0' && c <= '9') || (unsigned char)c >= 0x80;
}

bool mb_lab_ends_with_words(struct mb_lab_span line, struct mb_lab_span words)
{
    static const char closing[] = " \t\r$*\"'`)}].!";
    struct mb_lab_span stripped = line;
    while (stripped.end > line.begin && strchr(closing, stripped.end[-1]) != NULL)
        stripped.end--;
    for (const char *p = line.begin; p < line.end; p++) {
        if (p > line.begin && is_word(p[-1]) && is_word(*p))
            continue;
        /* An answer may itself end with what else counts as markup. */
        if (mb_lab_same_words((struct mb_lab_span){p, line.end}, words) ||
            (p < stripped.end && mb_lab_same_words((struct mb_lab_span){p, stripped.end}, words)))
            return true;
    }
    return false;
}
