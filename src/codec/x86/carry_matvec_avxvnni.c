/*
 * carry_matvec_avxvnni.c - products of the carry form with AVX-VNNI (carry_matvec_kernels.h).  A matrix in
 * the patched form, whose time goes into escapes, takes AVX2's way.
 */
#include "carry_avx2.h"
#include "simd_avxvnni.h"
#include <string.h>

#define NAMED(name) name##_avxvnni

#define DPBUSD _mm256_dpbusd_avx_epi32
#define DPWSSD _mm256_dpwssd_avx_epi32
#include "carry_matvec_vnni.h"

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
