/*
 * float8.h - the 8-bit float types, as floats.
 */
#ifndef MB_BASE_FLOAT8_H
#define MB_BASE_FLOAT8_H

#include "base/bytes.h"

/*
 * E4M3 without infinities ("F8_E4M3", float8_e4m3fn): 0x7f and 0xff are NaN, the largest value is 448. Exact.
 * The bits of sign, exponent and mantissa take their places in a float, whose exponent is then 120 too small.
 */
static inline float mb_float_of_e4m3(uint8_t code)
{
    uint32_t sign = (uint32_t)(code & 0x80) << 24, rest = code & 0x7f;
    float f = mb_float_of_bits(sign | (rest == 0x7f ? 0x7fc00000 : rest << 20));
    return f * 0x1p120f;
}

/* E8M0 ("F8_E8M0"): powers of two from 2^-127 to 2^127, 0xff is NaN.  Exact. */
static inline float mb_float_of_e8m0(uint8_t code)
{
    if (code == 0xff)
        return mb_float_of_bits(0x7fc00000);
    return mb_float_of_bits(code == 0 ? 0x00400000 : (uint32_t)code << 23);
}

#endif
