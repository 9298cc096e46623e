/*
 * choice_tokens.h - the tokens of a question's choices, and what they have in common.
 */
#ifndef MB_LAB_CHOICE_TOKENS_H
#define MB_LAB_CHOICE_TOKENS_H

#include <moebius/lab.h>

/* Context and continuation of one choice. All but the last token are fed. */
struct mb_lab_choice {
    int32_t *ids;
    size_t n, n_context;
    double log_likelihood;
};

struct mb_lab_question {
    struct mb_lab_choice *choices; /* [n_choices]; NULL: no room */
    size_t n_choices;
    size_t n_shared;   /* tokens that all choices begin with and that predict nothing that counts */
    size_t n_fed_most; /* of the longest choice */
};

/*
 * MB_BAD_DATA: a choice has no tokens of its own, or none before them.  After a failure the question is to be
 * freed, too.
 */
enum mb_status mb_lab_encode_question(const struct mb_tokenizer *tokenizer, const struct mb_choice_item *item,
                                      struct mb_lab_question *question, struct mb_error *err);
void mb_lab_free_question(struct mb_lab_question *question);

/* Whether two choices are fed the same tokens: one pass serves both. */
bool mb_lab_same_input(const struct mb_lab_choice *a, const struct mb_lab_choice *b);

#endif
