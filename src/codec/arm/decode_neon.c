/*
 * decode_neon.c - a row group's codes to indices q in L1.
 *
 * Bodies are unpacked to bytes first, escapes as they are.  Then the tail, decoded to bytes, is added to the
 * escapes, 16 weights at a time, which 16 tail bytes always cover.  TBL moves the next tail bytes to the
 * escapes, and 0 to the others.  It needs the number of escapes before each lane; a product with 0x01010101
 * sums the four bytes of a 32-bit lane, from the first to each:
 *
 *       codes                       3   E   1   E | E   0   0   E | ...
 *       is escape                   0   1   0   1 | 1   0   0   1 | ...
 *       times 0x01010101            0   1   1   2 | 1   1   1   2 | ...    among the lane's four bytes
 *       sums of the fourth bytes    2   4  ...                             by TBL and the same product
 *       escapes up to this byte     0   1   1   2 | 3   3   3   4 | ...    the first plus those before its
 * four
 */
#include "simd_neon.h"
#include <string.h>

/*
 * Sixteen codes of 'width' <= 6 bits from 2 width bytes: each 16-bit lane gets the two bytes that hold its
 * two codes (2 width bits from an even bit on: never more than 16), and is shifted once for each code.
 */
struct pairs_table {
    uint8_t from[16];
    int16_t first[8], second[8]; /* shifts to the left: of the first code to bit 0, of the second to bit 8 */
};
#define BIT_OF(w, i) (2 * (w) * (i) % 8)
#define BYTES_OF(w, i) 2 * (w) * (i) / 8, 2 * (w) * (i) / 8 + 1
#define FIRST_OF(w, i) -BIT_OF(w, i)
#define SECOND_OF(w, i) 8 - (w)-BIT_OF(w, i)
#define EIGHT(OF, w) OF(w, 0), OF(w, 1), OF(w, 2), OF(w, 3), OF(w, 4), OF(w, 5), OF(w, 6), OF(w, 7)
#define PAIRS_TABLE(w)                              \
    {                                               \
        {EIGHT(BYTES_OF, w)}, {EIGHT(FIRST_OF, w)}, \
        {                                           \
            EIGHT(SECOND_OF, w)                     \
        }                                           \
    }
static const struct pairs_table pairs_tables[7] = {
    {{0}, {0}, {0}}, PAIRS_TABLE(1), PAIRS_TABLE(2), PAIRS_TABLE(3),
    PAIRS_TABLE(4),  PAIRS_TABLE(5), PAIRS_TABLE(6),
};

/* n codes, up to 15 more, plus 'add' (mod 256). */
static void unpack_pairs(const uint8_t *p, size_t n, unsigned width, unsigned add, uint8_t *out)
{
    const struct pairs_table *table = &pairs_tables[width];
    uint8x16_t from = vld1q_u8(table->from), adds = vdupq_n_u8((uint8_t)add);
    uint8x16_t low = vdupq_n_u8((uint8_t)((1u << width) - 1));
    int16x8_t first = vld1q_s16(table->first), second = vld1q_s16(table->second);
    uint16x8_t low_bytes = vdupq_n_u16(0x00ff);
    for (size_t i = 0; i < n; i += 16, p += 2 * width) {
        uint16x8_t v = vreinterpretq_u16_u8(vqtbl1q_u8(vld1q_u8(p), from));
        uint8x16_t codes =
            vreinterpretq_u8_u16(vbslq_u16(low_bytes, vshlq_u16(v, first), vshlq_u16(v, second)));
        vst1q_u8(out + i, vaddq_u8(vandq_u8(codes, low), adds));
    }
}

/* Of seven bits: a lane of 16 bits for each code. Eight codes are in seven bytes. */
static void unpack_sevens(const uint8_t *p, size_t n, unsigned add, uint8_t *out)
{
    static const uint8_t bytes[16] = {0, 1, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7};
    static const int16_t shifts[8] = {0, -7, -6, -5, -4, -3, -2, -1};
    uint8x16_t from = vld1q_u8(bytes);
    int16x8_t down = vld1q_s16(shifts);
    for (size_t i = 0; i < n; i += 8, p += 7) {
        uint16x8_t v = vreinterpretq_u16_u8(vqtbl1q_u8(vcombine_u8(vld1_u8(p), vdup_n_u8(0)), from));
        uint8x8_t codes = vand_u8(vmovn_u16(vshlq_u16(v, down)), vdup_n_u8(0x7f));
        vst1_u8(out + i, vadd_u8(codes, vdup_n_u8((uint8_t)add)));
    }
}

static void unpack_bytes(const uint8_t *p, size_t n, unsigned add, uint8_t *out)
{
    for (size_t i = 0; i < n; i += 16)
        vst1q_u8(out + i, vaddq_u8(vld1q_u8(p + i), vdupq_n_u8((uint8_t)add)));
}

/* A bit stream of any width. */
static void unpack_stream(const uint8_t *p, size_t n, unsigned width, unsigned add, uint8_t *out)
{
    if (width == 0)
        memset(out, (int)(uint8_t)add, n);
    else if (width == 7)
        unpack_sevens(p, n, add, out);
    else if (width == 8)
        unpack_bytes(p, n, add, out);
    else
        unpack_pairs(p, n, width, add, out);
}

/* The codes in the low or the high halves of nbytes bytes, and up to 15 more. */
MB_INLINE void unpack_nibbles(const uint8_t *p, size_t nbytes, bool high, unsigned add, uint8_t *out)
{
    uint8x16_t adds = vdupq_n_u8((uint8_t)add), low = vdupq_n_u8(15);
    for (size_t i = 0; i < nbytes; i += 16) {
        uint8x16_t v = vld1q_u8(p + i);
        vst1q_u8(out + i, vaddq_u8(high ? vshrq_n_u8(v, 4) : vandq_u8(v, low), adds));
    }
}

/* Bodies of width 4: blocks of 128 codes, the second half of a block in the high halves of its bytes. */
static void unpack_body_4(const uint8_t *p, size_t n, unsigned add, uint8_t *out)
{
    for (; n >= 128; n -= 128, p += 64, out += 128) {
        unpack_nibbles(p, 64, false, add, out);
        unpack_nibbles(p, 64, true, add, out + 64);
    }
    size_t half = (n + 1) / 2;
    unpack_nibbles(p, half, false, add, out);
    unpack_nibbles(p, n - half, true, add, out + half);
}

/* The tail's indices less that of the body code of escapes, M + 1. */
static void decode_tail(const struct mb_group_view *group, uint8_t *out)
{
    int half = mb_tail_half(group->b), inner = mb_inner_max(group->a);
    unpack_stream(group->tail, group->n_escapes, group->b, 0, out);
    uint8x16_t halves = vdupq_n_u8((uint8_t)half);
    uint8x16_t negative = vdupq_n_u8((uint8_t)(-2 * (inner + 1))); /* less t */
    for (size_t i = 0; i < group->n_escapes; i += 16) {
        uint8x16_t t = vld1q_u8(out + i);
        vst1q_u8(out + i, vbslq_u8(vcltq_u8(t, halves), vsubq_u8(negative, t), vsubq_u8(t, halves)));
    }
}

/* The first to each byte of every four, summed; sums stay below 256. */
MB_INLINE uint8x16_t sum_in_fours(uint8x16_t v)
{
    return vreinterpretq_u8_u32(vmulq_n_u32(vreinterpretq_u32_u8(v), 0x01010101));
}

/* Adds the tail to the escapes among n indices. */
static void spread_tail(const uint8_t *tail, size_t n, int escape_index, uint8_t *q)
{
    static const uint8_t fourths[16] = {3,    7,    11,   15,   0xff, 0xff, 0xff, 0xff,
                                        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t befores[16] = {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2};
    uint8x16_t fourth = vld1q_u8(fourths), before = vld1q_u8(befores),
               escape = vdupq_n_u8((uint8_t)escape_index);
    for (size_t i = 0; i < n; i += 16) {
        uint8x16_t v = vld1q_u8(q + i), is_escape = vceqq_u8(v, escape);
        uint8x16_t in_four = sum_in_fours(vshrq_n_u8(is_escape, 7));
        uint8x16_t of_fours = sum_in_fours(vqtbl1q_u8(in_four, fourth));
        uint8x16_t up_to = vaddq_u8(in_four, vqtbl1q_u8(of_fours, before));
        /* Less one for escapes, whose byte is all ones; beyond any tail byte for the others. */
        uint8x16_t from = vornq_u8(vaddq_u8(up_to, is_escape), is_escape);
        vst1q_u8(q + i, vaddq_u8(v, vqtbl1q_u8(vld1q_u8(tail), from)));
        tail += vgetq_lane_u8(of_fours, 3);
    }
}

void mb_group_indices_neon(const struct mb_group_view *group, int8_t *q)
{
    uint8_t *out = (uint8_t *)q;
    int inner = mb_inner_max(group->a);
    if (group->a == 4)
        unpack_body_4(group->body, group->n, (unsigned)-inner, out);
    else
        unpack_stream(group->body, group->n, group->a, (unsigned)-inner, out);
    if (group->n_escapes == 0)
        return;
    uint8_t tail[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    decode_tail(group, tail);
    spread_tail(tail, group->n, inner + 1, out);
}
