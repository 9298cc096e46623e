/*
 * pretokenize.c - the steps: splits by pattern, and prefixes.
 */
#include "pretokenize.h"
#include "base/error.h"
#include "base/utf8.h"

void mb_pretoken_steps_free(struct mb_pretoken_steps *steps)
{
    for (size_t i = 0; i < steps->n; i++)
        mb_pattern_free(&steps->items[i].pattern);
}

/* Where a word is in the steps. */
struct place {
    struct mb_pretokenizer *pretokenizer;
    size_t i_step;
    bool is_first; /* begins where the whole text begins */
    struct mb_error *err;
};

static enum mb_status run_step(struct place place, const char *text, size_t n);

/* Gives a word to the next step. */
static enum mb_status pass_on(struct place place, const char *text, size_t begin, size_t end)
{
    if (begin == end)
        return MB_OK;
    place.is_first = place.is_first && begin == 0;
    place.i_step++;
    return run_step(place, text + begin, end - begin);
}

/* A part of the text that is joined with what follows, or not yet passed on. */
struct pending {
    size_t begin, end;
    bool exists, is_match;
};

/* Whether a part belongs to the pending one. */
static bool joins(enum mb_behaviour behaviour, const struct pending *pending, bool is_match)
{
    switch (behaviour) {
    case MB_SPLIT_CONTIGUOUS:
        return is_match == pending->is_match;
    case MB_SPLIT_WITH_PREVIOUS:
        return is_match && !pending->is_match;
    case MB_SPLIT_WITH_NEXT:
        return !is_match && pending->is_match;
    default:
        return false;
    }
}

static enum mb_status take_part(struct place place, const char *text, struct pending *pending, size_t begin,
                                size_t end, bool is_match)
{
    const struct mb_pretoken_step *step = &place.pretokenizer->steps->items[place.i_step];
    is_match = is_match != step->invert;
    if (step->behaviour == MB_SPLIT_REMOVED)
        return is_match ? MB_OK : pass_on(place, text, begin, end);
    if (step->behaviour == MB_SPLIT_ISOLATED)
        return pass_on(place, text, begin, end);
    if (pending->exists && joins(step->behaviour, pending, is_match)) {
        pending->end = end;
        pending->is_match = is_match;
        return MB_OK;
    }
    if (pending->exists)
        MB_TRY(pass_on(place, text, pending->begin, pending->end));
    *pending = (struct pending){.begin = begin, .end = end, .exists = true, .is_match = is_match};
    return MB_OK;
}

static enum mb_status run_split(struct place place, const char *text, size_t n)
{
    const struct mb_pretoken_step *step = &place.pretokenizer->steps->items[place.i_step];
    struct mb_match match = {0};
    struct pending pending = {0};
    size_t done = 0;
    for (;;) {
        MB_TRY(mb_match_next(&place.pretokenizer->matcher, &step->pattern, text, n, &match, place.err));
        if (!match.is_found)
            break;
        if (match.begin > done)
            MB_TRY(take_part(place, text, &pending, done, match.begin, false));
        MB_TRY(take_part(place, text, &pending, match.begin, match.end, true));
        done = match.end;
    }
    if (done < n)
        MB_TRY(take_part(place, text, &pending, done, n, false));
    return pending.exists ? pass_on(place, text, pending.begin, pending.end) : MB_OK;
}

static enum mb_status run_prefix(struct place place, const char *text, size_t n)
{
    struct mb_bytes *changed = &place.pretokenizer->changed[place.i_step];
    if (text[0] == ' ')
        return pass_on(place, text, 0, n);
    changed->n = 0;
    if (!mb_bytes_put(changed, " ", 1) || !mb_bytes_put(changed, text, n))
        return mb_fail_memory(place.err, "the words of a text");
    return pass_on(place, changed->p, 0, changed->n);
}

static enum mb_status run_metaspace(struct place place, const char *text, size_t n)
{
    const struct mb_pretoken_step *step = &place.pretokenizer->steps->items[place.i_step];
    struct mb_bytes *changed = &place.pretokenizer->changed[place.i_step];
    size_t n_replacement = strlen(step->replacement);
    bool has_prefix =
        text[0] == ' ' || (n >= n_replacement && memcmp(text, step->replacement, n_replacement) == 0);
    bool wants_prefix =
        step->scheme == MB_PREFIX_ALWAYS || (step->scheme == MB_PREFIX_FIRST && place.is_first);
    changed->n = 0;
    bool ok = !wants_prefix || has_prefix || mb_bytes_put(changed, step->replacement, n_replacement);
    for (size_t i = 0; ok && i < n;) {
        const char *space = memchr(text + i, ' ', n - i);
        size_t end = space == NULL ? n : (size_t)(space - text);
        ok = mb_bytes_put(changed, text + i, end - i) &&
             (space == NULL || mb_bytes_put(changed, step->replacement, n_replacement));
        i = end + 1;
    }
    if (!ok)
        return mb_fail_memory(place.err, "the words of a text");
    return pass_on(place, changed->p, 0, changed->n);
}

/* str.isspace() of Python. */
static bool is_python_space(uint32_t code)
{
    return mb_is_white_space(code) || (code >= 0x1c && code <= 0x1f);
}

/* Where a piece of text[begin .. end) ends: before its run of white space, or of none, gets too long. */
static size_t cut_at_run(const char *text, size_t begin, size_t end)
{
    enum { RUN_MAX = 25000 }; /* characters */
    size_t n_run = 0;
    bool is_space = false;
    for (size_t i = begin; i < end; i += mb_utf8_nbytes(text[i])) {
        bool is_now_space = is_python_space(mb_utf8_get(text + i));
        if (n_run > 0 && is_now_space == is_space) {
            if (n_run == RUN_MAX)
                return i;
            n_run++;
        } else {
            n_run = 1;
            is_space = is_now_space;
        }
    }
    return end;
}

/*
 * What the Python class does before it calls tiktoken: chunks of 400,000 characters, each in pieces without
 * too long runs.  A text is cut in the middle of a word there, which changes its ids.
 */
static enum mb_status run_cut(struct place place, const char *text, size_t n)
{
    enum { CHUNK_MAX = 400000 }; /* characters */
    for (size_t begin = 0, end = 0; begin < n; begin = end) {
        for (size_t i = 0; i < CHUNK_MAX && end < n; i++)
            end += mb_utf8_nbytes(text[end]);
        for (size_t piece = begin, piece_end; piece < end; piece = piece_end) {
            piece_end = cut_at_run(text, piece, end);
            MB_TRY(pass_on(place, text, piece, piece_end));
        }
    }
    return MB_OK;
}

/* Calls itself through pass_on, once a step: at most MB_PRETOKEN_STEPS_MAX deep. */
static enum mb_status run_step(struct place place, const char *text, size_t n)
{
    const struct mb_pretoken_steps *steps = place.pretokenizer->steps;
    if (place.i_step == steps->n)
        return mb_bpe_word(place.pretokenizer->work, text, n)
                   ? MB_OK
                   : mb_fail_memory(place.err, "the words of a text");
    switch (steps->items[place.i_step].kind) {
    case MB_PRETOKEN_SPLIT:
        return run_split(place, text, n);
    case MB_PRETOKEN_PREFIX:
        return run_prefix(place, text, n);
    case MB_PRETOKEN_CUT:
        return run_cut(place, text, n);
    default:
        return run_metaspace(place, text, n);
    }
}

enum mb_status mb_pretokenize(struct mb_pretokenizer *pretokenizer, const char *text, size_t n, bool is_first,
                              struct mb_error *err)
{
    if (n == 0)
        return MB_OK;
    struct place place = {.pretokenizer = pretokenizer, .is_first = is_first, .err = err};
    return run_step(place, text, n);
}
