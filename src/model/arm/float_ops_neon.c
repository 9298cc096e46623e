/*
 * float_ops_neon.c - sixteen lanes as four registers of four.
 */
#include "base/bytes.h"
#include "float_ops_tables.h"
#include <arm_neon.h>

#define ISA neon
#define EACH for (size_t i = 0; i < 4; i++)

struct lanes {
    float32x4_t v[4]; /* lanes 0 to 3, 4 to 7, ... */
};

static inline struct lanes v_set1(float x)
{
    float32x4_t v = vdupq_n_f32(x);
    return (struct lanes){{v, v, v, v}};
}

static inline struct lanes v_load(const float *p, size_t n)
{
    float f[16] = {0};
    if (n < 16)
        p = memcpy(f, p, n * sizeof *p);
    return (struct lanes){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}

static inline void v_store(float *p, struct lanes v, size_t n)
{
    float f[16], *to = n < 16 ? f : p;
    EACH vst1q_f32(to + 4 * i, v.v[i]);
    if (n < 16)
        memcpy(p, f, n * sizeof *p);
}

static inline float32x4_t v_load_4_as(enum mb_dtype dtype, const uint8_t *p)
{
    uint16x4_t half = vreinterpret_u16_u8(vld1_u8(p));
    if (dtype == MB_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(half));
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

static inline struct lanes v_load_as(enum mb_dtype dtype, const uint8_t *p, size_t n)
{
    uint8_t bytes[64] = {0};
    if (n < 16)
        p = memcpy(bytes, p, n * mb_dtype_nbytes(dtype));
    struct lanes v;
    if (dtype == MB_F32)
        EACH v.v[i] = vreinterpretq_f32_u8(vld1q_u8(p + 16 * i));
    else
        EACH v.v[i] = v_load_4_as(dtype, p + 8 * i);
    return v;
}

static inline void v_store_f16(uint16_t *p, struct lanes v, size_t n)
{
    uint16_t f[16];
    EACH vst1_u16(f + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v.v[i])));
    memcpy(p, f, n * sizeof *p);
}

static inline struct lanes v_add(struct lanes a, struct lanes b)
{
    EACH a.v[i] = vaddq_f32(a.v[i], b.v[i]);
    return a;
}

static inline struct lanes v_sub(struct lanes a, struct lanes b)
{
    EACH a.v[i] = vsubq_f32(a.v[i], b.v[i]);
    return a;
}

static inline struct lanes v_mul(struct lanes a, struct lanes b)
{
    EACH a.v[i] = vmulq_f32(a.v[i], b.v[i]);
    return a;
}

static inline struct lanes v_div(struct lanes a, struct lanes b)
{
    EACH a.v[i] = vdivq_f32(a.v[i], b.v[i]);
    return a;
}

static inline struct lanes v_fma(struct lanes a, struct lanes b, struct lanes c)
{
    EACH c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
    return c;
}

static inline struct lanes v_fma_first(struct lanes a, struct lanes b, struct lanes c, size_t n)
{
    static const uint32_t places[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    EACH
    {
        uint32x4_t is_first = vcltq_u32(vld1q_u32(places + 4 * i), vdupq_n_u32((uint32_t)n));
        c.v[i] = vbslq_f32(is_first, vfmaq_f32(c.v[i], a.v[i], b.v[i]), c.v[i]);
    }
    return c;
}

/* NEON's own maximum and minimum are NaN where either operand is. */
static inline struct lanes v_max(struct lanes a, struct lanes b)
{
    EACH b.v[i] = vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]);
    return b;
}

static inline struct lanes v_min(struct lanes a, struct lanes b)
{
    EACH b.v[i] = vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]);
    return b;
}

static inline struct lanes v_select_nan(struct lanes a, struct lanes b)
{
    EACH a.v[i] = vbslq_f32(vceqq_f32(b.v[i], b.v[i]), a.v[i], b.v[i]);
    return a;
}

static inline struct lanes v_rint(struct lanes a)
{
    EACH a.v[i] = vrndnq_f32(a.v[i]);
    return a;
}

static inline struct lanes v_pow2(struct lanes a)
{
    EACH
    {
        int32x4_t n = vaddq_s32(vcvtnq_s32_f32(a.v[i]), vdupq_n_s32(127));
        a.v[i] = vreinterpretq_f32_s32(vshlq_n_s32(n, 23));
    }
    return a;
}

enum { BLOCK_TOKENS = 4, BLOCK_VECTORS = 1 }; /* 16 accumulators and 4 registers of rows */
enum { TILE_ROWS = 2, TILE_TOKENS = 2 };      /* 16 accumulators, 8 registers of weights and 4 of x */

static inline float sum_of(struct lanes v)
{
    float32x4_t z = vaddq_f32(vaddq_f32(v.v[0], v.v[2]), vaddq_f32(v.v[1], v.v[3]));
    float32x2_t two = vadd_f32(vget_low_f32(z), vget_high_f32(z));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

static inline void v_store_sums(float *y, const struct lanes acc[TILE_ROWS], size_t n_rows)
{
    y[0] = sum_of(acc[0]);
    if (n_rows == 2)
        y[1] = sum_of(acc[1]);
}

#include "float_ops_kernels.h"
