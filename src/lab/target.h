/*
 * target.h - the language of selections (docs/lab.md): words with values, and what they mean for a model.
 *
 *     layers=1-10 experts=top1        moe-layers=last experts=cold8 proj=down        layers=middle attention
 */
#ifndef MB_LAB_TARGET_H
#define MB_LAB_TARGET_H

#include <moebius/perturb.h>

/* A piece of the text; no bytes: it is not there. */
struct mb_piece_of {
    const char *p;
    size_t n;
};

/* A word, and of KEY=VALUE the value: what is after the '='. */
struct mb_word {
    struct mb_piece_of whole, value;
    size_t number; /* from 1 */
};

struct mb_target {
    const char *text;
    struct mb_word layers, experts, projection, name; /* KEY=VALUE */
    bool is_moe_count;                                /* 'layers' counts layers with experts, from 1 */
    struct mb_word kinds[MB_N_MATRIX_KINDS];          /* "shared", "attention", ...; of experts: experts= */
};

enum mb_status mb_target_parse(const char *text, struct mb_target *target, struct mb_error *err);

/* "selection 'TEXT': word 2, 'WORD': ...", MB_USAGE. 'piece': what of the word is wrong. */
enum mb_status mb_fail_word(const struct mb_target *target, const struct mb_word *word,
                            struct mb_piece_of piece, struct mb_error *err, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Takes the next one of a list "a,b,c" off *rest; false: there is none. An empty one has no bytes. */
bool mb_next_item(struct mb_piece_of *rest, struct mb_piece_of *item);

bool mb_piece_is(struct mb_piece_of piece, const char *text);

/* Whether a piece is PREFIX and a number; "7" with the prefix "", "top8" with "top". Ranges: "7", "3-9". */
bool mb_piece_number(struct mb_piece_of piece, const char *prefix, size_t *number);
bool mb_piece_range(struct mb_piece_of piece, size_t *from, size_t *to);

#endif
