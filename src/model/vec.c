/*
 * vec.c - which table of float functions this process uses.
 */
#include "base/cpu.h"
#include "vec_tables.h"
#include <string.h>

static const struct {
    const struct mb_vec *vec;
    unsigned needs; /* of enum mb_cpu */
} tables[] = {
    {&mb_vec_avx512, MB_CPU_AVX512},
    {&mb_vec_avx2, MB_CPU_AVX2},
    {&mb_vec_scalar, 0},
};

const struct mb_vec *mb_vec(void)
{
    size_t i = 0;
    while ((tables[i].needs & ~mb_cpu_features()) != 0)
        i++;
    return tables[i].vec;
}

const struct mb_vec *mb_vec_by_isa(const char *isa)
{
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (strcmp(tables[i].vec->isa, isa) == 0 && (tables[i].needs & ~mb_cpu_features()) == 0)
            return tables[i].vec;
    return NULL;
}
