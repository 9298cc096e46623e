/*
 * measure_rows.h - compares rows of logits, and takes exp and ln for it, in one fixed order of arithmetic.
 */
#ifndef MB_LAB_MEASURE_ROWS_H
#define MB_LAB_MEASURE_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* What one scored token says. */
struct mb_row_figures {
    double kl, tv, nll, nll_clean, dp;
    double same_top; /* 0 or 1 */
};

/*
 * The distributions of two rows of logits [n], for the token that is there.  scratch: [2 * n + 2] doubles.  A
 * row that is not finite makes figures NAN: nll_clean if it is the clean one, nll if it is the changed one.
 */
struct mb_row_figures mb_row_compare(const float *clean, const float *changed, size_t n, int32_t token,
                                     double *scratch);

/* No library decides a bit: these are additions, products and quotients alone. */
double mb_lab_exp(double x); /* 0 below -700 */
double mb_lab_ln(double x);  /* of a normal number above 0; else as ln has it, or NAN */

#endif
