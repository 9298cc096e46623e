/*
 * decode_avx2.c - a row group's codes to indices q in L1.
 *
 * Most groups go through spread_avx2.h.  Those of widths 1, 7 and 8, and those with many escapes or many
 * close together, are decoded the plain way: 16 weights at a time, which 16 tail bytes always cover.
 */
#include "by_width.h"
#include "spread_avx2.h"
#include <string.h>

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

/*
 * Rows of mb_ranks_avx2: RANKS_n adds the last n of eleven lanes, each with and without an escape, to rows
 * from m on. 'count' is the number of escapes so far; after it come a 0 and the lanes that are decided.
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

#define SPREAD_TAIL(b)                                                                          \
    static void spread_tail_##b(const uint8_t *tail, unsigned a, size_t n_rounds, uint8_t *out) \
    {                                                                                           \
        spread_tail(tail, a, b, n_rounds, out);                                                 \
    }
MB_WIDTHS_1_TO_6(SPREAD_TAIL)

static void no_tail(const uint8_t *tail, unsigned a, size_t n_rounds, uint8_t *out)
{
    (void)tail, (void)a, (void)n_rounds, (void)out;
}

static void (*const spread_tail_of_width[])(const uint8_t *tail, unsigned a, size_t n_rounds,
                                            uint8_t *out) = {no_tail, MB_NAMES_1_TO_6(spread_tail)};

void mb_spread_tail_avx2(const uint8_t *tail, unsigned a, unsigned b, size_t n_rounds, uint8_t *out)
{
    spread_tail_of_width[b](tail, a, n_rounds, out);
}

/* ---------------------------------------------------------------- the plain way */

static void unpack_width_0(const uint8_t *p, size_t n, unsigned base, uint8_t *out)
{
    (void)p, (void)base; /* all codes are 0, and base is, too */
    memset(out, 0, n);
}

MB_INLINE void unpack_stream(const uint8_t *p, size_t n, unsigned a, unsigned base, uint8_t *out)
{
    struct mb_unpack_avx2 unpack = mb_unpack_of_width_avx2(a);
    __m256i add = _mm256_set1_epi8((char)base);
    for (size_t i = 0; i < n; i += 32, p += 4 * a)
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_add_epi8(mb_unpack_32_avx2(p, a, &unpack), add));
}

#define UNPACK_WIDTH(a)                                                                   \
    static void unpack_width_##a(const uint8_t *p, size_t n, unsigned base, uint8_t *out) \
    {                                                                                     \
        unpack_stream(p, n, a, base, out);                                                \
    }
MB_WIDTHS_1_TO_3(UNPACK_WIDTH)
UNPACK_WIDTH(5)
UNPACK_WIDTH(6)

/* Eight codes of seven bits a step. */
static void unpack_width_7(const uint8_t *p, size_t n, unsigned base, uint8_t *out)
{
    __m128i add = _mm_set1_epi8((char)base);
    for (size_t i = 0; i < n; i += 8, p += 7) {
        uint64_t codes = _pdep_u64(mb_load_u64(p), 0x7f7f7f7f7f7f7f7f);
        _mm_storel_epi64((__m128i *)(out + i), _mm_add_epi8(_mm_cvtsi64_si128((int64_t)codes), add));
    }
}

static void unpack_width_8(const uint8_t *p, size_t n, unsigned base, uint8_t *out)
{
    __m256i add = _mm256_set1_epi8((char)base);
    for (size_t i = 0; i < n; i += 32)
        _mm256_storeu_si256((__m256i *)(out + i),
                            _mm256_add_epi8(_mm256_loadu_si256((const __m256i *)(p + i)), add));
}

/* Half a block: codes from the low or the high halves of nbytes bytes. Writes up to 31 bytes more. */
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
        unpack_nibbles(p, 64, false, base, out);
        unpack_nibbles(p, 64, true, base, out + 64);
    }
    size_t half = (n + 1) / 2;
    unpack_nibbles(p, half, false, base, out);
    unpack_nibbles(p, n - half, true, base, out + half);
}

/* Codes plus 'base' (mod 256) of n weights. */
static void (*const unpack_of_width[])(const uint8_t *p, size_t n, unsigned base,
                                       uint8_t *out) = {unpack_width_0, MB_NAMES_1_TO_8(unpack_width)};

void mb_unpack_codes_avx2(const uint8_t *p, size_t n, unsigned a, uint8_t *out)
{
    unpack_of_width[a](p, n, 0, out);
}

/*
 * The tail's indices less that of the body code of escapes, M + 1.  Sixteen at a time in a register: to store
 * what pdep gives and load it as one vector would wait for the stores.
 */
static void decode_tail(const struct mb_group_view *group, uint8_t *out)
{
    const uint8_t *tail = group->tail;
    size_t n = group->n_escapes, b = group->b;
    int half = mb_tail_half(group->b), inner = mb_inner_max(group->a);
    uint64_t low = 0x0101010101010101 * ((1u << b) - 1);
    __m128i halves = _mm_set1_epi8((char)(half - 1));
    __m128i negative = _mm_set1_epi8((char)(-2 * (inner + 1))); /* less t */
    __m128i positive = _mm_set1_epi8((char)-half);              /* plus t */
    for (size_t i = 0; i < n; i += 16, tail += 2 * b) {
        uint64_t first = _pdep_u64(mb_load_u64(tail), low), second = _pdep_u64(mb_load_u64(tail + b), low);
        __m128i t = _mm_set_epi64x((int64_t)second, (int64_t)first);
        __m128i u =
            _mm_blendv_epi8(_mm_sub_epi8(negative, t), _mm_add_epi8(positive, t), _mm_cmpgt_epi8(t, halves));
        _mm_storeu_si128((__m128i *)(out + i), u);
    }
}

static void plain_indices(const struct mb_group_view *group, int8_t *q)
{
    int inner = mb_inner_max(group->a);
    unpack_of_width[group->a](group->body, group->n, (unsigned)-inner, (uint8_t *)q);
    if (group->n_escapes == 0)
        return;
    uint8_t tail_bytes[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    decode_tail(group, tail_bytes);
    const uint8_t *tail = tail_bytes;
    __m128i escape = _mm_set1_epi8((char)(inner + 1));
    for (size_t i = 0; i < group->n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(q + i));
        unsigned escapes = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, escape));
        const uint8_t *first = mb_ranks_avx2[escapes % MB_RANKS_ROWS] + MB_RANKS_BEGIN;
        const uint8_t *second = mb_ranks_avx2[escapes / MB_RANKS_ROWS] + MB_RANKS_BEGIN - MB_RANKS_BITS;
        __m128i from =
            _mm_add_epi8(_mm_loadu_si128((const __m128i *)first), _mm_loadu_si128((const __m128i *)second));
        __m128i bytes = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)tail), from);
        _mm_storeu_si128((__m128i *)(q + i), _mm_add_epi8(v, bytes));
        tail += _mm_popcnt_u32(escapes);
    }
}

/* ---------------------------------------------------------------- by blocks */

/* False where 32 weights have too many escapes. */
MB_INLINE bool spread_indices(const struct mb_group_view *group, unsigned a, int8_t *q)
{
    uint8_t tail_bytes[MB_GROUP_WEIGHTS_MAX / 4 + 64], codes[MB_BLOCK + MB_DECODED_SLACK];
    mb_spread_tail_avx2(group->tail, a, group->b, (group->n_escapes + 31u) / 32, tail_bytes);
    struct mb_spread spread = mb_spread_of_width(a);
    __m256i offset = _mm256_set1_epi8((char)(mb_inner_max(a) + (int)mb_base_avx2(a)));
    const uint8_t *p = group->body, *tail = tail_bytes;
    size_t i = 0, n = group->n;
    struct mb_block block;
    if (n >= MB_BLOCK)
        mb_block_of(&block, p, a, &spread);
    for (; i + MB_BLOCK <= n; i += MB_BLOCK) {
        __m256i next[4];
        p += i + 2 * MB_BLOCK <= n ? MB_BLOCK / 8 * a : 0;
        _mm_prefetch((const char *)p + MB_PREFETCH_NBYTES, _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++) {
            size_t n_escapes = mb_count_escapes(block.escapes[k]);
            if (n_escapes > MB_SPREAD_REACH)
                return false;
            __m256i u = mb_spread_32(block.u[k], block.escapes[k], &spread, tail);
            _mm256_storeu_si256((__m256i *)(q + i + 32 * k), _mm256_sub_epi8(u, offset));
            tail += n_escapes;
            mb_block_quarter(&block, k, p, a, &spread, next);
        }
    }
    mb_unpack_codes_avx2(group->body + i / 8 * a, n - i, a, codes);
    for (size_t k = 0; i < n; i += 32, k += 32) {
        __m256i u = mb_plain_codes_to_u(_mm256_loadu_si256((const __m256i *)(codes + k)), a, &spread);
        uint64_t escapes = _bzhi_u64(mb_escapes_of_u(u, a, &spread), (unsigned)(n - i));
        size_t n_escapes = mb_count_escapes(escapes);
        if (n_escapes > MB_SPREAD_REACH)
            return false;
        u = mb_spread_32(u, escapes, &spread, tail);
        _mm256_storeu_si256((__m256i *)(q + i), _mm256_sub_epi8(u, offset));
        tail += n_escapes;
    }
    return true;
}

#define SPREAD_INDICES(a)                                                        \
    static bool spread_indices_##a(const struct mb_group_view *group, int8_t *q) \
    {                                                                            \
        return spread_indices(group, a, q);                                      \
    }
MB_WIDTHS_2_TO_6(SPREAD_INDICES)

static bool (*const spread_indices_of_width[])(const struct mb_group_view *group,
                                               int8_t *q) = {NULL, NULL, MB_NAMES_2_TO_6(spread_indices)};

void mb_group_indices_avx2(const struct mb_group_view *group, int8_t *q)
{
    if (!mb_can_spread(group) || !spread_indices_of_width[group->a](group, q))
        plain_indices(group, q);
}
