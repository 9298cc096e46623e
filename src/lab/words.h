/*
 * words.h - answers that are texts: equal but for case, white space and a final dot.
 */
#ifndef MB_LAB_WORDS_H
#define MB_LAB_WORDS_H

#include "math_answer.h"
#include <stdbool.h>

bool mb_lab_same_words(struct mb_lab_span a, struct mb_lab_span b);

/* Whether a line ends with these words, whatever markup or punctuation follows them. */
bool mb_lab_ends_with_words(struct mb_lab_span line, struct mb_lab_span words);

#endif
