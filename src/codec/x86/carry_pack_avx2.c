/*
 * carry_pack_avx2.c - writes the bodies of the carry form and of its stripes.
 */
#include "carry_avx2.h"

void mb_carry_pack(unsigned a, const __m256i u[4], uint8_t *out)
{
    if (a == MB_CARRY_BYTES) {
        for (size_t k = 0; k < 4; k++)
            _mm256_storeu_si256((__m256i *)(out + 32 * k), u[k]);
        return;
    }
    const __m256i low = _mm256_set1_epi8(a >= 4 ? 15 : 3);
    __m256i v[4];
    for (size_t k = 0; k < 4; k++)
        v[k] = _mm256_and_si256(u[k], low);
    if (a >= 4) {
        _mm256_storeu_si256((__m256i *)out, _mm256_or_si256(v[0], _mm256_slli_epi16(v[2], 4)));
        _mm256_storeu_si256((__m256i *)(out + 32), _mm256_or_si256(v[1], _mm256_slli_epi16(v[3], 4)));
    } else {
        __m256i first = _mm256_or_si256(v[0], _mm256_slli_epi16(v[1], 2));
        __m256i second = _mm256_or_si256(_mm256_slli_epi16(v[2], 4), _mm256_slli_epi16(v[3], 6));
        _mm256_storeu_si256((__m256i *)out, _mm256_or_si256(first, second));
    }
    out += a >= 4 ? 64 : 32;
    unsigned shift = a >= 4 ? 4 : 2;
    if (a == 3 || a == 5) {
        const __m128i one = _mm_set1_epi8(1);
        __m128i bits = _mm_setzero_si128();
        for (unsigned k = 0; k < 8; k++) {
            __m128i codes =
                k % 2 == 0 ? _mm256_castsi256_si128(u[k / 2]) : _mm256_extracti128_si256(u[k / 2], 1);
            __m128i bit = _mm_and_si128(_mm_srl_epi16(codes, _mm_cvtsi32_si128((int)shift)), one);
            bits = _mm_or_si128(bits, _mm_sll_epi16(bit, _mm_cvtsi32_si128((int)k)));
        }
        _mm_storeu_si128((__m128i *)out, bits);
    } else if (a == 6) {
        const __m256i two = _mm256_set1_epi8(3);
        __m256i bits = _mm256_setzero_si256();
        for (unsigned k = 0; k < 4; k++) {
            __m256i top = _mm256_and_si256(_mm256_srli_epi16(u[k], 4), two);
            bits = _mm256_or_si256(bits, _mm256_sll_epi16(top, _mm_cvtsi32_si128((int)(2 * k))));
        }
        _mm256_storeu_si256((__m256i *)out, bits);
    }
}
