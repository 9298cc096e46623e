/*
 * encode.c - the scalar encoder of row groups: the specification of the bytes.
 */
#include "encode.h"
#include "base/error.h"
#include "patched.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Appends codes to a bit stream, lowest bit first. */
struct bit_writer {
    uint8_t *out;
    uint64_t bits;
    unsigned n_bits;
};

static void put_code(struct bit_writer *writer, unsigned code, unsigned width)
{
    writer->bits |= (uint64_t)code << writer->n_bits;
    writer->n_bits += width;
    while (writer->n_bits >= 8) {
        *writer->out++ = (uint8_t)writer->bits;
        writer->bits >>= 8;
        writer->n_bits -= 8;
    }
}

static uint8_t *end_codes(struct bit_writer *writer)
{
    if (writer->n_bits > 0)
        *writer->out++ = (uint8_t)writer->bits;
    return writer->out;
}

size_t mb_patched_encode_bound(enum mb_dtype dtype, size_t n_rows, size_t n_cols)
{
    /* A record is raw where coding would not be smaller; 64 bytes are room for whole vector stores. */
    return n_rows * n_cols * mb_dtype_nbytes(dtype) + 64;
}

static bool keeps(const struct mb_coding *coding, float w, int q)
{
    float decoded = coding->step * (float)q;
    return fabs((double)w - (double)decoded) <= coding->eps;
}

int mb_index_within(const struct mb_coding *coding, float w, int wanted)
{
    if (coding->step == 0 || wanted == MB_INDEX_NONE)
        return coding->step == 0 && w == 0 ? 0 : MB_INDEX_NONE;
    float nearest = fminf(fmaxf(rintf(w / coding->step), -MB_INDEX_MAX), MB_INDEX_MAX);
    int end = (int)nearest, reach = (int)MB_RHO_MAX + 1; /* nothing beyond keeps the bound of a legal step */
    int q = wanted < end - reach ? end - reach : wanted > end + reach ? end + reach : wanted;
    while (q != end && (abs(q) > MB_INDEX_MAX || !keeps(coding, w, q)))
        q += q < end ? 1 : -1;
    return keeps(coding, w, q) ? q : MB_INDEX_NONE;
}

int mb_quantise(const struct mb_coding *coding, float w)
{
    if (coding->step == 0)
        return w == 0 ? 0 : MB_Q_OUTLIER;
    float q = rintf(w / coding->step);
    float decoded = coding->step * q;
    bool is_kept = fabs((double)w - (double)decoded) <= coding->eps && fabsf(q) <= (float)MB_Q_MAX;
    return is_kept ? (int)q : MB_Q_OUTLIER;
}

static unsigned body_code(const struct mb_widths *widths, int q)
{
    int inner = mb_inner_max(widths->a), outer = inner + mb_tail_half(widths->b);
    if (q < -outer || q > outer) /* an outlier */
        return (unsigned)inner;
    return q < -inner || q > inner ? 2 * (unsigned)inner + 1 : (unsigned)(q + inner);
}

static uint8_t *write_nibbles(const struct mb_widths *widths, const int8_t *q, size_t n, uint8_t *out)
{
    for (size_t begin = 0; begin < n; begin += 128) {
        size_t r = n - begin < 128 ? n - begin : 128, h = (r + 1) / 2;
        for (size_t j = 0; j < h; j++) {
            unsigned high = h + j < r ? body_code(widths, q[begin + h + j]) : 0;
            *out++ = (uint8_t)(body_code(widths, q[begin + j]) | high << 4);
        }
    }
    return out;
}

static uint8_t *write_body(const struct mb_widths *widths, const int8_t *q, size_t n, uint8_t *out)
{
    if (widths->a == 4)
        return write_nibbles(widths, q, n, out);
    struct bit_writer writer = {.out = out};
    for (size_t i = 0; i < n; i++)
        put_code(&writer, body_code(widths, q[i]), widths->a);
    return end_codes(&writer);
}

static uint8_t *write_tail(const struct mb_widths *widths, const int8_t *q, size_t n, uint8_t *out)
{
    int inner = mb_inner_max(widths->a), half = mb_tail_half(widths->b), outer = inner + half;
    struct bit_writer writer = {.out = out};
    for (size_t i = 0; i < n && widths->n_escapes > 0; i++) {
        if (q[i] < -inner && q[i] >= -outer)
            put_code(&writer, (unsigned)(-q[i] - inner - 1), widths->b);
        else if (q[i] > inner && q[i] <= outer)
            put_code(&writer, (unsigned)(q[i] - inner - 1 + half), widths->b);
    }
    return end_codes(&writer);
}

static uint8_t *write_outliers(const struct mb_widths *widths, const int8_t *q, size_t n,
                               const uint8_t *weights, size_t elem_nbytes, uint8_t *out)
{
    int outer = mb_inner_max(widths->a) + mb_tail_half(widths->b);
    uint8_t *values = out + 2 * (size_t)widths->n_outliers;
    for (size_t i = 0; i < n && widths->n_outliers > 0; i++)
        if (q[i] < -outer || q[i] > outer) {
            mb_store_u16(out, (uint16_t)i);
            out += 2;
            memcpy(values, weights + i * elem_nbytes, elem_nbytes);
            values += elem_nbytes;
        }
    return values;
}

size_t mb_write_group(const struct mb_widths *widths, enum mb_dtype dtype, const int8_t *q, size_t n,
                      const uint8_t *weights, uint8_t *out, struct mb_group *group)
{
    size_t elem_nbytes = mb_dtype_nbytes(dtype);
    if (widths->is_raw) {
        memcpy(out, weights, n * elem_nbytes);
        *group = (struct mb_group){.kind = MB_KIND_RAW, .nbytes = (uint32_t)(n * elem_nbytes)};
        return group->nbytes;
    }
    uint8_t *end = write_body(widths, q, n, out);
    end = write_tail(widths, q, n, end);
    end = write_outliers(widths, q, n, weights, elem_nbytes, end);
    *group = (struct mb_group){
        .kind = mb_kind_of(widths),
        .n_escapes = widths->n_escapes,
        .n_outliers = widths->n_outliers,
        .nbytes = (uint32_t)(end - out),
    };
    return group->nbytes;
}

static bool encode_group(const struct mb_coding *coding, const uint8_t *weights, size_t n, uint8_t *out,
                         struct mb_group *group, size_t *bad)
{
    int8_t q[MB_GROUP_WEIGHTS_MAX];
    uint32_t reach[MB_Q_MAX + 1] = {0};
    for (size_t i = 0; i < n; i++) {
        float w = mb_load_value(coding->dtype, weights, i);
        if (!isfinite(w)) {
            *bad = i;
            return false;
        }
        q[i] = (int8_t)mb_index_of(coding, w, i);
        if (q[i] != MB_Q_OUTLIER)
            reach[abs(q[i])]++;
    }
    for (int k = 1; k <= MB_Q_MAX; k++)
        reach[k] += reach[k - 1];
    struct mb_widths widths = mb_choose_widths(reach, n, mb_dtype_nbytes(coding->dtype));
    mb_write_group(&widths, coding->dtype, q, n, weights, out, group);
    return true;
}

enum mb_status mb_encode_groups(mb_encode_group_fn encode, const struct mb_coding *coding,
                                const void *weights, size_t n_rows, uint8_t *out, size_t out_cap,
                                size_t *out_nbytes, struct mb_group *groups, size_t *bad_index)
{
    if (out_cap < mb_patched_encode_bound(coding->dtype, n_rows, coding->n_cols))
        return MB_NO_SPACE;
    struct mb_coding rest = *coding; /* its wanted indices are those of the rows that are left */
    const uint8_t *from = weights;
    uint8_t *to = out;
    size_t group_rows = mb_group_rows(coding->n_cols), elem_nbytes = mb_dtype_nbytes(coding->dtype);
    for (size_t row = 0; row < n_rows; row += group_rows) {
        size_t n = (n_rows - row < group_rows ? n_rows - row : group_rows) * coding->n_cols, bad;
        if (!encode(&rest, from, n, to, groups, &bad)) {
            if (bad_index != NULL)
                *bad_index = row * coding->n_cols + bad;
            return MB_BAD_DATA;
        }
        from += n * elem_nbytes;
        if (rest.wanted != NULL)
            rest.wanted += n;
        to += groups->nbytes;
        groups++;
    }
    *out_nbytes = (size_t)(to - out);
    return MB_OK;
}

enum mb_status mb_encode_rows_scalar(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                     uint8_t *out, size_t out_cap, size_t *out_nbytes,
                                     struct mb_group *groups, size_t *bad_index)
{
    return mb_encode_groups(encode_group, coding, weights, n_rows, out, out_cap, out_nbytes, groups,
                            bad_index);
}
