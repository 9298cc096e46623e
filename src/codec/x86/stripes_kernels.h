/*
 * stripes_kernels.h - products of stripes (stripes_avx2.h), written once for AVX2 and AVX-VNNI.
 *
 * A stripe is decoded once for up to four tokens.  All of a token's sums are two registers, one for each
 * plane, whose lanes are rows: they are scaled and stored as they are.
 *
 * A file that includes this has included carry_matvec_kernels.h, and defined what that needs.
 */
#include "stripes_avx2.h"

enum { STRIPE_TOKENS = 4, STRIPE_AHEAD_NBYTES = 8192 };

/* Columns 0-3, 4-7, 8-11 and 12-15 of a plane, each to all lanes. */
MB_INLINE void spread_columns(const int8_t *plane, __m256i x[4])
{
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++) {
        int32_t four;
        memcpy(&four, plane + 4 * k, 4);
        x[k] = _mm256_set1_epi32(four);
    }
}

/* Adds the products of a block of codes (a = 8: of indices) with 16 columns of a plane. */
MB_INLINE void multiply_columns(unsigned a, const __m256i u[4], const int8_t *plane, __m256i *sum)
{
    __m256i x[4];
    spread_columns(plane, x);
    if (a != MB_CARRY_BYTES) {
        multiply_plane(a, u, x, sum);
        return;
    }
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++)
        *sum = add_signed(*sum, u[k], x[k]);
}

/* The u of the block at p. */
MB_INLINE void unpack_block(unsigned a, const uint8_t *p, __m256i u[4])
{
    _mm_prefetch((const char *)p + STRIPE_AHEAD_NBYTES, _MM_HINT_T0);
    if (a > 4)
        _mm_prefetch((const char *)p + STRIPE_AHEAD_NBYTES + 64, _MM_HINT_T0);
    mb_carry_unpack(a, p, u);
}

/* The sums of a stripe over all columns, token by token. */
MB_INLINE void multiply_stripe(unsigned a, size_t n_tokens, const uint8_t *p, size_t n_blocks,
                               const struct mb_activation *x, struct sums *sums)
{
    struct sums s[STRIPE_TOKENS];
    const int8_t *hi[STRIPE_TOKENS];
    ptrdiff_t to_lo[STRIPE_TOKENS];
    clear_sums(n_tokens, s);
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++) {
        hi[t] = x[t].hi;
        to_lo[t] = x[t].lo - x[t].hi;
    }
    for (size_t i = 0; i < n_blocks; i++, p += 16 * a) {
        __m256i u[4];
        unpack_block(a, p, u);
#pragma GCC unroll 4
        for (size_t t = 0; t < n_tokens; t++) {
            const int8_t *plane = hi[t] + MB_STRIPE_BLOCK_COLS * i;
            multiply_columns(a, u, plane, &s[t].hi);
            multiply_columns(a, u, plane + to_lo[t], &s[t].lo);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++)
        sums[t] = s[t];
}

/* The same from bytes and factors; all in lo. a <= 6. */
MB_INLINE void multiply_stripe_fast(unsigned a, size_t n_tokens, const uint8_t *p, size_t n_blocks,
                                    const struct mb_activation *x, struct sums *sums)
{
    const size_t blocks_a_factor = MB_ACTIVATION_BLOCK / MB_STRIPE_BLOCK_COLS;
    struct sums s[STRIPE_TOKENS];
    const int8_t *bytes[STRIPE_TOKENS];
    clear_sums(n_tokens, s);
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++)
        bytes[t] = x[t].bytes;
    for (size_t i = 0; i < n_blocks;) {
        const size_t end = n_blocks - i < blocks_a_factor ? n_blocks : i + blocks_a_factor;
        __m256i factors[STRIPE_TOKENS];
#pragma GCC unroll 4
        for (size_t t = 0; t < n_tokens; t++)
            factors[t] = _mm256_set1_epi16(x[t].factors[i / blocks_a_factor]);
        for (; i < end; i++, p += 16 * a) {
            __m256i u[4];
            unpack_block(a, p, u);
#pragma GCC unroll 4
            for (size_t t = 0; t < n_tokens; t++) {
                __m256i columns[4];
                spread_columns(bytes[t] + MB_STRIPE_BLOCK_COLS * i, columns);
                multiply_fast(a, u, columns, factors[t], &s[t].lo);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++)
        sums[t] = s[t];
}

typedef void (*multiply_stripe_fn)(const uint8_t *p, size_t n_blocks, const struct mb_activation *x,
                                   struct sums *sums);

#define MULTIPLY_STRIPE(name, n_tokens, a)                                                                \
    static void name##_##n_tokens##_##a(const uint8_t *p, size_t n_blocks, const struct mb_activation *x, \
                                        struct sums *sums)                                                \
    {                                                                                                     \
        name(a, n_tokens, p, n_blocks, x, sums);                                                          \
    }
#define MULTIPLY_STRIPE_ALL(a)             \
    MULTIPLY_STRIPE(multiply_stripe, 1, a) \
    MULTIPLY_STRIPE(multiply_stripe, 2, a) \
    MULTIPLY_STRIPE(multiply_stripe, 3, a) \
    MULTIPLY_STRIPE(multiply_stripe, 4, a)
#define MULTIPLY_STRIPE_FAST_ALL(a)             \
    MULTIPLY_STRIPE(multiply_stripe_fast, 1, a) \
    MULTIPLY_STRIPE(multiply_stripe_fast, 2, a) \
    MULTIPLY_STRIPE(multiply_stripe_fast, 3, a) \
    MULTIPLY_STRIPE(multiply_stripe_fast, 4, a)
MB_WIDTHS_2_TO_6(MULTIPLY_STRIPE_ALL)
MULTIPLY_STRIPE_ALL(8)
MB_WIDTHS_2_TO_6(MULTIPLY_STRIPE_FAST_ALL)

/* By whether activations are fast and have no wide blocks, by the number of tokens, and by width. */
#define MULTIPLY_STRIPE_NAMES(name, n_tokens)                                                \
    {                                                                                        \
        NULL, NULL, MB_NAMES_2_TO_6(name##_##n_tokens), NULL, multiply_stripe_##n_tokens##_8 \
    }
#define MULTIPLY_STRIPE_TOKENS(name)                                            \
    {                                                                           \
        {NULL}, MULTIPLY_STRIPE_NAMES(name, 1), MULTIPLY_STRIPE_NAMES(name, 2), \
            MULTIPLY_STRIPE_NAMES(name, 3), MULTIPLY_STRIPE_NAMES(name, 4)      \
    }
static const multiply_stripe_fn multiply_stripe_of[2][STRIPE_TOKENS + 1][MB_CARRY_BYTES + 1] = {
    MULTIPLY_STRIPE_TOKENS(multiply_stripe), MULTIPLY_STRIPE_TOKENS(multiply_stripe_fast)};

/* ---------------------------------------------------------------- wide blocks */

/* Adds the sums of u E (a = 8: of q E) of eight rows. */
MB_INLINE void multiply_stripe_wide(unsigned a, const uint8_t *body, size_t n_blocks,
                                    const struct mb_activation *x, int64_t wide[MB_STRIPE_ROWS])
{
    __m256i sums[MB_WIDE_PLANES_MAX];
    for (size_t p = 0; p < x->n_wide_planes; p++)
        sums[p] = _mm256_setzero_si256();
    for (size_t k = 0; k < x->n_wide; k++) {
        const int8_t *planes = mb_wide_planes(x, k);
        size_t first = MB_ACTIVATION_BLOCK / MB_STRIPE_BLOCK_COLS * (size_t)x->wide_at[k];
        for (size_t i = 0; i < MB_ACTIVATION_BLOCK / MB_STRIPE_BLOCK_COLS && first + i < n_blocks; i++) {
            __m256i u[4];
            mb_carry_unpack(a, body + 16 * a * (first + i), u);
            for (size_t p = 0; p < x->n_wide_planes; p++)
                multiply_columns(a, u, planes + MB_ACTIVATION_BLOCK * p + MB_STRIPE_BLOCK_COLS * i, &sums[p]);
        }
    }
    for (size_t p = 0; p < x->n_wide_planes; p++) {
        int32_t rows[MB_STRIPE_ROWS];
        _mm256_storeu_si256((__m256i *)rows, sums[p]);
        for (size_t r = 0; r < MB_STRIPE_ROWS; r++)
            wide[r] += rows[r] * ((int64_t)1 << 8 * p);
    }
}

#define MULTIPLY_STRIPE_WIDE(a)                                                                            \
    MB_NOINLINE void multiply_stripe_wide_##a(const uint8_t *body, size_t n_blocks,                        \
                                              const struct mb_activation *x, int64_t wide[MB_STRIPE_ROWS]) \
    {                                                                                                      \
        multiply_stripe_wide(a, body, n_blocks, x, wide);                                                  \
    }
MB_WIDTHS_2_TO_6(MULTIPLY_STRIPE_WIDE)
MULTIPLY_STRIPE_WIDE(8)

static void (*const multiply_stripe_wide_of[])(const uint8_t *body, size_t n_blocks,
                                               const struct mb_activation *x,
                                               int64_t wide[MB_STRIPE_ROWS]) = {
    NULL, NULL, MB_NAMES_2_TO_6(multiply_stripe_wide), NULL, multiply_stripe_wide_8};

/* ---------------------------------------------------------------- stripes */

/* A stripe's product with one token: what is added to its sums, row by row. */
struct stripe_ends {
    _Alignas(32) double narrow[MB_STRIPE_ROWS], wide[MB_STRIPE_ROWS], outliers[MB_STRIPE_ROWS];
};

/* Adds 2^a times the sum of X at the entries of each row. */
static void add_entries(const struct mb_group_view *view, const int32_t *columns,
                        int64_t rows[MB_STRIPE_ROWS])
{
    int64_t sums[MB_STRIPE_ROWS] = {0};
    for (size_t i = 0; i < view->n_escapes; i++) {
        unsigned entry = mb_load_u16(view->tail + 2 * i);
        int64_t is_minus = (entry & MB_STRIPE_MINUS) != 0, x = columns[entry & MB_STRIPE_COLUMN];
        sums[entry >> MB_STRIPE_ROW_SHIFT] += (x ^ -is_minus) + is_minus;
    }
    for (size_t r = 0; r < MB_STRIPE_ROWS; r++)
        rows[r] += sums[r] * ((int64_t)1 << view->a);
}

static void add_outliers(const struct mb_coded_matrix *w, const struct mb_group_view *view,
                         const struct mb_activation *x, double outliers[MB_STRIPE_ROWS])
{
    const size_t value_nbytes = mb_dtype_nbytes(w->dtype);
    for (size_t i = 0, first; i < view->n_outliers;) {
        size_t r = mb_load_u16(view->outlier_positions + 2 * i) / (unsigned)w->n_cols;
        size_t n = mb_find_row_outliers(view, r * w->n_cols, w->n_cols, i, &first);
        outliers[r] = mb_outliers(w->dtype, view->outlier_positions + 2 * first,
                                  view->outlier_values + value_nbytes * first, n, r * w->n_cols, x);
        i = first + n;
    }
}

static void find_ends(const struct mb_coded_matrix *w, const struct mb_group_view *view,
                      const struct mb_activation *x, struct stripe_ends *ends)
{
    int64_t narrow[MB_STRIPE_ROWS], wide[MB_STRIPE_ROWS];
    const bool is_bytes = view->a == MB_CARRY_BYTES;
    for (size_t r = 0; r < MB_STRIPE_ROWS; r++) {
        narrow[r] = is_bytes ? 0 : -(x->sum * (1 << (view->a - 1)));
        wide[r] = is_bytes ? 0 : -(x->wide_sum * (1 << (view->a - 1)));
        ends->outliers[r] = 0;
    }
    if (x->n_wide > 0)
        multiply_stripe_wide_of[view->a](view->body, mb_stripe_n_blocks(w->n_cols), x, wide);
    if (view->n_escapes > 0) {
        add_entries(view, x->columns, narrow);
        if (x->n_wide > 0)
            add_entries(view, x->wide_columns, wide);
    }
    if (view->n_outliers > 0)
        add_outliers(w, view, x, ends->outliers);
    for (size_t r = 0; r < MB_STRIPE_ROWS; r++) {
        ends->narrow[r] = (double)narrow[r];
        ends->wide[r] = (double)MB_WIDE_UNIT * (double)wide[r];
    }
}

/* The results of rows 4 half to 4 half + 3: S is rounded once, when both its parts meet (mb_sum_of_parts). */
MB_INLINE __m128 results_of_half(const struct mb_coded_matrix *w, const struct mb_activation *x, __m128i hi,
                                 __m128i lo, __m256d narrow, const struct stripe_ends *ends, size_t half)
{
    __m256d s = _mm256_add_pd(_mm256_mul_pd(_mm256_cvtepi32_pd(hi), _mm256_set1_pd(256)),
                              _mm256_add_pd(_mm256_cvtepi32_pd(lo), narrow));
    if (ends != NULL && x->n_wide > 0)
        s = _mm256_add_pd(s, _mm256_load_pd(ends->wide + 4 * half));
    __m256d outliers = ends != NULL ? _mm256_load_pd(ends->outliers + 4 * half) : _mm256_setzero_pd();
    return mb_results_4(s, outliers, w->step, x->scale);
}

/* Most stripes have no entries and outliers, and most tokens no wide blocks: then all rows end alike. */
MB_INLINE __m256 stripe_results(const struct mb_coded_matrix *w, const struct mb_group_view *view,
                                const struct mb_activation *x, const struct sums *sums)
{
    struct stripe_ends ends, *found = NULL;
    __m256d narrow[2];
    if ((view->n_escapes | view->n_outliers | x->n_wide) != 0) {
        find_ends(w, view, x, found = &ends);
        narrow[0] = _mm256_load_pd(ends.narrow);
        narrow[1] = _mm256_load_pd(ends.narrow + 4);
    } else {
        int64_t bias = view->a == MB_CARRY_BYTES ? 0 : x->sum * (1 << (view->a - 1));
        narrow[0] = narrow[1] = _mm256_set1_pd((double)-bias);
    }
    __m128 first = results_of_half(w, x, _mm256_castsi256_si128(sums->hi), _mm256_castsi256_si128(sums->lo),
                                   narrow[0], found, 0);
    __m128 second = results_of_half(w, x, _mm256_extracti128_si256(sums->hi, 1),
                                    _mm256_extracti128_si256(sums->lo, 1), narrow[1], found, 1);
    return _mm256_insertf128_ps(_mm256_castps128_ps256(first), second, 1);
}

static bool has_wide(const struct mb_activation *x, size_t n_tokens)
{
    for (size_t t = 0; t < n_tokens; t++)
        if (x[t].n_wide > 0)
            return true;
    return false;
}

/* Rows [row, end) times at most STRIPE_TOKENS tokens. */
static void multiply_stripes(const struct mb_coded_matrix *w, uint64_t row, uint64_t end,
                             const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride)
{
    const size_t n_blocks = mb_stripe_n_blocks(w->n_cols);
    const bool is_fast = mb_all_fast(x, n_tokens) && !has_wide(x, n_tokens);
    struct mb_group_walk walk = mb_stripe_seek(w, row);
    for (size_t n; row < end; row += n, y += n) {
        struct mb_group_view view;
        struct sums sums[STRIPE_TOKENS];
        mb_stripe_next(&walk, &view);
        multiply_stripe_of[is_fast][n_tokens][view.a](view.body, n_blocks, x, sums);
        const size_t first = (size_t)(row - view.row);
        n = view.n_rows - first < end - row ? view.n_rows - first : (size_t)(end - row);
        for (size_t t = 0; t < n_tokens; t++) {
            __m256 results = stripe_results(w, &view, &x[t], &sums[t]);
            if (n == MB_STRIPE_ROWS) {
                _mm256_storeu_ps(y + t * y_stride, results);
            } else {
                float some[MB_STRIPE_ROWS];
                _mm256_storeu_ps(some, results);
                memcpy(y + t * y_stride, some + first, n * sizeof *y);
            }
        }
    }
}

/* Many tokens take turns on a tile, which stays in the cache meanwhile. */
void NAMED(mb_stripes_matmul)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                              const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride)
{
    const uint64_t tile_rows = w->tile_groups * MB_STRIPE_ROWS, end = row + n_rows;
    if (n_tokens <= STRIPE_TOKENS && n_tokens > 0) {
        multiply_stripes(w, row, end, x, n_tokens, y, y_stride);
        return;
    }
    for (uint64_t at = row, stop; at < end; at = stop) {
        stop = (at / tile_rows + 1) * tile_rows;
        stop = stop < end ? stop : end;
        for (size_t t = 0, n; t < n_tokens; t += n) {
            n = n_tokens - t < STRIPE_TOKENS ? n_tokens - t : STRIPE_TOKENS;
            multiply_stripes(w, at, stop, x + t, n, y + t * y_stride + (at - row), y_stride);
        }
    }
}
