/*
 * decode_avx512.c - whole row groups to bytes, and the products of raw rows.
 */
#include "by_width.h"
#include "simd_avx512.h"
#include <string.h>

/* Tables for all b < 8, of 64 and of 128 bytes. */
#define T_4(F, b, i) F(b, i), F(b, (i) + 1), F(b, (i) + 2), F(b, (i) + 3)
#define T_16(F, b, i) T_4(F, b, i), T_4(F, b, (i) + 4), T_4(F, b, (i) + 8), T_4(F, b, (i) + 12)
#define T_64(F, b, i) T_16(F, b, i), T_16(F, b, (i) + 16), T_16(F, b, (i) + 32), T_16(F, b, (i) + 48)

#define FROM(b, i) ((b) * ((i) / 8) + (i) % 8)
#define SHIFT(b, i) ((b) * ((i) % 8))
#define CODE(b, i) ((i) & ((1 << (b)) - 1))
#define HALF(b) (1 << (b) >> 1)
#define INDEX(b, i) (CODE(b, i) < HALF(b) ? -1 - CODE(b, i) : 1 + CODE(b, i) - HALF(b))
#define TABLE(b, positive_0, positive_1)                                                  \
    {                                                                                     \
        {T_64(FROM, b, 0)}, {T_64(SHIFT, b, 0)}, {T_64(INDEX, b, 0), T_64(INDEX, b, 64)}, \
        {                                                                                 \
            positive_0, positive_1                                                        \
        }                                                                                 \
    }

_Alignas(64) const struct mb_tail_table_512 mb_tail_tables_512[MB_WIDTH_MAX] = {
    TABLE(0, 0, 0),
    TABLE(1, 0xaaaaaaaaaaaaaaaa, 0xaaaaaaaaaaaaaaaa),
    TABLE(2, 0xcccccccccccccccc, 0xcccccccccccccccc),
    TABLE(3, 0xf0f0f0f0f0f0f0f0, 0xf0f0f0f0f0f0f0f0),
    TABLE(4, 0xff00ff00ff00ff00, 0xff00ff00ff00ff00),
    TABLE(5, 0xffff0000ffff0000, 0xffff0000ffff0000),
    TABLE(6, 0xffffffff00000000, 0xffffffff00000000),
    TABLE(7, 0, 0xffffffffffffffff),
};

MB_INLINE void group_bytes(unsigned a, const struct mb_group_view *group, const uint8_t *tail, uint8_t *out)
{
    struct mb_body_512 body = mb_body_of_kind(a, group->b);
    const uint8_t *p = group->body;
    size_t i = 0;
    __m512i u[2];
    for (; i + 128 <= group->n; i += 128, p += 16 * a) {
        mb_prefetch_512(p, 16 * a);
        mb_decode_128(p, a, &body, &tail, u);
        _mm512_storeu_si512(out + i, u[0]);
        _mm512_storeu_si512(out + i + 64, u[1]);
    }
    if (i < group->n) {
        size_t n0 = mb_decode_last(p, a, &body, group->n - i, tail, u);
        _mm512_storeu_si512(out + i, u[0]);
        _mm512_storeu_si512(out + i + n0, u[1]);
    }
}

#define GROUP_BYTES(a)                                                                                \
    static void group_bytes_##a(const struct mb_group_view *group, const uint8_t *tail, uint8_t *out) \
    {                                                                                                 \
        group_bytes(a, group, tail, out);                                                             \
    }
MB_WIDTHS_1_TO_8(GROUP_BYTES)

static void group_bytes_0(const struct mb_group_view *group, const uint8_t *tail, uint8_t *out)
{
    (void)tail; /* all q are 0 */
    memset(out, 0, group->n);
}

static void (*const group_bytes_of_width[])(const struct mb_group_view *group, const uint8_t *tail,
                                            uint8_t *out) = {group_bytes_0, MB_NAMES_1_TO_8(group_bytes)};

void mb_group_bytes_avx512(const struct mb_group_view *group, uint8_t *out)
{
    uint8_t tail[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    struct mb_tail_512 kind = mb_tail_of_kind(group->a, group->b);
    mb_tail_decode_512(group, &kind, mb_tail_rounds_512(group->n_escapes), tail);
    group_bytes_of_width[group->a](group, tail, out);
}

/* ---------------------------------------------------------------- floats */

/*
 * 64 bytes u as (u - offset) * step.  A byte in the low bits of 2^23 is the float 2^23 + u, from which the
 * difference is exact.
 */
MB_INLINE void store_64(__m512i u, __m512 offset, __m512 step, float *out)
{
    const __m512i magic = _mm512_set1_epi32(0x4b000000);
    const __m512i every_fourth = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m512i from = _mm512_add_epi32(every_fourth, _mm512_set1_epi32(16 * k));
        __m512i v = _mm512_mask_permutexvar_epi8(magic, 0x1111111111111111, from, u);
        __m512 q = _mm512_sub_ps(_mm512_castsi512_ps(v), offset);
        _mm512_storeu_ps(out + 16 * k, _mm512_mul_ps(q, step));
    }
}

/* As group_bytes: stores of floats, which the cache takes slowly, and decoding go on side by side. */
MB_INLINE void group_floats(unsigned a, const struct mb_group_view *group, const uint8_t *tail, float step,
                            float *out)
{
    struct mb_body_512 body = mb_body_of_kind(a, group->b);
    __m512 offset = _mm512_set1_ps(0x1p23F + (float)mb_offset_512(a, group->b));
    __m512 steps = _mm512_set1_ps(step);
    const uint8_t *p = group->body;
    size_t i = 0;
    __m512i u[2];
    for (; i + 128 <= group->n; i += 128, p += 16 * a) {
        mb_prefetch_512(p, 16 * a);
        mb_decode_128(p, a, &body, &tail, u);
        store_64(u[0], offset, steps, out + i);
        store_64(u[1], offset, steps, out + i + 64);
    }
    if (i < group->n) {
        float last[128];
        size_t n0 = mb_decode_last(p, a, &body, group->n - i, tail, u);
        store_64(u[0], offset, steps, last);
        memcpy(out + i, last, n0 * sizeof *out);
        store_64(u[1], offset, steps, last);
        memcpy(out + i + n0, last, (group->n - i - n0) * sizeof *out);
    }
}

#define GROUP_FLOATS(a)                                                                              \
    static void group_floats_##a(const struct mb_group_view *group, const uint8_t *tail, float step, \
                                 float *out)                                                         \
    {                                                                                                \
        group_floats(a, group, tail, step, out);                                                     \
    }
MB_WIDTHS_1_TO_8(GROUP_FLOATS)

static void group_floats_0(const struct mb_group_view *group, const uint8_t *tail, float step, float *out)
{
    (void)tail; /* all q are 0 */
    (void)step;
    memset(out, 0, group->n * sizeof *out);
}

static void (*const group_floats_of_width[])(const struct mb_group_view *group, const uint8_t *tail,
                                             float step,
                                             float *out) = {group_floats_0, MB_NAMES_1_TO_8(group_floats)};

void mb_group_floats_avx512(const struct mb_group_view *group, float step, float *out)
{
    uint8_t tail[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    struct mb_tail_512 kind = mb_tail_of_kind(group->a, group->b);
    mb_tail_decode_512(group, &kind, mb_tail_rounds_512(group->n_escapes), tail);
    group_floats_of_width[group->a](group, tail, step, out);
}

/* ---------------------------------------------------------------- raw rows */

/* Products of a float and an X are exact in double, so that fma and two steps are the same. */
float mb_raw_row_product_avx512(enum mb_dtype dtype, const uint8_t *values, size_t n_cols,
                                const struct mb_activation *x)
{
    __m512d sum = _mm512_setzero_pd();
    for (size_t c = 0; c < n_cols; c += 8) {
        __m512 w =
            mb_load_values_16(dtype, values + c * mb_dtype_nbytes(dtype), mb_lanes_16(n_cols - c) & 0xff);
        sum = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(w)), mb_narrow_values_8(x, c), sum);
    }
    __m256d y = _mm256_add_pd(_mm512_castpd512_pd256(sum), _mm512_extractf64x4_pd(sum, 1));
    __m128d z = _mm_add_pd(_mm256_castpd256_pd128(y), _mm256_extractf128_pd(y, 1));
    double product = _mm_cvtsd_f64(z) + _mm_cvtsd_f64(_mm_unpackhi_pd(z, z));
    if (x->n_wide > 0)
        product += mb_wide_raw_row(dtype, values, n_cols, x);
    return (float)(product * (double)x->scale);
}
