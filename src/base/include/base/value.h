/*
 * value.h - an element of a weight type as float.
 */
#ifndef MB_BASE_VALUE_H
#define MB_BASE_VALUE_H

#include "base/bytes.h"
#include <moebius/codec.h> /* enum mb_dtype */

/* Element i of an array of dtype, unaligned, as float: exact for all three types. */
static inline float mb_load_value(enum mb_dtype dtype, const void *values, size_t i)
{
    const uint8_t *bytes = (const uint8_t *)values;
    if (dtype == MB_F32)
        return mb_float_of_bits(mb_load_u32(bytes + 4 * i));
    uint16_t half = mb_load_u16(bytes + 2 * i);
    return dtype == MB_F16 ? mb_float_of_f16(half) : mb_float_of_bf16(half);
}

#endif
