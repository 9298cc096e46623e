/*
 * bytes.h - unaligned little-endian access and the 16-bit float types.
 */
#ifndef MB_BASE_BYTES_H
#define MB_BASE_BYTES_H

#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian and read in place");

static inline uint16_t mb_load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t mb_load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t mb_load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void mb_store_u16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void mb_store_u32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void mb_store_u64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline float mb_float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t mb_bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float mb_float_of_bf16(uint16_t h)
{
    return mb_float_of_bits((uint32_t)h << 16);
}

/* Exact, subnormals included. */
static inline float mb_float_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00)
        return mb_float_of_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest >= 0x400)
        return mb_float_of_bits(sign | ((rest << 13) + (112u << 23)));
    float f = (float)rest * 0x1p-24f;
    return sign ? -f : f;
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t mb_bf16_of_float(float f)
{
    uint32_t bits = mb_bits_of_float(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Round to nearest even; what is too large becomes infinite; NaN stays NaN. */
static inline uint16_t mb_f16_of_float(float f)
{
    uint32_t bits = mb_bits_of_float(f), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (bits >= 0x47800000) /* 65536 and more */
        return (uint16_t)(sign | 0x7c00);
    if (bits < 0x38800000) {                     /* below the smallest normal: a multiple of 2^-24 */
        float m = mb_float_of_bits(bits) + 0.5f; /* ulp of [0.5, 1) is 2^-24 */
        return (uint16_t)(sign | (mb_bits_of_float(m) - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | ((bits - (112u << 23)) >> 13));
}

#endif
