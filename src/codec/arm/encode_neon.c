/*
 * encode_neon.c - the encoder of row groups (encode_kernels.h) on NEON: 16 weights are quantised and 16 codes
 * made at a time; eight codes are packed in a general register.
 */
#include "encode.h"
#include "simd_neon.h"
#include <math.h>
#include <string.h>

#define NAMED(name) name##_neon
enum { BLOCK = 16, BYTES = 16 };
typedef uint16_t bit_mask;

/* |w - decoded| <= eps, in double: lanes of all ones. */
MB_NOINLINE uint32x4_t kept_in_double(float32x4_t w, float32x4_t decoded, double eps)
{
    float from[4], to[4];
    uint32_t kept[4];
    vst1q_f32(from, w);
    vst1q_f32(to, decoded);
    for (int i = 0; i < 4; i++)
        kept[i] = fabs((double)from[i] - (double)to[i]) <= eps ? UINT32_MAX : 0;
    return vld1q_u32(kept);
}

/* Four indices; MB_Q_OUTLIER where the bound does not hold or q is out of reach. */
MB_INLINE int32x4_t quantise_4(float32x4_t w, const struct mb_coding *coding, float sure)
{
    const float32x4_t step = vdupq_n_f32(coding->step);
    float32x4_t q = vrndnq_f32(vdivq_f32(w, step));
    float32x4_t decoded = vmulq_f32(step, q);
    uint32x4_t kept = vcleq_f32(vabsq_f32(vsubq_f32(w, decoded)), vdupq_n_f32(sure));
    if (__builtin_expect(vminvq_u32(kept) == 0, 0))
        kept = vorrq_u32(kept, kept_in_double(w, decoded, coding->eps));
    kept = vandq_u32(kept, vcleq_f32(vabsq_f32(q), vdupq_n_f32(MB_Q_MAX)));
    return vbslq_s32(kept, vcvtnq_s32_f32(q), vdupq_n_s32(MB_Q_OUTLIER));
}

MB_INLINE bool is_finite_4(float32x4_t w)
{
    uint32x4_t exponent = vdupq_n_u32(0x7f800000);
    return vmaxvq_u32(vceqq_u32(vandq_u32(vreinterpretq_u32_f32(w), exponent), exponent)) == 0;
}

MB_INLINE bool quantise_block(enum mb_dtype dtype, const uint8_t *weights, const struct mb_coding *coding,
                              float sure, int8_t *q)
{
    int32x4_t v[4];
    bool is_finite = true;
    for (size_t k = 0; k < 4; k++) {
        float32x4_t w = mb_load_values_4(dtype, weights + 4 * k * mb_dtype_nbytes(dtype));
        is_finite = is_finite && is_finite_4(w);
        v[k] = quantise_4(w, coding, sure);
    }
    vst1q_s8(q, mb_narrow_16(v));
    return is_finite;
}

/* |q| as unsigned bytes: 128 is 128. */
MB_INLINE uint8x16_t magnitudes_16(const int8_t *q)
{
    return vreinterpretq_u8_s8(vabsq_s8(vld1q_s8(q)));
}

/* Bit i: lane i is all ones. */
MB_INLINE bit_mask mask_of(uint8x16_t lanes)
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t v = vandq_u8(lanes, vld1q_u8(bits));
    return (bit_mask)(vaddv_u8(vget_low_u8(v)) | vaddv_u8(vget_high_u8(v)) << 8);
}

MB_INLINE bit_mask up_to(const int8_t *q, unsigned limit)
{
    return mask_of(vcleq_u8(magnitudes_16(q), vdupq_n_u8((uint8_t)limit)));
}

MB_INLINE unsigned count_of(const int8_t *q, unsigned limit)
{
    return vaddvq_u8(vshrq_n_u8(vcleq_u8(magnitudes_16(q), vdupq_n_u8((uint8_t)limit)), 7));
}

/* Body codes, one a byte (then zeros, to a multiple of 128), and tail codes; returns the number of these. */
static size_t make_codes(const struct mb_widths *widths, const int8_t *q, size_t n, uint8_t *codes,
                         uint8_t *tail)
{
    int inner = mb_inner_max(widths->a), half = mb_tail_half(widths->b);
    uint8x16_t inners = vdupq_n_u8((uint8_t)inner), outers = vdupq_n_u8((uint8_t)(inner + half));
    uint8x16_t escape = vdupq_n_u8((uint8_t)(2 * inner + 1));
    uint8_t *end = tail;
    for (size_t i = 0; i < n; i += 16) {
        uint8x16_t v = vreinterpretq_u8_s8(vld1q_s8(q + i)), magnitude = magnitudes_16(q + i);
        uint8x16_t is_coded = vcleq_u8(magnitude, outers), is_inner = vcleq_u8(magnitude, inners);
        uint8x16_t code = vbslq_u8(is_inner, vaddq_u8(v, inners), escape);
        vst1q_u8(codes + i, vbslq_u8(is_coded, code, inners));
        bit_mask places = mask_of(vbicq_u8(is_coded, is_inner));
        for (; places != 0; places &= places - 1) {
            int index = (int)q[i + (size_t)__builtin_ctz(places)];
            *end++ = (uint8_t)(index < 0 ? -index - inner - 1 : index - inner - 1 + half);
        }
    }
    memset(codes + n, 0, 128);
    return (size_t)(end - tail);
}

/* Eight codes, one a byte, side by side: pairs, then fours, then all. */
MB_INLINE uint64_t pack_8(uint64_t codes, unsigned width)
{
    const uint64_t ones = UINT64_C(0x00ff00ff00ff00ff), twos = UINT64_C(0x0000ffff0000ffff);
    codes = (codes & ones) | (codes & ~ones) >> (8 - width);
    codes = (codes & twos) | (codes & ~twos) >> (16 - 2 * width);
    return (codes & UINT32_MAX) | codes >> 32 << 4 * width;
}

static void pack_stream(const uint8_t *codes, size_t n, unsigned width, uint8_t *out)
{
    for (size_t i = 0; i < n && width > 0; i += 8, out += width)
        mb_store_u64(out, pack_8(mb_load_u64(codes + i), width));
}

static void pack_nibbles(const uint8_t *codes, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i += 128, out += 64) {
        size_t left = n - i < 128 ? n - i : 128, half = (left + 1) / 2;
        for (size_t j = 0; j < half; j += 16) {
            uint8x16_t high = vld1q_u8(codes + i + half + j);
            vst1q_u8(out + j, vsliq_n_u8(vld1q_u8(codes + i + j), high, 4));
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
    else
        pack_stream(codes, n, widths->a, out);
}

static void write_tail(const uint8_t *codes, size_t n, unsigned width, uint8_t *out)
{
    pack_stream(codes, n, width, out);
}

#include "encode_kernels.h"
