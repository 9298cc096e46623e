/*
 * cuszp.h - the bytes of cuSZp, the same from the CPU and from OpenCL.
 *
 *     f32 eps; a rate byte for each block, padded with zeros to a multiple of 1024; payloads of all blocks
 */
#ifndef MB_CODECS_CUSZP_H
#define MB_CODECS_CUSZP_H

#include <moebius/status.h>
#include <stddef.h>
#include <stdint.h>

enum { MB_CUSZP_BLOCK = 32, MB_CUSZP_RATES = 1024, MB_CUSZP_HEAD_NBYTES = 4 };

static inline size_t mb_cuszp_n_blocks(size_t n)
{
    return (n + MB_CUSZP_BLOCK - 1) / MB_CUSZP_BLOCK;
}

/* Rate bytes with their padding. */
static inline size_t mb_cuszp_n_rates(size_t n)
{
    return (mb_cuszp_n_blocks(n) + MB_CUSZP_RATES - 1) / MB_CUSZP_RATES * MB_CUSZP_RATES;
}

/* Whether 'nbytes' are what the rates of n weights say; every rate is one that an encoder writes. */
enum mb_status mb_cuszp_check(const uint8_t *bytes, size_t nbytes, size_t n, int mode, struct mb_error *err);

#endif
