/*
 * splitmix.h - SplitMix64 (Steele, Lea and Flood, OOPSLA 2014; public domain, prng.di.unimi.it): numbers by
 * chance that are the same on every machine.
 */
#ifndef MB_BASE_SPLITMIX_H
#define MB_BASE_SPLITMIX_H

#include <stdint.h>

#define MB_SPLITMIX_STEP UINT64_C(0x9e3779b97f4a7c15)

/* Its last step, from a state to a number: spreads numbers that lie close together. 0 stays 0. */
static inline uint64_t mb_splitmix_spread(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t mb_splitmix_next(uint64_t *state)
{
    return mb_splitmix_spread(*state += MB_SPLITMIX_STEP);
}

#endif
