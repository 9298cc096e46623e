/*
 * cpu.h - what this CPU can do, less what MOEBIUS_CPU takes away.
 */
#ifndef MB_BASE_CPU_H
#define MB_BASE_CPU_H

#include <moebius/status.h>

/*
 * Levels as the kernels need them, by CPUID and XGETBV (not by the compiler's builtins).
 * AVX2: avx2, fma, f16c, bmi1, bmi2.  AVX512: AVX2 and avx512 f, bw, dq, vl, vbmi, vbmi2, vnni, bitalg.
 * AMX_INT8: AVX512, amx-tile and amx-int8, and the kernel's permission.
 */
enum mb_cpu { MB_CPU_AVX2 = 1, MB_CPU_AVX512 = 2, MB_CPU_AMX_INT8 = 4 };

/*
 * Read once. MOEBIUS_CPU is a comma-separated list of "-avx2", "-avx512", "-amx"; taking one away takes
 * away what needs it.  An unknown name takes nothing away here; mb_cpu_features_check reports it.
 */
unsigned mb_cpu_features(void);

enum mb_status mb_cpu_features_check(struct mb_error *err);

#endif
