/*
 * spread_avx2.h - codes of widths 2 to 6 to bytes u, 128 at a time, with their escapes in place.
 *
 * A weight is u = q + M + base, where base depends on a alone, so that rows of one a share their constants.
 * Tails are decoded to bytes before.  The escapes (E) of 32 weights are a mask of 32 bits; vpshufb moves the
 * next tail bytes to them, and 0 to the others, and both are added:
 *
 *       codes            3    E    1    E    E    0    ...
 *       mask             0    1    0    1    1    0    ...
 *       from             0x80 0    0x80 1    2    0x80 ...     escapes before this one, or bit 7
 *       tail             t0   t1   t2   t3   ...
 *       tail[from]       0    t0   0    t1   t2   0    ...
 *       u                u3   uE+t0 u1  uE+t1 ...              the next 32 weights begin with t3
 *
 * 'from' is the sum of three rows of a table. Eleven bits of the mask choose each of them:
 *
 *                        lanes 0 to 10     lanes 11 to 21    lanes 22 to 31
 *       bits 0 to 10     rank or 0x80      count             count             rank: escapes before this one
 *       bits 11 to 21    0                 rank or 0x80      count             among these bits; count: all
 *       bits 22 to 31    0                 0                 rank or 0x80      of these bits
 *
 * vpshufb reaches sixteen tail bytes.  Where 32 weights have more escapes, the caller decodes the plain way.
 *
 * Masks are computed one block before they are used: from codes to masks to addresses to sums takes some 40
 * cycles, which the out-of-order window alone does not cover.
 */
#ifndef MB_CODEC_SPREAD_AVX2_H
#define MB_CODEC_SPREAD_AVX2_H

#include "simd_avx2.h"

enum { MB_BLOCK = 128, MB_SPREAD_REACH = 16 };

/* u of code 0. */
MB_INLINE unsigned mb_base_avx2(unsigned a)
{
    return a <= 4 ? 8 : 1u << (a - 1);
}

/* Whether a group has so few escapes that 32 weights seldom have more than vpshufb reaches. */
MB_INLINE bool mb_can_spread(const struct mb_group_view *group)
{
    return group->a >= 2 && group->a <= 6 && (unsigned)mb_tail_half(group->b) <= mb_base_avx2(group->a) &&
           4 * (size_t)group->n_escapes < group->n;
}

/* u of an escape before its tail byte is added: bit 7 distinguishes it from codes for a <= 4. */
MB_INLINE unsigned mb_escape_avx2(unsigned a)
{
    return a <= 4 ? 0x80 : (1u << a) - 1 + mb_base_avx2(a);
}

/*
 * n_rounds times 32 codes of a tail as the bytes that are added to escapes. Those after the tail are
 * unspecified; at most 32 bytes after a round are read.
 */
void mb_spread_tail_avx2(const uint8_t *tail, unsigned a, unsigned b, size_t n_rounds, uint8_t *out);

/*
 * Row m, read from byte 22 - 11 k on, is the row for m as the k-th eleven bits of a mask.  The table has 128
 * KiB, but few of its rows are in use: those of one or two escapes.
 */
enum { MB_RANKS_BITS = 11, MB_RANKS_BEGIN = 22, MB_RANKS_ROWS = 1 << MB_RANKS_BITS };
extern const uint8_t mb_ranks_avx2[MB_RANKS_ROWS][64];

/* The constants of spreading, in registers. */
struct mb_spread {
    __m256i low, code_to_u, escape;
    struct mb_unpack_avx2 unpack;
    const uint8_t *ranks;
    uint64_t second, third; /* shifts */
};

MB_INLINE struct mb_spread mb_spread_of_width(unsigned a)
{
    struct mb_spread s = {.low = _mm256_set1_epi8((char)((1u << a) - 1)),
                          .escape = _mm256_set1_epi8((char)mb_escape_avx2(a)),
                          .unpack = mb_unpack_of_width_avx2(a),
                          .ranks = mb_ranks_avx2[0],
                          .second = MB_RANKS_BITS,
                          .third = 2 * MB_RANKS_BITS};
    if (a <= 4) {
        __m256i codes =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        if (a == 2) /* see mb_unpack_pairs_avx2 */
            codes =
                _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0));
        else if (a == 3) /* see mb_unpack_triples_avx2 */
            codes =
                _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7));
        s.code_to_u = _mm256_blendv_epi8(_mm256_add_epi8(codes, _mm256_set1_epi8((char)mb_base_avx2(a))),
                                         s.escape, _mm256_cmpeq_epi8(codes, s.low));
    } else {
        s.code_to_u = _mm256_set1_epi8((char)mb_base_avx2(a));
    }
    /* Opaque, so that gcc takes shifts and addresses from registers: one instruction each. */
    __asm__("" : "+r"(s.ranks), "+r"(s.second), "+r"(s.third));
    return s;
}

/* 'codes' are those of mb_block_quarter. */
MB_INLINE __m256i mb_codes_to_u(__m256i codes, unsigned a, const struct mb_spread *s)
{
    return a <= 4 ? _mm256_shuffle_epi8(s->code_to_u, codes) : _mm256_add_epi8(codes, s->code_to_u);
}

MB_INLINE uint64_t mb_escapes_of_u(__m256i u, unsigned a, const struct mb_spread *s)
{
    return (uint32_t)_mm256_movemask_epi8(a <= 4 ? u : _mm256_cmpeq_epi8(u, s->escape));
}

/* The table's row for the k-th eleven bits of a mask, which 'rows' holds from bit 6 on. */
MB_INLINE __m256i mb_ranks_at(const struct mb_spread *s, uint64_t rows, size_t k)
{
    size_t row = rows & (MB_RANKS_ROWS - 1) << 6;
    return _mm256_loadu_si256((const __m256i *)(s->ranks + row + MB_RANKS_BEGIN - MB_RANKS_BITS * k));
}

/* u with the next tail bytes added to its escapes, of which there are at most MB_SPREAD_REACH. */
MB_INLINE __m256i mb_spread_32(__m256i u, uint64_t escapes, const struct mb_spread *s, const uint8_t *tail)
{
    uint64_t rows = escapes << 6; /* a row is 64 bytes */
    __m256i from = _mm256_add_epi8(mb_ranks_at(s, rows >> s->second, 1), mb_ranks_at(s, rows >> s->third, 2));
    from = _mm256_add_epi8(from, mb_ranks_at(s, rows, 0));
    __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)tail));
    return _mm256_add_epi8(u, _mm256_shuffle_epi8(bytes, from));
}

/* Set bits. gcc would clear the register first, which only old processors need. */
MB_INLINE uint64_t mb_count_escapes(uint64_t escapes)
{
    uint64_t n;
    __asm__("popcnt %1, %0" : "=r"(n) : "r"(escapes) : "cc");
    return n;
}

/* 128 codes of two bits from 32 bytes; every second one times four. */
MB_INLINE void mb_unpack_pairs_avx2(const uint8_t *p, __m256i out[4])
{
    __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7), mask = _mm256_set1_epi16(0x0c03);
    __m256i v = _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)p), order);
    __m256i high = _mm256_srli_epi16(v, 4);
    __m256i first = _mm256_unpacklo_epi8(v, high), second = _mm256_unpackhi_epi8(v, high);
    out[0] = _mm256_and_si256(_mm256_unpacklo_epi8(first, first), mask);
    out[1] = _mm256_and_si256(_mm256_unpackhi_epi8(first, first), mask);
    out[2] = _mm256_and_si256(_mm256_unpacklo_epi8(second, second), mask);
    out[3] = _mm256_and_si256(_mm256_unpackhi_epi8(second, second), mask);
}

/*
 * 32 codes of three bits from 12 bytes (16 are read), each times two, with an unspecified bit below.  In each
 * 16-bit lane, the upper half of one product moves the first code down to its byte, and the lower half of
 * another moves the second code up.
 */
MB_INLINE __m256i mb_unpack_triples_avx2(const uint8_t *p)
{
    static const _Alignas(32) uint8_t from[32] = {0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4,  4,  5,  5,  5,
                                                  6, 6, 6, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 11, 11, 11};
    static const _Alignas(32)
        uint16_t down[16] = {1 << 9, 1 << 11, 1 << 13, 1 << 15, 1 << 9, 1 << 11, 1 << 13, 1 << 15,
                             1 << 9, 1 << 11, 1 << 13, 1 << 15, 1 << 9, 1 << 11, 1 << 13, 1 << 15};
    static const _Alignas(32) uint16_t up[16] = {1 << 6, 1, 1 << 2, 1 << 4, 1 << 6, 1, 1 << 2, 1 << 4,
                                                 1 << 6, 1, 1 << 2, 1 << 4, 1 << 6, 1, 1 << 2, 1 << 4};
    __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
    v = _mm256_shuffle_epi8(v, _mm256_load_si256((const __m256i *)from));
    __m256i first = _mm256_mulhi_epu16(v, _mm256_load_si256((const __m256i *)down));
    __m256i second = _mm256_mullo_epi16(v, _mm256_load_si256((const __m256i *)up));
    v = _mm256_blendv_epi8(first, second, _mm256_set1_epi16((short)0xff00));
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

/*
 * A block that is being decoded: its codes as u, and where its escapes are.  The codes of a quarter wait one
 * step before they become u.
 */
struct mb_block {
    __m256i u[4];
    uint64_t escapes[4];
    __m256i waiting; /* codes of the quarter before */
};

/*
 * The codes of quarter k of the block at p; those of the quarter before become u.  The caller takes quarters
 * in order, and keeps 'codes' between them.
 */
MB_INLINE void mb_block_quarter(struct mb_block *block, size_t k, const uint8_t *p, unsigned a,
                                const struct mb_spread *s, __m256i codes[4])
{
    __m256i v;
    if (a == 2) {
        if (k == 0)
            mb_unpack_pairs_avx2(p, codes);
        v = codes[k];
    } else if (a == 4) {
        if (k < 2) {
            codes[k] = _mm256_loadu_si256((const __m256i *)(p + 32 * k));
            __asm__("" : "+x"(codes[k])); /* gcc would load it twice, and it spans two cache lines */
        }
        v = _mm256_and_si256(k < 2 ? codes[k] : _mm256_srli_epi16(codes[k - 2], 4), s->low);
    } else if (a == 3) {
        v = mb_unpack_triples_avx2(p + 12 * k);
    } else {
        v = mb_unpack_32_avx2(p + 4 * a * k, a, &s->unpack);
    }
    size_t before = (k + 3) % 4;
    block->u[before] = mb_codes_to_u(block->waiting, a, s);
    block->escapes[before] = mb_escapes_of_u(block->u[before], a, s);
    block->waiting = v;
}

/* Plain codes, as mb_unpack_codes_avx2 writes them, as u. */
MB_INLINE __m256i mb_plain_codes_to_u(__m256i codes, unsigned a, const struct mb_spread *s)
{
    return mb_codes_to_u(a == 3 ? _mm256_add_epi8(codes, codes) : codes, a, s);
}

MB_INLINE void mb_block_of(struct mb_block *block, const uint8_t *p, unsigned a, const struct mb_spread *s)
{
    __m256i codes[4];
    block->waiting = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++)
        mb_block_quarter(block, k, p, a, s, codes);
}

#endif
