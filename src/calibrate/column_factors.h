/*
 * column_factors.h - how much finer each column of a matrix is coded, by the energy of its input.
 *
 * What is coded of column j is W_ij 2^e_j, with one step: so the column's own step is 2^e_j times finer. Most
 * of the error of a product comes from columns whose input is large: e_j is the logarithm of a power of
 * E x_j^2, rounded (docs/quality.md).
 */
#ifndef MB_CALIBRATE_COLUMN_FACTORS_H
#define MB_CALIBRATE_COLUMN_FACTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MB_COLUMN_FACTOR_BITS = 6 }; /* the largest |e_j| */

/*
 * 'energies' [n]: sums of x_j^2 over n_tokens inputs, finite, not negative; 'logs' [n]: room.  The exponents
 * are within +-MB_COLUMN_FACTOR_BITS and their sum is 0, so that the geometric mean of the columns' bounds is
 * the matrix's.  false: all are 0.  The same bits wherever it runs.
 */
bool mb_column_exponents(const double *energies, size_t n, uint64_t n_tokens, int64_t *logs,
                         int8_t *exponents);

#endif
