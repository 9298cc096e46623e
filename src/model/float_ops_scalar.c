/*
 * float_ops_scalar.c - sixteen lanes without vector instructions: what the other tables must equal.
 */
#include "base/value.h"
#include "float_ops_tables.h"

#define ISA scalar
#define EACH for (size_t i = 0; i < 16; i++)

struct lanes {
    float f[16];
};

static inline struct lanes v_set1(float x)
{
    struct lanes v;
    EACH v.f[i] = x;
    return v;
}

static inline struct lanes v_load(const float *p, size_t n)
{
    struct lanes v = {{0}};
    memcpy(v.f, p, n * sizeof *p);
    return v;
}

static inline void v_store(float *p, struct lanes v, size_t n)
{
    memcpy(p, v.f, n * sizeof *p);
}

static inline struct lanes v_load_as(enum mb_dtype dtype, const uint8_t *p, size_t n)
{
    struct lanes v = {{0}};
    for (size_t i = 0; i < n; i++)
        v.f[i] = mb_load_value(dtype, p, i);
    return v;
}

static inline void v_store_f16(uint16_t *p, struct lanes v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = mb_f16_of_float(v.f[i]);
}

static inline struct lanes v_add(struct lanes a, struct lanes b)
{
    EACH a.f[i] += b.f[i];
    return a;
}

static inline struct lanes v_sub(struct lanes a, struct lanes b)
{
    EACH a.f[i] -= b.f[i];
    return a;
}

static inline struct lanes v_mul(struct lanes a, struct lanes b)
{
    EACH a.f[i] *= b.f[i];
    return a;
}

static inline struct lanes v_div(struct lanes a, struct lanes b)
{
    EACH a.f[i] /= b.f[i];
    return a;
}

static inline struct lanes v_fma(struct lanes a, struct lanes b, struct lanes c)
{
    EACH c.f[i] = __builtin_fmaf(a.f[i], b.f[i], c.f[i]);
    return c;
}

static inline struct lanes v_fma_first(struct lanes a, struct lanes b, struct lanes c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        c.f[i] = __builtin_fmaf(a.f[i], b.f[i], c.f[i]);
    return c;
}

static inline struct lanes v_max(struct lanes a, struct lanes b)
{
    EACH b.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i];
    return b;
}

static inline struct lanes v_min(struct lanes a, struct lanes b)
{
    EACH b.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i];
    return b;
}

static inline struct lanes v_select_nan(struct lanes a, struct lanes b)
{
    EACH a.f[i] = b.f[i] != b.f[i] ? b.f[i] : a.f[i];
    return a;
}

static inline struct lanes v_rint(struct lanes a)
{
    EACH a.f[i] = __builtin_rintf(a.f[i]);
    return a;
}

/* For NaN any number will do: it is multiplied by NaN. */
static inline struct lanes v_pow2(struct lanes a)
{
    EACH a.f[i] = mb_float_of_bits((uint32_t)((a.f[i] == a.f[i] ? (int32_t)a.f[i] : 0) + 127) << 23);
    return a;
}

enum { BLOCK_TOKENS = 1, BLOCK_VECTORS = 1 };
enum { TILE_ROWS = 1, TILE_TOKENS = 1 };

static inline void v_store_sums(float *y, const struct lanes acc[TILE_ROWS], size_t n_rows)
{
    struct lanes v = acc[0];
    (void)n_rows;
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            v.f[i] += v.f[i + half];
    *y = v.f[0];
}

#include "float_ops_kernels.h"
