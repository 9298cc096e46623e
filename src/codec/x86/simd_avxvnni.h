/*
 * simd_avxvnni.h - the functions of the AVX-VNNI table that AVX2 does not have.
 *
 * Include only from files compiled with the AVX-VNNI flags.
 */
#ifndef MB_CODEC_SIMD_AVXVNNI_H
#define MB_CODEC_SIMD_AVXVNNI_H

#include "simd_avx2.h"

void mb_carry_matvec_avxvnni(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                             const struct mb_activation *x, float *y);
void mb_carry_matmul_avxvnni(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                             const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride);
void mb_stripes_matmul_avxvnni(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                               const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride);
void mb_matvec_avxvnni(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                       const struct mb_activation *x, float *y);
void mb_matmul_avxvnni(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                       const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                       void *scratch);
size_t mb_matmul_scratch_nbytes_avxvnni(size_t n_cols);

#endif
