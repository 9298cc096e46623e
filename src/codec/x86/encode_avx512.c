/*
 * encode_avx512.c - the encoder of row groups: quantise and check 16 weights at a time, count, choose, and
 * pack 64 codes at a time.  Same bytes as encode.c.
 */
#include "by_width.h"
#include "encode.h"
#include "simd_avx512.h"
#include <float.h>
#include <math.h>
#include <string.h>

/* Indices of a group, followed by whole vectors of outliers. */
struct indices {
    int8_t q[MB_GROUP_WEIGHTS_MAX + 65];
    uint32_t magnitude_max; /* of those that are not outliers */
    uint32_t n_kept;
};

struct quantiser {
    double eps;
    __m512 step;
    __m512 surely_kept; /* a rounded difference up to this one is within eps */
};

static struct quantiser quantiser_of(const struct mb_coding *coding)
{
    double sure = coding->eps * (1 - 0x1p-20); /* rounding the difference and this to float takes 2^-23 */
    return (struct quantiser){
        .eps = coding->eps,
        .step = _mm512_set1_ps(coding->step),
        .surely_kept = _mm512_set1_ps(sure < FLT_MAX / 2 ? nextafterf((float)sure, 0) : FLT_MAX / 2),
    };
}

/* |w - decoded| <= eps, in double. */
static __attribute__((noinline)) __mmask16 kept_in_double(__m512 w, __m512 decoded, double eps)
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
MB_INLINE __m512i quantise_16(__m512 w, const struct quantiser *quantiser, __m512 *magnitude_max,
                              __mmask16 *kept)
{
    __m512 q = _mm512_roundscale_ps(_mm512_div_ps(w, quantiser->step),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 decoded = _mm512_mul_ps(quantiser->step, q);
    __m512 magnitude = _mm512_abs_ps(q);
    __m512 difference = _mm512_abs_ps(_mm512_sub_ps(w, decoded));
    __mmask16 within = _mm512_cmp_ps_mask(difference, quantiser->surely_kept, _CMP_LE_OQ);
    if (__builtin_expect(within != 0xffff, 0))
        within |= kept_in_double(w, decoded, quantiser->eps);
    *kept = _mm512_mask_cmp_ps_mask(within, magnitude, _mm512_set1_ps(MB_Q_MAX), _CMP_LE_OQ);
    *magnitude_max = _mm512_mask_max_ps(*magnitude_max, *kept, *magnitude_max, magnitude);
    return _mm512_mask_cvtps_epi32(_mm512_set1_epi32(MB_Q_OUTLIER), *kept, q);
}

/* false: weight *bad is not finite. */
MB_INLINE bool quantise(enum mb_dtype dtype, const struct mb_coding *coding, const uint8_t *weights, size_t n,
                        struct indices *indices, size_t *bad)
{
    struct quantiser quantiser = quantiser_of(coding);
    __m512 magnitude_max = _mm512_setzero_ps();
    uint32_t n_kept = 0;
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 lanes = mb_lanes_16(n - i), kept;
        __m512 w = mb_load_values_16(dtype, weights + i * mb_dtype_nbytes(dtype), lanes);
        __mmask16 odd = _mm512_fpclass_ps_mask(w, 0x99); /* NaN, infinite */
        if (odd != 0) {
            *bad = i + _tzcnt_u32(odd);
            return false;
        }
        __m512i q = quantise_16(w, &quantiser, &magnitude_max, &kept);
        n_kept += (uint32_t)_mm_popcnt_u32(kept & lanes);
        _mm_storeu_si128((__m128i *)(indices->q + i), _mm512_cvtepi32_epi8(q));
    }
    memset(indices->q + n, MB_Q_OUTLIER, 64);
    indices->magnitude_max = (uint32_t)_mm512_reduce_max_ps(magnitude_max);
    indices->n_kept = n_kept;
    return true;
}

/* A step that underflowed keeps nothing but zeros. */
static bool quantise_without_step(const struct mb_coding *coding, const uint8_t *weights, size_t n,
                                  struct indices *indices, size_t *bad)
{
    *indices = (struct indices){.n_kept = 0};
    for (size_t i = 0; i < n; i++) {
        float w = mb_load_value(coding->dtype, weights, i);
        if (!isfinite(w)) {
            *bad = i;
            return false;
        }
        indices->q[i] = (int8_t)mb_quantise(coding, w);
        indices->n_kept += indices->q[i] == 0;
    }
    memset(indices->q + n, MB_Q_OUTLIER, 64);
    return true;
}

static bool quantise_any(const struct mb_coding *coding, const uint8_t *weights, size_t n,
                         struct indices *indices, size_t *bad)
{
    if (coding->step == 0)
        return quantise_without_step(coding, weights, n, indices, bad);
    if (coding->dtype == MB_F32)
        return quantise(MB_F32, coding, weights, n, indices, bad);
    if (coding->dtype == MB_F16)
        return quantise(MB_F16, coding, weights, n, indices, bad);
    return quantise(MB_BF16, coding, weights, n, indices, bad);
}

/* |q| as unsigned bytes; an outlier's is 128. */
MB_INLINE __m512i magnitudes(const int8_t *q)
{
    return _mm512_abs_epi8(_mm512_loadu_si512(q));
}

static uint32_t count_up_to(const struct indices *indices, size_t n, unsigned limit)
{
    __m512i limits = _mm512_set1_epi8((char)limit);
    uint64_t count = 0;
    for (size_t i = 0; i < n; i += 64)
        count += (uint64_t)_mm_popcnt_u64(_mm512_cmple_epu8_mask(magnitudes(indices->q + i), limits));
    return (uint32_t)count;
}

static struct mb_widths choose_widths(const struct indices *indices, size_t n, size_t elem_nbytes)
{
    uint32_t reach[MB_Q_MAX + 1] = {0};
    for (size_t i = 0; i < MB_N_REACHES; i++) {
        unsigned k = mb_reaches[i];
        reach[k] = k < indices->magnitude_max ? count_up_to(indices, n, k) : indices->n_kept;
    }
    return mb_choose_widths(reach, n, elem_nbytes);
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

static void write_tail(const uint8_t *codes, size_t n, unsigned width, uint8_t *out)
{
    for (size_t i = 0; i < n; i += 64, out += 8 * width)
        pack_64(_mm512_maskz_loadu_epi8(lanes_64(n - i), codes + i), width, out);
}

static uint8_t *write_outliers(const struct mb_widths *widths, const int8_t *q, size_t n,
                               const uint8_t *weights, size_t elem_nbytes, uint8_t *out)
{
    uint8_t *values = out + 2 * (size_t)widths->n_outliers;
    __m512i outer = _mm512_set1_epi8((char)(mb_inner_max(widths->a) + mb_tail_half(widths->b)));
    for (size_t i = 0; i < n && widths->n_outliers > 0; i += 64) {
        uint64_t places = _mm512_mask_cmpgt_epu8_mask(lanes_64(n - i), magnitudes(q + i), outer);
        for (; places != 0; places = _blsr_u64(places)) {
            size_t at = i + _tzcnt_u64(places);
            mb_store_u16(out, (uint16_t)at);
            out += 2;
            memcpy(values, weights + at * elem_nbytes, elem_nbytes);
            values += elem_nbytes;
        }
    }
    return values;
}

static bool encode_group(const struct mb_coding *coding, const uint8_t *weights, size_t n, uint8_t *out,
                         struct mb_group *group, size_t *bad)
{
    struct indices indices;
    if (!quantise_any(coding, weights, n, &indices, bad))
        return false;
    size_t elem_nbytes = mb_dtype_nbytes(coding->dtype);
    struct mb_widths widths = choose_widths(&indices, n, elem_nbytes);
    if (widths.is_raw) {
        mb_write_group(&widths, coding->dtype, indices.q, n, weights, out, group);
        return true;
    }
    uint8_t tail[MB_GROUP_WEIGHTS_MAX + 64];
    struct code_writer writer = writer_of(&widths, tail);
    write_body_of_width[widths.a](indices.q, n, &writer, out);
    uint8_t *end = out + mb_bits_nbytes(n, widths.a);
    write_tail(tail, widths.n_escapes, widths.b, end);
    end += mb_bits_nbytes(widths.n_escapes, widths.b);
    end = write_outliers(&widths, indices.q, n, weights, elem_nbytes, end);
    *group = (struct mb_group){
        .kind = mb_kind_of(&widths),
        .n_escapes = widths.n_escapes,
        .n_outliers = widths.n_outliers,
        .nbytes = (uint32_t)(end - out),
    };
    return true;
}

enum mb_status mb_encode_rows_avx512(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                     uint8_t *out, size_t out_cap, size_t *out_nbytes,
                                     struct mb_group *groups, size_t *bad_index)
{
    return mb_encode_groups(encode_group, coding, weights, n_rows, out, out_cap, out_nbytes, groups,
                            bad_index);
}
