/*
 * max.h - the larger of two numbers.
 */
#ifndef MB_BASE_MAX_H
#define MB_BASE_MAX_H

#include <stdint.h>

static inline uint64_t mb_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
