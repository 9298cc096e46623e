/*
 * carry_matvec_avxvnni.c - products of the carry form with AVX-VNNI (carry_matvec_kernels.h): vpdpbusd adds
 * four products of bytes to each lane.  A matrix in the patched form, whose time goes into escapes, takes
 * AVX2's way.
 */
#include "carry_avx2.h"
#include "simd_avxvnni.h"
#include <string.h>

#define NAMED(name) name##_avxvnni

/* Two short chains: one of four would wait for itself, row after row. */
MB_INLINE void multiply_plane(unsigned a, const __m256i u[4], const __m256i x[4], __m256i *sum)
{
    (void)a;
    __m256i first = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), u[0], x[0]);
    __m256i second = _mm256_dpbusd_avx_epi32(*sum, u[2], x[2]);
    first = _mm256_dpbusd_avx_epi32(first, u[1], x[1]);
    *sum = _mm256_add_epi32(first, _mm256_dpbusd_avx_epi32(second, u[3], x[3]));
}

/* |x| is at most 128, as an unsigned byte. */
MB_INLINE __m256i add_signed(__m256i sum, __m256i q, __m256i x)
{
    return _mm256_dpbusd_avx_epi32(sum, _mm256_abs_epi8(x), _mm256_sign_epi8(q, x));
}

MB_INLINE __m256i add_scaled(__m256i sum, __m256i pairs, __m256i factor)
{
    return _mm256_dpwssd_avx_epi32(sum, pairs, factor);
}

#include "carry_matvec_kernels.h"
#include "stripes_kernels.h"

void mb_matvec_avxvnni(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                       const struct mb_activation *x, float *y)
{
    if (w->form == MB_FORM_CARRY)
        mb_carry_matvec_avxvnni(w, row, n_rows, x, y);
    else
        mb_matvec_avx2(w, row, n_rows, x, y);
}
