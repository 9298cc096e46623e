/*
 * cpu.c - CPUID and XGETBV, read directly: what the compiler's builtins report differs between compilers,
 * and valgrind, which knows no AVX-512, answers CPUID truthfully.
 */
#include "cpu_detect.h"
#include <cpuid.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* CPUID 7.1, EAX. */
static const uint32_t BIT_AVXVNNI = 1u << 4;

/* CPUID 7.0, EDX. The two compilers' <cpuid.h> name these differently. */
static const uint32_t BIT_AMX_TILE = 1u << 24, BIT_AMX_INT8 = 1u << 25;

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

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

/* Linux lets a process use the tile registers once the process has requested them. */
static bool amx_permitted(uint64_t states)
{
    return (states >> XFEATURE_XTILEDATA & 1) != 0 &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/* By the signature of CPUID 1: family 25 is Zen 3 and 4, and of these Zen 4 alone has AVX-512. */
static bool is_amd_family_25(uint32_t signature)
{
    uint32_t a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx && c == signature_AMD_ecx &&
           d == signature_AMD_edx && (signature >> 8 & 0xf) == 0xf && (signature >> 20 & 0xff) == 25 - 15;
}

unsigned mb_cpu_detect(void)
{
    uint32_t signature, a, b, c, d, b7, c7, d7;
    if (!__get_cpuid(1, &signature, &b, &c, &d) || !has_all(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !has_all(b7, bit_AVX2 | bit_BMI | bit_BMI2))
        return 0;
    uint64_t states = enabled_states();
    if ((states & 0x06) != 0x06) /* xmm, ymm */
        return 0;
    unsigned features = MB_CPU_AVX2;
    uint32_t a71, b71, c71, d71;
    if (__get_cpuid_count(7, 1, &a71, &b71, &c71, &d71) && has_all(a71, BIT_AVXVNNI))
        features |= MB_CPU_AVXVNNI;
    if ((states & 0xe6) != 0xe6 || /* and mask registers, both halves of zmm */
        !has_all(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) ||
        !has_all(c7, bit_AVX512VBMI | bit_AVX512VBMI2 | bit_AVX512VNNI | bit_AVX512BITALG))
        return features;
    features |= MB_CPU_AVX512;
    if (is_amd_family_25(signature))
        features |= MB_CPU_ZEN4;
    if (has_all(d7, BIT_AMX_TILE | BIT_AMX_INT8) && amx_permitted(states))
        features |= MB_CPU_AMX_INT8;
    return features;
}
