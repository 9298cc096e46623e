/*
 * float_ops_avx2.c - sixteen lanes as two registers of eight.
 */
#include "base/bytes.h"
#include "float_ops_tables.h"
#include <immintrin.h>

#define ISA avx2

struct lanes {
    __m256 low, high; /* lanes 0 to 7, 8 to 15 */
};

#define BOTH(low, high) ((struct lanes){low, high})

static inline struct lanes v_set1(float x)
{
    return BOTH(_mm256_set1_ps(x), _mm256_set1_ps(x));
}

static inline struct lanes v_load(const float *p, size_t n)
{
    float f[16] = {0};
    if (n < 16)
        p = memcpy(f, p, n * sizeof *p);
    return BOTH(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}

static inline void v_store(float *p, struct lanes v, size_t n)
{
    float f[16], *to = n < 16 ? f : p;
    _mm256_storeu_ps(to, v.low);
    _mm256_storeu_ps(to + 8, v.high);
    if (n < 16)
        memcpy(p, f, n * sizeof *p);
}

static inline struct lanes v_load_as(enum mb_dtype dtype, const uint8_t *p, size_t n)
{
    uint8_t bytes[64] = {0};
    if (n < 16)
        p = memcpy(bytes, p, n * mb_dtype_nbytes(dtype));
    if (dtype == MB_F32)
        return v_load((const float *)p, 16);
    __m128i low = _mm_loadu_si128((const __m128i *)p), high = _mm_loadu_si128((const __m128i *)p + 1);
    if (dtype == MB_F16)
        return BOTH(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high));
    return BOTH(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(low), 16)),
                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(high), 16)));
}

static inline void v_store_f16(uint16_t *p, struct lanes v, size_t n)
{
    uint16_t f[16];
    _mm_storeu_si128((__m128i *)f, _mm256_cvtps_ph(v.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)f + 1, _mm256_cvtps_ph(v.high, _MM_FROUND_TO_NEAREST_INT));
    memcpy(p, f, n * sizeof *p);
}

static inline struct lanes v_add(struct lanes a, struct lanes b)
{
    return BOTH(_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high));
}

static inline struct lanes v_sub(struct lanes a, struct lanes b)
{
    return BOTH(_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high));
}

static inline struct lanes v_mul(struct lanes a, struct lanes b)
{
    return BOTH(_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high));
}

static inline struct lanes v_div(struct lanes a, struct lanes b)
{
    return BOTH(_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high));
}

static inline struct lanes v_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return BOTH(_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high));
}

static inline struct lanes v_fma_first(struct lanes a, struct lanes b, struct lanes c, size_t n)
{
    __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), count = _mm256_set1_epi32((int)n);
    __m256 low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, place));
    __m256 high =
        _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_sub_epi32(count, _mm256_set1_epi32(8)), place));
    return BOTH(_mm256_blendv_ps(c.low, _mm256_fmadd_ps(a.low, b.low, c.low), low),
                _mm256_blendv_ps(c.high, _mm256_fmadd_ps(a.high, b.high, c.high), high));
}

static inline struct lanes v_max(struct lanes a, struct lanes b)
{
    return BOTH(_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high));
}

static inline struct lanes v_min(struct lanes a, struct lanes b)
{
    return BOTH(_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high));
}

static inline struct lanes v_select_nan(struct lanes a, struct lanes b)
{
    return BOTH(_mm256_blendv_ps(a.low, b.low, _mm256_cmp_ps(b.low, b.low, _CMP_UNORD_Q)),
                _mm256_blendv_ps(a.high, b.high, _mm256_cmp_ps(b.high, b.high, _CMP_UNORD_Q)));
}

static inline struct lanes v_rint(struct lanes a)
{
    return BOTH(_mm256_round_ps(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                _mm256_round_ps(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline __m256 pow2_8(__m256 a)
{
    __m256i n = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(n, 23));
}

static inline struct lanes v_pow2(struct lanes a)
{
    return BOTH(pow2_8(a.low), pow2_8(a.high));
}

enum { BLOCK_TOKENS = 4, BLOCK_VECTORS = 1 }; /* 8 accumulators and 2 registers of rows */
enum { TILE_ROWS = 2, TILE_TOKENS = 3 };      /* 12 accumulators and 4 registers of weights */

static inline float sum_of(struct lanes v)
{
    __m256 y = _mm256_add_ps(v.low, v.high);
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_shuffle_ps(z, z, 1)));
}

static inline void v_store_sums(float *y, const struct lanes acc[TILE_ROWS], size_t n_rows)
{
    y[0] = sum_of(acc[0]);
    if (n_rows == 2)
        y[1] = sum_of(acc[1]);
}

#include "float_ops_kernels.h"
