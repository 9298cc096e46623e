/*
 * cuszp.c - cuSZp's algorithm (SC'23) on the CPU: our own code, in the layout of its version 3 for one
 * dimension and float.
 *
 * cuSZp checks nothing: rounding in float may take a weight over the bound by a few parts in a million.
 */
#include "cuszp.h"
#include "base/bytes.h"
#include "base/error.h"
#include "functions.h"
#include <string.h>

typedef unsigned int uint;
typedef unsigned char uchar;
#define GLOBAL
#define FUNCTION static
#define CUSZP_SOURCE(...) __VA_ARGS__
#include "cuszp_block.h"

enum mb_status mb_cuszp_check(const uint8_t *bytes, size_t nbytes, size_t n, int mode, struct mb_error *err)
{
    size_t n_rates = mb_cuszp_n_rates(n), needed = MB_CUSZP_HEAD_NBYTES + n_rates;
    if (nbytes < needed)
        return mb_fail(err, MB_BAD_DATA, "cuszp: %zu bytes for %zu weights", nbytes, n);
    for (size_t b = 0; b < mb_cuszp_n_blocks(n); b++) {
        unsigned rate = bytes[MB_CUSZP_HEAD_NBYTES + b];
        if (rate > 31 && (mode != MB_CUSZP_OUTLIER || rate < 128))
            return mb_fail(err, MB_BAD_DATA, "cuszp: block %zu has a rate of %u", b, rate);
        needed += cuszp_payload(rate, (uint)mode);
    }
    return needed == nbytes
               ? MB_OK
               : mb_fail(err, MB_BAD_DATA, "cuszp: %zu bytes, and the rates need %zu", nbytes, needed);
}

static unsigned in_block(size_t n, size_t block)
{
    size_t left = n - block * MB_CUSZP_BLOCK;
    return left < MB_CUSZP_BLOCK ? (unsigned)left : MB_CUSZP_BLOCK;
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    size_t n = matrix->n_rows * matrix->n_cols, n_rates = mb_cuszp_n_rates(n);
    float eps = mb_float_below(matrix->eps);
    /* 4 bytes for each weight and 8 for each block are the most. */
    if (out_cap < MB_CUSZP_HEAD_NBYTES + n_rates + 5 * mb_cuszp_n_blocks(n) * MB_CUSZP_BLOCK)
        return mb_fail(err, MB_NO_SPACE, "cuszp: the output has too little space");
    uint8_t *rates = out + MB_CUSZP_HEAD_NBYTES, *at = rates + n_rates;
    mb_store_u32(out, mb_bits_of_float(eps));
    memset(rates, 0, n_rates);
    for (size_t b = 0; b < mb_cuszp_n_blocks(n); b++) {
        struct cuszp_block block;
        cuszp_gather(matrix->values + b * MB_CUSZP_BLOCK, in_block(n, b), 0.5F / eps, (uint)mode, &block);
        rates[b] = (uint8_t)cuszp_rate_byte(&block);
        cuszp_put(&block, at);
        at += cuszp_payload(rates[b], (uint)mode);
    }
    *out_nbytes = (size_t)(at - out);
    return MB_OK;
}

static enum mb_status decode(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    size_t n = n_rows * n_cols;
    MB_TRY(mb_cuszp_check(bytes, nbytes, n, mode, err));
    const uint8_t *rates = bytes + MB_CUSZP_HEAD_NBYTES, *at = rates + mb_cuszp_n_rates(n);
    float eps = mb_float_of_bits(mb_load_u32(bytes));
    for (size_t b = 0; b < mb_cuszp_n_blocks(n); b++) {
        cuszp_decode(at, rates[b], in_block(n, b), eps, (uint)mode, out + b * MB_CUSZP_BLOCK);
        at += cuszp_payload(rates[b], (uint)mode);
    }
    return MB_OK;
}

const struct mb_codec_functions mb_codec_cuszp = {.encode = encode, .decode = decode};
