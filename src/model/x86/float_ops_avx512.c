/*
 * float_ops_avx512.c - sixteen lanes as one register.
 */
#include "base/bytes.h"
#include "float_ops_tables.h"
#include <immintrin.h>

#define ISA avx512

struct lanes {
    __m512 v;
};

#define LANES(x) ((struct lanes){x})
#define MASK(n) ((__mmask16)((1u << (n)) - 1))

static inline struct lanes v_set1(float x)
{
    return LANES(_mm512_set1_ps(x));
}

static inline struct lanes v_load(const float *p, size_t n)
{
    return LANES(n == 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(MASK(n), p));
}

static inline void v_store(float *p, struct lanes a, size_t n)
{
    if (n == 16)
        _mm512_storeu_ps(p, a.v);
    else
        _mm512_mask_storeu_ps(p, MASK(n), a.v);
}

static inline struct lanes v_load_as(enum mb_dtype dtype, const uint8_t *p, size_t n)
{
    if (dtype == MB_F32)
        return v_load((const float *)p, n);
    __m256i half = n == 16 ? _mm256_loadu_si256((const __m256i *)p) : _mm256_maskz_loadu_epi16(MASK(n), p);
    if (dtype == MB_F16)
        return LANES(_mm512_cvtph_ps(half));
    return LANES(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)));
}

static inline void v_store_f16(uint16_t *p, struct lanes a, size_t n)
{
    _mm256_mask_storeu_epi16(p, MASK(n), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

static inline struct lanes v_add(struct lanes a, struct lanes b)
{
    return LANES(_mm512_add_ps(a.v, b.v));
}

static inline struct lanes v_sub(struct lanes a, struct lanes b)
{
    return LANES(_mm512_sub_ps(a.v, b.v));
}

static inline struct lanes v_mul(struct lanes a, struct lanes b)
{
    return LANES(_mm512_mul_ps(a.v, b.v));
}

static inline struct lanes v_div(struct lanes a, struct lanes b)
{
    return LANES(_mm512_div_ps(a.v, b.v));
}

static inline struct lanes v_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return LANES(_mm512_fmadd_ps(a.v, b.v, c.v));
}

static inline struct lanes v_fma_first(struct lanes a, struct lanes b, struct lanes c, size_t n)
{
    return LANES(_mm512_mask3_fmadd_ps(a.v, b.v, c.v, MASK(n)));
}

static inline struct lanes v_max(struct lanes a, struct lanes b)
{
    return LANES(_mm512_max_ps(a.v, b.v));
}

static inline struct lanes v_min(struct lanes a, struct lanes b)
{
    return LANES(_mm512_min_ps(a.v, b.v));
}

static inline struct lanes v_select_nan(struct lanes a, struct lanes b)
{
    return LANES(_mm512_mask_mov_ps(a.v, _mm512_cmp_ps_mask(b.v, b.v, _CMP_UNORD_Q), b.v));
}

static inline struct lanes v_rint(struct lanes a)
{
    return LANES(_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline struct lanes v_pow2(struct lanes a)
{
    __m512i n = _mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(127));
    return LANES(_mm512_castsi512_ps(_mm512_slli_epi32(n, 23)));
}

enum { BLOCK_TOKENS = 4, BLOCK_VECTORS = 4 }; /* 16 accumulators and 4 registers of rows */
enum { TILE_ROWS = 4, TILE_TOKENS = 6 };      /* 24 accumulators and 4 registers of weights */

/* Four sums at once: from the second level of the tree on, all are in one register. */
static inline void v_store_sums(float *y, const struct lanes acc[TILE_ROWS], size_t n_rows)
{
    __m512 y01 = _mm512_add_ps(_mm512_shuffle_f32x4(acc[0].v, acc[1].v, 0x44),
                               _mm512_shuffle_f32x4(acc[0].v, acc[1].v, 0xee));
    __m512 y23 = _mm512_add_ps(_mm512_shuffle_f32x4(acc[2].v, acc[3].v, 0x44),
                               _mm512_shuffle_f32x4(acc[2].v, acc[3].v, 0xee));
    __m512 z = _mm512_add_ps(_mm512_shuffle_f32x4(y01, y23, 0x88), _mm512_shuffle_f32x4(y01, y23, 0xdd));
    z = _mm512_add_ps(z, _mm512_permute_ps(z, 0x4e));
    z = _mm512_add_ps(z, _mm512_permute_ps(z, 0xb1));
    __m512i every_fourth = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    __m128 sums = _mm512_castps512_ps128(_mm512_permutexvar_ps(every_fourth, z));
    /* gcc 12 would store by a masked vextractf32x4, which faults on bytes that the mask leaves out. */
    __asm__("" : "+v"(sums));
    _mm_mask_storeu_ps(y, (__mmask8)((1u << n_rows) - 1), sums);
}

#include "float_ops_kernels.h"
