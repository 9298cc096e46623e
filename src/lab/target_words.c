/*
 * target_words.c - reads the words of a selection; what they mean for a model is in target_select.c.
 */
#include "base/error.h"
#include "target.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SHOWN_NBYTES = 120 };

static const char allowed[] =
    "layers=, moe-layers=, experts=, proj=, name=, shared, attention, dense, router, "
    "embedding and lm_head";

/* ---------------------------------------------------------------- messages */

static int shown(struct mb_piece_of piece)
{
    return (int)(piece.n < SHOWN_NBYTES ? piece.n : SHOWN_NBYTES);
}

enum mb_status mb_fail_word(const struct mb_target *target, const struct mb_word *word,
                            struct mb_piece_of piece, struct mb_error *err, const char *format, ...)
{
    char what[600];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    if (piece.p == word->whole.p && piece.n == word->whole.n)
        return mb_fail(err, MB_USAGE, "selection '%.*s': word %zu, '%.*s': %s", SHOWN_NBYTES, target->text,
                       word->number, shown(piece), piece.p, what);
    return mb_fail(err, MB_USAGE, "selection '%.*s': word %zu, '%.*s', at '%.*s': %s", SHOWN_NBYTES,
                   target->text, word->number, shown(word->whole), word->whole.p, shown(piece), piece.p,
                   what);
}

/* ---------------------------------------------------------------- pieces */

bool mb_next_item(struct mb_piece_of *rest, struct mb_piece_of *item)
{
    if (rest->p == NULL)
        return false;
    const char *comma = memchr(rest->p, ',', rest->n);
    *item = (struct mb_piece_of){rest->p, comma == NULL ? rest->n : (size_t)(comma - rest->p)};
    if (comma == NULL)
        *rest = (struct mb_piece_of){NULL, 0};
    else
        *rest = (struct mb_piece_of){comma + 1, rest->n - item->n - 1};
    return true;
}

bool mb_piece_is(struct mb_piece_of piece, const char *text)
{
    return piece.n == strlen(text) && memcmp(piece.p, text, piece.n) == 0;
}

bool mb_piece_number(struct mb_piece_of piece, const char *prefix, size_t *number)
{
    enum { N_DIGITS_MAX = 9 };
    size_t n_prefix = strlen(prefix);
    if (piece.n <= n_prefix || piece.n > n_prefix + N_DIGITS_MAX || memcmp(piece.p, prefix, n_prefix) != 0)
        return false;
    size_t value = 0;
    for (size_t i = n_prefix; i < piece.n; i++) {
        if (piece.p[i] < '0' || piece.p[i] > '9')
            return false;
        value = value * 10 + (size_t)(piece.p[i] - '0');
    }
    *number = value;
    return true;
}

bool mb_piece_range(struct mb_piece_of piece, size_t *from, size_t *to)
{
    const char *dash = memchr(piece.p, '-', piece.n);
    if (dash == NULL) {
        bool is_number = mb_piece_number(piece, "", from);
        *to = *from;
        return is_number;
    }
    size_t n = (size_t)(dash - piece.p);
    return mb_piece_number((struct mb_piece_of){piece.p, n}, "", from) &&
           mb_piece_number((struct mb_piece_of){dash + 1, piece.n - n - 1}, "", to) && *from <= *to;
}

/* ---------------------------------------------------------------- words */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* false: the text ends. */
static bool next_word(const char **at, struct mb_word *word)
{
    while (is_blank(**at))
        ++*at;
    const char *begin = *at;
    while (**at != 0 && !is_blank(**at))
        ++*at;
    size_t n = (size_t)(*at - begin);
    const char *equals = n == 0 ? NULL : memchr(begin, '=', n);
    word->number++;
    word->whole = (struct mb_piece_of){begin, n};
    word->value = (struct mb_piece_of){NULL, 0};
    if (equals != NULL)
        word->value = (struct mb_piece_of){equals + 1, n - (size_t)(equals + 1 - begin)};
    return n > 0;
}

/* Where a word of that key goes; NULL: there is no such key. */
static struct mb_word *place_of_key(struct mb_target *target, struct mb_piece_of key)
{
    if (mb_piece_is(key, "layers") || mb_piece_is(key, "layer") || mb_piece_is(key, "moe-layers") ||
        mb_piece_is(key, "moe-layer"))
        return &target->layers;
    if (mb_piece_is(key, "experts") || mb_piece_is(key, "expert"))
        return &target->experts;
    if (mb_piece_is(key, "proj"))
        return &target->projection;
    return mb_piece_is(key, "name") ? &target->name : NULL;
}

static struct mb_word *place_of_kind(struct mb_target *target, struct mb_piece_of word)
{
    static const char *const names[MB_N_MATRIX_KINDS] = {
        [MB_MATRIX_ATTENTION] = "attention", [MB_MATRIX_DENSE] = "dense",
        [MB_MATRIX_ROUTER] = "router",       [MB_MATRIX_SHARED] = "shared",
        [MB_MATRIX_EMBEDDING] = "embedding", [MB_MATRIX_HEAD] = "lm_head",
    };
    for (size_t i = 0; i < MB_N_MATRIX_KINDS; i++)
        if (names[i] != NULL && mb_piece_is(word, names[i]))
            return &target->kinds[i];
    return NULL;
}

static enum mb_status take_word(struct mb_target *target, const struct mb_word *word, struct mb_error *err)
{
    bool has_value = word->value.p != NULL;
    struct mb_piece_of key = word->whole;
    if (has_value)
        key.n -= word->value.n + 1;
    struct mb_word *place = has_value ? place_of_key(target, key) : place_of_kind(target, key);
    if (place == NULL)
        return mb_fail_word(target, word, word->whole, err, "no such word; there are %s", allowed);
    if (has_value && word->value.n == 0)
        return mb_fail_word(target, word, word->whole, err, "has no value");
    if (place->number > 0)
        return mb_fail_word(target, word, word->whole, err,
                            "says again what word %zu says; write one list, a,b", place->number);
    *place = *word;
    if (place == &target->layers)
        target->is_moe_count = word->whole.p[0] == 'm';
    return MB_OK;
}

/* Layers and projections alone select nothing: a reader could not know what was meant. */
static enum mb_status check_whole(struct mb_target *target, struct mb_error *err)
{
    bool has_kind = target->name.number > 0;
    target->kinds[MB_MATRIX_EXPERT] = target->experts;
    for (size_t i = 0; i < MB_N_MATRIX_KINDS; i++)
        has_kind = has_kind || target->kinds[i].number > 0;
    if (!has_kind)
        return mb_fail(
            err, MB_USAGE,
            "selection '%.*s': does not say which matrices; add experts= (all, top1, cold8, unused, "
            "3,7-9), shared, attention, dense, router, embedding, lm_head or name=",
            SHOWN_NBYTES, target->text);
    const struct mb_word *model_wide = &target->kinds[MB_MATRIX_EMBEDDING];
    if (model_wide->number == 0)
        model_wide = &target->kinds[MB_MATRIX_HEAD];
    if (target->layers.number > 0 && model_wide->number > 0)
        return mb_fail_word(target, model_wide, model_wide->whole, err, "is in no layer; leave out '%.*s'",
                            shown(target->layers.whole), target->layers.whole.p);
    return MB_OK;
}

enum mb_status mb_target_parse(const char *text, struct mb_target *target, struct mb_error *err)
{
    struct mb_word word = {.number = 0};
    *target = (struct mb_target){.text = text};
    for (const char *at = text; next_word(&at, &word);)
        MB_TRY(take_word(target, &word, err));
    return check_whole(target, err);
}
