/*
 * convert_avx2.c - decoded rows as floats, and activations, 8 lanes at a time.
 */
#include "carry_avx2.h"
#include <string.h>

#define NAMED(name) name##_avx2
enum { LANES = 8, SPLIT = 32 };
typedef __m256i ints;

#define SEEK mb_seek_avx2
#define NEXT mb_next_avx2
#define WHOLE_GROUP(w, view, out) false
#define ADD_COLUMNS mb_carry_add_columns_avx2

static int decode_group(const struct mb_coded_matrix *w, const struct mb_group_view *view, uint8_t *bytes)
{
    mb_indices_avx2(w, view, (int8_t *)bytes);
    return 0;
}

MB_INLINE void store_floats(__m256 v, size_t n, float *out)
{
    float last[LANES];
    _mm256_storeu_ps(n == LANES ? out : last, v);
    if (n < LANES)
        memcpy(out, last, n * sizeof *out);
}

MB_INLINE void store_weights(const uint8_t *bytes, int offset, float step, size_t n, float *out)
{
    (void)offset; /* bytes are indices */
    __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
    store_floats(_mm256_mul_ps(_mm256_cvtepi32_ps(q), _mm256_set1_ps(step)), n, out);
}

MB_INLINE void store_values(enum mb_dtype dtype, const uint8_t *values, size_t n, float *out)
{
    uint8_t last[LANES * sizeof(float)] = {0};
    if (n < LANES)
        values = memcpy(last, values, n * mb_dtype_nbytes(dtype));
    store_floats(mb_load_values_8(dtype, values), n, out);
}

MB_INLINE ints v_zero(void)
{
    return _mm256_setzero_si256();
}

MB_INLINE ints v_add(ints a, ints b)
{
    return _mm256_add_epi32(a, b);
}

MB_INLINE ints v_max_bits(ints max, const float *x, size_t n)
{
    float last[LANES] = {0};
    if (n < LANES)
        x = memcpy(last, x, n * sizeof *x);
    __m256i bits = _mm256_loadu_si256((const __m256i *)x);
    return _mm256_max_epu32(max, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
}

static int64_t sum_of(ints v)
{
    int32_t lanes[LANES];
    int64_t sum = 0;
    _mm256_storeu_si256((__m256i *)lanes, v);
    for (size_t i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

/* Bytes of four registers of 32-bit lanes, in order. */
MB_INLINE __m256i narrow(const __m256i v[4])
{
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

MB_INLINE ints split(const float *x, float scale, int8_t *hi, int8_t *lo)
{
    __m256i high[4], low[4], sum = _mm256_setzero_si256();
    for (int k = 0; k < 4; k++) {
        __m256i value = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + 8 * k), _mm256_set1_ps(scale)));
        high[k] = _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(128)), 8);
        low[k] = _mm256_sub_epi32(value, _mm256_slli_epi32(high[k], 8));
        sum = _mm256_add_epi32(sum, value);
    }
    _mm256_storeu_si256((__m256i *)hi, narrow(high));
    _mm256_storeu_si256((__m256i *)lo, narrow(low));
    return sum;
}

MB_INLINE ints split_bytes(const float *x, float scale, int factor, int8_t *bytes, int8_t *hi, int8_t *lo)
{
    __m256i byte[4], high[4], low[4], sum = _mm256_setzero_si256();
    for (int k = 0; k < 4; k++) {
        byte[k] = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + 8 * k), _mm256_set1_ps(scale)));
        __m256i value = _mm256_mullo_epi32(byte[k], _mm256_set1_epi32(factor));
        high[k] = _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(128)), 8);
        low[k] = _mm256_sub_epi32(value, _mm256_slli_epi32(high[k], 8));
        sum = _mm256_add_epi32(sum, value);
    }
    _mm256_storeu_si256((__m256i *)bytes, narrow(byte));
    _mm256_storeu_si256((__m256i *)hi, narrow(high));
    _mm256_storeu_si256((__m256i *)lo, narrow(low));
    return sum;
}

#include "convert_kernels.h"
