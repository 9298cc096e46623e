/*
 * cpu.c - what Linux reports of an ARM64 processor (HWCAP): the registers that say it are not for programs.
 */
#include "cpu_detect.h"
#include <sys/auxv.h>

/* Bits of Linux's <asm/hwcap.h>, which older C libraries lack in part. */
static const unsigned long HWCAP_ASIMD_BIT = 1ul << 1, HWCAP_ASIMDDP_BIT = 1ul << 20,
                           HWCAP2_I8MM_BIT = 1ul << 13;

unsigned mb_cpu_detect(void)
{
    unsigned long capabilities = getauxval(AT_HWCAP);
    if ((capabilities & HWCAP_ASIMD_BIT) == 0)
        return 0;
    if ((capabilities & HWCAP_ASIMDDP_BIT) == 0)
        return MB_CPU_NEON;
    if ((getauxval(AT_HWCAP2) & HWCAP2_I8MM_BIT) == 0)
        return MB_CPU_NEON | MB_CPU_DOTPROD;
    return MB_CPU_NEON | MB_CPU_DOTPROD | MB_CPU_I8MM;
}
