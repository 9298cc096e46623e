/*
 * math_answer.h - answers of the MATH data set: the box in a text, and what equals what is in it.
 */
#ifndef MB_LAB_MATH_ANSWER_H
#define MB_LAB_MATH_ANSWER_H

#include <stdbool.h>

struct mb_lab_span {
    const char *begin, *end;
};

/* Where the brace that is open at p closes, or NULL: "9{,}500}" has braces inside. */
const char *mb_lab_closing_brace(const char *p, const char *end);

/* What is in the last \boxed{...} of a text (without any: the last \fbox{...}), or after "\boxed ". */
bool mb_lab_last_box(const char *text, struct mb_lab_span *box);

/* mb_math_equal of parts of texts. */
bool mb_lab_math_equal(struct mb_lab_span a, struct mb_lab_span b);

#endif
