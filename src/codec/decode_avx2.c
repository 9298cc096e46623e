/*
 * decode_avx2.c - a row group's codes to bytes in L1.
 *
 * Bodies are unpacked 32 codes at a time, and the tail by pdep.  Where escapes are more than a few, vpshufb
 * moves tail bytes under their lanes, with indices from tables for masks of eight: the same time whatever
 * their number, and in one pass with the unpacking of widths 2 to 4.  Where they are few, another pass walks
 * their places, 64 weights at a time, and puts the tail's bytes there one by one.  The walk takes a fixed
 * number of steps that suits the group's share of escapes, so that its branches are predictable: steps behind
 * the last escape write to the first byte of the next 64, which is put back.
 */
#include "codec/spread_avx2.h"
#include <string.h>

/* More escapes than this in 128 weights are moved by vpshufb. */
enum { SPREAD_SHARE = 4 };

/* Of 16-bit lane i of 16: its first byte (widths to 4 have all codes in 16 bytes), and its factor. */
#define FROM(w, i) (2 * (w) * ((i) % 8) / 8 + ((w) <= 4 ? (i) / 8 * 2 * (w) : 0))
#define MOVE(w, i) (1u << (16 - 2 * (w)-2 * (w) * ((i) % 8) % 8))
#define TWO_FROM(w, i) FROM(w, i), FROM(w, i) + 1
#define FOUR_OF(OF, w, i) OF(w, i), OF(w, (i) + 1), OF(w, (i) + 2), OF(w, (i) + 3)
#define ALL_OF(OF, w) FOUR_OF(OF, w, 0), FOUR_OF(OF, w, 4), FOUR_OF(OF, w, 8), FOUR_OF(OF, w, 12)
#define UNPACK_TABLE(w)        \
    {                          \
        {ALL_OF(TWO_FROM, w)}, \
        {                      \
            ALL_OF(MOVE, w)    \
        }                      \
    }
const _Alignas(32) struct mb_unpack_table_avx2 mb_unpack_tables_avx2[7] = {
    {{0}, {0}},      UNPACK_TABLE(1), UNPACK_TABLE(2), UNPACK_TABLE(3),
    UNPACK_TABLE(4), UNPACK_TABLE(5), UNPACK_TABLE(6),
};

MB_INLINE void unpack_stream(const uint8_t *p, size_t n, unsigned a, unsigned base, uint8_t *out)
{
    struct mb_unpack_avx2 unpack = mb_unpack_of_width_avx2(a);
    __m256i add = _mm256_set1_epi8((char)base);
    for (size_t i = 0; i < n; i += 32, p += 4 * a) {
        _mm_prefetch((const char *)p + MB_PREFETCH_NBYTES, _MM_HINT_T0);
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_add_epi8(mb_unpack_32_avx2(p, a, &unpack), add));
    }
}

/* 128 codes of two bits from 32 bytes: four planes, interleaved. */
MB_INLINE void unpack_pairs_of_bits(const uint8_t *p, __m256i out[4])
{
    __m256i low = _mm256_set1_epi8(3), order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    __m256i v = _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)p), order), plane[4];
    plane[0] = _mm256_and_si256(v, low);
    plane[1] = _mm256_and_si256(_mm256_srli_epi16(v, 2), low);
    plane[2] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
    plane[3] = _mm256_and_si256(_mm256_srli_epi16(v, 6), low);
    __m256i even = _mm256_unpacklo_epi8(plane[0], plane[1]), odd = _mm256_unpacklo_epi8(plane[2], plane[3]);
    out[0] = _mm256_unpacklo_epi16(even, odd);
    out[1] = _mm256_unpackhi_epi16(even, odd);
    even = _mm256_unpackhi_epi8(plane[0], plane[1]);
    odd = _mm256_unpackhi_epi8(plane[2], plane[3]);
    out[2] = _mm256_unpacklo_epi16(even, odd);
    out[3] = _mm256_unpackhi_epi16(even, odd);
}

static void unpack_width_2(const uint8_t *p, size_t n, unsigned base, uint8_t *out)
{
    __m256i add = _mm256_set1_epi8((char)base), v[4];
    for (size_t i = 0; i < n; i += 128, p += 32) {
        _mm_prefetch((const char *)p + MB_PREFETCH_NBYTES, _MM_HINT_T0);
        unpack_pairs_of_bits(p, v);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            _mm256_storeu_si256((__m256i *)(out + i + 32 * k), _mm256_add_epi8(v[k], add));
    }
}

/* Eight codes a step: wide bodies, and tails. */
MB_INLINE void unpack_pdep(const uint8_t *p, size_t n, unsigned width, unsigned base, uint8_t *out)
{
    const uint64_t ones = 0x0101010101010101;
    uint64_t low = ones * ((1u << width) - 1), add = ones * base;
    for (size_t i = 0; i < n; i += 8, p += width)
        mb_store_u64(out + i, _pdep_u64(mb_load_u64(p), low) + add); /* 127 + 64: no carry */
}

/* Half a block: codes in the low halves of nbytes bytes, or in the high halves. Writes up to 31 bytes more.
 */
MB_INLINE void unpack_nibbles(const uint8_t *p, size_t nbytes, bool high, unsigned base, uint8_t *out)
{
    __m256i low = _mm256_set1_epi8(15), add = _mm256_set1_epi8((char)base);
    for (size_t i = 0; i < nbytes; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(p + i));
        v = _mm256_and_si256(high ? _mm256_srli_epi16(v, 4) : v, low);
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_add_epi8(v, add));
    }
}

static void unpack_width_4(const uint8_t *p, size_t n, unsigned base, uint8_t *out)
{
    for (; n >= 128; n -= 128, p += 64, out += 128) {
        _mm_prefetch((const char *)p + MB_PREFETCH_NBYTES, _MM_HINT_T0);
        unpack_nibbles(p, 64, false, base, out);
        unpack_nibbles(p, 64, true, base, out + 64);
    }
    size_t half = (n + 1) / 2;
    unpack_nibbles(p, half, false, base, out);
    unpack_nibbles(p, n - half, true, base, out + half);
}

static void unpack_body(const uint8_t *p, size_t n, unsigned a, unsigned base, uint8_t *out)
{
    switch (a) {
    case 0:
        memset(out, 0, n);
        break;
    case 1:
        unpack_stream(p, n, 1, base, out);
        break;
    case 2:
        unpack_width_2(p, n, base, out);
        break;
    case 3:
        unpack_stream(p, n, 3, base, out);
        break;
    case 4:
        unpack_width_4(p, n, base, out);
        break;
    case 5:
        unpack_stream(p, n, 5, base, out);
        break;
    case 6:
        unpack_stream(p, n, 6, base, out);
        break;
    case 7:
        unpack_pdep(p, n, 7, base, out);
        break;
    default: /* 8: no escapes */
        memcpy(out, p, n);
    }
}

void mb_unpack_codes_avx2(const uint8_t *p, size_t n, unsigned a, uint8_t *out)
{
    unpack_body(p, n, a, 0, out);
}

/*
 * The tail's codes as bytes u = q + M + T less 'escape'; sixteen at a time in a register, since pdep's stores
 * could not be reloaded soon.
 */
static void decode_tail(const struct mb_group_view *group, unsigned escape, uint8_t *out)
{
    const uint8_t *tail = group->tail;
    size_t n = group->n_escapes, b = group->b;
    int half = mb_tail_half(group->b), inner = mb_inner_max(group->a), offset = inner + half - (int)escape;
    uint64_t low = 0x0101010101010101 * ((1u << b) - 1);
    __m128i halves = _mm_set1_epi8((char)(half - 1));
    __m128i negative = _mm_set1_epi8((char)(offset - (inner + 1)));
    __m128i positive = _mm_set1_epi8((char)(offset + inner + 1 - half));
    for (size_t i = 0; i < n; i += 16, tail += 2 * b) {
        uint64_t first = _pdep_u64(mb_load_u64(tail), low), second = _pdep_u64(mb_load_u64(tail + b), low);
        __m128i t = _mm_set_epi64x((int64_t)second, (int64_t)first);
        __m128i u =
            _mm_blendv_epi8(_mm_sub_epi8(negative, t), _mm_add_epi8(positive, t), _mm_cmpgt_epi8(t, halves));
        _mm_storeu_si128((__m128i *)(out + i), u);
    }
}

MB_INLINE uint64_t escapes_of_64(const uint8_t *u, __m256i escape)
{
    __m256i low = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)u), escape);
    __m256i high = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)(u + 32)), escape);
    return (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

/* Puts bytes of 'tail' in the places of the escapes of u[0 .. n). */
MB_INLINE void patch(uint8_t *u, size_t n, unsigned escape, const uint8_t *tail, size_t n_steps)
{
    __m256i escapes = _mm256_set1_epi8((char)escape);
    uint64_t places = escapes_of_64(u, escapes);
    for (size_t i = 0; i < n; i += 64, u += 64) {
        if (n - i < 64)
            places = _bzhi_u64(places, (unsigned)(n - i));
        uint8_t behind = u[64];
        uint64_t next = escapes_of_64(u + 64, escapes); /* before this round's stores, which would delay it */
        const uint8_t *next_tail = tail + _mm_popcnt_u64(places);
        do {
#pragma GCC unroll 24
            for (size_t k = 0; k < n_steps; k++) {
                u[_tzcnt_u64(places)] = tail[k];
                places = _blsr_u64(places);
            }
            tail += n_steps;
        } while (places != 0);
        u[64] = behind;
        tail = next_tail;
        places = next;
    }
}

/* Set bits of a byte. */
#define COUNT(m)                                                                                    \
    (((m)&1) + ((m) >> 1 & 1) + ((m) >> 2 & 1) + ((m) >> 3 & 1) + ((m) >> 4 & 1) + ((m) >> 5 & 1) + \
     ((m) >> 6 & 1) + ((m) >> 7 & 1))

/* Which of the next tail bytes goes to lane i of 8 with escapes m; an index with bit 7 gives 0. */
#define LANE(m, i) ((m) >> (i)&1 ? COUNT((m) & ((1 << (i)) - 1)) : 0x80)
#define LANES(m) \
    LANE(m, 0), LANE(m, 1), LANE(m, 2), LANE(m, 3), LANE(m, 4), LANE(m, 5), LANE(m, 6), LANE(m, 7)
#define COUNTS(m) COUNT(m), COUNT(m), COUNT(m), COUNT(m), COUNT(m), COUNT(m), COUNT(m), COUNT(m)

#define TABLE_4(ROW, m) ROW(m), ROW((m) + 1), ROW((m) + 2), ROW((m) + 3)
#define TABLE_16(ROW, m) TABLE_4(ROW, m), TABLE_4(ROW, (m) + 4), TABLE_4(ROW, (m) + 8), TABLE_4(ROW, (m) + 12)
#define TABLE_64(ROW, m) \
    TABLE_16(ROW, m), TABLE_16(ROW, (m) + 16), TABLE_16(ROW, (m) + 32), TABLE_16(ROW, (m) + 48)
#define TABLE_256(ROW) TABLE_64(ROW, 0), TABLE_64(ROW, 64), TABLE_64(ROW, 128), TABLE_64(ROW, 192)

/* The sum of a row of each is the shuffle of 16 lanes: the second eight begin behind the first eight's
 * escapes. */
#define FIRST_ROW(m)        \
    {                       \
        LANES(m), COUNTS(m) \
    }
#define SECOND_ROW(m)                    \
    {                                    \
        0, 0, 0, 0, 0, 0, 0, 0, LANES(m) \
    }
static const _Alignas(64) uint8_t first_eight[256][16] = {TABLE_256(FIRST_ROW)};
static const _Alignas(64) uint8_t second_eight[256][16] = {TABLE_256(SECOND_ROW)};

/*
 * Rows of mb_ranks_avx2: RANKS_n decides the last n of eleven lanes, in rows from m on; 'count' is that of
 * escapes so far, and behind it are the lanes that are decided, with a 0 before them.
 */
#define TEN(n) n, n, n, n, n, n, n, n, n, n
#define RANKS_0(m, count, ...) \
    [m] = {[MB_RANKS_BEGIN - 1] = __VA_ARGS__, TEN(count), TEN(count), TEN(count), count},
#define RANKS_1(m, count, ...) \
    RANKS_0(m, count, __VA_ARGS__, 0x80) RANKS_0(m + 1024, count + 1, __VA_ARGS__, count)
#define RANKS_2(m, count, ...) \
    RANKS_1(m, count, __VA_ARGS__, 0x80) RANKS_1(m + 512, count + 1, __VA_ARGS__, count)
#define RANKS_3(m, count, ...) \
    RANKS_2(m, count, __VA_ARGS__, 0x80) RANKS_2(m + 256, count + 1, __VA_ARGS__, count)
#define RANKS_4(m, count, ...) \
    RANKS_3(m, count, __VA_ARGS__, 0x80) RANKS_3(m + 128, count + 1, __VA_ARGS__, count)
#define RANKS_5(m, count, ...) \
    RANKS_4(m, count, __VA_ARGS__, 0x80) RANKS_4(m + 64, count + 1, __VA_ARGS__, count)
#define RANKS_6(m, count, ...) \
    RANKS_5(m, count, __VA_ARGS__, 0x80) RANKS_5(m + 32, count + 1, __VA_ARGS__, count)
#define RANKS_7(m, count, ...) \
    RANKS_6(m, count, __VA_ARGS__, 0x80) RANKS_6(m + 16, count + 1, __VA_ARGS__, count)
#define RANKS_8(m, count, ...) \
    RANKS_7(m, count, __VA_ARGS__, 0x80) RANKS_7(m + 8, count + 1, __VA_ARGS__, count)
#define RANKS_9(m, count, ...) \
    RANKS_8(m, count, __VA_ARGS__, 0x80) RANKS_8(m + 4, count + 1, __VA_ARGS__, count)
#define RANKS_10(m, count, ...) \
    RANKS_9(m, count, __VA_ARGS__, 0x80) RANKS_9(m + 2, count + 1, __VA_ARGS__, count)
#define RANKS_11(m, count, ...) \
    RANKS_10(m, count, __VA_ARGS__, 0x80) RANKS_10(m + 1, count + 1, __VA_ARGS__, count)
const _Alignas(64) uint8_t mb_ranks_avx2[MB_RANKS_ROWS][64] = {RANKS_11(0, 0, 0)};

/* See mb_spread_tail_avx2. u is base - 1 - t, or base + 2 M + 1 - T + t. */
MB_INLINE void spread_tail(const uint8_t *tail, unsigned a, unsigned b, size_t n_rounds, uint8_t *out)
{
    int base = (int)mb_base_avx2(a), half = mb_tail_half(b), escape = (int)mb_escape_avx2(a);
    __m256i negative = _mm256_set1_epi8((char)(base - 1 - escape));
    __m256i positive = _mm256_set1_epi8((char)(base + 2 * mb_inner_max(a) + 1 - half - escape));
    __m256i halves = _mm256_set1_epi8((char)(half - 1));
    struct mb_unpack_avx2 unpack = mb_unpack_of_width_avx2(b);
    for (size_t i = 0; i < n_rounds; i++, tail += 4 * b, out += 32) {
        __m256i t = mb_unpack_32_avx2(tail, b, &unpack);
        __m256i u = _mm256_blendv_epi8(_mm256_sub_epi8(negative, t), _mm256_add_epi8(positive, t),
                                       _mm256_cmpgt_epi8(t, halves));
        _mm256_storeu_si256((__m256i *)out, u);
    }
}

void mb_spread_tail_avx2(const uint8_t *tail, unsigned a, unsigned b, size_t n_rounds, uint8_t *out)
{
    switch (b) {
    case 1:
        spread_tail(tail, a, 1, n_rounds, out);
        break;
    case 2:
        spread_tail(tail, a, 2, n_rounds, out);
        break;
    case 3:
        spread_tail(tail, a, 3, n_rounds, out);
        break;
    case 4:
        spread_tail(tail, a, 4, n_rounds, out);
        break;
    case 5:
        spread_tail(tail, a, 5, n_rounds, out);
        break;
    case 6:
        spread_tail(tail, a, 6, n_rounds, out);
        break;
    default: /* 0: no escapes */
        break;
    }
}

MB_INLINE __m256i two_halves(const uint8_t *low, const uint8_t *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                                   _mm_loadu_si128((const __m128i *)high), 1);
}

/* 32 bytes whose escapes become the next tail bytes, which are moved under them and added. */
MB_INLINE __m256i spread_32(__m256i v, __m256i escape, const uint8_t **tail)
{
    uint64_t places = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, escape));
    uint64_t rows = places << 4; /* a row of the tables is 16 bytes */
    const uint8_t *first = &first_eight[0][0], *second = &second_eight[0][0];
    __m256i from = _mm256_add_epi8(two_halves(first + (rows & 0xff0), first + (rows >> 16 & 0xff0)),
                                   two_halves(second + (rows >> 8 & 0xff0), second + (rows >> 24 & 0xff0)));
    __m256i bytes = two_halves(*tail, *tail + _mm_popcnt_u64(places & 0xffff));
    *tail += _mm_popcnt_u64(places);
    return _mm256_add_epi8(v, _mm256_shuffle_epi8(bytes, from));
}

/* The same where escapes are many: tail bytes are moved under their lanes, and added. */
static void spread(uint8_t *u, size_t n, unsigned escape, const uint8_t *tail)
{
    __m256i escapes = _mm256_set1_epi8((char)escape);
    for (size_t i = 0; i < n; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(u + i));
        _mm256_storeu_si256((__m256i *)(u + i), spread_32(v, escapes, &tail));
    }
}

/* 128 body codes as bytes; a is 2, 3 or 4. */
MB_INLINE void unpack_128(const uint8_t *p, unsigned a, const struct mb_unpack_avx2 *unpack, __m256i add,
                          __m256i v[4])
{
    if (a == 2) {
        unpack_pairs_of_bits(p, v);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            v[k] = _mm256_add_epi8(v[k], add);
    } else if (a == 4) {
        __m256i low = _mm256_set1_epi8(15);
        __m256i first = _mm256_loadu_si256((const __m256i *)p),
                second = _mm256_loadu_si256((const __m256i *)(p + 32));
        v[0] = _mm256_add_epi8(_mm256_and_si256(first, low), add);
        v[1] = _mm256_add_epi8(_mm256_and_si256(second, low), add);
        v[2] = _mm256_add_epi8(_mm256_and_si256(_mm256_srli_epi16(first, 4), low), add);
        v[3] = _mm256_add_epi8(_mm256_and_si256(_mm256_srli_epi16(second, 4), low), add);
    } else {
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            v[k] = _mm256_add_epi8(mb_unpack_32_avx2(p + 4 * a * k, a, unpack), add);
    }
}

/* Bodies and tails in one pass. */
MB_INLINE void unpack_and_spread(const struct mb_group_view *group, unsigned a, unsigned base,
                                 unsigned escape, const uint8_t *tail, uint8_t *out)
{
    const uint8_t *p = group->body;
    size_t i = 0, n = group->n;
    struct mb_unpack_avx2 unpack = mb_unpack_of_width_avx2(a);
    __m256i add = _mm256_set1_epi8((char)base), escapes = _mm256_set1_epi8((char)escape), v[4];
    for (; i + 128 <= n; i += 128, p += 16 * a) {
        _mm_prefetch((const char *)p + MB_PREFETCH_NBYTES, _MM_HINT_T0);
        unpack_128(p, a, &unpack, add, v);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++)
            _mm256_storeu_si256((__m256i *)(out + i + 32 * k), spread_32(v[k], escapes, &tail));
    }
    unpack_body(p, n - i, a, base, out + i);
    spread(out + i, n - i, escape, tail);
}

/*
 * Steps that suffice for all but a few in a hundred of the rounds of 64: almost two deviations above the
 * mean.  A step costs about 1.3 cycles, a second round a mispredicted branch.
 */
static void patch_by_share(uint8_t *u, size_t n, unsigned escape, const uint8_t *tail, size_t n_escapes)
{
    static const uint8_t n_steps_of_share[SPREAD_SHARE + 1] = {2, 2, 4, 4, 6};
    switch (n_steps_of_share[128 * n_escapes / n]) {
    case 2:
        patch(u, n, escape, tail, 2);
        break;
    case 4:
        patch(u, n, escape, tail, 4);
        break;
    default:
        patch(u, n, escape, tail, 6);
    }
}

void mb_group_bytes_avx2(const struct mb_group_view *group, uint8_t *out)
{
    unsigned a = group->a, b = group->b, base = (1u << b) / 2, escape = (1u << a) - 1 + base;
    bool is_spread = 128 * (size_t)group->n_escapes / group->n > SPREAD_SHARE;
    uint8_t tail[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    if (is_spread) {
        decode_tail(group, escape, tail);
        if (a == 2) {
            unpack_and_spread(group, 2, base, escape, tail, out);
        } else if (a == 3) {
            unpack_and_spread(group, 3, base, escape, tail, out);
        } else if (a == 4) {
            unpack_and_spread(group, 4, base, escape, tail, out);
        } else {
            unpack_body(group->body, group->n, a, base, out);
            spread(out, group->n, escape, tail);
        }
        return;
    }
    unpack_body(group->body, group->n, a, base, out);
    if (group->n_escapes == 0)
        return;
    decode_tail(group, 0, tail);
    patch_by_share(out, group->n, escape, tail, group->n_escapes);
}
