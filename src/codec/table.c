/*
 * table.c - which kernel table this process uses: the best that the CPU has, less what MOEBIUS_CPU takes
 * away.
 */
#include "base/cpu.h"
#include "kernels.h"
#include "selfcheck.h"
#include <pthread.h>
#include <string.h>

/* Slowest first: the last that is usable wins. */
static const struct {
    const struct mb_kernels *kernels;
    unsigned needs; /* of enum mb_cpu */
} tables[] = {
    {&mb_kernels_scalar, 0},
#ifdef MB_HAVE_AVX2_KERNELS
    {&mb_kernels_avx2, MB_CPU_AVX2},
#endif
#ifdef MB_HAVE_AVX512_KERNELS
    {&mb_kernels_avx512, MB_CPU_AVX512},
#endif
};

enum { N_TABLES = sizeof tables / sizeof tables[0] };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool usable[N_TABLES];
static const struct mb_kernels *best;

static void choose(void)
{
    unsigned features = mb_cpu_features();
    for (size_t i = 0; i < N_TABLES; i++) {
        usable[i] = (tables[i].needs & ~features) == 0 &&
                    (tables[i].needs == 0 || mb_kernels_agree(tables[i].kernels));
        if (usable[i])
            best = tables[i].kernels;
    }
}

const struct mb_kernels *mb_kernels(void)
{
    pthread_once(&once, choose);
    return best;
}

const struct mb_kernels *mb_kernels_by_isa(const char *isa)
{
    pthread_once(&once, choose);
    for (size_t i = 0; i < N_TABLES; i++)
        if (usable[i] && strcmp(tables[i].kernels->isa, isa) == 0)
            return tables[i].kernels;
    return NULL;
}

enum mb_status mb_cpu_check(struct mb_error *err)
{
    return mb_cpu_features_check(err);
}
