/*
 * factor.h - moments of inputs, factored so that a row can be rounded column by column.
 *
 * H' = H and a little on its diagonal, columns in the order of rounding.  H' = V V^T with V upper triangular,
 * and an error e of a row has e H' e^T = sum over k of V_kk^2 (e_k + sum over j < k of e_j A_jk)^2 with
 * A_jk = V_jk / V_kk: what the errors of earlier columns ask of column k is the sum.
 */
#ifndef MB_CALIBRATE_FACTOR_H
#define MB_CALIBRATE_FACTOR_H

#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mb_factor {
    size_t n, stride; /* columns; floats from row to row of 'feeds', a multiple of MB_FEED_STRIDE */
    bool is_zero;     /* all moments are 0: nothing else is set */
    uint32_t *order;  /* [n] column of the matrix that is rounded k-th: by falling H_jj, then by place */
    float *feeds;     /* [n][stride] A_jk where k > j, else 0 */
    double *weights;  /* [n] V_kk^2 */
    double *reach;    /* [n] sum over j < k of |A_jk| */
    double *roots;    /* [n] of the matrix's columns in their own order: the root of H'_jj */
};

enum { MB_FEED_STRIDE = 32 };

/*
 * 'moments' [n][n], n > 0, stay the caller's.  What is factored is H_ij 2^-(e_i + e_j): 'exponents' [n],
 * NULL: all 0.  'damping': a fraction of the mean of H_jj.  MB_BAD_DATA: they are not finite, not symmetric
 * or not positive semidefinite; the message says where.  MB_NO_MEMORY.
 */
enum mb_status mb_factor_make(const float *moments, size_t n, const int8_t *exponents, double damping,
                              struct mb_factor *factor, struct mb_error *err);
void mb_factor_free(struct mb_factor *factor);

#endif
