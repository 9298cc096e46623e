/*
 * carry_pack_avx2.c - writes the bodies of the carry form and of its stripes.
 */
#include "carry_avx2.h"

/* Bits of each byte ('mask'), 'up' further up. */
static __m256i bits(__m256i u, int mask, int up)
{
    return _mm256_sll_epi16(_mm256_and_si256(u, _mm256_set1_epi8((char)mask)), _mm_cvtsi32_si128(up));
}

/* The same moved down. */
static __m256i top_bits(__m256i u, int mask, int down)
{
    return _mm256_srl_epi16(_mm256_and_si256(u, _mm256_set1_epi8((char)mask)), _mm_cvtsi32_si128(down));
}

static void store(uint8_t *out, __m256i v)
{
    _mm256_storeu_si256((__m256i *)out, v);
}

/* The lower half, and the upper one 'up' bits further up. */
static void store_halves(uint8_t *out, __m256i v, int up)
{
    __m128i upper = _mm_sll_epi16(_mm256_extracti128_si256(v, 1), _mm_cvtsi32_si128(up));
    _mm_storeu_si128((__m128i *)out, _mm_or_si128(_mm256_castsi256_si128(v), upper));
}

void mb_carry_pack(unsigned a, const __m256i u[4], uint8_t *out)
{
    switch (a) {
    case 2: {
        __m256i first = _mm256_or_si256(bits(u[0], 3, 0), bits(u[1], 3, 2));
        store(out, _mm256_or_si256(first, _mm256_or_si256(bits(u[2], 3, 4), bits(u[3], 3, 6))));
        break;
    }
    case 3:
        store(out, _mm256_or_si256(_mm256_or_si256(bits(u[0], 7, 0), bits(u[1], 7, 3)), bits(u[3], 6, 5)));
        store_halves(out + 32, _mm256_or_si256(bits(u[2], 7, 0), bits(u[3], 1, 3)), 4);
        break;
    case 4:
        for (size_t k = 0; k < 2; k++)
            store(out + 32 * k, _mm256_or_si256(bits(u[k], 15, 0), bits(u[2 + k], 15, 4)));
        break;
    case 5:
        for (size_t k = 0; k < 2; k++)
            store(out + 32 * k, _mm256_or_si256(bits(u[k], 31, 0), bits(u[2 + k], 28, 3)));
        store_halves(out + 64, _mm256_or_si256(bits(u[2], 3, 0), bits(u[3], 3, 4)), 2);
        break;
    case 6:
        for (size_t k = 0; k < 3; k++) {
            __m256i part = bits(top_bits(u[3], 3 << 2 * k, (int)(2 * k)), 3, 6);
            store(out + 32 * k, _mm256_or_si256(bits(u[k], 63, 0), part));
        }
        break;
    default:
        for (size_t k = 0; k < 4; k++)
            store(out + 32 * k, u[k]);
    }
}
