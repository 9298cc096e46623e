/*
 * simd_avx512.h - what the AVX-512 kernels share: codes to bytes, 64 at a time.
 *
 * A weight is held as the unsigned byte u = q + offset.  For inner codes u = code + base.  For a <= 6, base
 * is 128: the instruction that masks the codes also sets bit 7, and base does not depend on b, so rows of one
 * a can be decoded together.  For a = 7 a byte has no room for that, and base = T is added.
 *
 * Tails are decoded before, a whole group at once, to a buffer of such bytes.  vpexpandb moves them to the
 * escapes (E) of 64 weights:
 *
 *       codes            5    E    2    7    E    1   ...
 *       decoded tail     t0   t1   t2   t3   ...
 *       mask             0    1    0    0    1    0   ...
 *       u                u5   t0   u2   u7   t1   u1  ...      the next 64 weights begin with t2
 *
 * Include only from files compiled with the AVX-512 flags.
 */
#ifndef MB_CODEC_SIMD_AVX512_H
#define MB_CODEC_SIMD_AVX512_H

#include "base/inline.h"
#include "kernels.h"
#include <immintrin.h>

/* How far ahead records are prefetched. */
enum { MB_PREFETCH_NBYTES = 16384 };

/* Lanes of a = 1 to 6 have bit 7: above all codes, and far enough from 0 for the lowest escape (T <= 64). */
MB_INLINE unsigned mb_base_512(unsigned a, unsigned b)
{
    return a == 0 ? 0 : a <= 6 ? 128 : (unsigned)mb_tail_half(b);
}

/* u of q = 0. */
MB_INLINE unsigned mb_offset_512(unsigned a, unsigned b)
{
    return mb_base_512(a, b) + (unsigned)mb_inner_max(a);
}

/* The numbers 0 to 7, one a byte. */
static const int64_t MB_BYTES_0_TO_7 = 0x0706050403020100;

/* 64 codes of 'width' bits are 8 bytes' worth of codes from 'width' bytes, eight times. */
struct mb_unpack_512 {
    __m512i from, shift;
};

MB_INLINE struct mb_unpack_512 mb_unpack_of_width(unsigned width)
{
    __m512i multiples = _mm512_set1_epi64(MB_BYTES_0_TO_7 * (int64_t)width); /* 7 * 8 fits a byte */
    __m512i eighth =
        _mm512_set_epi64(0x0707070707070707, 0x0606060606060606, 0x0505050505050505, 0x0404040404040404,
                         0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    __m512i first = _mm512_shuffle_epi8(multiples, eighth);
    return (struct mb_unpack_512){_mm512_add_epi8(first, _mm512_set1_epi64(MB_BYTES_0_TO_7)), multiples};
}

/* Bytes whose low 'width' bits are 64 codes of the stream at p; reads at most 64 bytes. */
MB_INLINE __m512i mb_unpack_64(const uint8_t *p, unsigned width, const struct mb_unpack_512 *unpack)
{
    if (width == 8)
        return _mm512_loadu_si512(p);
    __m512i bytes = width <= 2   ? _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p))
                    : width <= 4 ? _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)p))
                                 : _mm512_loadu_si512(p);
    return _mm512_multishift_epi64_epi8(unpack->shift, _mm512_permutexvar_epi8(unpack->from, bytes));
}

/* What 64 tail codes of b bits need, by b, so that a change of widths costs next to nothing. */
struct mb_tail_table_512 {
    uint8_t from[64], shift[64]; /* as of mb_unpack_of_width */
    int8_t index[128];           /* of each code, for M = 0, and less one step where that is negative */
    uint64_t is_positive[8];     /* of each code; padded to 64 bytes */
};
extern const struct mb_tail_table_512 mb_tail_tables_512[MB_WIDTH_MAX];

/* Tail codes of a kind to bytes u: where 64 of them are, and what each of the 2^b <= 128 codes means. */
struct mb_tail_512 {
    struct mb_unpack_512 unpack;
    __m512i u[2];
};

MB_INLINE struct mb_tail_512 mb_tail_of_kind(unsigned a, unsigned b)
{
    const struct mb_tail_table_512 *table = &mb_tail_tables_512[b];
    __m512i base = _mm512_set1_epi8((char)mb_base_512(a, b));
    __m512i positive = _mm512_set1_epi8((char)(mb_base_512(a, b) + 2 * (unsigned)mb_inner_max(a)));
    struct mb_tail_512 tail = {{_mm512_load_si512(table->from), _mm512_load_si512(table->shift)},
                               {base, base}};
    for (int i = 0; i < 2; i++)
        tail.u[i] = _mm512_add_epi8(_mm512_load_si512(table->index + 64 * i),
                                    _mm512_mask_mov_epi8(base, table->is_positive[i], positive));
    return tail;
}

/* Rounds of 64 codes. */
MB_INLINE size_t mb_tail_rounds_512(size_t n_escapes)
{
    return (n_escapes + 63) / 64;
}

/*
 * A group's tail as bytes u: n_rounds times 64 of them to 'out'; those after the tail are unspecified. Rounds
 * after the tail's end repeat its last one: callers run the same number for many groups, since a loop whose
 * end cannot be predicted costs more than a few idle rounds.  Reads less than 64 bytes after the tail.
 */
MB_INLINE void mb_tail_decode_512(const struct mb_group_view *group, const struct mb_tail_512 *kind,
                                  size_t n_rounds, uint8_t *out)
{
    const uint8_t *p = group->tail;
    size_t round_nbytes = 8 * (size_t)group->b, left = round_nbytes * mb_tail_rounds_512(group->n_escapes);
    for (size_t i = 0; i < n_rounds; i++, out += 64) {
        __m512i bytes = _mm512_permutexvar_epi8(kind->unpack.from, _mm512_loadu_si512(p));
        __m512i t = _mm512_multishift_epi64_epi8(kind->unpack.shift, bytes);
        _mm512_storeu_si512(out, _mm512_permutex2var_epi8(kind->u[0], t, kind->u[1]));
        size_t step = round_nbytes & (0 - (size_t)(left > round_nbytes)); /* without a branch */
        p += step;
        left -= step;
    }
}

/* Constants of a group's body. */
struct mb_body_512 {
    __m512i low, base, escape;
    struct mb_unpack_512 unpack;
};

MB_INLINE struct mb_body_512 mb_body_of_kind(unsigned a, unsigned b)
{
    unsigned low = (1u << a) - 1, base = mb_base_512(a, b);
    return (struct mb_body_512){_mm512_set1_epi8((char)low), _mm512_set1_epi8((char)base),
                                _mm512_set1_epi8((char)(low + base)), mb_unpack_of_width(a)};
}

MB_INLINE __m512i mb_code_to_u(__m512i codes, unsigned a, const struct mb_body_512 *body)
{
    if (a == 8)
        return codes;
    if (a == 7)
        return _mm512_add_epi8(_mm512_and_si512(codes, body->low), body->base);
    return _mm512_ternarylogic_epi64(codes, body->low, body->base, 0xea); /* codes & low | base */
}

/* The lanes of k become the next decoded tail codes. */
MB_INLINE __m512i mb_patch_512(__m512i u, __mmask64 k, const uint8_t **tail)
{
    __m512i next = _mm512_loadu_si512(*tail);
    __asm__("" : "+v"(next));
    __m512i patched = _mm512_mask_expand_epi8(u, k, next);
    *tail += _mm_popcnt_u64(k);
    return patched;
}

/* The next two times 64 weights of a group whose width is a: inner codes and escapes. */
MB_INLINE void mb_decode_128(const uint8_t *p, unsigned a, const struct mb_body_512 *body,
                             const uint8_t **tail, __m512i u[2])
{
    if (a == 4) {
        __m512i nibbles = _mm512_loadu_si512(p);
        __asm__("" : "+v"(nibbles)); /* gcc would load it twice, and it spans two cache lines */
        u[0] = mb_code_to_u(nibbles, a, body);
        u[1] = mb_code_to_u(_mm512_srli_epi16(nibbles, 4), a, body);
    } else {
        u[0] = mb_code_to_u(mb_unpack_64(p, a, &body->unpack), a, body);
        u[1] = mb_code_to_u(mb_unpack_64(p + 8 * a, a, &body->unpack), a, body);
    }
    if (a == 8) /* all codes are inner ones */
        return;
    __mmask64 k0 = _mm512_cmpeq_epi8_mask(u[0], body->escape);
    __mmask64 k1 = _mm512_cmpeq_epi8_mask(u[1], body->escape);
    u[0] = mb_patch_512(u[0], k0, tail);
    u[1] = mb_patch_512(u[1], k1, tail);
}

/*
 * The last n < 128 weights of a group. Returns how many of them u[0] holds (the others are u[1]'s); lanes
 * after them are 0 in u[0] and unspecified in u[1].
 */
MB_INLINE size_t mb_decode_last(const uint8_t *p, unsigned a, const struct mb_body_512 *body, size_t n,
                                const uint8_t *tail, __m512i u[2])
{
    size_t n0 = a == 4 ? (n + 1) / 2 : n < 64 ? n : 64;
    if (a == 4) {
        __m512i nibbles = _mm512_loadu_si512(p);
        u[0] = mb_code_to_u(nibbles, a, body);
        u[1] = mb_code_to_u(_mm512_srli_epi16(nibbles, 4), a, body);
    } else {
        u[0] = mb_code_to_u(mb_unpack_64(p, a, &body->unpack), a, body);
        u[1] = n <= 64 ? u[0] : mb_code_to_u(mb_unpack_64(p + 8 * a, a, &body->unpack), a, body);
    }
    __mmask64 lanes = _bzhi_u64(~0ull, (unsigned)n0);
    u[0] = _mm512_maskz_mov_epi8(lanes, u[0]);
    if (a == 8)
        return n0;
    u[0] = mb_patch_512(u[0], _mm512_cmpeq_epi8_mask(u[0], body->escape), &tail);
    lanes = _bzhi_u64(~0ull, (unsigned)(n - n0));
    u[1] = mb_patch_512(u[1], _mm512_mask_cmpeq_epi8_mask(lanes, u[1], body->escape), &tail);
    return n0;
}

MB_INLINE void mb_prefetch_512(const uint8_t *p, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i += 64)
        _mm_prefetch((const char *)p + MB_PREFETCH_NBYTES + i, _MM_HINT_T0);
}

/* Sixteen original values; lanes outside 'lanes' are not read, and 0. */
MB_INLINE __m512 mb_load_values_16(enum mb_dtype dtype, const uint8_t *values, __mmask16 lanes)
{
    if (dtype == MB_F32)
        return _mm512_maskz_loadu_ps(lanes, values);
    __m256i half = _mm256_maskz_loadu_epi16(lanes, values);
    if (dtype == MB_F16)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* The lanes of 16 that n elements fill. */
MB_INLINE __mmask16 mb_lanes_16(size_t n)
{
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

/*
 * All weights of a group that is not raw as bytes u = q + mb_offset_512; 'out' has MB_DECODED_SLACK bytes
 * after them for whole vectors.
 */
void mb_group_bytes_avx512(const struct mb_group_view *group, uint8_t *out);

/* The same as floats q * step, without what outliers are; out[group->n]. */
void mb_group_floats_avx512(const struct mb_group_view *group, float step, float *out);

/*
 * sum += u * x.  Written out because gcc 12 copies the accumulator of the intrinsic, and spills where there
 * are many: the product of many vectors ran at a third of its speed.
 */
MB_INLINE __m512i mb_dot_512(__m512i sum, __m512i u, __m512i x)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "vm"(x));
    return sum;
}

/* Eight narrow values of an activation as double. */
MB_INLINE __m512d mb_narrow_values_8(const struct mb_activation *x, size_t i)
{
    __m256i hi = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(x->hi + i)));
    __m256i lo = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(x->lo + i)));
    return _mm512_cvtepi32_pd(_mm256_add_epi32(_mm256_slli_epi32(hi, 8), lo));
}

/* A raw row's product, as scalar.c defines it. */
float mb_raw_row_product_avx512(enum mb_dtype dtype, const uint8_t *values, size_t n_cols,
                                const struct mb_activation *x);

/* The table's functions. */
void mb_activation_avx512(const float *x, size_t n, int8_t *hi, int8_t *lo, void *wide,
                          struct mb_activation *out);
void mb_activation_fast_avx512(const float *x, size_t n, int8_t *bytes, int8_t *hi, int8_t *lo, void *wide,
                               struct mb_activation *out);
void mb_matvec_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                      const struct mb_activation *x, float *y);

/* The fused product with up to MB_FUSED_TOKENS tokens; 'scratch' as of matmul. */
enum { MB_FUSED_TOKENS = 4 };
void mb_matvecs_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                       const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                       void *scratch);
void mb_matmul_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                      const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                      void *scratch);
void mb_matvec_transposed_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                                 const struct mb_activation *x, float *y, void *scratch);
size_t mb_matmul_scratch_nbytes_avx512(size_t n_cols);
size_t mb_transposed_scratch_nbytes_avx512(size_t n_cols);
void mb_decode_rows_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out);
enum mb_status mb_encode_rows_avx512(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                     uint8_t *out, size_t out_cap, size_t *out_nbytes,
                                     struct mb_group *groups, size_t *bad_index);
size_t mb_count_full_codes_avx512(const uint8_t *stream, size_t n, unsigned width);

#endif
