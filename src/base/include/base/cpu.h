/*
 * cpu.h - what this CPU can do, less what MOEBIUS_CPU takes away.
 */
#ifndef MB_BASE_CPU_H
#define MB_BASE_CPU_H

#include <moebius/status.h>

/*
 * Levels as the kernels need them.  x86-64, by CPUID and XGETBV (not by the compiler's builtins):
 * AVX2: avx2, fma, f16c, bmi1, bmi2.  AVXVNNI: AVX2 and avx_vnni.
 * AVX512: AVX2 and avx512 f, bw, dq, vl, vbmi, vbmi2, vnni, bitalg.
 * AMX_INT8: AVX512, amx-tile and amx-int8, and the kernel's permission.
 * ZEN4: AVX512 on AMD's Zen 4, whose units have 256 bits and whose cores wait for few lines on the way to L1.
 * ARM64, by what Linux reports (HWCAP): NEON, which all have.  DOTPROD: sdot.  I8MM: DOTPROD and smmla.
 */
enum mb_cpu {
    MB_CPU_AVX2 = 1,
    MB_CPU_AVX512 = 2,
    MB_CPU_AMX_INT8 = 4,
    MB_CPU_AVXVNNI = 8,
    MB_CPU_NEON = 16,
    MB_CPU_DOTPROD = 32,
    MB_CPU_I8MM = 64,
    MB_CPU_ZEN4 = 128
};

/*
 * Read once. MOEBIUS_CPU is a comma-separated list of "-avx2", "-avxvnni", "-avx512", "-zen4", "-amx",
 * "-neon", "-dotprod", "-i8mm"; taking one away takes away what needs it.  An unknown name takes nothing away
 * here; mb_cpu_features_check reports it.
 */
unsigned mb_cpu_features(void);

enum mb_status mb_cpu_features_check(struct mb_error *err);

#endif
