/*
 * nf4.c - NF4 of QLoRA (arXiv:2305.14314): 16 quantiles of a normal distribution, times the largest magnitude
 * of each 64 weights, which is kept as float.  Blocks run over the whole matrix.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "functions.h"
#include <math.h>

enum { BLOCK = 64 };

static const float levels[16] = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

/* The nearest level, the lower one of two. */
static unsigned level_of(float x)
{
    unsigned code = 0;
    while (code < 15 && x > (levels[code] + levels[code + 1]) / 2)
        code++;
    return code;
}

static size_t nbytes_of(size_t n)
{
    return (n + BLOCK - 1) / BLOCK * 4 + (n + 1) / 2;
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    (void)mode;
    const float *w = matrix->values;
    size_t n = matrix->n_rows * matrix->n_cols, n_blocks = (n + BLOCK - 1) / BLOCK;
    *out_nbytes = nbytes_of(n);
    if (*out_nbytes > out_cap)
        return mb_fail(err, MB_NO_SPACE, "nf4: the output has too little space");
    uint8_t *codes = out + 4 * n_blocks;
    for (size_t b = 0; b < n_blocks; b++) {
        size_t end = (b + 1) * BLOCK < n ? (b + 1) * BLOCK : n;
        float largest = 0;
        for (size_t i = b * BLOCK; i < end; i++)
            largest = fabsf(w[i]) > largest ? fabsf(w[i]) : largest;
        mb_store_u32(out + 4 * b, mb_bits_of_float(largest));
        for (size_t i = b * BLOCK; i < end; i++) {
            unsigned code = level_of(largest > 0 ? w[i] / largest : 0);
            codes[i / 2] = (uint8_t)(i % 2 == 0 ? code : codes[i / 2] | code << 4);
        }
    }
    return MB_OK;
}

static enum mb_status decode(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    (void)mode;
    size_t n = n_rows * n_cols, n_blocks = (n + BLOCK - 1) / BLOCK;
    if (nbytes != nbytes_of(n))
        return mb_fail(err, MB_BAD_DATA, "nf4: %zu bytes for %zu x %zu weights", nbytes, n_rows, n_cols);
    const uint8_t *codes = bytes + 4 * n_blocks;
    for (size_t i = 0; i < n; i++)
        out[i] =
            levels[codes[i / 2] >> 4 * (i % 2) & 15] * mb_float_of_bits(mb_load_u32(bytes + 4 * (i / BLOCK)));
    return MB_OK;
}

const struct mb_codec_functions mb_codec_nf4 = {.encode = encode, .decode = decode};
