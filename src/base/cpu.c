/*
 * cpu.c - CPUID and XGETBV, read directly: what the compiler's builtins report differs between compilers,
 * and valgrind, which knows no AVX-512, answers CPUID truthfully.
 */
#include "base/cpu.h"
#include "base/error.h"
#include <cpuid.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* CPUID 7.0, EDX. The two compilers' <cpuid.h> name these differently. */
static const uint32_t BIT_AMX_TILE = 1u << 24, BIT_AMX_INT8 = 1u << 25;

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

static const struct {
    const char *name;
    unsigned taken; /* the level and all that need it */
} removals[] = {
    {"-avx2", MB_CPU_AVX2 | MB_CPU_AVX512 | MB_CPU_AMX_INT8},
    {"-avx512", MB_CPU_AVX512 | MB_CPU_AMX_INT8},
    {"-amx", MB_CPU_AMX_INT8},
};

static bool has_all(uint32_t reg, uint32_t bits)
{
    return (reg & bits) == bits;
}

static uint64_t enabled_states(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux gives the tile registers to those who ask. */
static bool amx_permitted(uint64_t states)
{
    return (states >> XFEATURE_XTILEDATA & 1) != 0 &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static unsigned detect(void)
{
    uint32_t a, b, c, d, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !has_all(b7, bit_AVX2 | bit_BMI | bit_BMI2))
        return 0;
    uint64_t states = enabled_states();
    if ((states & 0x06) != 0x06) /* xmm, ymm */
        return 0;
    unsigned features = MB_CPU_AVX2;
    if ((states & 0xe6) != 0xe6 || /* and mask registers, both halves of zmm */
        !has_all(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) ||
        !has_all(c7, bit_AVX512VBMI | bit_AVX512VBMI2 | bit_AVX512VNNI | bit_AVX512BITALG))
        return features;
    features |= MB_CPU_AVX512;
    if (has_all(d7, BIT_AMX_TILE | BIT_AMX_INT8) && amx_permitted(states))
        features |= MB_CPU_AMX_INT8;
    return features;
}

/* The levels that a list takes away; *unknown (when there is one) points to the first unknown name. */
static unsigned taken_away(const char *list, const char **unknown, size_t *unknown_nbytes)
{
    unsigned taken = 0;
    *unknown = NULL;
    while (*list != '\0') {
        size_t n = strcspn(list, ",");
        bool found = n == 0;
        for (size_t i = 0; i < sizeof removals / sizeof removals[0]; i++)
            if (strlen(removals[i].name) == n && memcmp(removals[i].name, list, n) == 0) {
                taken |= removals[i].taken;
                found = true;
            }
        if (!found && *unknown == NULL) {
            *unknown = list;
            *unknown_nbytes = n;
        }
        list += n;
        list += *list == ',';
    }
    return taken;
}

static const char *removal_list(void)
{
    const char *list = getenv("MOEBIUS_CPU");
    return list == NULL ? "" : list;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static unsigned features_once;

static void read_features(void)
{
    const char *unknown;
    size_t unknown_nbytes;
    features_once = detect() & ~taken_away(removal_list(), &unknown, &unknown_nbytes);
}

unsigned mb_cpu_features(void)
{
    pthread_once(&once, read_features);
    return features_once;
}

enum mb_status mb_cpu_features_check(struct mb_error *err)
{
    const char *unknown;
    size_t unknown_nbytes = 0;
    taken_away(removal_list(), &unknown, &unknown_nbytes);
    if (unknown != NULL)
        return mb_fail(err, MB_USAGE, "MOEBIUS_CPU: unknown name '%.*s' (known: -avx2, -avx512, -amx)",
                       (int)(unknown_nbytes < 100 ? unknown_nbytes : 100), unknown);
    return MB_OK;
}
