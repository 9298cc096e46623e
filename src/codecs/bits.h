/*
 * bits.h - values of a few bits each, one after another, lowest bits first.
 */
#ifndef MB_CODECS_BITS_H
#define MB_CODECS_BITS_H

#include <stddef.h>
#include <stdint.h>

struct mb_bits_writer {
    uint8_t *at;
    uint64_t bits;
    unsigned n;
};

static inline void mb_bits_put(struct mb_bits_writer *w, unsigned value, unsigned n_bits)
{
    w->bits |= (uint64_t)value << w->n;
    for (w->n += n_bits; w->n >= 8; w->n -= 8, w->bits >>= 8)
        *w->at++ = (uint8_t)w->bits;
}

/* Bits that are left go into a byte of their own. */
static inline void mb_bits_end(struct mb_bits_writer *w)
{
    if (w->n > 0)
        *w->at++ = (uint8_t)w->bits;
    w->bits = w->n = 0;
}

struct mb_bits_reader {
    const uint8_t *at;
    uint64_t bits;
    unsigned n;
};

static inline unsigned mb_bits_get(struct mb_bits_reader *r, unsigned n_bits)
{
    for (; r->n < n_bits; r->n += 8)
        r->bits |= (uint64_t)*r->at++ << r->n;
    unsigned value = (unsigned)(r->bits & ((1U << n_bits) - 1));
    r->bits >>= n_bits;
    r->n -= n_bits;
    return value;
}

/* The reader goes on at the next whole byte. */
static inline void mb_bits_skip(struct mb_bits_reader *r)
{
    r->bits = r->n = 0;
}

#endif
