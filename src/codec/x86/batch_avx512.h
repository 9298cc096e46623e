/*
 * batch_avx512.h - up to sixteen row groups at once: directory entries are decoded in vectors, one lane for
 * each group, and tails to bytes in L1, before the bodies are multiplied.
 *
 *       directory       kind, escapes, outliers of groups 0 to 15: a lane of 32 bits each
 *       records         | body 0 | tail 0 | outliers 0 | body 1 | tail 1 | outliers 1 | body 2 | ...
 *       decoded tails   | tail 0: 64 n_rounds bytes | tail 1 | tail 2 | ...
 *
 * Where the parts of a group are, and their lengths, is computed for sixteen groups at the price of one.  A
 * running sum over lanes gives the places of the records.
 *
 * Include only from files compiled with the AVX-512 flags.
 */
#ifndef MB_CODEC_BATCH_AVX512_H
#define MB_CODEC_BATCH_AVX512_H

#include "base/cpu.h"
#include "simd_avx512.h"

enum { MB_BATCH = 16, MB_BATCH_LANES = 4 }; /* groups, and groups whose bodies are decoded together */

/*
 * Memory is prefetched this far ahead, line by line in order, at the pace at which it is read: the bytes of a
 * tail when a tail is decoded, the bytes of a body when a body is multiplied.  The processor may drop a
 * prefetch whose page is not in the TLB, so each page is touched long before (measured: a third more
 * weights/s from memory with small pages).
 *
 * Lines go to L1, but on Zen 4 to L2: its cores wait for 24 lines to L1 at most, which made 11 GB/s, and the
 * distance does not fit its L1 of 32 KiB (0.122 sigma from memory: 20 G weights/s, and 34 by way of L2).
 */
enum { MB_AHEAD_NBYTES = 28672, MB_PAGE_AHEAD_NBYTES = MB_AHEAD_NBYTES + 32768 };

/* Decoded tails of a batch: at least one group of the widest row. */
enum { MB_TAILS_NBYTES = 2 * (MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK) };

/* Up to 16 whole groups, one a lane: what mb_group_next finds for one. */
struct mb_batch_512 {
    _Alignas(64) uint32_t a[MB_BATCH], b[MB_BATCH];
    uint32_t body[MB_BATCH], tail[MB_BATCH], outliers[MB_BATCH]; /* from 'records' on */
    uint32_t n_escapes[MB_BATCH], n_outliers[MB_BATCH];
    uint32_t nbytes[MB_BATCH];                           /* of the record */
    uint32_t n_rounds[MB_BATCH], decoded_tail[MB_BATCH]; /* of decoding the tail; where its bytes go */
    uint32_t offset[MB_BATCH];                           /* u of q = 0 */
    const uint8_t *records;
    size_t n;
    size_t ahead_nbytes; /* to prefetch with each tail; equal for all, so that branches are predicted */
    __mmask16 has_outliers;
    bool ahead_is_l2; /* where lines are prefetched to */
};

/* Lane i of the result is the sum of lanes 0 to i. */
static inline __m512i mb_sums_so_far_512(__m512i v)
{
    const __m512i zero = _mm512_setzero_si512();
    v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, zero, 15));
    v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, zero, 14));
    v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, zero, 12));
    return _mm512_add_epi32(v, _mm512_alignr_epi32(v, zero, 8));
}

/* u of q = 0, as mb_offset_512. */
static inline __m512i mb_offsets_512(__m512i a, __m512i b)
{
    const __m512i one = _mm512_set1_epi32(1);
    __m512i half = _mm512_srli_epi32(_mm512_sllv_epi32(one, b), 1);
    __m512i base =
        _mm512_mask_mov_epi32(half, _mm512_cmple_epu32_mask(a, _mm512_set1_epi32(6)), _mm512_set1_epi32(128));
    __m512i inner = _mm512_sub_epi32(_mm512_srli_epi32(_mm512_sllv_epi32(one, a), 1), one);
    return _mm512_maskz_add_epi32(_mm512_test_epi32_mask(a, a), base, inner);
}

/* Groups of a batch. Its tails are all read first, so a batch must fit in the prefetch distance. */
static inline size_t mb_batch_groups_512(const struct mb_coded_matrix *w)
{
    if (w->group_rows > 1)
        return MB_BATCH / w->group_rows;
    size_t n = (size_t)(2 * MB_AHEAD_NBYTES) / w->n_cols / MB_BATCH_LANES * MB_BATCH_LANES; /* at four bits */
    return n < MB_BATCH_LANES ? MB_BATCH_LANES : n > MB_BATCH ? MB_BATCH : n;
}

/* Takes up to n next groups that are not raw and whose tails fit; the walk moves past them. */
static inline size_t mb_take_batch_512(struct mb_group_walk *walk, size_t n, struct mb_batch_512 *batch)
{
    const struct mb_coded_matrix *w = walk->w;
    const __m512i seven = _mm512_set1_epi32(7);
    __mmask16 lanes = mb_lanes_16(n);
    __m128i kinds = _mm_maskz_loadu_epi8(lanes, w->kinds + walk->group);
    lanes = mb_lanes_16(
        (size_t)__builtin_ctz(_mm_cmpeq_epi8_mask(kinds, _mm_set1_epi8(MB_KIND_RAW)) | (1u << n)));
    __m512i kind = _mm512_cvtepu8_epi32(_mm_and_si128(kinds, _mm_set1_epi8(0x7f)));
    __m512i a = _mm512_srli_epi32(_mm512_mullo_epi32(kind, _mm512_set1_epi32(57)), 9); /* kind / 9 */
    __m512i b = _mm512_sub_epi32(kind, _mm512_add_epi32(_mm512_slli_epi32(a, 3), a));
    __m512i n_escapes =
        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, w->escape_counts + 2 * walk->group));

    /* Groups that need one round less than the most run it idle: cheaper than a mispredicted branch. */
    __m512i n_rounds = _mm512_srli_epi32(_mm512_add_epi32(n_escapes, _mm512_set1_epi32(63)), 6);
    __m512i most = _mm512_set1_epi32(_mm512_reduce_max_epi32(n_rounds));
    n_rounds = _mm512_mask_mov_epi32(
        n_rounds, _mm512_cmple_epu32_mask(_mm512_sub_epi32(most, n_rounds), _mm512_set1_epi32(1)), most);
    __m512i decoded_nbytes = _mm512_slli_epi32(n_rounds, 6), decoded_end = mb_sums_so_far_512(decoded_nbytes);
    lanes &= _mm512_cmple_epu32_mask(decoded_end, _mm512_set1_epi32(MB_TAILS_NBYTES));

    __mmask16 flags = (__mmask16)(_mm_movepi8_mask(kinds) & lanes);
    size_t n_flags = (size_t)__builtin_popcount(flags);
    __m512i n_outliers = _mm512_cvtepu16_epi32(_mm256_maskz_expand_epi16(
        flags, _mm256_maskz_loadu_epi16(mb_lanes_16(n_flags), walk->outlier_count)));
    __m512i n_weights = _mm512_set1_epi32((int)(w->group_rows * w->n_cols));
    __m512i body_nbytes = _mm512_srli_epi32(_mm512_add_epi32(_mm512_mullo_epi32(a, n_weights), seven), 3);
    __m512i tail_nbytes = _mm512_srli_epi32(_mm512_add_epi32(_mm512_mullo_epi32(b, n_escapes), seven), 3);
    __m512i outlier_nbytes =
        _mm512_mullo_epi32(n_outliers, _mm512_set1_epi32(2 + (int)mb_dtype_nbytes(w->dtype)));
    __m512i nbytes =
        _mm512_maskz_add_epi32(lanes, _mm512_add_epi32(body_nbytes, tail_nbytes), outlier_nbytes);
    __m512i later_nbytes = _mm512_maskz_mullo_epi32(
        lanes, a, _mm512_set1_epi32((int)(w->group_rows * (w->n_cols / 128) * 16))); /* a bit a weight */
    __m512i end = mb_sums_so_far_512(nbytes), body = _mm512_sub_epi32(end, nbytes);
    __m512i tail = _mm512_add_epi32(body, body_nbytes);

    mb_prefetch_directory(walk, MB_GROUPS_AHEAD);
    _mm512_store_si512(batch->a, a);
    _mm512_store_si512(batch->b, b);
    _mm512_store_si512(batch->body, body);
    _mm512_store_si512(batch->tail, tail);
    _mm512_store_si512(batch->outliers, _mm512_add_epi32(tail, tail_nbytes));
    _mm512_store_si512(batch->n_escapes, n_escapes);
    _mm512_store_si512(batch->n_outliers, n_outliers);
    _mm512_store_si512(batch->nbytes, nbytes);
    _mm512_store_si512(batch->n_rounds, n_rounds);
    _mm512_store_si512(batch->decoded_tail, _mm512_sub_epi32(decoded_end, decoded_nbytes));
    _mm512_store_si512(batch->offset, mb_offsets_512(a, b));
    size_t total_nbytes = (size_t)_mm512_reduce_add_epi32(nbytes);
    batch->records = walk->record;
    batch->n = (size_t)__builtin_popcount(lanes);
    batch->ahead_nbytes = (size_t)_mm512_reduce_add_epi32(_mm512_sub_epi32(nbytes, later_nbytes)) /
                          (batch->n > 0 ? batch->n : 1);
    batch->has_outliers = flags;
    batch->ahead_is_l2 = (mb_cpu_features() & MB_CPU_ZEN4) != 0;
    walk->group += batch->n;
    walk->record += total_nbytes;
    walk->outlier_count += 2 * n_flags;
    return batch->n;
}

/* Moves the groups of the first one's width from 'left' to 'which' (16 are stored); returns how many. */
MB_INLINE size_t mb_next_width_512(const struct mb_batch_512 *batch, __mmask16 *left, uint32_t *which)
{
    const __m512i index = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    unsigned width = batch->a[__builtin_ctz(*left)];
    __mmask16 same =
        _mm512_mask_cmpeq_epi32_mask(*left, _mm512_load_si512(batch->a), _mm512_set1_epi32((int)width));
    _mm512_storeu_si512(which, _mm512_maskz_compress_epi32(same, index));
    *left &= (__mmask16)~same;
    return (size_t)__builtin_popcount(same);
}

MB_INLINE const uint8_t *mb_prefetch_lines(const uint8_t *ahead, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i += 64)
        _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
    return ahead + nbytes;
}

/*
 * 64-byte lines that hold nbytes (a constant): 'is_l2' is said again for each call, as the compiler would
 * make two loops of the caller's.
 */
MB_INLINE void mb_prefetch_to_512(const uint8_t *ahead, size_t nbytes, bool is_l2)
{
    __asm__("" : "+r"(is_l2));
    if (is_l2) {
#pragma GCC unroll 8
        for (size_t i = 0; i < nbytes; i += 64)
            _mm_prefetch((const char *)ahead + i, _MM_HINT_T1);
    } else {
#pragma GCC unroll 8
        for (size_t i = 0; i < nbytes; i += 64)
            _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
    }
}

/*
 * Decodes the batch's tails; 'tails' is [MB_TAILS_NBYTES + 64], since whole vectors are read.  Returns the
 * memory to prefetch next, while bodies are decoded.
 */
static inline const uint8_t *mb_decode_tails_512(const struct mb_batch_512 *batch, uint8_t *tails)
{
    const uint8_t *ahead = batch->records + MB_AHEAD_NBYTES, *page = batch->records + MB_PAGE_AHEAD_NBYTES;
    for (size_t i = 0; i < batch->n; i++) {
        unsigned a = batch->a[i], b = batch->b[i];
        struct mb_group_view view = {
            .tail = batch->records + batch->tail[i], .b = b, .n_escapes = batch->n_escapes[i]};
        struct mb_tail_512 kind = mb_tail_of_kind(a, b);
        mb_tail_decode_512(&view, &kind, batch->n_rounds[i], tails + batch->decoded_tail[i]);
        for (size_t p = 0; p < batch->nbytes[i]; p += 2048)
            mb_prefetch_to_512(page + p, 64, batch->ahead_is_l2);
        page += batch->nbytes[i];
        for (size_t p = 0; p < batch->ahead_nbytes; p += 64)
            mb_prefetch_to_512(ahead + p, 64, batch->ahead_is_l2);
        ahead += batch->ahead_nbytes;
    }
    return ahead;
}

#endif
