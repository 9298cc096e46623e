/*
 * convert_avx512.c - decoded rows as floats, and activations, 16 lanes at a time.
 */
#include "simd_avx512.h"

#define NAMED(name) name##_avx512
enum { LANES = 16, SPLIT = 16 };
typedef __m512i ints;

#define SEEK mb_group_seek
#define NEXT mb_group_next
#define WHOLE_GROUP(w, view, out) (mb_group_floats_avx512(view, (w)->step, out), true)
#define ADD_COLUMNS(n, wide, out) ((void)0)

static int decode_group(const struct mb_coded_matrix *w, const struct mb_group_view *view, uint8_t *bytes)
{
    (void)w;
    mb_group_bytes_avx512(view, bytes);
    return (int)mb_offset_512(view->a, view->b);
}

MB_INLINE void store_weights(const uint8_t *bytes, int offset, float step, size_t n, float *out)
{
    __m512i u = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
    __m512 q = _mm512_cvtepi32_ps(_mm512_sub_epi32(u, _mm512_set1_epi32(offset)));
    _mm512_mask_storeu_ps(out, mb_lanes_16(n), _mm512_mul_ps(q, _mm512_set1_ps(step)));
}

MB_INLINE void store_values(enum mb_dtype dtype, const uint8_t *values, size_t n, float *out)
{
    _mm512_mask_storeu_ps(out, mb_lanes_16(n), mb_load_values_16(dtype, values, mb_lanes_16(n)));
}

MB_INLINE ints v_zero(void)
{
    return _mm512_setzero_si512();
}

MB_INLINE ints v_add(ints a, ints b)
{
    return _mm512_add_epi32(a, b);
}

MB_INLINE ints v_max_bits(ints max, const float *x, size_t n)
{
    __m512i bits = _mm512_maskz_loadu_epi32(mb_lanes_16(n), x);
    return _mm512_max_epu32(max, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
}

static int64_t sum_of(ints v)
{
    return _mm512_reduce_add_epi32(v); /* 65535 * 32639 fits */
}

MB_INLINE ints split(const float *x, float scale, int8_t *hi, int8_t *lo)
{
    __m512i value = _mm512_cvtps_epi32(_mm512_div_ps(_mm512_loadu_ps(x), _mm512_set1_ps(scale)));
    __m512i high = _mm512_srai_epi32(_mm512_add_epi32(value, _mm512_set1_epi32(128)), 8);
    _mm_storeu_si128((__m128i *)hi, _mm512_cvtepi32_epi8(high));
    _mm_storeu_si128((__m128i *)lo, _mm512_cvtepi32_epi8(value));
    return value;
}

MB_INLINE ints split_bytes(const float *x, float scale, int factor, int8_t *bytes, int8_t *hi, int8_t *lo)
{
    __m512i byte = _mm512_cvtps_epi32(_mm512_div_ps(_mm512_loadu_ps(x), _mm512_set1_ps(scale)));
    __m512i value = _mm512_mullo_epi32(byte, _mm512_set1_epi32(factor));
    __m512i high = _mm512_srai_epi32(_mm512_add_epi32(value, _mm512_set1_epi32(128)), 8);
    _mm_storeu_si128((__m128i *)bytes, _mm512_cvtepi32_epi8(byte));
    _mm_storeu_si128((__m128i *)hi, _mm512_cvtepi32_epi8(high));
    _mm_storeu_si128((__m128i *)lo, _mm512_cvtepi32_epi8(value));
    return value;
}

#include "convert_kernels.h"
