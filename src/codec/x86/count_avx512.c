/*
 * count_avx512.c - codes that have all bits set: eight words of whole codes at a time.
 */
#include "simd_avx512.h"

/* Bit i of a word: whether 'width' bits from there on are set. */
MB_INLINE __m512i full_bits(__m512i v, unsigned width)
{
    const unsigned done = width >= 8 ? 8 : width >= 4 ? 4 : width >= 2 ? 2 : 1;
    if (width >= 2)
        v = _mm512_and_si512(v, _mm512_srli_epi64(v, 1));
    if (width >= 4)
        v = _mm512_and_si512(v, _mm512_srli_epi64(v, 2));
    if (width >= 8)
        v = _mm512_and_si512(v, _mm512_srli_epi64(v, 4));
    return done < width ? _mm512_and_si512(v, _mm512_srli_epi64(v, width - done)) : v;
}

/* The 16-bit sums hold what a group can have: 512 rounds of 16. */
MB_INLINE size_t count_full_codes(const uint8_t *p, size_t n, unsigned width)
{
    const unsigned n_word = mb_word_codes(width), word_nbytes = n_word * width / 8;
    const __mmask64 bytes = ~(__mmask64)0 >> (64 - 8 * word_nbytes);
    const int64_t word = 0x0101010101010101 * (int64_t)word_nbytes;
    const __m512i from = _mm512_add_epi8(
        _mm512_set1_epi64(MB_BYTES_0_TO_7),
        _mm512_set_epi64(7 * word, 6 * word, 5 * word, 4 * word, 3 * word, 2 * word, word, 0));
    const __m512i lowest = _mm512_set1_epi64((int64_t)mb_lowest_bits(width));
    __m512i sums = _mm512_setzero_si512();
    for (; n >= 8 * n_word; n -= 8 * n_word, p += 8 * word_nbytes) {
        __m512i v = word_nbytes == 8 ? _mm512_loadu_si512(p)
                                     : _mm512_permutexvar_epi8(from, _mm512_maskz_loadu_epi8(bytes, p));
        v = _mm512_and_si512(full_bits(v, width), lowest);
        sums = _mm512_add_epi16(sums, _mm512_popcnt_epi16(v));
    }
    sums = _mm512_madd_epi16(sums, _mm512_set1_epi16(1));
    return (size_t)_mm512_reduce_add_epi32(sums) + mb_count_full_codes_scalar(p, n, width);
}

#define MB_COUNT_NAME mb_count_full_codes_avx512
#include "count_by_width.h"
