/*
 * q4_0.c - Q4_0 of llama.cpp: 32 weights in 18 bytes, a half-precision scale and 4-bit codes from -8 to 7.
 *
 * Bytes equal those of llama.cpp's reference quantiser (tests/codecs has what it makes of some rows).  The
 * weight of largest magnitude gets the code -8, whatever its sign.  The low half of byte j is weight j, the
 * high half weight j + 16.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "functions.h"
#include <math.h>

enum { BLOCK = 32, BLOCK_NBYTES = 18 };

static unsigned code_of(float scaled)
{
    int code = (int)(scaled + 8.5F);
    return (unsigned)(code < 15 ? code : 15) & 255;
}

static void encode_block(const float *w, uint8_t *out)
{
    float largest = 0, magnitude = 0;
    for (size_t i = 0; i < BLOCK; i++)
        if (magnitude < fabsf(w[i])) {
            magnitude = fabsf(w[i]);
            largest = w[i];
        }
    float scale = largest / -8, inverse = scale != 0 ? 1 / scale : 0;
    if (!isfinite(inverse)) /* a subnormal scale: half precision has 0 for it anyway */
        inverse = 0;
    mb_store_u16(out, mb_f16_of_float(scale));
    for (size_t i = 0; i < BLOCK / 2; i++)
        out[2 + i] = (uint8_t)(code_of(w[i] * inverse) | code_of(w[i + BLOCK / 2] * inverse) << 4);
}

static void decode_block(const uint8_t *bytes, float *out)
{
    float scale = mb_float_of_f16(mb_load_u16(bytes));
    for (size_t i = 0; i < BLOCK / 2; i++) {
        out[i] = (float)((bytes[2 + i] & 15) - 8) * scale;
        out[i + BLOCK / 2] = (float)((bytes[2 + i] >> 4) - 8) * scale;
    }
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    (void)mode;
    size_t n_blocks = matrix->n_rows * (matrix->n_cols / BLOCK);
    if (matrix->n_cols % BLOCK != 0)
        return mb_fail(err, MB_UNSUPPORTED, "q4_0: %zu columns are no multiple of 32", matrix->n_cols);
    *out_nbytes = n_blocks * BLOCK_NBYTES;
    if (*out_nbytes > out_cap)
        return mb_fail(err, MB_NO_SPACE, "q4_0: the output has too little space");
    for (size_t b = 0; b < n_blocks; b++)
        encode_block(matrix->values + b * BLOCK, out + b * BLOCK_NBYTES);
    return MB_OK;
}

static enum mb_status decode(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    (void)mode;
    size_t n_blocks = n_rows * (n_cols / BLOCK);
    if (n_cols % BLOCK != 0 || nbytes != n_blocks * BLOCK_NBYTES)
        return mb_fail(err, MB_BAD_DATA, "q4_0: %zu bytes for %zu x %zu weights", nbytes, n_rows, n_cols);
    for (size_t b = 0; b < n_blocks; b++)
        decode_block(bytes + b * BLOCK_NBYTES, out + b * BLOCK);
    return MB_OK;
}

const struct mb_codec_functions mb_codec_q4_0 = {.encode = encode, .decode = decode};
