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

static size_t fold_parts(uint32_t *largest, size_t n)
{
    size_t n_parts = MB_PARTS;
    while (n_parts > 1 && n < PART_ELEMENTS * n_parts) {
        n_parts /= 2;
        for (size_t i = 0; i < n_parts; i++)
            if (largest[i + n_parts] > largest[i])
                largest[i] = largest[i + n_parts];
    }
    return n_parts;
}

static size_t count_at_least(const uint32_t *bits, size_t n, uint32_t least)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += bits[i] >= least;
    return count;
}

/* The largest of the values that half of the parts reach. */
static float typical_of(const uint32_t *largest, size_t n_parts)
{
    uint32_t typical = 0;
    for (size_t i = 0; i < n_parts; i++)
        if (largest[i] > typical && count_at_least(largest, n_parts, largest[i]) >= (n_parts + 1) / 2)
            typical = largest[i];
    return mb_float_of_bits(typical);
}

static float largest_of(const uint32_t *largest)
{
    uint32_t max = 0;
    for (size_t i = 0; i < MB_PARTS; i++)
        max = largest[i] > max ? largest[i] : max;
    return mb_float_of_bits(max);
}

/* Fills the largest magnitude of each block of x[n]; returns how many blocks there are. */
static size_t find_block_max(const struct mb_activation_ops *ops, const float *x, size_t n, float *block_max)
{
    size_t n_blocks = 0;
    for (size_t c = 0; c < n; c += MB_ACTIVATION_BLOCK) {
        uint32_t largest[MB_PARTS];
        ops->parts(x + c, n - c < MB_ACTIVATION_BLOCK ? n - c : MB_ACTIVATION_BLOCK, largest);
        block_max[n_blocks++] = largest_of(largest);
    }
    return n_blocks;
}

static size_t count_above(const float *block_max, size_t n_blocks, float limit)
{
    size_t count = 0;
    for (size_t i = 0; i < n_blocks; i++)
        count += block_max[i] > limit;
    return count;
}

/* The scale of a vector whose largest element alone would make it 'by_max', which is not 0. */
static float scale_of(float max, float by_max, float typical, const float *block_max, size_t n_blocks)
{
    size_t n_near = count_above(block_max, n_blocks, NEAR * typical);
    size_t n_far = count_above(block_max, n_blocks, FAR * typical);
    size_t n_few = n_blocks > 1 ? FEW_BLOCKS : 0;
    float scale = (n_near <= n_far + n_few ? NEAR : FAR) * typical / (float)MB_ACTIVATION_MAX;
    scale = fmaxf(scale, fmaxf(max * LEAST_RATIO, FLT_MIN));
    return fminf(scale, by_max);
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

static void split_with_outliers(const struct mb_activation_ops *ops, const float *x, size_t n, float max,
                                const float *block_max, size_t n_blocks, int8_t *hi, int8_t *lo, void *wide,
                                struct mb_activation *out)
{
    uint16_t *wide_at = wide;
    int8_t *planes = (int8_t *)wide + (n_blocks * sizeof *wide_at + 63) / 64 * 64;
    out->wide_at = wide_at;
    out->wide = planes;
    out->n_wide_planes = planes_of(wide_of(rintf(max / out->scale)));
    for (size_t c = 0; c < n; c += MB_ACTIVATION_BLOCK) {
        size_t n_here = n - c < MB_ACTIVATION_BLOCK ? n - c : MB_ACTIVATION_BLOCK;
        if (wide_of(rintf(block_max[c / MB_ACTIVATION_BLOCK] / out->scale)) == 0) {
            out->sum += ops->split(x + c, n_here, out->scale, hi + c, lo + c);
            continue;
        }
        wide_at[out->n_wide] = (uint16_t)(c / MB_ACTIVATION_BLOCK);
        split_wide(x + c, n_here, out->n_wide_planes, out, hi + c, lo + c,
                   planes + (size_t)out->n_wide * out->n_wide_planes * MB_ACTIVATION_BLOCK);
        out->n_wide++;
    }
}

void mb_activation_by(const struct mb_activation_ops *ops, const float *x, size_t n, int8_t *hi, int8_t *lo,
                      void *wide, struct mb_activation *out)
{
    uint32_t largest[MB_PARTS];
    ops->parts(x, n, largest);
    float max = largest_of(largest), by_max = max / (float)MB_ACTIVATION_MAX;
    bool is_finite = max <= FLT_MAX;
    *out = (struct mb_activation){.hi = hi, .lo = lo};
    if (!is_finite || !(by_max >= FLT_MIN)) { /* a subnormal scale would let X overflow: such vectors are 0 */
        memset(hi, 0, mb_activation_plane_nbytes(n));
        memset(lo, 0, mb_activation_plane_nbytes(n));
        out->scale = is_finite ? 0 : NAN;
        return;
    }
    out->scale = by_max;
    float typical = typical_of(largest, fold_parts(largest, n));
    if (max > NEAR * typical) {
        float block_max[BLOCKS_MAX];
        size_t n_blocks = find_block_max(ops, x, n, block_max);
        out->scale = scale_of(max, by_max, typical, block_max, n_blocks);
        if (out->scale < by_max) {
            split_with_outliers(ops, x, n, max, block_max, n_blocks, hi, lo, wide, out);
            return;
        }
    }
    out->sum = ops->split(x, n, by_max, hi, lo);
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
