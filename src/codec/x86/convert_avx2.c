/*
 * convert_avx2.c - decoded rows as floats, and activations.
 */
#include "simd_avx2.h"
#include <float.h>
#include <math.h>
#include <string.h>

/* Weights [begin, end) of a group. */
static void group_floats(const struct mb_coded_matrix *w, const struct mb_group_view *view, size_t begin,
                         size_t end, float *out)
{
    int8_t indices[MB_GROUP_WEIGHTS_MAX + MB_DECODED_SLACK];
    mb_group_indices_avx2(view, indices);
    size_t i = begin;
    for (; i + 8 <= end; i += 8) {
        __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(indices + i))));
        _mm256_storeu_ps(out + (i - begin), _mm256_mul_ps(q, _mm256_set1_ps(w->step)));
    }
    for (; i < end; i++)
        out[i - begin] = w->step * (float)indices[i];
    for (size_t k = 0; k < view->n_outliers; k++) {
        size_t at = mb_load_u16(view->outlier_positions + 2 * k);
        if (at >= begin && at < end)
            out[at - begin] = mb_load_value(w->dtype, view->outlier_values, k);
    }
}

static void raw_floats(enum mb_dtype dtype, const uint8_t *values, size_t n, float *out)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, mb_load_values_8(dtype, values + i * mb_dtype_nbytes(dtype)));
    for (; i < n; i++)
        out[i] = mb_load_value(dtype, values, i);
}

void mb_decode_rows_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out)
{
    struct mb_group_walk walk = n_rows > 0 ? mb_group_seek(w, row) : (struct mb_group_walk){.w = w};
    for (uint64_t at = row, end = row + n_rows; at < end;) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        uint64_t group_end = view.row + view.n_rows < end ? view.row + view.n_rows : end;
        size_t from = (size_t)(at - view.row) * w->n_cols, to = (size_t)(group_end - view.row) * w->n_cols;
        if (view.is_raw)
            raw_floats(w->dtype, view.body + from * mb_dtype_nbytes(w->dtype), to - from, out);
        else
            group_floats(w, &view, from, to, out);
        out += to - from;
        at = group_end;
    }
}

/* The largest magnitude; a NaN's or infinity's bits are larger than those of all others. */
static float largest(const float *x, size_t n)
{
    __m256i magnitude = _mm256_set1_epi32(0x7fffffff), max = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        max =
            _mm256_max_epu32(max, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + i)), magnitude));
    uint32_t lanes[8], bits = 0;
    _mm256_storeu_si256((__m256i *)lanes, max);
    for (size_t k = 0; k < 8; k++)
        bits = lanes[k] > bits ? lanes[k] : bits;
    for (; i < n; i++) {
        uint32_t last = mb_bits_of_float(x[i]) & 0x7fffffff;
        bits = last > bits ? last : bits;
    }
    return mb_float_of_bits(bits);
}

/* Bytes of four registers of 32-bit lanes, in order. */
static __m256i narrow(const __m256i v[4])
{
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* 32 elements to both planes; returns the sums of X. */
static __m256i split_32(const float *x, __m256 scale, int8_t *hi, int8_t *lo)
{
    __m256i high[4], low[4], sum = _mm256_setzero_si256();
    for (int k = 0; k < 4; k++) {
        __m256i value = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + 8 * k), scale));
        high[k] = _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(128)), 8);
        low[k] = _mm256_sub_epi32(value, _mm256_slli_epi32(high[k], 8));
        sum = _mm256_add_epi32(sum, value);
    }
    _mm256_storeu_si256((__m256i *)hi, narrow(high));
    _mm256_storeu_si256((__m256i *)lo, narrow(low));
    return sum;
}

void mb_activation_avx2(const float *x, size_t n, int8_t *hi, int8_t *lo, struct mb_activation *out)
{
    size_t plane_nbytes = mb_activation_plane_nbytes(n), whole = n / 32 * 32;
    memset(hi + whole, 0, plane_nbytes - whole);
    memset(lo + whole, 0, plane_nbytes - whole);
    float magnitude = largest(x, n), scale = magnitude / (float)MB_ACTIVATION_MAX;
    bool is_finite = magnitude <= FLT_MAX;
    if (!is_finite || !(scale >= FLT_MIN)) {
        memset(hi, 0, whole);
        memset(lo, 0, whole);
        *out = (struct mb_activation){hi, lo, 0, is_finite ? 0 : NAN};
        return;
    }
    __m256i sum = _mm256_setzero_si256(); /* a lane: at most 65536 / 8 * 32639 */
    for (size_t i = 0; i < whole; i += 32)
        sum = _mm256_add_epi32(sum, split_32(x + i, _mm256_set1_ps(scale), hi + i, lo + i));
    if (whole < n) {
        float last[32] = {0};
        memcpy(last, x + whole, (n - whole) * sizeof *x);
        sum = _mm256_add_epi32(sum, split_32(last, _mm256_set1_ps(scale), hi + whole, lo + whole));
    }
    int32_t lanes[8];
    int64_t total = 0;
    _mm256_storeu_si256((__m256i *)lanes, sum);
    for (size_t k = 0; k < 8; k++)
        total += lanes[k];
    *out = (struct mb_activation){hi, lo, total, scale};
}
