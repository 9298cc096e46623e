/*
 * wide_avx2.c - the part of a product that the wide blocks of an activation add.
 */
#include "simd_avx2.h"

int64_t mb_wide_sum_avx2(const int8_t *q, const int8_t *planes, size_t n_planes)
{
    int64_t sum = 0;
    for (size_t p = 0; p < n_planes; p++, planes += MB_ACTIVATION_BLOCK) {
        __m256i s = _mm256_setzero_si256();
        for (size_t c = 0; c < MB_ACTIVATION_BLOCK; c += 32) {
            __m256i pairs = mb_signed_pairs_avx2(_mm256_loadu_si256((const __m256i *)(q + c)), planes + c);
            s = _mm256_add_epi32(s, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
        sum += (int64_t)mb_add_lanes_avx2(s) * ((int64_t)1 << 8 * p);
    }
    return sum;
}
