/*
 * count_neon.c - codes that have all bits set: two words of whole codes at a time.
 */
#include "simd_neon.h"

/* Bit i of a word: whether 'width' bits from there on are set. Shifts by a negative number are to the right.
 */
MB_INLINE uint64x2_t full_bits(uint64x2_t v, unsigned width)
{
    unsigned done = 1;
    for (; 2 * done <= width; done *= 2)
        v = vandq_u64(v, vshlq_u64(v, vdupq_n_s64(-(int64_t)done)));
    return vandq_u64(v, vshlq_u64(v, vdupq_n_s64((int64_t)done - (int64_t)width)));
}

/* A load reads 16 bytes. The 16-bit sums hold what a group can have: 2048 rounds of 16. */
size_t mb_count_full_codes_neon(const uint8_t *stream, size_t n, unsigned width)
{
    const unsigned n_word = mb_word_codes(width), word_nbytes = n_word * width / 8;
    const uint8_t *p = stream, *last = stream + mb_bits_nbytes(n, width);
    const uint64_t bytes = 0x0706050403020100, word = 0x0101010101010101 * (uint64_t)word_nbytes;
    const uint8x16_t from = vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(bytes), vcreate_u64(bytes + word)));
    const uint64x2_t lowest = vdupq_n_u64(mb_lowest_bits(width));
    uint16x8_t sums = vdupq_n_u16(0);
    for (; n >= 2 * n_word && last - p >= 16; n -= 2 * n_word, p += 2 * word_nbytes) {
        uint64x2_t v = vreinterpretq_u64_u8(vqtbl1q_u8(vld1q_u8(p), from));
        v = vandq_u64(full_bits(v, width), lowest);
        sums = vpadalq_u8(sums, vcntq_u8(vreinterpretq_u8_u64(v)));
    }
    return (size_t)vaddlvq_u16(sums) + mb_count_full_codes_scalar(p, n, width);
}
