/*
 * simd_avx2.h - what the AVX2 kernels share: row groups as bytes, and their products.
 *
 * A weight is held as the unsigned byte u = q + M + T.  Include only from files compiled with the AVX2 flags.
 */
#ifndef MB_CODEC_SIMD_AVX2_H
#define MB_CODEC_SIMD_AVX2_H

#include "codec/kernels.h"
#include <immintrin.h>

#define MB_INLINE static inline __attribute__((always_inline))

/* How far ahead records are fetched; see simd_avx512.h. */
enum { MB_PREFETCH_NBYTES = 4096 };

/* u of q = 0: M + T. Also half the largest u. */
MB_INLINE unsigned mb_offset_avx2(unsigned a, unsigned b)
{
    return (unsigned)(mb_inner_max(a) + mb_tail_half(b));
}

/* All weights of a group that is not raw as bytes u; 'out' has MB_DECODED_SLACK bytes behind them. */
void mb_group_bytes_avx2(const struct mb_group_view *group, uint8_t *out);

/* Eight original values. */
MB_INLINE __m256 mb_load_values_8(enum mb_dtype dtype, const uint8_t *values)
{
    if (dtype == MB_F32)
        return _mm256_loadu_ps((const float *)values);
    __m128i half = _mm_loadu_si128((const __m128i *)values);
    if (dtype == MB_F16)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* The table's functions. */
void mb_activation_avx2(const float *x, size_t n, int8_t *hi, int8_t *lo, struct mb_activation *out);
void mb_matvec_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                    const struct mb_activation *x, float *y);
void mb_matmul_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                    const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride, void *scratch);
void mb_matvec_transposed_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                               const struct mb_activation *x, float *y, void *scratch);
void mb_rows_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out);
enum mb_status mb_encode_rows_avx2(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                   uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                                   size_t *bad_index);
void mb_dense_avx2(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                   const float *x, size_t x_stride, size_t n_tokens, float *y, size_t y_stride);

#endif
