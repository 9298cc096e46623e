/*
 * carry_matvec_vnni.h - what carry_matvec_kernels.h and stripes_kernels.h want, with vpdpbusd on 256 bits: it
 * adds four products of bytes to each lane.
 *
 * A file that includes this has defined DPBUSD and DPWSSD, the intrinsics as its instruction set encodes
 * them.
 */
#include <immintrin.h>

/* Two short chains: one of four would wait for itself, row after row. */
MB_INLINE void multiply_plane(unsigned a, const __m256i u[4], const __m256i x[4], __m256i *sum)
{
    (void)a;
    __m256i first = DPBUSD(_mm256_setzero_si256(), u[0], x[0]);
    __m256i second = DPBUSD(*sum, u[2], x[2]);
    first = DPBUSD(first, u[1], x[1]);
    *sum = _mm256_add_epi32(first, DPBUSD(second, u[3], x[3]));
}

/* |x| is at most 128, as an unsigned byte. */
MB_INLINE __m256i add_signed(__m256i sum, __m256i q, __m256i x)
{
    return DPBUSD(sum, _mm256_abs_epi8(x), _mm256_sign_epi8(q, x));
}

MB_INLINE __m256i add_scaled(__m256i sum, __m256i pairs, __m256i factor)
{
    return DPWSSD(sum, pairs, factor);
}
