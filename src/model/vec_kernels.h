/*
 * vec_kernels.h - the functions of vec.h, written once over sixteen lanes.
 *
 * A file that includes this has defined, for its instruction set:
 *   ISA                      the name of the table (avx512) and of the functions' suffix
 *   struct lanes             sixteen floats
 *   v_set1, v_load, v_store  the last two with a number of elements, 1 to 16; missing lanes are 0
 *   v_load_as                sixteen (or n) values of a dtype
 *   v_store_f16, v_add, v_sub, v_mul, v_div, v_fma, v_rint, v_pow2 (2^n of an integral float)
 *   v_max, v_min             the second operand where one is NaN
 *   v_select_nan             (a, b): a, NaN in lanes where b is NaN
 */
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define PASTE(a, b) a##_##b
#define NAMED(name, isa) PASTE(name, isa)
#define TEXT(x) #x
#define QUOTED(x) TEXT(x)

/* The fixed tree. */
INLINE float sum_lanes(struct lanes v)
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
INLINE struct lanes v_exp(struct lanes x)
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
INLINE size_t step_of(size_t i, size_t n)
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
INLINE struct lanes one_plus_exp_minus(struct lanes x)
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
        v_store(s + i, v_exp(v_fma(v_load(s + i, n - i), a, b)), n - i);
        sum = v_add(sum, v_load(s + i, n - i));
    }
    return sum_lanes(sum);
}

enum { BLOCK_TOKENS = 4, BLOCK_VECTORS = 4 };

/* A block of tokens and columns stays in registers while the rows pass. 'last': elements of the last vector.
 */
INLINE void weighted_block(enum mb_dtype dtype, const uint8_t *w, size_t row_nbytes, size_t n_rows,
                           const float *p, size_t p_stride, size_t n_tokens, size_t n_vectors, size_t last,
                           float *out, size_t out_stride)
{
    size_t elem_nbytes = mb_dtype_nbytes(dtype);
    struct lanes acc[BLOCK_TOKENS][BLOCK_VECTORS];
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
        for (size_t v = 0; v < n_vectors; v++)
            acc[t][v] = v_load(out + t * out_stride + 16 * v, v + 1 == n_vectors ? last : 16);
    for (size_t r = 0; r < n_rows; r++, w += row_nbytes) {
        struct lanes row[BLOCK_VECTORS];
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

INLINE void weighted_as(enum mb_dtype dtype, const uint8_t *w, size_t row_nbytes, size_t n_rows,
                        size_t n_cols, const float *p, size_t p_stride, size_t n_tokens, float *out,
                        size_t out_stride)
{
    enum { WIDTH = 16 * BLOCK_VECTORS };
    size_t elem_nbytes = mb_dtype_nbytes(dtype), c = 0;
    for (; c + WIDTH <= n_cols; c += WIDTH) {
        size_t t = 0;
        for (; t + BLOCK_TOKENS <= n_tokens; t += BLOCK_TOKENS)
            weighted_block(dtype, w + c * elem_nbytes, row_nbytes, n_rows, p + t * p_stride, p_stride,
                           BLOCK_TOKENS, BLOCK_VECTORS, 16, out + t * out_stride + c, out_stride);
        for (; t < n_tokens; t++)
            weighted_block(dtype, w + c * elem_nbytes, row_nbytes, n_rows, p + t * p_stride, p_stride, 1,
                           BLOCK_VECTORS, 16, out + t * out_stride + c, out_stride);
    }
    for (; c < n_cols; c += 16)
        for (size_t t = 0; t < n_tokens; t++)
            weighted_block(dtype, w + c * elem_nbytes, row_nbytes, n_rows, p + t * p_stride, p_stride, 1, 1,
                           step_of(c, n_cols), out + t * out_stride + c, out_stride);
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

const struct mb_vec NAMED(mb_vec, ISA) = {
    .isa = QUOTED(ISA),
    .rms_norm = rms_norm,
    .add = add,
    .axpy = axpy,
    .scale = scale,
    .silu_mul = silu_mul,
    .sigmoid = sigmoid,
    .max = max,
    .exp_sum = exp_sum,
    .weighted_rows = weighted_rows,
    .widen = widen,
    .to_f16 = to_f16,
};
