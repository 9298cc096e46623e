/*
 * pretokenize.h - cuts text into the words that the merges work on.
 *
 * Stages run one inside the other: each word of a stage goes through the following stages at once, so no
 * list of words is kept.
 */
#ifndef MB_TOKENIZER_PRETOKENIZE_H
#define MB_TOKENIZER_PRETOKENIZE_H

#include "bpe.h"
#include "pattern.h"

enum { MB_STAGES_MAX = 24 };

enum mb_behaviour {
    MB_SPLIT_REMOVED,
    MB_SPLIT_ISOLATED,
    MB_SPLIT_CONTIGUOUS,
    MB_SPLIT_WITH_PREVIOUS,
    MB_SPLIT_WITH_NEXT,
};

enum mb_stage_kind {
    MB_STAGE_SPLIT,
    MB_STAGE_PREFIX,    /* a space in front where there is none (ByteLevel's add_prefix_space) */
    MB_STAGE_METASPACE, /* spaces become 'replacement' */
};

enum mb_prefix_scheme { MB_PREFIX_ALWAYS, MB_PREFIX_FIRST, MB_PREFIX_NEVER };

struct mb_stage {
    enum mb_stage_kind kind;
    struct mb_pattern pattern; /* SPLIT */
    enum mb_behaviour behaviour;
    bool invert;
    char replacement[8]; /* METASPACE */
    enum mb_prefix_scheme scheme;
};

struct mb_stages {
    struct mb_stage items[MB_STAGES_MAX];
    size_t n;
};

void mb_stages_free(struct mb_stages *stages);

struct mb_pretokenizer {
    const struct mb_stages *stages;
    struct mb_matcher matcher;
    struct mb_bpe_work *work;               /* takes the words */
    struct mb_bytes changed[MB_STAGES_MAX]; /* texts of stages that change theirs */
};

/* Appends the ids of a text without added tokens. 'is_first': it begins where the whole text begins. */
enum mb_status mb_pretokenize(struct mb_pretokenizer *pretokenizer, const char *text, size_t n, bool is_first,
                              struct mb_error *err);

#endif
