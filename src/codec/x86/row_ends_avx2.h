/*
 * row_ends_avx2.h - the ends of rows whose products are in lanes of 32 bits: lanes are added, and results
 * scaled, four rows at a time.
 *
 * Include only from files compiled with the AVX2 flags.
 */
#ifndef MB_CODEC_ROW_ENDS_AVX2_H
#define MB_CODEC_ROW_ENDS_AVX2_H

#include "simd_avx2.h"

/* Lanes of 32 bits; their sum is a row's: of its products with each plane. */
struct sums {
    __m256i hi, lo;
};

/* hi, lo, hi, lo of a row, in each half: the sums of a quarter of its lanes. */
MB_INLINE __m256i mb_add_lanes_2(const struct sums *s)
{
    return _mm256_add_epi32(_mm256_unpacklo_epi32(s->hi, s->lo), _mm256_unpackhi_epi32(s->hi, s->lo));
}

/* hi, lo, hi, lo of two rows, in each half. */
MB_INLINE __m256i mb_add_lanes_4(const struct sums *s)
{
    __m256i first = mb_add_lanes_2(s), second = mb_add_lanes_2(s + 1);
    return _mm256_add_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
}

/* 256 hi + lo of four rows. */
MB_INLINE __m256d mb_row_sums_4(const struct sums *s)
{
    __m256i rows_01 = mb_add_lanes_4(s), rows_23 = mb_add_lanes_4(s + 2);
    __m256i sums = _mm256_add_epi32(_mm256_permute2x128_si256(rows_01, rows_23, 0x20),
                                    _mm256_permute2x128_si256(rows_01, rows_23, 0x31));
    sums = _mm256_permutevar8x32_epi32(sums, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    __m256d hi = _mm256_cvtepi32_pd(_mm256_castsi256_si128(sums));
    __m256d lo = _mm256_cvtepi32_pd(_mm256_extracti128_si256(sums, 1));
    return _mm256_add_pd(_mm256_mul_pd(hi, _mm256_set1_pd(256)), lo);
}

/* The results of four rows from their S, and the sums of their outliers (0 is added, too: -0 becomes 0). */
MB_INLINE __m128 mb_results_4(__m256d s, __m256d outliers, float step, float x_scale)
{
    __m256d scale = _mm256_set1_pd((double)x_scale);
    __m256d coded = _mm256_mul_pd(_mm256_mul_pd(s, _mm256_set1_pd((double)step)), scale);
    return _mm256_cvtpd_ps(_mm256_add_pd(coded, _mm256_mul_pd(outliers, scale)));
}

#endif
