/*
 * activation.c - see activation.h.
 *
 * All decisions compare floats and none adds any, so that they are the same for every order and instruction
 * set.
 */
#include "activation.h"
#include <float.h>
#include <math.h>
#include <string.h>

/*
 * The range of the narrow blocks, in typical elements.  Heavy tails are no outliers: hidden vectors of
 * trained experts reach 5 to 50 times the typical element, here and there.  So a block above NEAR is wide
 * where there are few such blocks besides those above FAR, which are wide always.
 */
static const float NEAR = 4, FAR = 16;
enum { FEW_BLOCKS = 3 };

/* The largest X is 2^45, and the largest E 2^30 (128 more where the division rounds up): four signed bytes.
 */
static const float LEAST_RATIO = 0x1p-45F;

/* The fewest elements of a part. */
enum { PART_ELEMENTS = 8 };

enum { BLOCKS_MAX = (MB_COLS_MAX + MB_ACTIVATION_BLOCK - 1) / MB_ACTIVATION_BLOCK };

/* A branch would be mispredicted as often as not. */
static uint32_t larger(uint32_t a, uint32_t b)
{
    uint32_t mask = 0 - (uint32_t)(b > a);
    return (a & ~mask) | (b & mask);
}

static size_t fold_parts(uint32_t *largest, size_t n)
{
    size_t n_parts = MB_PARTS;
    while (n_parts > 1 && n < PART_ELEMENTS * n_parts) {
        n_parts /= 2;
        for (size_t i = 0; i < n_parts; i++)
            largest[i] = larger(largest[i], largest[i + n_parts]);
    }
    return n_parts;
}

/* Whether half of the parts or more reach 'least'.  All are below 2^31: signed comparisons are faster. */
static bool half_reach(const uint32_t *largest, size_t n_parts, uint32_t least)
{
    int32_t count = 0;
    for (size_t i = 0; i < n_parts; i++)
        count += (int32_t)largest[i] >= (int32_t)least;
    return 2 * (size_t)count >= n_parts;
}

/*
 * The largest of the values that half of the parts reach.  For each part, how many reach it: loops of
 * constant length, which compilers make vectors of.
 */
static float typical_of(const uint32_t *largest, size_t n_parts)
{
    int32_t n_reaching[MB_PARTS] = {0};
    uint32_t typical = 0;
    for (size_t k = 0; k < n_parts; k++)
        for (size_t i = 0; i < MB_PARTS; i++)
            n_reaching[i] += (int32_t)largest[k] >= (int32_t)largest[i];
    for (size_t i = 0; i < n_parts; i++)
        typical = larger(typical, 2 * n_reaching[i] >= (int32_t)n_parts ? largest[i] : 0);
    return mb_float_of_bits(typical);
}

static float largest_of(const uint32_t *largest)
{
    uint32_t max = 0;
    for (size_t i = 0; i < MB_PARTS; i++)
        max = largest[i] > max ? largest[i] : max;
    return mb_float_of_bits(max);
}

/* A vector on its way to integers. */
struct conversion {
    const struct mb_activation_ops *ops;
    const float *x;
    size_t n, n_blocks;
    float max, typical;
    float limit;                 /* the largest |X| of a block that is not wide */
    float block_max[BLOCKS_MAX]; /* once n_blocks > 0 */
};

/* Fills the largest magnitude of each block. */
static void find_block_max(struct conversion *v)
{
    for (size_t c = 0; c < v->n; c += MB_ACTIVATION_BLOCK) {
        uint32_t largest[MB_PARTS];
        v->ops->parts(v->x + c, v->n - c < MB_ACTIVATION_BLOCK ? v->n - c : MB_ACTIVATION_BLOCK, largest);
        v->block_max[v->n_blocks++] = largest_of(largest);
    }
}

static size_t count_above(const struct conversion *v, float limit)
{
    size_t count = 0;
    for (size_t i = 0; i < v->n_blocks; i++)
        count += v->block_max[i] > limit;
    return count;
}

/* The scale of a vector with elements above NEAR. */
static float scale_of(const struct conversion *v)
{
    size_t n_near = count_above(v, NEAR * v->typical), n_far = count_above(v, FAR * v->typical);
    size_t n_few = v->n_blocks > 1 ? FEW_BLOCKS : 0;
    float scale = (n_near <= n_far + n_few ? NEAR : FAR) * v->typical / v->limit;
    scale = fmaxf(scale, fmaxf(v->max * LEAST_RATIO, FLT_MIN));
    return fminf(scale, v->max / v->limit);
}

static int32_t wide_of(float scaled)
{
    return fabsf(scaled) <= (float)MB_ACTIVATION_MAX ? 0 : (int32_t)rintf(scaled / (float)MB_WIDE_UNIT);
}

/* Signed bytes that hold any E of at most that magnitude. */
static uint16_t planes_of(int32_t wide_max)
{
    uint16_t n = 1;
    for (int64_t reach = 127; reach < wide_max; reach = 256 * reach + 127)
        n++;
    return n;
}

/* A wide block of n elements. What it takes off x / scale is exact: E is a float, 32768 a power of two. */
static void split_wide(const float *x, size_t n, size_t n_planes, struct mb_activation *out, int8_t *hi,
                       int8_t *lo, int8_t *planes)
{
    memset(hi, 0, MB_ACTIVATION_BLOCK);
    memset(lo, 0, MB_ACTIVATION_BLOCK);
    memset(planes, 0, n_planes * MB_ACTIVATION_BLOCK);
    for (size_t i = 0; i < n; i++) {
        float scaled = rintf(x[i] / out->scale);
        int32_t wide = wide_of(scaled);
        int value = (int)(scaled - (float)MB_WIDE_UNIT * (float)wide);
        hi[i] = (int8_t)((value + 128) >> 8);
        lo[i] = (int8_t)(value - 256 * hi[i]);
        out->sum += value;
        out->wide_sum += wide;
        for (size_t p = 0; p < n_planes; p++) {
            int8_t digit = (int8_t)(((wide + 128) & 255) - 128);
            planes[p * MB_ACTIVATION_BLOCK + i] = digit;
            wide = (wide - digit) / 256;
        }
    }
}

/* A block that is not wide, as one plane and the least factor that lets it fit. */
static void split_fast(const struct conversion *v, size_t c, size_t n, const struct mb_fast_planes *fast,
                       int8_t *hi, int8_t *lo, struct mb_activation *out)
{
    int largest = (int)rintf(v->block_max[c / MB_ACTIVATION_BLOCK] / out->scale);
    int factor = largest <= 127 ? 1 : (largest + 126) / 127;
    fast->factors[c / MB_ACTIVATION_BLOCK] = (uint8_t)factor;
    out->sum +=
        v->ops->split_fast(v->x + c, n, out->scale * (float)factor, factor, fast->bytes + c, hi + c, lo + c);
}

/* Block by block. 'fast': NULL where blocks have both planes. */
static void split_blocks(const struct conversion *v, int8_t *hi, int8_t *lo, void *wide,
                         const struct mb_fast_planes *fast, struct mb_activation *out)
{
    uint16_t *wide_at = wide;
    int8_t *planes = (int8_t *)wide + (v->n_blocks * sizeof *wide_at + 63) / 64 * 64;
    out->wide_at = wide_at;
    out->wide = planes;
    out->n_wide_planes = planes_of(wide_of(rintf(v->max / out->scale)));
    for (size_t c = 0; c < v->n; c += MB_ACTIVATION_BLOCK) {
        size_t n_here = v->n - c < MB_ACTIVATION_BLOCK ? v->n - c : MB_ACTIVATION_BLOCK;
        if (rintf(v->block_max[c / MB_ACTIVATION_BLOCK] / out->scale) <= v->limit) {
            if (fast != NULL)
                split_fast(v, c, n_here, fast, hi, lo, out);
            else
                out->sum += v->ops->split(v->x + c, n_here, out->scale, hi + c, lo + c);
            continue;
        }
        wide_at[out->n_wide] = (uint16_t)(c / MB_ACTIVATION_BLOCK);
        split_wide(v->x + c, n_here, out->n_wide_planes, out, hi + c, lo + c,
                   planes + (size_t)out->n_wide * out->n_wide_planes * MB_ACTIVATION_BLOCK);
        out->n_wide++;
        if (fast != NULL) {
            memset(fast->bytes + c, 0, MB_ACTIVATION_BLOCK);
            fast->factors[c / MB_ACTIVATION_BLOCK] = 1;
        }
    }
    if (out->n_wide == 0)
        out->n_wide_planes = 0;
}

/* Finds the scale, but for vectors without one, which are 0: false. */
static bool find_scale(struct conversion *v, int8_t *hi, int8_t *lo, struct mb_activation *out)
{
    uint32_t largest[MB_PARTS];
    v->ops->parts(v->x, v->n, largest);
    v->max = largest_of(largest);
    bool is_finite = v->max <= FLT_MAX;
    *out = (struct mb_activation){.hi = hi, .lo = lo, .scale = v->max / v->limit};
    if (!is_finite || !(out->scale >= FLT_MIN)) { /* a subnormal scale would let X overflow */
        memset(hi, 0, mb_activation_plane_nbytes(v->n));
        memset(lo, 0, mb_activation_plane_nbytes(v->n));
        out->scale = is_finite ? 0 : NAN;
        return false;
    }
    size_t n_parts = fold_parts(largest, v->n);
    if (!half_reach(largest, n_parts, mb_bits_of_float(v->max / NEAR))) { /* max > NEAR * typical, for less */
        v->typical = typical_of(largest, n_parts);
        find_block_max(v);
        out->scale = scale_of(v);
    }
    return true;
}

void mb_activation_by(const struct mb_activation_ops *ops, const float *x, size_t n, int8_t *hi, int8_t *lo,
                      void *wide, struct mb_activation *out)
{
    struct conversion v;
    v.ops = ops;
    v.x = x;
    v.n = n;
    v.n_blocks = 0;
    v.limit = (float)MB_ACTIVATION_MAX;
    if (!find_scale(&v, hi, lo, out))
        return;
    if (out->scale < v.max / v.limit)
        split_blocks(&v, hi, lo, wide, NULL, out);
    else
        out->sum = ops->split(x, n, out->scale, hi, lo);
}

void mb_activation_fast_by(const struct mb_activation_ops *ops, const float *x, size_t n, int8_t *bytes,
                           int8_t *hi, int8_t *lo, void *wide, struct mb_activation *out)
{
    struct mb_fast_planes fast = {bytes, NULL};
    fast.factors = (uint8_t *)fast.bytes + mb_activation_plane_nbytes(n);
    struct conversion v;
    v.ops = ops;
    v.x = x;
    v.n = n;
    v.n_blocks = 0;
    v.limit = (float)MB_FAST_MAX;
    if (find_scale(&v, hi, lo, out)) {
        if (v.n_blocks == 0)
            find_block_max(&v);
        split_blocks(&v, hi, lo, wide, &fast, out);
    } else {
        memset(fast.bytes, 0, mb_activation_plane_nbytes(n));
        memset(fast.factors, 1, mb_activation_plane_nbytes(n) / MB_ACTIVATION_BLOCK);
    }
    out->bytes = fast.bytes;
    out->factors = fast.factors;
}

int32_t mb_wide_value(const struct mb_activation *x, size_t i)
{
    size_t low = 0, high = x->n_wide;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (x->wide_at[middle] < i / MB_ACTIVATION_BLOCK)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == x->n_wide || x->wide_at[low] != i / MB_ACTIVATION_BLOCK)
        return 0;
    const int8_t *planes = mb_wide_planes(x, low) + i % MB_ACTIVATION_BLOCK;
    int32_t value = 0;
    for (size_t p = x->n_wide_planes; p-- > 0;)
        value = value * 256 + planes[p * MB_ACTIVATION_BLOCK];
    return value;
}
