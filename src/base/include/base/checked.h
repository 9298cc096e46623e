/*
 * checked.h - arithmetic on sizes that come from files: false when it would wrap.
 */
#ifndef MB_BASE_CHECKED_H
#define MB_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool mb_mul_u64(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline bool mb_add_u64(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

/* Rounds up to a multiple of 'unit' (a power of two); the caller knows that it cannot wrap. */
static inline uint64_t mb_round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) & ~(unit - 1);
}

#endif
