/*
 * carry_matvec_zen4.c - products of the carry form with AVX-512's vpdpbusd on 256 bits, which is what Zen 4's
 * units have (carry_matvec_kernels.h).
 */
#include "carry_avx2.h"
#include "kernels_zen4.h"
#include <string.h>

#define NAMED(name) name##_zen4
#define DPBUSD _mm256_dpbusd_epi32
#define DPWSSD _mm256_dpwssd_epi32
#include "carry_matvec_vnni.h"

#include "carry_matvec_kernels.h"
#include "stripes_kernels.h"

/* Stripes are decoded again for each four tokens. */
enum { STRIPES_TOKENS = 8 };

bool mb_carry_few_zen4(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                       const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride)
{
    if (mb_is_striped(w) ? n_tokens > STRIPES_TOKENS : !mb_carry_takes_few_avx2(w, row, n_rows, x, n_tokens))
        return false;
    (mb_is_striped(w) ? mb_stripes_matmul_zen4 : mb_carry_matmul_zen4)(w, row, n_rows, x, n_tokens, y,
                                                                       y_stride);
    return true;
}
