/*
 * matvec_avx2.c - the fused product y = W x on AVX2: a row group to bytes in L1, then vpmaddubsw.
 */
#include "codec/simd_avx2.h"

/* Lanes of 32 bits; their sum is a row's. */
struct sums {
    __m256i hi, lo;
};

MB_INLINE __m256i pairs(__m256i u, const int8_t *x)
{
    return _mm256_maddubs_epi16(u, _mm256_loadu_si256((const __m256i *)x));
}

MB_INLINE __m256i widen(__m256i sum, __m256i pair_sums)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pair_sums, _mm256_set1_epi16(1)));
}

/*
 * Bytes u <= u_max < 128: a pair's sum is at most 2 * 128 * u_max, so that n_pairs = 32767 / (256 * u_max) of
 * them meet in a lane of 16 bits before it is widened.
 */
MB_INLINE struct sums dot_unsigned(const uint8_t *u, size_t n, const int8_t *hi, const int8_t *lo,
                                   size_t n_pairs)
{
    struct sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t c = 0; c < n; c += 32 * n_pairs) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(u + c));
        __m256i h = pairs(v, hi + c), l = pairs(v, lo + c);
#pragma GCC unroll 4
        for (size_t i = 1; i < n_pairs; i++) {
            v = _mm256_loadu_si256((const __m256i *)(u + c + 32 * i));
            h = _mm256_add_epi16(h, pairs(v, hi + c + 32 * i));
            l = _mm256_add_epi16(l, pairs(v, lo + c + 32 * i));
        }
        s.hi = widen(s.hi, h);
        s.lo = widen(s.lo, l);
    }
    return s;
}

/* Any u: the product of |x| (at most 128) and q with the sign of x. */
MB_INLINE __m256i signed_pairs(__m256i q, const int8_t *x)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(q, v));
}

MB_INLINE struct sums dot_signed(const uint8_t *u, size_t n, const int8_t *hi, const int8_t *lo,
                                 unsigned offset)
{
    struct sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    __m256i zero = _mm256_set1_epi8((char)offset);
    for (size_t c = 0; c < n; c += 32) {
        __m256i q = _mm256_sub_epi8(_mm256_loadu_si256((const __m256i *)(u + c)), zero);
        s.hi = widen(s.hi, signed_pairs(q, hi + c));
        s.lo = widen(s.lo, signed_pairs(q, lo + c));
    }
    return s;
}

static int64_t sum_of(struct sums s)
{
    __m256i both = _mm256_hadd_epi32(s.hi, s.lo); /* hi hi lo lo, twice */
    __m128i v = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    v = _mm_hadd_epi32(v, v); /* hi, lo */
    return 256 * (int64_t)_mm_cvtsi128_si32(v) + _mm_extract_epi32(v, 1);
}

/* The sum of q X of a row that was decoded with this offset. */
static int64_t row_sum(const uint8_t *u, size_t n, const struct mb_activation *x, unsigned offset)
{
    if (offset > 63)
        return sum_of(dot_signed(u, n, x->hi, x->lo, offset));
    struct sums s = offset <= 15   ? dot_unsigned(u, n, x->hi, x->lo, 4)
                    : offset <= 31 ? dot_unsigned(u, n, x->hi, x->lo, 2)
                                   : dot_unsigned(u, n, x->hi, x->lo, 1);
    return sum_of(s) - (int64_t)offset * x->sum;
}

/* Rows [first, first + n_rows) of a group. */
static void group_product(const struct mb_coded_matrix *w, const struct mb_group_view *view, size_t first,
                          size_t n_rows, const struct mb_activation *x, float *y)
{
    uint8_t bytes[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    mb_group_bytes_avx2(view, bytes);
    double step = (double)w->step, scale = (double)x->scale;
    unsigned offset = mb_offset_avx2(view->a, view->b), next_outlier = 0;
    for (size_t r = first; r < first + n_rows; r++) {
        int64_t s = row_sum(bytes + r * w->n_cols, w->n_cols, x, offset);
        double o =
            view->n_outliers == 0 ? 0 : mb_row_outliers(w->dtype, view, w->n_cols, r, &next_outlier, x);
        *y++ = (float)((double)s * step * scale + o * scale);
    }
}

void mb_matvec_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                    const struct mb_activation *x, float *y)
{
    size_t row_nbytes = w->n_cols * mb_dtype_nbytes(w->dtype);
    struct mb_group_walk walk = n_rows > 0 ? mb_group_seek(w, row) : (struct mb_group_walk){.w = w};
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        uint64_t group_end = view.row + view.n_rows < end ? view.row + view.n_rows : end;
        size_t first = (size_t)(at - view.row), n = (size_t)(group_end - at);
        if (!view.is_raw)
            group_product(w, &view, first, n, x, y);
        for (size_t r = 0; r < n && view.is_raw; r++)
            y[r] = mb_raw_row_product(w->dtype, view.body + (first + r) * row_nbytes, w->n_cols, x);
        y += n;
        at = group_end;
    }
}
