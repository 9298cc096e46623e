/*
 * count_avx2.c - codes that have all bits set: four words of whole codes at a time.
 */
#include "simd_avx2.h"

/* Bit i of a word: whether 'width' bits from there on are set. */
MB_INLINE __m256i full_bits(__m256i v, unsigned width)
{
    const unsigned done = width >= 8 ? 8 : width >= 4 ? 4 : width >= 2 ? 2 : 1;
    if (width >= 2)
        v = _mm256_and_si256(v, _mm256_srli_epi64(v, 1));
    if (width >= 4)
        v = _mm256_and_si256(v, _mm256_srli_epi64(v, 2));
    if (width >= 8)
        v = _mm256_and_si256(v, _mm256_srli_epi64(v, 4));
    return done < width ? _mm256_and_si256(v, _mm256_srli_epi64(v, (int)(width - done))) : v;
}

/* The number of bits of every byte, from two tables of half bytes. */
MB_INLINE __m256i count_bits(__m256i v)
{
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i bits = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2,
                                          3, 1, 2, 2, 3, 2, 3, 3, 4);
    __m256i lows = _mm256_shuffle_epi8(bits, _mm256_and_si256(v, low));
    __m256i highs = _mm256_shuffle_epi8(bits, _mm256_and_si256(_mm256_srli_epi16(v, 4), low));
    return _mm256_add_epi8(lows, highs);
}

/* Two words in each half, which is loaded whole: a vector reads up to 16 bytes from its third word on. */
MB_INLINE size_t count_full_codes(const uint8_t *p, size_t n, unsigned width)
{
    const unsigned n_word = mb_word_codes(width), word_nbytes = n_word * width / 8;
    const uint8_t *last = p + mb_bits_nbytes(n, width);
    const int64_t bytes = 0x0706050403020100, word = 0x0101010101010101 * (int64_t)word_nbytes;
    const __m256i from = _mm256_set_epi64x(bytes + word, bytes, bytes + word, bytes);
    const __m256i lowest = _mm256_set1_epi64x((int64_t)mb_lowest_bits(width));
    __m256i sums = _mm256_setzero_si256();
    for (; n >= 4 * n_word && last - p >= 2 * (ptrdiff_t)word_nbytes + 16;
         n -= 4 * n_word, p += 4 * word_nbytes) {
        __m256i v;
        if (word_nbytes == 8) {
            v = _mm256_loadu_si256((const __m256i *)p);
        } else {
            v = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p));
            v = _mm256_inserti128_si256(v, _mm_loadu_si128((const __m128i *)(p + 2 * word_nbytes)), 1);
            v = _mm256_shuffle_epi8(v, from);
        }
        v = count_bits(_mm256_and_si256(full_bits(v, width), lowest));
        sums = _mm256_add_epi64(sums, _mm256_sad_epu8(v, _mm256_setzero_si256()));
    }
    return (size_t)mb_add_lanes_avx2(sums) + mb_count_full_codes_scalar(p, n, width);
}

#define MB_COUNT_NAME mb_count_full_codes_avx2
#include "count_by_width.h"
