/*
 * rtn.c - round-to-nearest quantisation to 2, 3, 4 or 8 bits, as the baselines of quantisation papers do it.
 *
 * A group (a row, or 32 or 128 weights of one) spans [lo, hi], 0 included, in 2^bits - 1 steps.  A row is
 * stored as: the scale of each group as half precision, the zero points of all groups in 'bits' bits each,
 * the codes in 'bits' bits each; the last two begin at whole bytes.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "bits.h"
#include "functions.h"
#include <math.h>

struct layout {
    unsigned bits, top; /* top: the largest code */
    size_t group, n_groups, n_cols;
    size_t row_nbytes;
};

static struct layout layout_of(int mode, size_t n_cols)
{
    struct layout layout = {.bits = (unsigned)mode & 0xff, .group = (size_t)mode >> 8, .n_cols = n_cols};
    layout.top = (1U << layout.bits) - 1;
    layout.group = layout.group == 0 ? n_cols : layout.group;
    layout.n_groups = (n_cols + layout.group - 1) / layout.group;
    layout.row_nbytes =
        2 * layout.n_groups + (layout.bits * layout.n_groups + 7) / 8 + (layout.bits * n_cols + 7) / 8;
    return layout;
}

static size_t group_end(const struct layout *layout, size_t group)
{
    size_t end = (group + 1) * layout->group;
    return end < layout->n_cols ? end : layout->n_cols;
}

static unsigned code_of(const struct layout *layout, float w, float scale, float zero)
{
    float q = rintf(scale > 0 ? w / scale : 0) + zero;
    return q > 0 ? (q < (float)layout->top ? (unsigned)q : layout->top) : 0;
}

static void encode_row(const struct layout *layout, const float *w, uint8_t *out)
{
    struct mb_bits_writer zeros = {.at = out + 2 * layout->n_groups};
    struct mb_bits_writer codes = {.at = zeros.at + (layout->bits * layout->n_groups + 7) / 8};
    for (size_t g = 0; g < layout->n_groups; g++) {
        float lo = 0, hi = 0;
        for (size_t i = g * layout->group; i < group_end(layout, g); i++) {
            lo = w[i] < lo ? w[i] : lo;
            hi = w[i] > hi ? w[i] : hi;
        }
        uint16_t half = mb_f16_of_float((hi - lo) / (float)layout->top);
        float scale = mb_float_of_f16(half);
        unsigned zero = code_of(layout, -lo, scale, 0);
        mb_store_u16(out + 2 * g, half);
        mb_bits_put(&zeros, zero, layout->bits);
        for (size_t i = g * layout->group; i < group_end(layout, g); i++)
            mb_bits_put(&codes, code_of(layout, w[i], scale, (float)zero), layout->bits);
    }
    mb_bits_end(&zeros);
    mb_bits_end(&codes);
}

static void decode_row(const struct layout *layout, const uint8_t *bytes, float *out)
{
    struct mb_bits_reader zeros = {.at = bytes + 2 * layout->n_groups};
    struct mb_bits_reader codes = {.at = zeros.at + (layout->bits * layout->n_groups + 7) / 8};
    for (size_t g = 0; g < layout->n_groups; g++) {
        float scale = mb_float_of_f16(mb_load_u16(bytes + 2 * g));
        int zero = (int)mb_bits_get(&zeros, layout->bits);
        for (size_t i = g * layout->group; i < group_end(layout, g); i++)
            out[i] = (float)((int)mb_bits_get(&codes, layout->bits) - zero) * scale;
    }
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    struct layout layout = layout_of(mode, matrix->n_cols);
    *out_nbytes = matrix->n_rows * layout.row_nbytes;
    if (*out_nbytes > out_cap)
        return mb_fail(err, MB_NO_SPACE, "rtn: the output has too little space");
    for (size_t r = 0; r < matrix->n_rows; r++)
        encode_row(&layout, matrix->values + r * matrix->n_cols, out + r * layout.row_nbytes);
    return MB_OK;
}

static enum mb_status decode(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    struct layout layout = layout_of(mode, n_cols);
    if (nbytes != n_rows * layout.row_nbytes)
        return mb_fail(err, MB_BAD_DATA, "rtn: %zu bytes for %zu x %zu weights", nbytes, n_rows, n_cols);
    for (size_t r = 0; r < n_rows; r++)
        decode_row(&layout, bytes + r * layout.row_nbytes, out + r * n_cols);
    return MB_OK;
}

const struct mb_codec_functions mb_codec_rtn = {.encode = encode, .decode = decode};
