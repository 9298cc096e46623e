/*
 * feedback_kernels.h - the arithmetic of feedback: one table for each instruction set, all with the same
 * bits.
 *
 * Every float operation is one of a single element, in a fixed order and with no fma, so vectors of any
 * length give what a plain loop gives.
 */
#ifndef MB_CALIBRATE_FEEDBACK_KERNELS_H
#define MB_CALIBRATE_FEEDBACK_KERNELS_H

#include "base/dispatch.h"
#include "factor.h"
#include <moebius/codec.h>

/* Columns of an update are a multiple of it: two vectors of doubles of the longest registers. */
enum { MB_UPDATE_COLS = 16 };

/* Columns that are rounded before their errors go to all later ones, and rows of which memory is a multiple.
 */
enum { MB_FEED_PANEL = 64, MB_FEED_ROWS = 16 };

/* Rows on their way. */
struct mb_feed {
    const struct mb_factor *factor;
    const struct mb_coding *coding; /* wanted: not used */
    const uint8_t *weights;         /* [n_rows][n] of coding->dtype, all finite */
    size_t n_rows;
    int8_t *wanted;      /* [n_rows][n] what is found; for mb_coding.wanted */
    float *fed;          /* [n_rows, rounded up][factor->stride] zeros: sums of what was fed into a column */
    float *errors;       /* [n_rows, rounded up][MB_FEED_PANEL] */
    const double *drift; /* [n] how far arithmetic may take what was fed into a column, in units of weights */
    double *row_errors2; /* [n_rows, rounded up] zeros: proved bounds of e H' e^T */
    uint32_t *n_clipped; /* [n_rows, rounded up] zeros */
};

struct mb_feedback_kernels {
    /*
     * c[r][k] += a[r][m] b[m][k] for m = 0, 1, ... depth - 1 in this order; depth <= 64.  n_cols is a
     * multiple of MB_UPDATE_COLS.  Strides in doubles.
     */
    void (*update_f64)(double *c, size_t c_stride, size_t n_rows, size_t n_cols, const double *a,
                       size_t a_stride, const double *b, size_t b_stride, size_t depth);

    /* Rounds the rows. */
    void (*round_rows)(const struct mb_feed *feed);
};

extern const struct mb_feedback_kernels mb_feedback_kernels_scalar;
extern const struct mb_feedback_kernels mb_feedback_kernels_avx2;
extern const struct mb_feedback_kernels mb_feedback_kernels_avx512;

/* What the architecture has, slowest first (x86/feedback_tables.c, arm/, generic/). */
extern const struct mb_dispatch_table mb_feedback_tables[];

const struct mb_feedback_kernels *mb_feedback_kernels(void);
const struct mb_feedback_kernels *mb_feedback_kernels_by_isa(const char *isa); /* or NULL */

#endif
