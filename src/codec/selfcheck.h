/*
 * selfcheck.h - a fast table proves itself once before it is used.
 */
#ifndef MB_CODEC_SELFCHECK_H
#define MB_CODEC_SELFCHECK_H

#include <moebius/codec.h>

/* Whether a table gives the bits of the scalar one on small hard rows. One thread at a time. */
bool mb_kernels_agree(const struct mb_kernels *kernels);

#endif
