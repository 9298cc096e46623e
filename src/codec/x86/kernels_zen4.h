/*
 * kernels_zen4.h - the functions of Zen 4's table that AVX2 and AVX-512 do not have.
 */
#ifndef MB_CODEC_KERNELS_ZEN4_H
#define MB_CODEC_KERNELS_ZEN4_H

#include "kernels.h"

void mb_carry_matvec_zen4(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                          const struct mb_activation *x, float *y);

/* A few tokens, as mb_carry_takes_few_avx2 says.  False: nothing was done, as another way is faster. */
bool mb_carry_few_zen4(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                       const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride);

/* Of carry_matvec_kernels.h and stripes_kernels.h. */
void mb_carry_matmul_zen4(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                          const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride);
void mb_stripes_matmul_zen4(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                            const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride);

#endif
