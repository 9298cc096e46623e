/*
 * feedback.h - rounding with calibration data inside the bound.
 *
 * mb_compress rounds each weight by itself.  A rounder made here rounds a row column by column: the error of
 * each weight is fed into the columns that are not rounded yet, weighted by how their inputs go together, so
 * that the errors of the row's product cancel.  Every weight stays within its bound: of the levels that the
 * bound admits the one nearest to the weight and what was fed into it is taken.
 *
 * Shapes and units: H is [n_cols][n_cols], the sum over calibration tokens of g^2 x x^T, x the matrix's input
 * in units of activations, g the gate of the expert for that token (1 for other matrices).  An error e of a
 * row (in units of weights) changes the row's output by e x; the sum of its squares is e H e^T.
 * Results are the same bits on every instruction set and for any number of threads.
 */
#ifndef MOEBIUS_FEEDBACK_H
#define MOEBIUS_FEEDBACK_H

#include <moebius/checkpoint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mb_moments_info {
    bool is_known;     /* false: no moments for this matrix; it is rounded plainly, with the coarsest step */
    uint64_t n_tokens; /* 0: none reached it; it is rounded plainly, with the step of the others, and named */
    double sum_gates2; /* sum of g^2 over these tokens */
    uint64_t input;    /* the same number for matrices that share moments: they are factored once */
};

/* Where moments come from. */
struct mb_moments_source {
    void *context;
    uint64_t
        hash; /* of all moments: a coded folder notes it, and work that was begun with others is refused */

    /*
     * What is known about the inputs of a matrix by its tensor's name, and its moments, symmetric, to
     * 'moments' unless that is NULL.  MB_BAD_DATA: they have another number of columns.  Several threads call
     * it at once.
     */
    enum mb_status (*get)(void *context, const char *tensor, size_t n_cols, struct mb_moments_info *info,
                          float *moments, struct mb_error *err);
};

/* What was done with one matrix. */
struct mb_feedback_matrix {
    const char *tensor; /* valid during the call */
    uint64_t n_tokens;  /* 0: rounded plainly; what follows is 0 then */
    uint64_t n_weights,
        n_clipped; /* clipped: another level would have been nearer, but is not within the bound */
    uint64_t n_rows, n_rows_clipped;
    uint64_t n_rows_exact; /* with a weight that is stored as it is, though a level was found for it */
    /*
     * A second certificate: proved bounds of sqrt(e H e^T / sum g^2), the root of the mean squared error of a
     * row's output over the calibration tokens: the largest of all rows, and the root of the mean square.
     * Arithmetic and weights that are stored as they are are accounted for.
     */
    double row_error_max, row_error_rms;
    /* What no row can exceed in which nothing was clipped and all levels are stored, whatever the weights. */
    double row_error_limit;
};
typedef void (*mb_feedback_matrix_fn)(void *ctx, const struct mb_feedback_matrix *matrix);

struct mb_feedback_options {
    size_t size;    /* sizeof(struct mb_feedback_options) */
    double rho;     /* how many steps the bound is: 0.5 (one level is admissible) to MB_RHO_MAX; 0: 1 */
    double damping; /* added to H's diagonal, as a fraction of its mean: up to 1; 0: 0.01 */
    /*
     * Matrices with more columns are rounded plainly, with the step of the others, and reported as such: to
     * factor moments takes 16 bytes x n_cols^2 for each thread that does.  0: 14336, which is 3.3 GB.
     */
    size_t n_cols_max;
    mb_feedback_matrix_fn
        each; /* called for each matrix in the folder's order, on mb_compress's thread; or NULL */
    void *each_ctx;
    bool no_column_factors; /* 'down' of experts is coded as other matrices are */
};

struct mb_feedback_report {
    uint64_t n_matrices, n_unreached; /* rounded with feedback; plainly, because no token reached them */
    uint64_t n_weights, n_clipped;
    uint64_t n_rows, n_rows_clipped;
    uint64_t n_wide;       /* rounded plainly, because they have more columns than n_cols_max */
    char wide_tensor[256]; /* the first of these: the name, cut to fit */
};

struct mb_feedback;

/* 'source' is borrowed until mb_feedback_free. MB_USAGE: rho or damping is out of its range. */
MB_API enum mb_status mb_feedback_create(const struct mb_moments_source *source,
                                         const struct mb_feedback_options *options,
                                         struct mb_feedback **feedback, struct mb_error *err);
MB_API void mb_feedback_free(struct mb_feedback *feedback); /* NULL: nothing */

/* For mb_compress_options.rounder; valid as long as the feedback, for one mb_compress at a time. */
MB_API const struct mb_rounder *mb_feedback_rounder(const struct mb_feedback *feedback);

/* Of all matrices that were finished. Not while mb_compress runs. */
MB_API struct mb_feedback_report mb_feedback_report(const struct mb_feedback *feedback);

#ifdef __cplusplus
}
#endif

#endif
