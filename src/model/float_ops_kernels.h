/*
 * float_ops_kernels.h - the functions of float_ops.h, written once over sixteen lanes.
 *
 * A file that includes this has defined, for its instruction set:
 *   ISA                      the name of the table (avx512) and of the functions' suffix
 *   struct lanes             sixteen floats
 *   v_set1, v_load, v_store  the last two with a number of elements, 1 to 16; missing lanes are 0
 *   v_load_as                sixteen (or n) values of a dtype
 *   v_store_f16, v_add, v_sub, v_mul, v_div, v_fma, v_rint, v_pow2 (2^n of an integral float)
 *   v_fma_first              v_fma for the first n lanes; the others keep the last operand's
 *   v_max, v_min             the second operand where one is NaN
 *   v_select_nan             (a, b): a, NaN in lanes where b is NaN
 *   BLOCK_TOKENS, BLOCK_VECTORS  of sums of weighted rows, each at most 4: as many accumulators as there are
 *                            registers for
 *   TILE_ROWS, TILE_TOKENS   of a dense product: as many accumulators as there are registers for
 *   v_store_sums             the sums of TILE_ROWS accumulators by the fixed tree, of which n_rows are stored
 */
#include "base/inline.h"
#include <math.h>
#include <string.h>

#define PASTE(a, b) a##_##b
#define NAMED(name, isa) PASTE(name, isa)
#define TEXT(x) #x
#define QUOTED(x) TEXT(x)

/* The fixed tree. */
MB_INLINE float sum_lanes(struct lanes v)
{
    float f[16];
    v_store(f, v, 16);
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            f[i] = f[i] + f[i + half];
    return f[0];
}

/*
 * exp by x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial of degree 6 for e^r (coefficients of the Cephes
 * library's expf; about 1 ulp).  Clamped to [-87, 88], where results are normal numbers.  exp(0) is 1.
 */
MB_INLINE struct lanes v_exp(struct lanes x)
{
    x = v_min(v_set1(88.0F), v_max(v_set1(-87.0F), x));
    struct lanes n = v_rint(v_mul(x, v_set1(1.44269504F)));
    struct lanes r = v_fma(n, v_set1(-0.693359375F), x);
    r = v_fma(n, v_set1(2.12194440e-4F), r);
    struct lanes p = v_set1(1.9875691500e-4F);
    p = v_fma(p, r, v_set1(1.3981999507e-3F));
    p = v_fma(p, r, v_set1(8.3334519073e-3F));
    p = v_fma(p, r, v_set1(4.1665795894e-2F));
    p = v_fma(p, r, v_set1(1.6666665459e-1F));
    p = v_fma(p, r, v_set1(5.0000001201e-1F));
    p = v_fma(v_mul(p, r), r, r);
    return v_mul(v_add(p, v_set1(1.0F)), v_pow2(n));
}

/* Elements of a step that begins at i. */
MB_INLINE size_t step_of(size_t i, size_t n)
{
    return n - i < 16 ? n - i : 16;
}

static void rms_norm(const float *x, const float *w, size_t n, float eps, float *out)
{
    struct lanes sum = v_set1(0);
    for (size_t i = 0; i < n; i += 16) {
        struct lanes v = v_load(x + i, step_of(i, n));
        sum = v_fma(v, v, sum);
    }
    struct lanes factor = v_set1(1.0F / sqrtf(sum_lanes(sum) / (float)n + eps));
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        v_store(out + i, v_mul(v_mul(v_load(x + i, m), factor), v_load(w + i, m)), m);
    }
}

/* Missing lanes of a step have to stay 0, so differences from the mean go through 'out'. */
static void layer_norm(const float *x, const float *w, const float *b, size_t n, float eps, float *out)
{
    struct lanes sum = v_set1(0), squares = v_set1(0);
    for (size_t i = 0; i < n; i += 16)
        sum = v_add(sum, v_load(x + i, step_of(i, n)));
    struct lanes mean = v_set1(sum_lanes(sum) / (float)n);
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        v_store(out + i, v_sub(v_load(x + i, m), mean), m);
        struct lanes v = v_load(out + i, m);
        squares = v_fma(v, v, squares);
    }
    struct lanes factor = v_set1(1.0F / sqrtf(sum_lanes(squares) / (float)n + eps));
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        v_store(out + i, v_fma(v_mul(v_load(out + i, m), factor), v_load(w + i, m), v_load(b + i, m)), m);
    }
}

static void add(const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        v_store(y + i, v_add(v_load(y + i, m), v_load(x + i, m)), m);
    }
}

static void axpy(float a, const float *x, size_t n, float *y)
{
    struct lanes factor = v_set1(a);
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        v_store(y + i, v_fma(factor, v_load(x + i, m), v_load(y + i, m)), m);
    }
}

static void scale(float a, size_t n, float *y)
{
    struct lanes factor = v_set1(a);
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        v_store(y + i, v_mul(factor, v_load(y + i, m)), m);
    }
}

/* 1 + exp(-x) */
MB_INLINE struct lanes one_plus_exp_minus(struct lanes x)
{
    return v_add(v_set1(1.0F), v_exp(v_sub(v_set1(0), x)));
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        struct lanes g = v_load(gate + i, m);
        v_store(gate + i, v_mul(v_div(g, one_plus_exp_minus(g)), v_load(up + i, m)), m);
    }
}

static void sigmoid(const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        v_store(out + i, v_div(v_set1(1.0F), one_plus_exp_minus(v_load(x + i, m))), m);
    }
}

static float max(const float *x, size_t n)
{
    struct lanes most = v_set1(x[0]), nans = v_set1(0);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        struct lanes v = v_load(x + i, 16);
        most = v_max(most, v);
        nans = v_select_nan(nans, v);
    }
    float f[16], nan[16];
    v_store(f, most, 16);
    v_store(nan, nans, 16);
    float result = x[0];
    for (; i < n; i++)
        result = !(x[i] <= result) ? x[i] : result;
    for (size_t l = 0; l < 16; l++) {
        result = !(f[l] <= result) ? f[l] : result;
        result = nan[l] != 0 ? NAN : result; /* a NaN is not equal to 0 */
    }
    return result;
}

static float exp_sum(float *s, size_t n, float factor, float shift)
{
    struct lanes sum = v_set1(0), a = v_set1(factor), b = v_set1(-shift);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        struct lanes e = v_exp(v_fma(v_load(s + i, 16), a, b));
        v_store(s + i, e, 16);
        sum = v_add(sum, e);
    }
    if (i < n) {
        struct lanes e = v_exp(v_fma(v_load(s + i, n - i), a, b));
        v_store(s + i, e, n - i);
        sum = v_fma_first(e, v_set1(1), sum, n - i);
    }
    return sum_lanes(sum);
}

/*
 * Hardware predicts too few of a cache's rows, so lines are prefetched that far ahead.  What follows the rows
 * of one call are those of the next.  Rows of floats are a thread's scratch memory: they are near.
 */
enum { PREFETCH_NBYTES = 16 << 10, LINE_NBYTES = 64 };

MB_INLINE void prefetch_ahead(enum mb_dtype dtype, const uint8_t *w, size_t nbytes)
{
    for (size_t i = 0; dtype != MB_F32 && i < nbytes; i += LINE_NBYTES)
        __builtin_prefetch((const void *)((uintptr_t)w + i + PREFETCH_NBYTES));
}

enum { VECTORS_MAX = 4 };
_Static_assert(BLOCK_TOKENS <= 4 && BLOCK_VECTORS <= 4, "loops over them are unrolled four times");

/* A block of tokens and columns stays in registers for all rows; 'last': elements of the last vector. */
MB_INLINE void weighted_block(enum mb_dtype dtype, const uint8_t *w, size_t row_nbytes, size_t n_rows,
                              const float *p, size_t p_stride, size_t n_tokens, size_t n_vectors, size_t last,
                              float *out, size_t out_stride)
{
    size_t elem_nbytes = mb_dtype_nbytes(dtype);
    struct lanes acc[BLOCK_TOKENS][VECTORS_MAX];
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
        for (size_t v = 0; v < n_vectors; v++)
            acc[t][v] = v_load(out + t * out_stride + 16 * v, v + 1 == n_vectors ? last : 16);
    for (size_t r = 0; r < n_rows; r++, w += row_nbytes) {
        struct lanes row[VECTORS_MAX];
        prefetch_ahead(dtype, w, 16 * n_vectors * elem_nbytes);
#pragma GCC unroll 4
        for (size_t v = 0; v < n_vectors; v++)
            row[v] = v_load_as(dtype, w + 16 * v * elem_nbytes, v + 1 == n_vectors ? last : 16);
#pragma GCC unroll 4
        for (size_t t = 0; t < n_tokens; t++) {
            struct lanes weight = v_set1(p[t * p_stride + r]);
#pragma GCC unroll 4
            for (size_t v = 0; v < n_vectors; v++)
                acc[t][v] = v_fma(weight, row[v], acc[t][v]);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
        for (size_t v = 0; v < n_vectors; v++)
            v_store(out + t * out_stride + 16 * v, acc[t][v], v + 1 == n_vectors ? last : 16);
}

/* Blocks of n_together tokens and n_vectors vectors; 'p' and 'out' are those of the first token. */
MB_INLINE void weighted_blocks(enum mb_dtype dtype, const uint8_t *w, size_t row_nbytes, size_t n_rows,
                               size_t n_cols, const float *p, size_t p_stride, size_t n_tokens, float *out,
                               size_t out_stride, size_t n_together, size_t n_vectors)
{
    size_t elem_nbytes = mb_dtype_nbytes(dtype), c = 0;
    for (; c + 16 * n_vectors <= n_cols; c += 16 * n_vectors)
        for (size_t t = 0; t < n_tokens; t += n_together)
            weighted_block(dtype, w + c * elem_nbytes, row_nbytes, n_rows, p + t * p_stride, p_stride,
                           n_together, n_vectors, 16, out + t * out_stride + c, out_stride);
    for (; c < n_cols; c += 16)
        for (size_t t = 0; t < n_tokens; t++)
            weighted_block(dtype, w + c * elem_nbytes, row_nbytes, n_rows, p + t * p_stride, p_stride, 1, 1,
                           step_of(c, n_cols), out + t * out_stride + c, out_stride);
}

MB_INLINE void weighted_as(enum mb_dtype dtype, const uint8_t *w, size_t row_nbytes, size_t n_rows,
                           size_t n_cols, const float *p, size_t p_stride, size_t n_tokens, float *out,
                           size_t out_stride)
{
    size_t n = n_tokens / BLOCK_TOKENS * BLOCK_TOKENS;
    weighted_blocks(dtype, w, row_nbytes, n_rows, n_cols, p, p_stride, n, out, out_stride, BLOCK_TOKENS,
                    BLOCK_VECTORS);
    weighted_blocks(dtype, w, row_nbytes, n_rows, n_cols, p + n * p_stride, p_stride, n_tokens - n,
                    out + n * out_stride, out_stride, 1, VECTORS_MAX);
}

static void weighted_rows(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                          const float *p, size_t p_stride, size_t n_tokens, float *out, size_t out_stride)
{
    size_t row_nbytes = w_stride * mb_dtype_nbytes(dtype);
    if (dtype == MB_F32)
        weighted_as(MB_F32, w, row_nbytes, n_rows, n_cols, p, p_stride, n_tokens, out, out_stride);
    else if (dtype == MB_F16)
        weighted_as(MB_F16, w, row_nbytes, n_rows, n_cols, p, p_stride, n_tokens, out, out_stride);
    else
        weighted_as(MB_BF16, w, row_nbytes, n_rows, n_cols, p, p_stride, n_tokens, out, out_stride);
}

/* ---------------------------------------------------------------- dense products */

/* The rows and tokens of a tile only decide which sums are computed side by side. */
struct tile {
    const uint8_t *w[TILE_ROWS]; /* where a tile has fewer rows, the last is repeated */
    size_t n_rows, n_cols;
    const float *x;
    float *y;
    size_t x_stride, y_stride;
};

/* Columns [col, col + n) of a tile, n <= 16. Other lanes keep their sum: adding 0 would turn -0 into 0. */
MB_INLINE void dense_step(enum mb_dtype dtype, const struct tile *tile, size_t col, size_t n, size_t n_tokens,
                          struct lanes acc[TILE_TOKENS][TILE_ROWS])
{
    struct lanes w[TILE_ROWS];
    size_t at = col * mb_dtype_nbytes(dtype);
#pragma GCC unroll 4
    for (size_t r = 0; r < TILE_ROWS; r++) {
        if (at % LINE_NBYTES == 0)
            prefetch_ahead(dtype, tile->w[r] + at, LINE_NBYTES);
        w[r] = v_load_as(dtype, tile->w[r] + at, n);
    }
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++) {
        struct lanes x = v_load(tile->x + t * tile->x_stride + col, n);
#pragma GCC unroll 4
        for (size_t r = 0; r < TILE_ROWS; r++)
            acc[t][r] = n == 16 ? v_fma(w[r], x, acc[t][r]) : v_fma_first(w[r], x, acc[t][r], n);
    }
}

MB_INLINE void dense_tile(enum mb_dtype dtype, const struct tile *tile, size_t n_tokens)
{
    struct lanes acc[TILE_TOKENS][TILE_ROWS];
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
        for (size_t r = 0; r < TILE_ROWS; r++)
            acc[t][r] = v_set1(0);
    size_t col = 0;
    for (; col + 16 <= tile->n_cols; col += 16)
        dense_step(dtype, tile, col, 16, n_tokens, acc);
    if (col < tile->n_cols)
        dense_step(dtype, tile, col, tile->n_cols - col, n_tokens, acc);
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++)
        v_store_sums(tile->y + t * tile->y_stride, acc[t], tile->n_rows);
}

/* A constant number of tokens keeps the accumulators in registers. */
MB_INLINE void dense_tile_of(enum mb_dtype dtype, const struct tile *tile, size_t n_tokens)
{
#define OR_ALL(n) ((n) < TILE_TOKENS ? (n) : TILE_TOKENS)
    switch (n_tokens) {
    case 1:
        dense_tile(dtype, tile, 1);
        break;
    case 2:
        dense_tile(dtype, tile, OR_ALL(2));
        break;
    case 3:
        dense_tile(dtype, tile, OR_ALL(3));
        break;
    case 4:
        dense_tile(dtype, tile, OR_ALL(4));
        break;
    case 5:
        dense_tile(dtype, tile, OR_ALL(5));
        break;
    default:
        dense_tile(dtype, tile, TILE_TOKENS);
    }
#undef OR_ALL
}

MB_NOINLINE void dense_tile_f32(const struct tile *tile, size_t n_tokens)
{
    dense_tile_of(MB_F32, tile, n_tokens);
}

MB_NOINLINE void dense_tile_f16(const struct tile *tile, size_t n_tokens)
{
    dense_tile_of(MB_F16, tile, n_tokens);
}

MB_NOINLINE void dense_tile_bf16(const struct tile *tile, size_t n_tokens)
{
    dense_tile_of(MB_BF16, tile, n_tokens);
}

static void dense(enum mb_dtype dtype, const void *w, size_t w_stride, size_t n_rows, size_t n_cols,
                  const float *x, size_t x_stride, size_t n_tokens, float *y, size_t y_stride)
{
    void (*const tiles[])(const struct tile *, size_t) = {dense_tile_f32, dense_tile_f16, dense_tile_bf16};
    size_t row_nbytes = w_stride * mb_dtype_nbytes(dtype);
    for (size_t r = 0; r < n_rows; r += TILE_ROWS) {
        struct tile tile = {.n_cols = n_cols, .x_stride = x_stride, .y_stride = y_stride};
        tile.n_rows = n_rows - r < TILE_ROWS ? n_rows - r : TILE_ROWS;
        for (size_t i = 0; i < TILE_ROWS; i++)
            tile.w[i] = (const uint8_t *)w + (r + (i < tile.n_rows ? i : tile.n_rows - 1)) * row_nbytes;
        for (size_t t = 0; t < n_tokens; t += TILE_TOKENS) {
            tile.x = x + t * x_stride;
            tile.y = y + t * y_stride + r;
            tiles[dtype](&tile, n_tokens - t < TILE_TOKENS ? n_tokens - t : TILE_TOKENS);
        }
    }
}

/* ---------------------------------------------------------------- conversions */

static void widen(enum mb_dtype dtype, const void *values, size_t n, float *out)
{
    size_t elem_nbytes = mb_dtype_nbytes(dtype);
    for (size_t i = 0; i < n; i += 16) {
        size_t m = step_of(i, n);
        const uint8_t *from = (const uint8_t *)values + i * elem_nbytes;
        v_store(out + i,
                dtype == MB_F32   ? v_load_as(MB_F32, from, m)
                : dtype == MB_F16 ? v_load_as(MB_F16, from, m)
                                  : v_load_as(MB_BF16, from, m),
                m);
    }
}

static void to_f16(const float *x, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i += 16)
        v_store_f16(out + i, v_load(x + i, step_of(i, n)), step_of(i, n));
}

const struct mb_float_ops NAMED(mb_float_ops, ISA) = {
    .isa = QUOTED(ISA),
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .add = add,
    .axpy = axpy,
    .scale = scale,
    .silu_mul = silu_mul,
    .sigmoid = sigmoid,
    .max = max,
    .exp_sum = exp_sum,
    .weighted_rows = weighted_rows,
    .dense = dense,
    .widen = widen,
    .to_f16 = to_f16,
};
