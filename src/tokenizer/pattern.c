/*
 * pattern.c - compiles and runs patterns with PCRE2, with limits, so that no pattern hangs.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pattern.h"
#include "base/error.h"
#include "base/utf8.h"
#include <pcre2.h>
#include <time.h>

enum {
    MATCH_LIMIT = 1000000, /* steps of one attempt at one place, and some for each byte of the text */
    STEPS_A_BYTE = 8,      /* a run of one kind of character is gone through, then back */
    DEPTH_LIMIT = 100000,
    HEAP_LIMIT_KIB = 64 << 10,
    JIT_STACK_NBYTES_MAX = 8 << 20,
    WINDOW_NBYTES = 512, /* places tried in one call of PCRE2; between calls the clock is read */
    LOOK_NS = 20000000,  /* between two looks at the CPU clock, which is a system call */
};

/*
 * The limits above count for one place in the text; a pattern that is slow everywhere is stopped by the
 * thread's CPU time.  Real patterns take 0.05 us a byte, so this is far from any of them.
 */
#define TIME_BASE_NS 2000000000u
#define TIME_A_BYTE_NS 2000u

static uint64_t cpu_time_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static enum mb_status fail_pcre2(struct mb_error *err, int code, const char *what)
{
    PCRE2_UCHAR text[200] = "";
    pcre2_get_error_message(code, text, sizeof text);
    return mb_fail(err, MB_UNSUPPORTED, "%s: %s", what, (const char *)text);
}

enum mb_status mb_pattern_compile(const char *translated, struct mb_pattern *pattern, struct mb_error *err)
{
    int code;
    PCRE2_SIZE pos;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context == NULL)
        return mb_fail_memory(err, "a pattern");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_NO_AUTO_CAPTURE |
                                             PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT,
                                         &code, &pos, context);
    pcre2_compile_context_free(context);
    if (compiled == NULL && code == PCRE2_ERROR_HEAP_FAILED)
        return mb_fail_memory(err, "a pattern");
    if (compiled == NULL)
        return fail_pcre2(err, code, "the pattern cannot be used");
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* where it fails, PCRE2 interprets */
    pattern->code = compiled;
    return MB_OK;
}

void mb_pattern_free(struct mb_pattern *pattern)
{
    pcre2_code_free(pattern->code);
    pattern->code = NULL;
}

enum mb_status mb_matcher_init(struct mb_matcher *matcher, size_t text_nbytes, struct mb_error *err)
{
    *matcher = (struct mb_matcher){.text_nbytes = text_nbytes, .begun_ns = cpu_time_ns()};
    matcher->match_data = pcre2_match_data_create(1, NULL);
    matcher->context = pcre2_match_context_create(NULL);
    if (matcher->match_data == NULL || matcher->context == NULL) {
        mb_matcher_free(matcher);
        return mb_fail_memory(err, "a pattern");
    }
    size_t n_steps = MATCH_LIMIT + STEPS_A_BYTE * text_nbytes;
    pcre2_set_match_limit(matcher->context, n_steps < UINT32_MAX ? (uint32_t)n_steps : UINT32_MAX);
    pcre2_set_depth_limit(matcher->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(matcher->context, HEAP_LIMIT_KIB);
    return MB_OK;
}

void mb_matcher_free(struct mb_matcher *matcher)
{
    pcre2_jit_stack_free(matcher->jit_stack);
    pcre2_match_context_free(matcher->context);
    pcre2_match_data_free(matcher->match_data);
}

/* false: the call's time is used up. The coarse clock is nearly free: one call of PCRE2 may take long. */
static bool has_time(struct mb_matcher *matcher)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (now_ns - matcher->looked_ns < LOOK_NS)
        return true;
    matcher->looked_ns = now_ns;
    return cpu_time_ns() - matcher->begun_ns < TIME_BASE_NS + TIME_A_BYTE_NS * matcher->text_nbytes;
}

/* One call of PCRE2 for matches that begin at 'from' .. 'from' + WINDOW_NBYTES. */
static int match_window(struct mb_matcher *matcher, const struct mb_pattern *pattern, const char *text,
                        size_t n, size_t from)
{
    pcre2_set_offset_limit(matcher->context, from + WINDOW_NBYTES);
    int rc = pcre2_match(pattern->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, matcher->match_data,
                         matcher->context);
    if (rc != PCRE2_ERROR_JIT_STACKLIMIT || matcher->jit_stack != NULL)
        return rc;
    matcher->jit_stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_NBYTES_MAX, NULL);
    if (matcher->jit_stack == NULL)
        return PCRE2_ERROR_NOMEMORY;
    pcre2_jit_stack_assign(matcher->context, NULL, matcher->jit_stack);
    return pcre2_match(pattern->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, matcher->match_data,
                       matcher->context);
}

/* The leftmost match from 'from' on. */
static enum mb_status search(struct mb_matcher *matcher, const struct mb_pattern *pattern, const char *text,
                             size_t n, size_t from, struct mb_match *match, struct mb_error *err)
{
    static const char what[] = "the pattern takes too many steps on this text";
    match->is_found = false;
    while (from <= n) {
        if (!has_time(matcher))
            return mb_fail(err, MB_UNSUPPORTED, "%s: out of time", what);
        int rc = match_window(matcher, pattern, text, n, from);
        if (rc == PCRE2_ERROR_NOMATCH) {
            from += WINDOW_NBYTES + 1; /* the limit itself was tried */
            while (from < n && ((uint8_t)text[from] & 0xc0) == 0x80)
                from++;
            continue;
        }
        if (rc == PCRE2_ERROR_NOMEMORY)
            return mb_fail_memory(err, "a pattern");
        if (rc < 0)
            return fail_pcre2(err, rc, what);
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(matcher->match_data);
        match->begin = ends[0];
        match->end = ends[1] < ends[0] ? ends[0] : ends[1];
        match->is_found = true;
        return MB_OK;
    }
    return MB_OK;
}

enum mb_status mb_match_next(struct mb_matcher *matcher, const struct mb_pattern *pattern, const char *text,
                             size_t n, struct mb_match *match, struct mb_error *err)
{
    bool has_last = match->is_found;
    size_t last_end = match->end, from = match->next;
    for (;;) {
        enum mb_status status = search(matcher, pattern, text, n, from, match, err);
        if (status != MB_OK || !match->is_found)
            return status;
        if (match->end > match->begin || !has_last || match->end != last_end)
            break;
        from = from < n ? from + mb_utf8_nbytes(text[from]) : n + 1;
    }
    match->next = match->end;
    return MB_OK;
}
