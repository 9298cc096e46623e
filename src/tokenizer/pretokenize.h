/*
 * pretokenize.h - cuts text into the words that the merges work on.
 *
 * Steps run one inside the other: each word of a step goes through the following steps at once, so no
 * list of words is kept.
 */
#ifndef MB_TOKENIZER_PRETOKENIZE_H
#define MB_TOKENIZER_PRETOKENIZE_H

#include "bpe.h"
#include "pattern.h"

enum { MB_PRETOKEN_STEPS_MAX = 24 };

enum mb_behaviour {
    MB_SPLIT_REMOVED,
    MB_SPLIT_ISOLATED,
    MB_SPLIT_CONTIGUOUS,
    MB_SPLIT_WITH_PREVIOUS,
    MB_SPLIT_WITH_NEXT,
};

enum mb_pretoken_kind {
    MB_PRETOKEN_SPLIT,
    MB_PRETOKEN_PREFIX,    /* a space before the text where there is none (ByteLevel's add_prefix_space) */
    MB_PRETOKEN_METASPACE, /* spaces become 'replacement' */
    MB_PRETOKEN_CUT,       /* pieces of bounded length, as tokenization_moonshot.py makes them */
};

enum mb_prefix_scheme { MB_PREFIX_ALWAYS, MB_PREFIX_FIRST, MB_PREFIX_NEVER };

struct mb_pretoken_step {
    enum mb_pretoken_kind kind;
    struct mb_pattern pattern; /* SPLIT */
    enum mb_behaviour behaviour;
    bool invert;
    char replacement[8]; /* METASPACE */
    enum mb_prefix_scheme scheme;
};

struct mb_pretoken_steps {
    struct mb_pretoken_step items[MB_PRETOKEN_STEPS_MAX];
    size_t n;
};

void mb_pretoken_steps_free(struct mb_pretoken_steps *steps);

struct mb_pretokenizer {
    const struct mb_pretoken_steps *steps;
    struct mb_matcher matcher;
    struct mb_bpe_work *work;                       /* takes the words */
    struct mb_bytes changed[MB_PRETOKEN_STEPS_MAX]; /* texts of steps that change theirs */
};

/* Appends the ids of a text without added tokens. 'is_first': it begins where the whole text begins. */
enum mb_status mb_pretokenize(struct mb_pretokenizer *pretokenizer, const char *text, size_t n, bool is_first,
                              struct mb_error *err);

#endif
