/*
 * convert_neon.c - decoded rows as floats, and activations, four at a time (convert_kernels.h).
 */
#include "simd_neon.h"
#include <string.h>

#define NAMED(name) name##_neon
enum { LANES = 4, SPLIT = 16 };
typedef uint32x4_t ints;

#define SEEK mb_group_seek
#define NEXT mb_group_next
#define WHOLE_GROUP(w, view, out) false
#define ADD_COLUMNS(n, wide, out) ((void)0)

static int decode_group(const struct mb_coded_matrix *w, const struct mb_group_view *view, uint8_t *bytes)
{
    (void)w;
    mb_group_indices_neon(view, (int8_t *)bytes);
    return 0;
}

MB_INLINE void store_floats(float32x4_t v, size_t n, float *out)
{
    float last[LANES];
    vst1q_f32(n == LANES ? out : last, v);
    if (n < LANES)
        memcpy(out, last, n * sizeof *out);
}

MB_INLINE void store_weights(const uint8_t *bytes, int offset, float step, size_t n, float *out)
{
    (void)offset; /* bytes are indices */
    int8x8_t q = vreinterpret_s8_u32(vdup_n_u32(mb_load_u32(bytes)));
    float32x4_t v = vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(q))));
    store_floats(vmulq_n_f32(v, step), n, out);
}

MB_INLINE void store_values(enum mb_dtype dtype, const uint8_t *values, size_t n, float *out)
{
    uint8_t last[LANES * sizeof(float)] = {0};
    if (n < LANES)
        values = memcpy(last, values, n * mb_dtype_nbytes(dtype));
    store_floats(mb_load_values_4(dtype, values), n, out);
}

MB_INLINE ints v_zero(void)
{
    return vdupq_n_u32(0);
}

MB_INLINE ints v_add(ints a, ints b)
{
    return vaddq_u32(a, b);
}

MB_INLINE ints v_max_bits(ints max, const float *x, size_t n)
{
    float last[LANES] = {0};
    if (n < LANES)
        x = memcpy(last, x, n * sizeof *x);
    return vmaxq_u32(max, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x)), vdupq_n_u32(0x7fffffff)));
}

static int64_t sum_of(ints v)
{
    return vaddlvq_s32(vreinterpretq_s32_u32(v));
}

MB_INLINE ints split(const float *x, float scale, int8_t *hi, int8_t *lo)
{
    int32x4_t high[4], low[4], sum = vdupq_n_s32(0);
    for (int k = 0; k < 4; k++) {
        int32x4_t value = vcvtnq_s32_f32(vdivq_f32(vld1q_f32(x + 4 * k), vdupq_n_f32(scale)));
        high[k] = vshrq_n_s32(vaddq_s32(value, vdupq_n_s32(128)), 8);
        low[k] = vsubq_s32(value, vshlq_n_s32(high[k], 8));
        sum = vaddq_s32(sum, value);
    }
    vst1q_s8(hi, mb_narrow_16(high));
    vst1q_s8(lo, mb_narrow_16(low));
    return vreinterpretq_u32_s32(sum);
}

MB_INLINE ints split_bytes(const float *x, float scale, int factor, int8_t *bytes, int8_t *hi, int8_t *lo)
{
    int32x4_t byte[4], high[4], low[4], sum = vdupq_n_s32(0);
    for (int k = 0; k < 4; k++) {
        byte[k] = vcvtnq_s32_f32(vdivq_f32(vld1q_f32(x + 4 * k), vdupq_n_f32(scale)));
        int32x4_t value = vmulq_n_s32(byte[k], factor);
        high[k] = vshrq_n_s32(vaddq_s32(value, vdupq_n_s32(128)), 8);
        low[k] = vsubq_s32(value, vshlq_n_s32(high[k], 8));
        sum = vaddq_s32(sum, value);
    }
    vst1q_s8(bytes, mb_narrow_16(byte));
    vst1q_s8(hi, mb_narrow_16(high));
    vst1q_s8(lo, mb_narrow_16(low));
    return vreinterpretq_u32_s32(sum);
}

#include "convert_kernels.h"
