/*
 * carry_matvec_avx2.c - products of the carry form on AVX2 (carry_matvec_kernels.h): vpmaddubsw adds pairs in
 * 16 bits, which are added before they are widened; and activations by column, which its lists look up.
 */
#include "carry_avx2.h"
#include <string.h>

#define NAMED(name) name##_avx2

MB_INLINE __m256i widen(__m256i sum, __m256i pair_sums)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pair_sums, _mm256_set1_epi16(1)));
}

/*
 * Adds a block's products with one plane.  A pair's sum is at most 256 u, and a lane of 16 bits holds 32767:
 * four of u <= 31 (a = 5) fit, two of u <= 63.
 */
MB_INLINE void multiply_plane(unsigned a, const __m256i u[4], const __m256i x[4], __m256i *sum)
{
    __m256i first = _mm256_add_epi16(_mm256_maddubs_epi16(u[0], x[0]), _mm256_maddubs_epi16(u[1], x[1]));
    __m256i second = _mm256_add_epi16(_mm256_maddubs_epi16(u[2], x[2]), _mm256_maddubs_epi16(u[3], x[3]));
    if (a <= 5) {
        *sum = widen(*sum, _mm256_add_epi16(first, second));
    } else {
        *sum = widen(*sum, first);
        *sum = widen(*sum, second);
    }
}

MB_INLINE __m256i add_signed(__m256i sum, __m256i q, __m256i x)
{
    return widen(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(q, x)));
}

MB_INLINE __m256i add_scaled(__m256i sum, __m256i pairs, __m256i factor)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, factor));
}

#include "carry_matvec_kernels.h"
#include "stripes_kernels.h"

/* ---------------------------------------------------------------- how many tokens */

/* Up to how many tokens pay, by whether lists are long and activations fast, as measured. */
static const size_t tokens_max[2][2] = {{8, 8}, {2, 4}};
enum { ROWS_LOOKED_AT = 8 };

bool mb_carry_takes_few_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                             const struct mb_activation *x, size_t n_tokens)
{
    if (n_tokens > tokens_max[0][1])
        return false;
    const uint64_t n = n_rows < ROWS_LOOKED_AT ? n_rows : ROWS_LOOKED_AT;
    uint64_t n_pairs = 0;
    for (uint64_t r = row; r < row + n; r++)
        n_pairs += w->kinds[r] == MB_KIND_RAW ? 0 : mb_load_u16(w->escape_counts + 2 * r);
    const bool is_long = n_pairs > n * mb_carry_n_blocks(w->n_cols);
    return n_tokens <= tokens_max[is_long][mb_all_fast(x, n_tokens)];
}

/* ---------------------------------------------------------------- activations by column */

/* 256 hi + lo of whole blocks; returns the sum of the odd ones, which fits: at most 65535 times 32639. */
static int64_t spread_planes(const struct mb_activation *x, size_t n, int32_t *out)
{
    __m256i odd = _mm256_setzero_si256();
    for (size_t c = 0; c < n; c += 8) {
        __m256i hi = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(x->hi + c)));
        __m256i lo = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(x->lo + c)));
        __m256i value = _mm256_add_epi32(_mm256_slli_epi32(hi, 8), lo);
        _mm256_storeu_si256((__m256i *)(out + c), value);
        odd = _mm256_add_epi32(odd, _mm256_blend_epi32(_mm256_setzero_si256(), value, 0xaa));
    }
    return mb_add_lanes_avx2(odd);
}

static void spread_wide(struct mb_activation *x, size_t n, int32_t *out)
{
    memset(out, 0, n * sizeof *out);
    for (size_t k = 0; k < x->n_wide; k++)
        for (size_t i = 0; i < MB_CARRY_BLOCK; i++) {
            size_t c = MB_CARRY_BLOCK * (size_t)x->wide_at[k] + i;
            out[c] = mb_wide_value(x, c);
            x->wide_odd_sum += c % 2 == 1 ? out[c] : 0;
        }
}

void mb_carry_add_columns_avx2(size_t n, void *wide, struct mb_activation *x)
{
    const size_t n_all = mb_activation_plane_nbytes(n), before = 64 / sizeof(int32_t);
    int32_t *columns = (int32_t *)(void *)((uint8_t *)wide + mb_activation_blocks_nbytes(n)) + before;
    columns[-1] = 0;
    x->columns = columns;
    x->odd_sum = spread_planes(x, n_all, columns);
    if (x->n_wide == 0)
        return;
    columns += n_all + before;
    columns[-1] = 0;
    x->wide_columns = columns;
    spread_wide(x, n_all, columns);
}
