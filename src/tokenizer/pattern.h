/*
 * pattern.h - regular expressions of pre-tokenizers.
 *
 * They are written for Oniguruma (Ruby's syntax), which the `tokenizers` package uses, and run by PCRE2:
 * mb_pattern_translate rewrites what the two read differently, and refuses what it does not know.
 */
#ifndef MB_TOKENIZER_PATTERN_H
#define MB_TOKENIZER_PATTERN_H

#include "base/buf.h"
#include <moebius/status.h>

enum { MB_PATTERN_NBYTES_MAX = 8192 };

/* A pattern, or with is_literal a text to be found as it is, for PCRE2 (terminated). */
enum mb_status mb_pattern_translate(const char *pattern, size_t nbytes, bool is_literal, struct mb_bytes *out,
                                    struct mb_error *err);

/* A class of the characters that count as numbers: the pre-tokenizer Digits. false: no memory. */
bool mb_pattern_digits(struct mb_bytes *out);

struct mb_pattern {
    void *code; /* pcre2_code */
};

/* From what mb_pattern_translate made. */
enum mb_status mb_pattern_compile(const char *translated, struct mb_pattern *pattern, struct mb_error *err);
void mb_pattern_free(struct mb_pattern *pattern);

/* What matching needs besides the pattern: one a call. */
struct mb_matcher {
    void *match_data, *context, *jit_stack;
    uint64_t text_nbytes, begun_ns; /* of the thread's CPU time */
    uint64_t looked_ns;             /* when that was last read, of the coarse clock */
};

enum mb_status mb_matcher_init(struct mb_matcher *matcher, size_t text_nbytes, struct mb_error *err);
void mb_matcher_free(struct mb_matcher *matcher);

struct mb_match {
    size_t begin, end;
    size_t next; /* where the next search starts; 0 at first, then as the last search left it */
    bool is_found;
};

/*
 * The next match in text[0 .. n) (valid UTF-8); like Oniguruma's iterator an empty match right after
 * the last one does not count.  MB_UNSUPPORTED when the pattern takes too many steps.
 */
enum mb_status mb_match_next(struct mb_matcher *matcher, const struct mb_pattern *pattern, const char *text,
                             size_t n, struct mb_match *match, struct mb_error *err);

#endif
