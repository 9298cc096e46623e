/*
 * activation.h - vectors as integers: what all instruction sets share.  codec.h says what the result is.
 */
#ifndef MB_CODEC_ACTIVATION_H
#define MB_CODEC_ACTIVATION_H

#include "kernels.h"

enum { MB_PARTS = 32 }; /* of a vector: element i is in part i % MB_PARTS */

/* What an instruction set has to offer. */
struct mb_activation_ops {
    /*
     * Fills largest[MB_PARTS] with the largest magnitude of each part of x[n], as the bits of floats: those
     * of NaN and infinity are above all others.
     */
    void (*parts)(const float *x, size_t n, uint32_t *largest);

    /*
     * rint(x / scale) of x[n] to both planes, and zeros to a multiple of 128; returns the sum. All fit.
     * Begins at a multiple of 128 of a vector.
     */
    int64_t (*split)(const float *x, size_t n, float scale, int8_t *hi, int8_t *lo);

    /*
     * A block, n <= 128: rint(x / scale), at most 127, to 'bytes', and 'factor' times that, X, to both
     * planes; zeros to 128.  Returns the sum of X.
     */
    int64_t (*split_fast)(const float *x, size_t n, float scale, int factor, int8_t *bytes, int8_t *hi,
                          int8_t *lo);
};

/* One plane of all blocks, and a factor of each. */
struct mb_fast_planes {
    int8_t *bytes;
    uint8_t *factors;
};

/* A table's 'activation' and 'activation_fast'. */
void mb_activation_by(const struct mb_activation_ops *ops, const float *x, size_t n, int8_t *hi, int8_t *lo,
                      void *wide, struct mb_activation *out);
void mb_activation_fast_by(const struct mb_activation_ops *ops, const float *x, size_t n, int8_t *bytes,
                           int8_t *hi, int8_t *lo, void *wide, struct mb_activation *out);

#endif
