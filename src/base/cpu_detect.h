/*
 * cpu_detect.h - what an architecture's folder (x86/, generic/) gives to cpu.c.
 */
#ifndef MB_BASE_CPU_DETECT_H
#define MB_BASE_CPU_DETECT_H

#include "base/cpu.h"

/* All levels (enum mb_cpu) that this CPU and this operating system have. */
unsigned mb_cpu_detect(void);

#endif
