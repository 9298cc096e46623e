/*
 * carry_avx2.h - the carry form: a coded matrix as AVX2 multiplies it fastest, twice as fast as the patched
 * form.
 *
 * It exists in memory alone; the loader makes it from the patched form of the files.  Here a body holds q mod
 * 2^a, with no code kept for escapes, so that bodies are decoded without masks and tails; what a weight is
 * off by is listed by column:
 *
 *     q = u - bias + 2^a k,    0 <= u < 2^a,    bias = 2^(a-1) in even columns, 2^(a-1) - 1 in odd ones
 *
 * A column with k > 0 is k times in the list "plus", one with k < 0 is -k times in the list "minus".  With S
 * = sum u X over all columns:
 *
 *     sum q X = S - 2^(a-1) sum X + sum of odd X + 2^a (sum of X in plus - sum of X in minus)
 *
 * Odd columns reach one further up, which makes both lists about as long.
 *
 * Records, one a row, in order:
 *
 *     body      blocks of 128 columns, 16 a bytes each; columns after the last have q = 0
 *               a = 2     bits 2k, 2k+1 of byte j: code 32 k + j
 *               a = 3     32 bytes: codes j, 32 + j, and the two top bits of 96 + j; then 16 bytes, whose
 * lower half is code 64 + j and the low bit of 96 + j, the upper half those 16 codes on a = 4     bits 4k ..
 * 4k+3 of byte j: code 64 k + j a = 5     64 bytes: code j, and the three top bits of 64 + j; then 16 bytes
 * of low bits: two of each of the codes 64 + j, 80 + j, 96 + j, 112 + j a = 6     32-byte parts i = 0, 1, 2:
 * code 32 i + j, and bits 2i, 2i+1 of code 96 + j a = 8     bytes: q itself, and no lists pairs     n_pairs /
 * 4 times: 4 gaps of plus, 4 gaps of minus, a byte each: columns since the entry before, from column -1 on
 *     outliers  as in the patched form
 *
 * The lists are made as long as each other, and a multiple of 4, by gaps of 0 in front: they stay at column
 * -1, where X is 0.  A gap over 255 is bridged by an entry in both lists at one column, which cancels.
 *
 * Matrices of short rows have another layout, stripes_avx2.h.
 *
 * A raw row is stored as it was.  The view is a struct mb_coded_matrix with groups of one row: kinds[row] is
 * a, MB_KIND_RAW, and MB_KIND_OUTLIERS; escape_counts are n_pairs.
 *
 * Include only from files compiled with the AVX2 flags.
 */
#ifndef MB_CODEC_CARRY_AVX2_H
#define MB_CODEC_CARRY_AVX2_H

#include "carry_rows.h"
#include "simd_avx2.h"
#include "stripes_avx2.h"

enum { MB_CARRY_BLOCK = 128, MB_CARRY_BYTES = 8 /* the width whose body is q itself */ };

MB_INLINE size_t mb_carry_n_blocks(size_t n_cols)
{
    return (n_cols + MB_CARRY_BLOCK - 1) / MB_CARRY_BLOCK;
}

/* Takes the next row (the caller knows that there is one): 'tail' are its pairs, n_escapes how many. */
MB_INLINE void mb_carry_next(struct mb_group_walk *walk, struct mb_group_view *view)
{
    const struct mb_coded_matrix *w = walk->w;
    uint64_t row = walk->group++;
    uint8_t kind = w->kinds[row];
    view->row = row;
    view->n_rows = 1;
    view->n = w->n_cols;
    view->body = walk->record;
    view->b = 0;
    view->is_raw = kind == MB_KIND_RAW;
    view->n_outliers = 0;
    if (view->is_raw) {
        view->a = view->n_escapes = 0;
        view->tail = view->end = walk->record + w->n_cols * mb_dtype_nbytes(w->dtype);
    } else {
        view->a = kind & 0x7fu;
        view->n_escapes = mb_load_u16(w->escape_counts + 2 * row);
        view->tail = walk->record + 16 * (size_t)view->a * mb_carry_n_blocks(w->n_cols);
        view->end = view->tail + 2 * (size_t)view->n_escapes;
    }
    unsigned flag = kind >> 7;
    view->n_outliers = flag * mb_load_u16(walk->outlier_count);
    walk->outlier_count += 2 * flag;
    view->outlier_positions = view->end;
    view->outlier_values = view->end + 2 * (size_t)view->n_outliers;
    view->end = view->outlier_values + view->n_outliers * mb_dtype_nbytes(w->dtype);
    walk->record = view->end;
}

/* A walk that begins at 'row'. */
MB_INLINE struct mb_group_walk mb_carry_seek(const struct mb_coded_matrix *w, uint64_t row)
{
    uint64_t tile = row / w->tile_groups;
    struct mb_group_walk walk = {
        .w = w,
        .group = tile * w->tile_groups,
        .record = w->data + w->tiles[tile].data_pos,
        .outlier_count = w->outlier_counts + 2 * (size_t)w->tiles[tile].first_outlier,
    };
    struct mb_group_view skipped;
    while (walk.group < row)
        mb_carry_next(&walk, &skipped);
    return walk;
}

/* 32 codes, of bits that are 'shift' further up in their bytes. */
MB_INLINE __m256i mb_carry_bits(__m256i v, int shift, int mask)
{
    return _mm256_and_si256(shift == 0 ? v : _mm256_srli_epi16(v, shift), _mm256_set1_epi8((char)mask));
}

/* 16 bytes to each half; the upper one is 'shift' bits further on. */
MB_INLINE __m256i mb_carry_halves(const uint8_t *p, int shift)
{
    __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
    return _mm256_srlv_epi64(v, _mm256_setr_epi64x(0, 0, shift, shift));
}

/* The u of the block at p. */
MB_INLINE void mb_carry_unpack(unsigned a, const uint8_t *p, __m256i u[4])
{
    __m256i v[4];
    for (size_t k = 0; k < (a == MB_CARRY_BYTES ? 4 : a / 2); k++) {
        v[k] = _mm256_loadu_si256((const __m256i *)(p + 32 * k));
        __asm__("" : "+x"(v[k])); /* gcc would load it again for each use */
    }
    if (a == 2) {
        for (int k = 0; k < 4; k++)
            u[k] = mb_carry_bits(v[0], 2 * k, 3);
    } else if (a == 3) {
        __m256i rest = mb_carry_halves(p + 32, 4);
        u[0] = mb_carry_bits(v[0], 0, 7);
        u[1] = mb_carry_bits(v[0], 3, 7);
        u[2] = mb_carry_bits(rest, 0, 7);
        u[3] = _mm256_or_si256(mb_carry_bits(v[0], 5, 6), mb_carry_bits(rest, 3, 1));
    } else if (a == 4) {
        for (int k = 0; k < 2; k++) {
            u[k] = mb_carry_bits(v[k], 0, 15);
            u[2 + k] = mb_carry_bits(v[k], 4, 15);
        }
    } else if (a == 5) {
        __m256i rest = mb_carry_halves(p + 64, 2);
        for (int k = 0; k < 2; k++) {
            u[k] = mb_carry_bits(v[k], 0, 31);
            u[2 + k] = _mm256_or_si256(mb_carry_bits(v[k], 3, 28), mb_carry_bits(rest, 4 * k, 3));
        }
    } else if (a == 6) {
        for (int k = 0; k < 3; k++)
            u[k] = mb_carry_bits(v[k], 0, 63);
        u[3] = _mm256_or_si256(mb_carry_bits(v[0], 6, 3), mb_carry_bits(v[1], 4, 12));
        u[3] = _mm256_or_si256(u[3], mb_carry_bits(v[2], 2, 48));
    } else {
        for (size_t k = 0; k < 4; k++)
            u[k] = v[k];
    }
}

/* The reverse: 128 codes of width a, whose upper bits do not matter, to 16 a bytes. */
void mb_carry_pack(unsigned a, const __m256i u[4], uint8_t *out);

/* All indices of a row that is not raw, to q[n_cols rounded up to MB_CARRY_BLOCK]. */
void mb_carry_indices_avx2(const struct mb_group_view *view, size_t n_cols, int8_t *q);

/* The walk and the indices of any form. */
MB_INLINE struct mb_group_walk mb_seek_avx2(const struct mb_coded_matrix *w, uint64_t row)
{
    if (w->form != MB_FORM_CARRY)
        return mb_group_seek(w, row);
    return mb_is_striped(w) ? mb_stripe_seek(w, row) : mb_carry_seek(w, row);
}

MB_INLINE void mb_next_avx2(struct mb_group_walk *walk, struct mb_group_view *view)
{
    if (walk->w->form != MB_FORM_CARRY)
        mb_group_next(walk, view);
    else if (mb_is_striped(walk->w))
        mb_stripe_next(walk, view);
    else
        mb_carry_next(walk, view);
}

MB_INLINE void mb_indices_avx2(const struct mb_coded_matrix *w, const struct mb_group_view *view, int8_t *q)
{
    if (w->form != MB_FORM_CARRY)
        mb_group_indices_avx2(view, q);
    else if (mb_is_striped(w))
        mb_stripe_indices_avx2(view, w->n_cols, q);
    else
        mb_carry_indices_avx2(view, w->n_cols, q);
}

/* y[0 .. n_rows) = rows [row, row + n_rows) of a matrix in the carry form times x. */
void mb_carry_matvec_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                          const struct mb_activation *x, float *y);

/* The same of n_tokens vectors, as the table's matmul; not of stripes. It needs no scratch memory. */
void mb_carry_matmul_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                          const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride);

/*
 * Whether n_tokens vectors are multiplied fastest by that, from 'row' on.  A few rows show how long lists
 * are: each token looks them up for itself, where other ways put them into decoded rows once.
 */
bool mb_carry_takes_few_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                             const struct mb_activation *x, size_t n_tokens);

#endif
