/*
 * pretokenize.c - the stages: splits by pattern, and prefixes.
 */
#include "pretokenize.h"
#include "base/error.h"

void mb_stages_free(struct mb_stages *stages)
{
    for (size_t i = 0; i < stages->n; i++)
        mb_pattern_free(&stages->items[i].pattern);
}

/* Where a word is in the stages. */
struct place {
    struct mb_pretokenizer *pretokenizer;
    size_t i_stage;
    bool is_first; /* begins where the whole text begins */
    struct mb_error *err;
};

static enum mb_status run_stage(struct place place, const char *text, size_t n);

/* Gives a word to the next stage. */
static enum mb_status pass_on(struct place place, const char *text, size_t begin, size_t end)
{
    if (begin == end)
        return MB_OK;
    place.is_first = place.is_first && begin == 0;
    place.i_stage++;
    return run_stage(place, text + begin, end - begin);
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
    const struct mb_stage *stage = &place.pretokenizer->stages->items[place.i_stage];
    is_match = is_match != stage->invert;
    if (stage->behaviour == MB_SPLIT_REMOVED)
        return is_match ? MB_OK : pass_on(place, text, begin, end);
    if (stage->behaviour == MB_SPLIT_ISOLATED)
        return pass_on(place, text, begin, end);
    if (pending->exists && joins(stage->behaviour, pending, is_match)) {
        pending->end = end;
        pending->is_match = is_match;
        return MB_OK;
    }
    enum mb_status status = pending->exists ? pass_on(place, text, pending->begin, pending->end) : MB_OK;
    *pending = (struct pending){.begin = begin, .end = end, .exists = true, .is_match = is_match};
    return status;
}

static enum mb_status run_split(struct place place, const char *text, size_t n)
{
    const struct mb_stage *stage = &place.pretokenizer->stages->items[place.i_stage];
    struct mb_match match = {0};
    struct pending pending = {0};
    size_t done = 0;
    for (;;) {
        enum mb_status status =
            mb_match_next(&place.pretokenizer->matcher, &stage->pattern, text, n, &match, place.err);
        if (status == MB_OK && match.is_found && match.begin > done)
            status = take_part(place, text, &pending, done, match.begin, false);
        if (status == MB_OK && match.is_found)
            status = take_part(place, text, &pending, match.begin, match.end, true);
        if (status != MB_OK)
            return status;
        if (!match.is_found)
            break;
        done = match.end;
    }
    enum mb_status status = done < n ? take_part(place, text, &pending, done, n, false) : MB_OK;
    if (status == MB_OK && pending.exists)
        status = pass_on(place, text, pending.begin, pending.end);
    return status;
}

static enum mb_status run_prefix(struct place place, const char *text, size_t n)
{
    struct mb_bytes *changed = &place.pretokenizer->changed[place.i_stage];
    if (text[0] == ' ')
        return pass_on(place, text, 0, n);
    changed->n = 0;
    if (!mb_bytes_put(changed, " ", 1) || !mb_bytes_put(changed, text, n))
        return mb_fail_memory(place.err, "the words of a text");
    return pass_on(place, changed->p, 0, changed->n);
}

static enum mb_status run_metaspace(struct place place, const char *text, size_t n)
{
    const struct mb_stage *stage = &place.pretokenizer->stages->items[place.i_stage];
    struct mb_bytes *changed = &place.pretokenizer->changed[place.i_stage];
    size_t n_replacement = strlen(stage->replacement);
    bool has_prefix =
        text[0] == ' ' || (n >= n_replacement && memcmp(text, stage->replacement, n_replacement) == 0);
    bool wants_prefix =
        stage->scheme == MB_PREFIX_ALWAYS || (stage->scheme == MB_PREFIX_FIRST && place.is_first);
    changed->n = 0;
    bool ok = !wants_prefix || has_prefix || mb_bytes_put(changed, stage->replacement, n_replacement);
    for (size_t i = 0; ok && i < n;) {
        const char *space = memchr(text + i, ' ', n - i);
        size_t end = space == NULL ? n : (size_t)(space - text);
        ok = mb_bytes_put(changed, text + i, end - i) &&
             (space == NULL || mb_bytes_put(changed, stage->replacement, n_replacement));
        i = end + 1;
    }
    if (!ok)
        return mb_fail_memory(place.err, "the words of a text");
    return pass_on(place, changed->p, 0, changed->n);
}

/* Calls itself through pass_on, once a stage: at most MB_STAGES_MAX deep. */
static enum mb_status run_stage(struct place place, const char *text, size_t n)
{
    const struct mb_stages *stages = place.pretokenizer->stages;
    if (place.i_stage == stages->n)
        return mb_bpe_word(place.pretokenizer->work, text, n)
                   ? MB_OK
                   : mb_fail_memory(place.err, "the words of a text");
    switch (stages->items[place.i_stage].kind) {
    case MB_STAGE_SPLIT:
        return run_split(place, text, n);
    case MB_STAGE_PREFIX:
        return run_prefix(place, text, n);
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
    return run_stage(place, text, n);
}
