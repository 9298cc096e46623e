/*
 * exponents.h - what the library needs of column exponents beside the public functions (codec.h).
 */
#ifndef MB_CODEC_EXPONENTS_H
#define MB_CODEC_EXPONENTS_H

#include <moebius/codec.h>

/* Whole rows of V' become rows of W', where the matrix has exponents. What decode_rows of each table ends
 * with. */
void mb_unscale_rows(const struct mb_coded_matrix *w, uint64_t n_rows, float *rows);

/* Weight i of whole rows, counted from the first of them: of W' as it is in V', and the other way round. */
float mb_scaled_weight(const struct mb_coded_matrix *w, float weight, size_t i);
float mb_unscaled_weight(const struct mb_coded_matrix *w, float weight, size_t i);

/* What is wrong with exponents that are read from a file; NULL: nothing. */
const char *mb_exponents_fault(const int8_t *exponents, size_t n_cols);

#endif
