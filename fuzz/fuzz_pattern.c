/*
 * fuzz_pattern.c - patterns of pre-tokenizers: translated, compiled, and run over a short text. The input is
 * a byte (its lowest bit: the pattern is a literal), the pattern, a zero byte, the text.
 */
#include "base/utf8.h"
#include "fuzz.h"
#include "tokenizer/pattern.h"
#include <stdlib.h>
#include <string.h>

enum { TEXT_NBYTES_MAX = 64 }; /* a pattern may take a million steps at each place of it */

/* Matches are in order, do not overlap, and begin and end between characters. */
static void match_all(const struct mb_pattern *pattern, const struct mb_bytes *text)
{
    struct mb_matcher matcher;
    struct mb_match match = {0};
    struct mb_error err = {0};
    size_t done = 0;
    REQUIRE(mb_matcher_init(&matcher, text->n, &err) == MB_OK);
    for (size_t n_matches = 0;; n_matches++) {
        enum mb_status status = mb_match_next(&matcher, pattern, text->p, text->n, &match, &err);
        REQUIRE(status == MB_OK || status == MB_UNSUPPORTED);
        if (status != MB_OK || !match.is_found)
            break;
        REQUIRE(match.begin >= done && match.end >= match.begin && match.end <= text->n);
        REQUIRE(match.begin == text->n || ((uint8_t)text->p[match.begin] & 0xc0) != 0x80);
        REQUIRE(match.end == text->n || ((uint8_t)text->p[match.end] & 0xc0) != 0x80);
        REQUIRE(n_matches <= 2 * text->n + 2);
        done = match.end;
    }
    mb_matcher_free(&matcher);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    bool is_literal = fuzz_u8(&input) & 1;
    struct fuzz_input part = fuzz_until(&input, 0);
    struct mb_bytes pattern = {0}, text = {0}, translated = {0};
    struct mb_pattern compiled;
    struct mb_error err = {0};
    if (input.n > TEXT_NBYTES_MAX)
        input.n = TEXT_NBYTES_MAX;
    REQUIRE(mb_bytes_reserve(&pattern, 1) && mb_bytes_reserve(&text, 1));
    REQUIRE(mb_utf8_replace(&pattern, (const char *)part.p, part.n) &&
            mb_utf8_replace(&text, (const char *)input.p, input.n));
    enum mb_status status = mb_pattern_translate(pattern.p, pattern.n, is_literal, &translated, &err);
    if (status == MB_OK)
        status = mb_pattern_compile(translated.p, &compiled, &err);
    REQUIRE(status == MB_OK || status == MB_UNSUPPORTED || status == MB_BAD_DATA);
    if (status == MB_OK) {
        match_all(&compiled, &text);
        mb_pattern_free(&compiled);
    }
    free(translated.p);
    free(text.p);
    free(pattern.p);
    return 0;
}
