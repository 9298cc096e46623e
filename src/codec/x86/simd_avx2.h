/*
 * simd_avx2.h - what the AVX2 kernels share: row groups as indices, and their products.
 *
 * Include only from files compiled with the AVX2 flags.
 */
#ifndef MB_CODEC_SIMD_AVX2_H
#define MB_CODEC_SIMD_AVX2_H

#include "base/inline.h"
#include "kernels.h"
#include <immintrin.h>

/* How far ahead records are prefetched. */
enum { MB_PREFETCH_NBYTES = 4096 };

/* All indices of a group that is not raw; 'q' has MB_DECODED_SLACK bytes after them. */
void mb_group_indices_avx2(const struct mb_group_view *group, int8_t *q);

/* n body codes of width a at p as bytes, escapes as they are; 'out' as above. */
void mb_unpack_codes_avx2(const uint8_t *p, size_t n, unsigned a, uint8_t *out);

/*
 * 32 codes of 'width' <= 6 bits from the 4 width bytes at p (16 or 32 are read).  Each 16-bit lane gets the
 * two bytes that hold its two codes (2 width bits from an even bit on: never more than 16).  A product moves
 * the codes to the top of the lane, a shift to the bottom, and another shift moves the second code to its
 * byte.
 */
struct mb_unpack_avx2 {
    __m256i from, move, low;
};

/* Constants, by width, in memory: gcc would build them on the stack and wait for its own stores. */
extern const struct mb_unpack_table_avx2 {
    uint8_t from[32];
    uint16_t move[16];
} mb_unpack_tables_avx2[7];

MB_INLINE struct mb_unpack_avx2 mb_unpack_of_width_avx2(unsigned width)
{
    const struct mb_unpack_table_avx2 *table = &mb_unpack_tables_avx2[width];
    return (struct mb_unpack_avx2){_mm256_load_si256((const __m256i *)table->from),
                                   _mm256_load_si256((const __m256i *)table->move),
                                   _mm256_set1_epi8((char)((1u << width) - 1))};
}

MB_INLINE __m256i mb_unpack_32_avx2(const uint8_t *p, unsigned width, const struct mb_unpack_avx2 *unpack)
{
    __m128i first = _mm_loadu_si128((const __m128i *)p);
    if (width == 4) {
        __m256i pairs = _mm256_cvtepu8_epi16(first);
        return _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)), unpack->low);
    }
    __m256i v = width < 4 ? _mm256_broadcastsi128_si256(first) /* all are in the first 16 bytes */
                          : _mm256_inserti128_si256(_mm256_castsi128_si256(first),
                                                    _mm_loadu_si128((const __m128i *)(p + 2 * width)), 1);
    v = _mm256_mullo_epi16(_mm256_shuffle_epi8(v, unpack->from), unpack->move);
    v = _mm256_srli_epi16(v, 16 - 2 * (int)width);
    __m256i moved = _mm256_slli_epi16(v, 8 - (int)width);
    if (width < 4) /* the first code's copy stays above the low bits */
        return _mm256_and_si256(_mm256_or_si256(v, moved), unpack->low);
    __m256i first_codes = _mm256_set1_epi16((short)((1 << width) - 1));
    __m256i second_codes = _mm256_slli_epi16(first_codes, 8);
    return _mm256_or_si256(_mm256_and_si256(v, first_codes), _mm256_and_si256(moved, second_codes));
}

/* Any q times any x: sums of pairs of the product of |x| (at most 128) and q with the sign of x. */
MB_INLINE __m256i mb_signed_pairs_avx2(__m256i q, const int8_t *x)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(q, v));
}

/* The sum of all lanes. */
MB_INLINE int32_t mb_add_lanes_avx2(__m256i v)
{
    __m128i quad = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i pair = _mm_add_epi32(quad, _mm_unpackhi_epi64(quad, quad));
    return _mm_cvtsi128_si32(pair) + _mm_extract_epi32(pair, 1);
}

/* The sum of q E over a block of 128 columns, given the planes of E. */
int64_t mb_wide_sum_avx2(const int8_t *q, const int8_t *planes, size_t n_planes);

/* Eight original values. */
MB_INLINE __m256 mb_load_values_8(enum mb_dtype dtype, const uint8_t *values)
{
    if (dtype == MB_F32)
        return _mm256_loadu_ps((const float *)values);
    __m128i half = _mm_loadu_si128((const __m128i *)values);
    if (dtype == MB_F16)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* The table's functions. */
void mb_activation_avx2(const float *x, size_t n, int8_t *hi, int8_t *lo, void *wide,
                        struct mb_activation *out);
void mb_activation_fast_avx2(const float *x, size_t n, int8_t *bytes, int8_t *hi, int8_t *lo, void *wide,
                             struct mb_activation *out);
void mb_matvec_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                    const struct mb_activation *x, float *y);
void mb_matmul_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                    const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride, void *scratch);
void mb_matvec_transposed_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                               const struct mb_activation *x, float *y, void *scratch);
size_t mb_matmul_scratch_nbytes_avx2(size_t n_cols);
size_t mb_transposed_scratch_nbytes_avx2(size_t n_cols);
void mb_decode_rows_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out);
enum mb_status mb_encode_rows_avx2(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                   uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                                   size_t *bad_index);
size_t mb_count_full_codes_avx2(const uint8_t *stream, size_t n, unsigned width);

#endif
