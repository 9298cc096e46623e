/*
 * q4_k.c - Q4_K of llama.cpp: 256 weights in 144 bytes, eight parts of 32 with a scale and a minimum each.
 *
 * Bytes equal those of llama.cpp's reference quantiser without an importance matrix (tests/codecs has what it
 * makes of some rows), so sums run in its order.  A block is: scale and minimum of the scales as half
 * precision, twelve bytes with eight 6-bit scales and eight 6-bit minima, 128 bytes of 4-bit codes.
 *
 *     w' = d scale code - dmin minimum
 */
#include "base/bytes.h"
#include "base/error.h"
#include "functions.h"
#include <math.h>
#include <string.h>

enum { BLOCK = 256, BLOCK_NBYTES = 144, PART = 32, N_PARTS = 8, TOP = 15, N_TRIES = 20 };

static int nearest(float x)
{
    return x < 4194303.F && x > -4194303.F ? (int)rintf(x) : x > 0 ? 4194303 : -4194303;
}

static int code_of(float x)
{
    int code = nearest(x);
    return code < 0 ? 0 : code > TOP ? TOP : code;
}

/* The weighted squared error of w' = scale code + minimum. */
static float error_of(const float *w, const float *importance, const uint8_t *codes, float scale,
                      float minimum)
{
    float sum = 0;
    for (size_t i = 0; i < PART; i++) {
        float off = scale * codes[i] + minimum - w[i];
        sum += importance[i] * (off * off);
    }
    return sum;
}

/* Sums over a part that a least-squares fit of scale and minimum needs. */
struct fit {
    float weight, x;       /* of importance, and of importance * w */
    float code, code2, xc; /* of importance times code, code^2, code w */
};

static void add_codes(struct fit *fit, const float *w, const float *importance, const uint8_t *codes)
{
    fit->code = fit->code2 = fit->xc = 0;
    for (size_t i = 0; i < PART; i++) {
        int code = codes[i];
        fit->code += importance[i] * (float)code;
        fit->code2 += importance[i] * (float)code * (float)code;
        fit->xc += importance[i] * (float)code * w[i];
    }
}

/* false: the codes are all alike. A minimum above 0 cannot be stored. */
static bool solve(const struct fit *fit, float *scale, float *minimum)
{
    float determinant = fit->weight * fit->code2 - fit->code * fit->code;
    if (!(determinant > 0))
        return false;
    *scale = (fit->weight * fit->xc - fit->x * fit->code) / determinant;
    *minimum = (fit->code2 * fit->x - fit->code * fit->xc) / determinant;
    if (*minimum > 0) {
        *minimum = 0;
        *scale = fit->xc / fit->code2;
    }
    return true;
}

/* The scale of a part, the negative of its minimum, and codes for these. */
static float search_part(const float *w, float *negative_minimum, uint8_t best_codes[PART])
{
    float importance[PART], square = 0;
    for (size_t i = 0; i < PART; i++)
        square += w[i] * w[i];
    float rms = sqrtf(square / PART);
    for (size_t i = 0; i < PART; i++)
        importance[i] = rms + fabsf(w[i]);

    float lo = w[0], hi = w[0];
    struct fit fit = {.weight = importance[0], .x = importance[0] * w[0]};
    for (size_t i = 1; i < PART; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
        fit.weight += importance[i];
        fit.x += importance[i] * w[i];
    }
    lo = lo > 0 ? 0 : lo;
    *negative_minimum = -lo;
    memset(best_codes, 0, PART);
    if (hi == lo)
        return 0;
    float inverse = TOP / (hi - lo), best_scale = 1 / inverse, best_minimum = lo;
    uint8_t codes[PART];
    for (size_t i = 0; i < PART; i++)
        best_codes[i] = (uint8_t)code_of(inverse * (w[i] - lo));
    float best = error_of(w, importance, best_codes, best_scale, lo);
    /* A better minimum is the one that later tries begin with, as in llama.cpp. */
    for (int k = 0; k <= N_TRIES; k++) {
        float scale, minimum;
        inverse = (-1.F + 0.1F * (float)k + TOP) / (hi - best_minimum);
        for (size_t i = 0; i < PART; i++)
            codes[i] = (uint8_t)code_of(inverse * (w[i] - best_minimum));
        add_codes(&fit, w, importance, codes);
        if (!solve(&fit, &scale, &minimum))
            continue;
        float error = error_of(w, importance, codes, scale, minimum);
        if (error < best) {
            best = error;
            best_scale = scale;
            best_minimum = minimum;
            memcpy(best_codes, codes, PART);
        }
    }
    *negative_minimum = -best_minimum;
    return best_scale;
}

/* Scales and minima of part 0 to 3 are the low six bits of bytes 0 to 7; the others' are where room is left.
 */
static void put_scale(uint8_t bytes[12], size_t part, unsigned scale, unsigned minimum)
{
    if (part < 4) {
        bytes[part] = (uint8_t)scale;
        bytes[part + 4] = (uint8_t)minimum;
        return;
    }
    bytes[part + 4] = (uint8_t)((scale & 15) | (minimum & 15) << 4);
    bytes[part - 4] |= (uint8_t)(scale >> 4 << 6);
    bytes[part] |= (uint8_t)(minimum >> 4 << 6);
}

static void get_scale(const uint8_t bytes[12], size_t part, unsigned *scale, unsigned *minimum)
{
    if (part < 4) {
        *scale = bytes[part] & 63;
        *minimum = bytes[part + 4] & 63;
        return;
    }
    *scale = (bytes[part + 4] & 15U) | (bytes[part - 4] >> 6 << 4);
    *minimum = (bytes[part + 4] >> 4) | (bytes[part] >> 6 << 4);
}

static unsigned six_bits(float x)
{
    unsigned v = (uint8_t)nearest(x);
    return v < 63 ? v : 63;
}

/* The scale and the minimum of a part as the block keeps them. */
static void stored_part(const uint8_t *block, size_t part, float *scale, float *minimum)
{
    unsigned s, m;
    get_scale(block + 4, part, &s, &m);
    *scale = mb_float_of_f16(mb_load_u16(block)) * (float)s;
    *minimum = mb_float_of_f16(mb_load_u16(block + 2)) * (float)m;
}

static void put_scales(const float scales[N_PARTS], const float minima[N_PARTS], uint8_t *block)
{
    float top_scale = 0, top_minimum = 0;
    for (size_t p = 0; p < N_PARTS; p++) {
        top_scale = scales[p] > top_scale ? scales[p] : top_scale;
        top_minimum = minima[p] > top_minimum ? minima[p] : top_minimum;
    }
    float inverse_scale = top_scale > 0 ? 63.F / top_scale : 0;
    float inverse_minimum = top_minimum > 0 ? 63.F / top_minimum : 0;
    mb_store_u16(block, mb_f16_of_float(top_scale / 63.F));
    mb_store_u16(block + 2, mb_f16_of_float(top_minimum / 63.F));
    for (size_t p = 0; p < N_PARTS; p++)
        put_scale(block + 4, p, six_bits(inverse_scale * scales[p]), six_bits(inverse_minimum * minima[p]));
}

/* Codes are found again for the scales that the block has; where its scale is 0 they stay as they were. */
static void encode_block(const float *w, uint8_t *out)
{
    float scales[N_PARTS], minima[N_PARTS];
    uint8_t codes[BLOCK];
    for (size_t p = 0; p < N_PARTS; p++)
        scales[p] = search_part(w + p * PART, &minima[p], codes + p * PART);
    put_scales(scales, minima, out);
    for (size_t p = 0; p < N_PARTS; p++) {
        float scale, minimum;
        stored_part(out, p, &scale, &minimum);
        for (size_t i = p * PART; i < (p + 1) * PART && scale != 0; i++)
            codes[i] = (uint8_t)code_of((w[i] + minimum) / scale);
    }
    for (size_t i = 0; i < BLOCK / 2; i++) {
        size_t low = i / PART * 2 * PART + i % PART;
        out[16 + i] = (uint8_t)(codes[low] | codes[low + PART] << 4);
    }
}

static void decode_block(const uint8_t *bytes, float *out)
{
    for (size_t p = 0; p < N_PARTS; p++) {
        float scale, minimum;
        stored_part(bytes, p, &scale, &minimum);
        for (size_t i = 0; i < PART; i++) {
            unsigned code = bytes[16 + p / 2 * PART + i] >> 4 * (p % 2) & 15U;
            out[p * PART + i] = scale * (float)code - minimum;
        }
    }
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    (void)mode;
    size_t n_blocks = matrix->n_rows * (matrix->n_cols / BLOCK);
    if (matrix->n_cols % BLOCK != 0)
        return mb_fail(err, MB_UNSUPPORTED, "q4_k: %zu columns are no multiple of 256", matrix->n_cols);
    *out_nbytes = n_blocks * BLOCK_NBYTES;
    if (*out_nbytes > out_cap)
        return mb_fail(err, MB_NO_SPACE, "q4_k: the output has too little space");
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
        return mb_fail(err, MB_BAD_DATA, "q4_k: %zu bytes for %zu x %zu weights", nbytes, n_rows, n_cols);
    for (size_t b = 0; b < n_blocks; b++)
        decode_block(bytes + b * BLOCK_NBYTES, out + b * BLOCK);
    return MB_OK;
}

const struct mb_codec_functions mb_codec_q4_k = {.encode = encode, .decode = decode};
