/*
 * inline.h - functions that become part of their caller, so that constant arguments choose its code.
 *
 * A kernel is specialised by a constant in one way: an MB_INLINE function takes it as an argument, and a
 * function for each value calls it.
 */
#ifndef MB_BASE_INLINE_H
#define MB_BASE_INLINE_H

#define MB_INLINE static inline __attribute__((always_inline))
#define MB_NOINLINE static __attribute__((noinline))

#endif
