/*
 * encode_avx2.c - the encoder of row groups (encode_kernels.h) on AVX2: 8 weights are quantised at a time, 32
 * codes are made at a time and packed by pext.
 *
 * AVX-512 packs by another design: it makes and packs 64 codes in one go, with compression by a mask.
 */
#include "encode.h"
#include "simd_avx2.h"
#include <math.h>
#include <string.h>

#define NAMED(name) name##_avx2
enum { BLOCK = 32, BYTES = 32 };
typedef uint32_t bit_mask;

/* |w - decoded| <= eps, in double: lanes of all ones. */
MB_NOINLINE __m256 kept_in_double(__m256 w, __m256 decoded, double eps)
{
    float from[8], to[8];
    int32_t kept[8];
    _mm256_storeu_ps(from, w);
    _mm256_storeu_ps(to, decoded);
    for (int i = 0; i < 8; i++)
        kept[i] = fabs((double)from[i] - (double)to[i]) <= eps ? -1 : 0;
    return _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)kept));
}

/* Eight indices; MB_Q_OUTLIER where the bound does not hold or q is out of reach. */
MB_INLINE __m256i quantise_8(__m256 w, const struct mb_coding *coding, float sure)
{
    const __m256 magnitude_bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256 step = _mm256_set1_ps(coding->step);
    __m256 q = _mm256_round_ps(_mm256_div_ps(w, step), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 decoded = _mm256_mul_ps(step, q);
    __m256 difference = _mm256_and_ps(_mm256_sub_ps(w, decoded), magnitude_bits);
    __m256 kept = _mm256_cmp_ps(difference, _mm256_set1_ps(sure), _CMP_LE_OQ);
    if (__builtin_expect(_mm256_movemask_ps(kept) != 0xff, 0))
        kept = _mm256_or_ps(kept, kept_in_double(w, decoded, coding->eps));
    __m256 magnitude = _mm256_and_ps(q, magnitude_bits);
    kept = _mm256_and_ps(kept, _mm256_cmp_ps(magnitude, _mm256_set1_ps(MB_Q_MAX), _CMP_LE_OQ));
    return _mm256_blendv_epi8(_mm256_set1_epi32(MB_Q_OUTLIER), _mm256_cvtps_epi32(q),
                              _mm256_castps_si256(kept));
}

MB_INLINE bool is_finite_8(__m256 w)
{
    __m256i exponent = _mm256_set1_epi32(0x7f800000);
    __m256i odd = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(w), exponent), exponent);
    return _mm256_testz_si256(odd, odd);
}

MB_INLINE bool quantise_block(enum mb_dtype dtype, const uint8_t *weights, const struct mb_coding *coding,
                              float sure, int8_t *q)
{
    __m256i v[4];
    bool is_finite = true;
    for (size_t k = 0; k < 4; k++) {
        __m256 w = mb_load_values_8(dtype, weights + 8 * k * mb_dtype_nbytes(dtype));
        is_finite = is_finite && is_finite_8(w);
        v[k] = quantise_8(w, coding, sure);
    }
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)q, bytes);
    return is_finite;
}

/* Lanes of all ones where the unsigned byte is at most 'limit'. */
MB_INLINE __m256i at_most(__m256i v, __m256i limit)
{
    return _mm256_cmpeq_epi8(_mm256_min_epu8(v, limit), v);
}

MB_INLINE bit_mask up_to(const int8_t *q, unsigned limit)
{
    __m256i magnitudes = _mm256_abs_epi8(_mm256_loadu_si256((const __m256i *)q));
    return (bit_mask)_mm256_movemask_epi8(at_most(magnitudes, _mm256_set1_epi8((char)limit)));
}

MB_INLINE unsigned count_of(const int8_t *q, unsigned limit)
{
    return (unsigned)_mm_popcnt_u32(up_to(q, limit));
}

/* Body codes, one a byte (then zeros, to a multiple of 128), and tail codes; returns the number of these. */
static size_t make_codes(const struct mb_widths *widths, const int8_t *q, size_t n, uint8_t *codes,
                         uint8_t *tail)
{
    int inner = mb_inner_max(widths->a), half = mb_tail_half(widths->b);
    __m256i inners = _mm256_set1_epi8((char)inner), outers = _mm256_set1_epi8((char)(inner + half));
    __m256i escape = _mm256_set1_epi8((char)(2 * inner + 1));
    uint8_t *end = tail;
    for (size_t i = 0; i < n; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(q + i)), magnitude = _mm256_abs_epi8(v);
        __m256i is_coded = at_most(magnitude, outers), is_inner = at_most(magnitude, inners);
        __m256i code = _mm256_blendv_epi8(escape, _mm256_add_epi8(v, inners), is_inner);
        _mm256_storeu_si256((__m256i *)(codes + i), _mm256_blendv_epi8(inners, code, is_coded));
        uint32_t places = (uint32_t)_mm256_movemask_epi8(_mm256_andnot_si256(is_inner, is_coded));
        for (; places != 0; places = _blsr_u32(places)) {
            int index = (int)q[i + _tzcnt_u32(places)];
            *end++ = (uint8_t)(index < 0 ? -index - inner - 1 : index - inner - 1 + half);
        }
    }
    memset(codes + n, 0, 128);
    return (size_t)(end - tail);
}

static void pack_stream(const uint8_t *codes, size_t n, unsigned width, uint8_t *out)
{
    uint64_t low = UINT64_C(0x0101010101010101) * ((1u << width) - 1);
    for (size_t i = 0; i < n; i += 8, out += width)
        mb_store_u64(out, _pext_u64(mb_load_u64(codes + i), low));
}

static void pack_nibbles(const uint8_t *codes, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i += 128, out += 64) {
        size_t left = n - i < 128 ? n - i : 128, half = (left + 1) / 2;
        for (size_t j = 0; j < half; j += 32) {
            __m256i low = _mm256_loadu_si256((const __m256i *)(codes + i + j));
            __m256i high = _mm256_loadu_si256((const __m256i *)(codes + i + half + j));
            _mm256_storeu_si256((__m256i *)(out + j), _mm256_or_si256(low, _mm256_slli_epi16(high, 4)));
        }
    }
}

static void write_body(const struct mb_widths *widths, const int8_t *q, size_t n, uint8_t *out, uint8_t *tail)
{
    uint8_t codes[MB_GROUP_WEIGHTS_MAX + 160];
    size_t n_escapes = make_codes(widths, q, n, codes, tail);
    memset(tail + n_escapes, 0, 8);
    if (widths->a == 4)
        pack_nibbles(codes, n, out);
    else if (widths->a > 0)
        pack_stream(codes, n, widths->a, out);
}

static void write_tail(const uint8_t *codes, size_t n, unsigned width, uint8_t *out)
{
    pack_stream(codes, n, width, out);
}

#include "encode_kernels.h"
