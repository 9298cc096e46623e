/*
 * encode_avx2.c - the encoder of row groups: quantise and check 8 weights at a time, count, choose, make
 * codes 32 at a time and pack them by pext.  Same bytes as encode.c.
 */
#include "encode.h"
#include "simd_avx2.h"
#include <float.h>
#include <math.h>
#include <string.h>

struct quantiser {
    __m256 step;
    __m256 surely_kept; /* a rounded difference up to this one is within eps */
    double eps;
};

static struct quantiser quantiser_of(const struct mb_coding *coding)
{
    double sure = coding->eps * (1 - 0x1p-20); /* rounding the difference and this to float takes 2^-23 */
    return (struct quantiser){
        .step = _mm256_set1_ps(coding->step),
        .surely_kept = _mm256_set1_ps(sure < FLT_MAX / 2 ? nextafterf((float)sure, 0) : FLT_MAX / 2),
        .eps = coding->eps,
    };
}

/* |w - decoded| <= eps, in double: lanes of all ones. */
static __attribute__((noinline)) __m256 kept_in_double(__m256 w, __m256 decoded, double eps)
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
MB_INLINE __m256i quantise_8(__m256 w, const struct quantiser *quantiser)
{
    const __m256 magnitude_bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 q =
        _mm256_round_ps(_mm256_div_ps(w, quantiser->step), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 decoded = _mm256_mul_ps(quantiser->step, q);
    __m256 difference = _mm256_and_ps(_mm256_sub_ps(w, decoded), magnitude_bits);
    __m256 kept = _mm256_cmp_ps(difference, quantiser->surely_kept, _CMP_LE_OQ);
    if (__builtin_expect(_mm256_movemask_ps(kept) != 0xff, 0))
        kept = _mm256_or_ps(kept, kept_in_double(w, decoded, quantiser->eps));
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

/* Indices of 32 weights; false where one is not finite. */
MB_INLINE bool quantise_32(enum mb_dtype dtype, const uint8_t *weights, const struct quantiser *quantiser,
                           int8_t *q)
{
    __m256i v[4];
    bool is_finite = true;
    for (size_t k = 0; k < 4; k++) {
        __m256 w = mb_load_values_8(dtype, weights + 8 * k * mb_dtype_nbytes(dtype));
        is_finite = is_finite && is_finite_8(w);
        v[k] = quantise_8(w, quantiser);
    }
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)q, bytes);
    return is_finite;
}

static bool find_bad(enum mb_dtype dtype, const uint8_t *weights, size_t begin, size_t n, size_t *bad)
{
    for (size_t i = begin; i < n; i++)
        if (!isfinite(mb_load_value(dtype, weights, i))) {
            *bad = i;
            return true;
        }
    return false;
}

/* false: weight *bad is not finite. */
MB_INLINE bool quantise(enum mb_dtype dtype, const struct mb_coding *coding, const uint8_t *weights, size_t n,
                        int8_t *q, size_t *bad)
{
    struct quantiser quantiser = quantiser_of(coding);
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        if (!quantise_32(dtype, weights + i * mb_dtype_nbytes(dtype), &quantiser, q + i))
            return !find_bad(dtype, weights, i, n, bad);
    if (find_bad(dtype, weights, i, n, bad))
        return false;
    for (; i < n; i++)
        q[i] = (int8_t)mb_quantise(coding, mb_load_value(dtype, weights, i));
    return true;
}

/* A step that underflowed keeps nothing but zeros. */
static bool quantise_without_step(const struct mb_coding *coding, const uint8_t *weights, size_t n, int8_t *q,
                                  size_t *bad)
{
    for (size_t i = 0; i < n; i++)
        q[i] = (int8_t)mb_quantise(coding, mb_load_value(coding->dtype, weights, i));
    return !find_bad(coding->dtype, weights, 0, n, bad);
}

static bool quantise_any(const struct mb_coding *coding, const uint8_t *weights, size_t n, int8_t *q,
                         size_t *bad)
{
    if (coding->step == 0)
        return quantise_without_step(coding, weights, n, q, bad);
    if (coding->dtype == MB_F32)
        return quantise(MB_F32, coding, weights, n, q, bad);
    if (coding->dtype == MB_F16)
        return quantise(MB_F16, coding, weights, n, q, bad);
    return quantise(MB_BF16, coding, weights, n, q, bad);
}

/* |q| as unsigned bytes; an outlier's is 128. */
MB_INLINE __m256i magnitudes(const int8_t *q)
{
    return _mm256_abs_epi8(_mm256_loadu_si256((const __m256i *)q));
}

/* Lanes of all ones where the unsigned byte is at most 'limit'. */
MB_INLINE __m256i at_most(__m256i v, __m256i limit)
{
    return _mm256_cmpeq_epi8(_mm256_min_epu8(v, limit), v);
}

static uint32_t count_up_to(const int8_t *q, size_t n, unsigned limit)
{
    __m256i limits = _mm256_set1_epi8((char)limit);
    uint32_t count = 0;
    for (size_t i = 0; i < n; i += 32)
        count += (uint32_t)_mm_popcnt_u32((uint32_t)_mm256_movemask_epi8(at_most(magnitudes(q + i), limits)));
    return count;
}

static struct mb_widths choose_widths(const int8_t *q, size_t n, size_t elem_nbytes)
{
    uint32_t reach[MB_Q_MAX + 1] = {0}, n_kept = count_up_to(q, n, MB_Q_MAX), count = 0;
    for (size_t i = 0; i < MB_N_REACHES; i++) {
        if (count < n_kept) /* else all that are kept have been counted */
            count = count_up_to(q, n, mb_reaches[i]);
        reach[mb_reaches[i]] = count;
    }
    return mb_choose_widths(reach, n, elem_nbytes);
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

static uint8_t *write_outliers(const struct mb_widths *widths, const int8_t *q, size_t n,
                               const uint8_t *weights, size_t elem_nbytes, uint8_t *out)
{
    uint8_t *values = out + 2 * (size_t)widths->n_outliers;
    __m256i outer = _mm256_set1_epi8((char)(mb_inner_max(widths->a) + mb_tail_half(widths->b)));
    for (size_t i = 0; i < n && widths->n_outliers > 0; i += 32) {
        uint32_t places = ~(uint32_t)_mm256_movemask_epi8(at_most(magnitudes(q + i), outer));
        if (n - i < 32)
            places = _bzhi_u32(places, (unsigned)(n - i));
        for (; places != 0; places = _blsr_u32(places)) {
            size_t at = i + _tzcnt_u32(places);
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
    int8_t q[MB_GROUP_WEIGHTS_MAX + 64];
    uint8_t codes[MB_GROUP_WEIGHTS_MAX + 160], tail[MB_GROUP_WEIGHTS_MAX + 8];
    if (!quantise_any(coding, weights, n, q, bad))
        return false;
    memset(q + n, MB_Q_OUTLIER, 32);
    size_t elem_nbytes = mb_dtype_nbytes(coding->dtype);
    struct mb_widths widths = choose_widths(q, n, elem_nbytes);
    if (widths.is_raw) {
        mb_write_group(&widths, coding->dtype, q, n, weights, out, group);
        return true;
    }
    size_t n_escapes = make_codes(&widths, q, n, codes, tail);
    memset(tail + n_escapes, 0, 8);
    if (widths.a == 4)
        pack_nibbles(codes, n, out);
    else if (widths.a > 0)
        pack_stream(codes, n, widths.a, out);
    uint8_t *end = out + mb_bits_nbytes(n, widths.a);
    pack_stream(tail, n_escapes, widths.b, end);
    end += mb_bits_nbytes(n_escapes, widths.b);
    end = write_outliers(&widths, q, n, weights, elem_nbytes, end);
    *group = (struct mb_group){
        .kind = mb_kind_of(&widths),
        .n_escapes = widths.n_escapes,
        .n_outliers = widths.n_outliers,
        .nbytes = (uint32_t)(end - out),
    };
    return true;
}

enum mb_status mb_encode_rows_avx2(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                   uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                                   size_t *bad_index)
{
    return mb_encode_groups(encode_group, coding, weights, n_rows, out, out_cap, out_nbytes, groups,
                            bad_index);
}
