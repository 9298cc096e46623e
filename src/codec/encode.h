/*
 * encode.h - what encoders of all instruction sets share.
 */
#ifndef MB_CODEC_ENCODE_H
#define MB_CODEC_ENCODE_H

#include "kernels.h"

/* The largest |q| of any code; MB_Q_OUTLIER marks weights that no code can hold. */
enum { MB_Q_MAX = MB_INDEX_MAX, MB_Q_OUTLIER = MB_INDEX_NONE };

struct mb_widths {
    unsigned a, b;
    uint16_t n_escapes, n_outliers;
    bool is_raw;
};

static inline uint8_t mb_kind_of(const struct mb_widths *widths)
{
    if (widths->is_raw)
        return MB_KIND_RAW;
    return (uint8_t)((9 * widths->a + widths->b) | (widths->n_outliers > 0 ? MB_KIND_OUTLIERS : 0));
}

/*
 * The widths of least cost for a group of n weights, of which reach[k] have |q| <= k (the bound holds for
 * them). The first of equals wins, in order of a, then b.  Raw wins where coding would not be smaller.
 */
struct mb_widths mb_choose_widths(const uint32_t reach[MB_Q_MAX + 1], size_t n, size_t elem_nbytes);

/* The only k for which mb_choose_widths looks at reach[k], increasing: M + T of all legal widths. */
enum { MB_N_REACHES = 29 };
extern const uint8_t mb_reaches[MB_N_REACHES];

/* The index of a finite weight, or MB_Q_OUTLIER where the bound would not hold or q is out of reach. */
int mb_quantise(const struct mb_coding *coding, float w);

/* The index of weight i of those that are encoded, by the coding's wish if it has one. */
static inline int mb_index_of(const struct mb_coding *coding, float w, size_t i)
{
    return coding->wanted == NULL ? mb_quantise(coding, w) : mb_index_within(coding, w, coding->wanted[i]);
}

/* Writes the record of n weights with indices q; returns its bytes. */
size_t mb_write_group(const struct mb_widths *widths, enum mb_dtype dtype, const int8_t *q, size_t n,
                      const uint8_t *weights, uint8_t *out, struct mb_group *group);

/*
 * Encodes a group of n weights to 'out' and describes it. Whole vectors may be stored there, up to 63 bytes
 * after the record. false: weight *bad is NaN or infinite.
 */
typedef bool (*mb_encode_group_fn)(const struct mb_coding *coding, const uint8_t *weights, size_t n,
                                   uint8_t *out, struct mb_group *group, size_t *bad);

/* An encode_rows of a table, given how it encodes one group. */
enum mb_status mb_encode_groups(mb_encode_group_fn encode, const struct mb_coding *coding,
                                const void *weights, size_t n_rows, uint8_t *out, size_t out_cap,
                                size_t *out_nbytes, struct mb_group *groups, size_t *bad_index);

enum mb_status mb_encode_rows_scalar(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                     uint8_t *out, size_t out_cap, size_t *out_nbytes,
                                     struct mb_group *groups, size_t *bad_index);

#endif
