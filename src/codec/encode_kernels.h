/*
 * encode_kernels.h - the encoder of row groups, written once for vectors of any length: quantise and check,
 * count, choose widths, write codes and outliers.  Same bytes as encode.c.
 *
 * A file that includes this has defined, for its instruction set:
 *   NAMED(name)       the name with the suffix of the instruction set
 *   BLOCK             weights that are quantised at once
 *   quantise_block    their indices; false where one is not finite
 *   BYTES, bit_mask   indices that are compared at once; type: a bit for each
 *   up_to             bit i: |q[i]| <= limit; an outlier's magnitude is 128
 *   count_of          how many of its bits are set
 *   write_body        body codes to the record, tail codes, one a byte, to 'tail' (64 bytes more than the
 * group) write_tail        tail codes to the record
 */
#include "base/inline.h"
#include "encode.h"
#include <float.h>
#include <math.h>
#include <string.h>

static bool find_bad(enum mb_dtype dtype, const uint8_t *weights, size_t begin, size_t n, size_t *bad)
{
    for (size_t i = begin; i < n; i++)
        if (!isfinite(mb_load_value(dtype, weights, i))) {
            *bad = i;
            return true;
        }
    return false;
}

/* A difference that is rounded to float and up to this one is within eps: rounding both takes 2^-23. */
static float surely_kept(double eps)
{
    double sure = eps * (1 - 0x1p-20);
    return sure < FLT_MAX / 2 ? nextafterf((float)sure, 0) : FLT_MAX / 2;
}

/* false: weight *bad is not finite. */
MB_INLINE bool quantise(enum mb_dtype dtype, const struct mb_coding *coding, const uint8_t *weights, size_t n,
                        int8_t *q, size_t *bad)
{
    float sure = surely_kept(coding->eps);
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        if (!quantise_block(dtype, weights + i * mb_dtype_nbytes(dtype), coding, sure, q + i))
            return !find_bad(dtype, weights, i, n, bad);
    if (find_bad(dtype, weights, i, n, bad))
        return false;
    for (; i < n; i++)
        q[i] = (int8_t)mb_quantise(coding, mb_load_value(dtype, weights, i));
    return true;
}

/*
 * One by one: a step that underflowed keeps nothing but zeros, and wanted indices are few nanoseconds beside
 * what it takes to find them.
 */
static bool quantise_singly(const struct mb_coding *coding, const uint8_t *weights, size_t n, int8_t *q,
                            size_t *bad)
{
    for (size_t i = 0; i < n; i++)
        q[i] = (int8_t)mb_index_of(coding, mb_load_value(coding->dtype, weights, i), i);
    return !find_bad(coding->dtype, weights, 0, n, bad);
}

static bool quantise_any(const struct mb_coding *coding, const uint8_t *weights, size_t n, int8_t *q,
                         size_t *bad)
{
    if (coding->step == 0 || coding->wanted != NULL)
        return quantise_singly(coding, weights, n, q, bad);
    if (coding->dtype == MB_F32)
        return quantise(MB_F32, coding, weights, n, q, bad);
    if (coding->dtype == MB_F16)
        return quantise(MB_F16, coding, weights, n, q, bad);
    return quantise(MB_BF16, coding, weights, n, q, bad);
}

/* Outliers follow the indices up to a whole vector, so they do not count. */
static uint32_t count_up_to(const int8_t *q, size_t n, unsigned limit)
{
    uint64_t count = 0;
    for (size_t i = 0; i < n; i += BYTES)
        count += count_of(q + i, limit);
    return (uint32_t)count;
}

static struct mb_widths choose_widths(const int8_t *q, size_t n, size_t elem_nbytes)
{
    uint32_t reach[MB_Q_MAX + 1] = {0}, n_kept = count_up_to(q, n, MB_Q_MAX), count = 0;
    for (size_t i = 0; i < MB_N_REACHES; i++) {
        if (count < n_kept) /* else all that are kept have been counted */
            count = count_up_to(q, n, mb_reaches[i]);
        reach[mb_reaches[i]] = count;
    }
    return mb_choose_widths(reach, n, elem_nbytes);
}

static uint8_t *write_outliers(const struct mb_widths *widths, const int8_t *q, size_t n,
                               const uint8_t *weights, size_t elem_nbytes, uint8_t *out)
{
    uint8_t *values = out + 2 * (size_t)widths->n_outliers;
    unsigned outer = (unsigned)(mb_inner_max(widths->a) + mb_tail_half(widths->b));
    for (size_t i = 0; i < n && widths->n_outliers > 0; i += BYTES) {
        bit_mask places = (bit_mask)~up_to(q + i, outer);
        if (n - i < BYTES)
            places &= ((bit_mask)1 << (n - i)) - 1;
        for (; places != 0; places &= places - 1) {
            size_t at = i + (size_t)__builtin_ctzll(places);
            mb_store_u16(out, (uint16_t)at);
            out += 2;
            memcpy(values, weights + at * elem_nbytes, elem_nbytes);
            values += elem_nbytes;
        }
    }
    return values;
}

static bool encode_group(const struct mb_coding *coding, const uint8_t *weights, size_t n, uint8_t *out,
                         struct mb_group *group, size_t *bad)
{
    int8_t q[MB_GROUP_WEIGHTS_MAX + BYTES + 1];
    if (!quantise_any(coding, weights, n, q, bad))
        return false;
    memset(q + n, MB_Q_OUTLIER, BYTES);
    size_t elem_nbytes = mb_dtype_nbytes(coding->dtype);
    struct mb_widths widths = choose_widths(q, n, elem_nbytes);
    if (widths.is_raw) {
        mb_write_group(&widths, coding->dtype, q, n, weights, out, group);
        return true;
    }
    uint8_t tail[MB_GROUP_WEIGHTS_MAX + 64];
    write_body(&widths, q, n, out, tail);
    uint8_t *end = out + mb_bits_nbytes(n, widths.a);
    write_tail(tail, widths.n_escapes, widths.b, end);
    end += mb_bits_nbytes(widths.n_escapes, widths.b);
    end = write_outliers(&widths, q, n, weights, elem_nbytes, end);
    *group = (struct mb_group){
        .kind = mb_kind_of(&widths),
        .n_escapes = widths.n_escapes,
        .n_outliers = widths.n_outliers,
        .nbytes = (uint32_t)(end - out),
    };
    return true;
}

enum mb_status NAMED(mb_encode_rows)(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                     uint8_t *out, size_t out_cap, size_t *out_nbytes,
                                     struct mb_group *groups, size_t *bad_index)
{
    return mb_encode_groups(encode_group, coding, weights, n_rows, out, out_cap, out_nbytes, groups,
                            bad_index);
}
