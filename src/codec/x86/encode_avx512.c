/*
 * encode_avx512.c - the encoder of row groups (encode_kernels.h) on AVX-512: 16 weights are quantised at a
 * time, and 64 codes made and packed at a time.
 *
 * AVX2 packs by another design: without compression by a mask it first writes all codes, one a byte.
 */
#include "by_width.h"
#include "encode.h"
#include "simd_avx512.h"

#define NAMED(name) name##_avx512
enum { BLOCK = 16, BYTES = 64 };
typedef uint64_t bit_mask;

/* |w - decoded| <= eps, in double. */
MB_NOINLINE __mmask16 kept_in_double(__m512 w, __m512 decoded, double eps)
{
    __m512d low = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(w)),
                                _mm512_cvtps_pd(_mm512_castps512_ps256(decoded)));
    __m512d high = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(w, 1)),
                                 _mm512_cvtps_pd(_mm512_extractf32x8_ps(decoded, 1)));
    __m512d limit = _mm512_set1_pd(eps);
    unsigned kept_low = _mm512_cmp_pd_mask(_mm512_abs_pd(low), limit, _CMP_LE_OQ);
    unsigned kept_high = _mm512_cmp_pd_mask(_mm512_abs_pd(high), limit, _CMP_LE_OQ);
    return (__mmask16)(kept_low | kept_high << 8);
}

/* Sixteen indices; MB_Q_OUTLIER where the bound does not hold or q is out of reach. */
MB_INLINE __m512i quantise_16(__m512 w, const struct mb_coding *coding, float sure)
{
    const __m512 step = _mm512_set1_ps(coding->step);
    __m512 q = _mm512_roundscale_ps(_mm512_div_ps(w, step), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 decoded = _mm512_mul_ps(step, q);
    __m512 difference = _mm512_abs_ps(_mm512_sub_ps(w, decoded));
    __mmask16 within = _mm512_cmp_ps_mask(difference, _mm512_set1_ps(sure), _CMP_LE_OQ);
    if (__builtin_expect(within != 0xffff, 0))
        within |= kept_in_double(w, decoded, coding->eps);
    __mmask16 kept = _mm512_mask_cmp_ps_mask(within, _mm512_abs_ps(q), _mm512_set1_ps(MB_Q_MAX), _CMP_LE_OQ);
    return _mm512_mask_cvtps_epi32(_mm512_set1_epi32(MB_Q_OUTLIER), kept, q);
}

MB_INLINE bool quantise_block(enum mb_dtype dtype, const uint8_t *weights, const struct mb_coding *coding,
                              float sure, int8_t *q)
{
    __m512 w = mb_load_values_16(dtype, weights, 0xffff);
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(quantise_16(w, coding, sure)));
    return _mm512_fpclass_ps_mask(w, 0x99) == 0; /* NaN, infinite */
}

MB_INLINE bit_mask up_to(const int8_t *q, unsigned limit)
{
    __m512i magnitudes = _mm512_abs_epi8(_mm512_loadu_si512(q));
    return _mm512_cmple_epu8_mask(magnitudes, _mm512_set1_epi8((char)limit));
}

MB_INLINE unsigned count_of(const int8_t *q, unsigned limit)
{
    return (unsigned)_mm_popcnt_u64(up_to(q, limit));
}

/* Codes of 'width' bits, one a byte, to the stream at 'out': 8 * width bytes (64 are written). */
MB_INLINE void pack_64(__m512i codes, unsigned width, uint8_t *out)
{
    __m512i v = codes;
    if (width < 8) {
        /* neighbours join: 8, 16, 32 bits apart become width, 2 width, 4 width bits apart; 0xca selects */
        __m512i low = _mm512_set1_epi16((short)((1u << width) - 1));
        v = _mm512_ternarylogic_epi64(low, v, _mm512_srli_epi16(v, 8 - width), 0xca);
        low = _mm512_set1_epi32((int)((1u << 2 * width) - 1));
        v = _mm512_ternarylogic_epi64(low, v, _mm512_srli_epi32(v, 16 - 2 * width), 0xca);
        low = _mm512_set1_epi64((long long)((1ull << 4 * width) - 1));
        v = _mm512_ternarylogic_epi64(low, v, _mm512_srli_epi64(v, 32 - 4 * width), 0xca);
        v = _mm512_maskz_compress_epi8(0x0101010101010101u * ((1u << width) - 1), v);
    }
    _mm512_storeu_si512(out, v);
}

struct code_writer {
    __m512i inner, outer; /* M, M + T */
    __m512i escape;       /* 2M + 1 */
    __m512i first, half;  /* M + 1, T */
    uint8_t *tail_end;    /* of the tail codes, one a byte */
};

static struct code_writer writer_of(const struct mb_widths *widths, uint8_t *tail)
{
    int inner = mb_inner_max(widths->a), half = mb_tail_half(widths->b);
    return (struct code_writer){
        .inner = _mm512_set1_epi8((char)inner),
        .outer = _mm512_set1_epi8((char)(inner + half)),
        .escape = _mm512_set1_epi8((char)(2 * inner + 1)),
        .first = _mm512_set1_epi8((char)(inner + 1)),
        .half = _mm512_set1_epi8((char)half),
        .tail_end = tail,
    };
}

/* Body codes of the indices in 'lanes' (0 elsewhere); their escapes' tail codes are appended. */
MB_INLINE __m512i codes_64(const int8_t *indices, __mmask64 lanes, struct code_writer *writer)
{
    __m512i q = _mm512_loadu_si512(indices), magnitude = _mm512_abs_epi8(q);
    __mmask64 is_outlier = _mm512_cmpgt_epu8_mask(magnitude, writer->outer);
    __mmask64 is_escape = _mm512_mask_cmpgt_epu8_mask(lanes & ~is_outlier, magnitude, writer->inner);
    __m512i codes = _mm512_mask_mov_epi8(_mm512_add_epi8(q, writer->inner), is_outlier, writer->inner);
    codes = _mm512_maskz_mov_epi8(lanes, _mm512_mask_mov_epi8(codes, is_escape, writer->escape));
    __m512i tail = _mm512_sub_epi8(magnitude, writer->first);
    tail = _mm512_mask_add_epi8(tail, ~_mm512_movepi8_mask(q), tail, writer->half);
    _mm512_storeu_si512(writer->tail_end, _mm512_maskz_compress_epi8(is_escape, tail));
    writer->tail_end += _mm_popcnt_u64(is_escape);
    return codes;
}

MB_INLINE __mmask64 lanes_64(size_t n)
{
    return n >= 64 ? ~0ull : (1ull << n) - 1;
}

static void write_body_0(const int8_t *q, size_t n, struct code_writer *writer, uint8_t *out)
{
    (void)q, (void)n, (void)writer, (void)out; /* all q are 0: no codes */
}

/* Two codes a byte, from the halves of each 128. */
static void write_body_4(const int8_t *q, size_t n, struct code_writer *writer, uint8_t *out)
{
    for (size_t i = 0; i < n; i += 128, out += 64) {
        size_t left = n - i < 128 ? n - i : 128, half = (left + 1) / 2;
        __m512i low = codes_64(q + i, lanes_64(half), writer);
        __m512i high = codes_64(q + i + half, lanes_64(left - half), writer);
        _mm512_storeu_si512(out, _mm512_or_si512(low, _mm512_slli_epi16(high, 4)));
    }
}

MB_INLINE void write_stream(const int8_t *q, size_t n, unsigned a, struct code_writer *writer, uint8_t *out)
{
    for (size_t i = 0; i < n; i += 64, out += 8 * a)
        pack_64(codes_64(q + i, lanes_64(n - i), writer), a, out);
}

#define WRITE_BODY(a)                                                                               \
    static void write_body_##a(const int8_t *q, size_t n, struct code_writer *writer, uint8_t *out) \
    {                                                                                               \
        write_stream(q, n, a, writer, out);                                                         \
    }
MB_WIDTHS_1_TO_3(WRITE_BODY)
WRITE_BODY(5)
WRITE_BODY(6)
WRITE_BODY(7)
WRITE_BODY(8)

static void (*const write_body_of_width[])(const int8_t *q, size_t n, struct code_writer *writer,
                                           uint8_t *out) = {write_body_0, MB_NAMES_1_TO_8(write_body)};

static void write_body(const struct mb_widths *widths, const int8_t *q, size_t n, uint8_t *out, uint8_t *tail)
{
    struct code_writer writer = writer_of(widths, tail);
    write_body_of_width[widths->a](q, n, &writer, out);
}

static void write_tail(const uint8_t *codes, size_t n, unsigned width, uint8_t *out)
{
    for (size_t i = 0; i < n; i += 64, out += 8 * width)
        pack_64(_mm512_maskz_loadu_epi8(lanes_64(n - i), codes + i), width, out);
}

#include "encode_kernels.h"
