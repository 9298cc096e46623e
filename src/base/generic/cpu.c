/*
 * cpu.c - an architecture without fast kernels: everything runs scalar.
 */
#include "cpu_detect.h"

unsigned mb_cpu_detect(void)
{
    return 0;
}
