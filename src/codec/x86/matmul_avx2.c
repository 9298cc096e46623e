/*
 * matmul_avx2.c - products with many vectors: a block of rows is decoded to panels (panel_avx2.h), which meet
 * all tokens while they are in L1 and L2.
 *
 * Fast activations are bytes, which vpmaddubsw multiplies by u = q + offset: as many products as are sure to
 * fit a lane of 16 bits are added there, and the vpmaddwd that widens them takes the block's factor.  Exact
 * ones are integers X of 16 bits: without vpdpbusd, vpmaddwd is the shortest way, and multiplies q and X in
 * one step.  A few exact tokens are not worth a panel (matmul_few_avx2.c).
 *
 * A panel meets a segment of columns of all tokens of a chunk, which stays in L1, and then the next segment.
 * Sums are in lanes of 32 bits over a span of columns for which these are sure to suffice, then in double,
 * where they are exact as well.
 */
#include "encode.h"
#include "panel_avx2.h"
#include "row_ends_avx2.h"
#include <string.h>

enum {
    BLOCK_PANELS = 4,
    CHUNK_TOKENS = 24,   /* that meet a panel together */
    BYTE_VECTORS = 3,    /* of a tile: 6 sums of 16 bits, 6 of 32 bits, 2 registers of u, 2 more */
    WORD_VECTORS = 6,    /* 12 sums, 2 registers of q, 2 more */
    BYTE_SEGMENT = 1024, /* columns: 16 KiB of a panel */
    WORD_SEGMENT = 512,
    EXACT_TOKENS_FEW = 8,
    TOKENS_ONE_BY_ONE = 2, /* so few use the fused product */
};

/* Columns over which lanes of 32 bits suffice, where no |q| is above 'most', or no u above twice that. */
enum { SPAN_PRODUCT = 65536 };
_Static_assert((int64_t)SPAN_PRODUCT * 2 * MB_FAST_MAX < INT32_MAX, "a lane would overflow");
_Static_assert((int64_t)SPAN_PRODUCT *MB_ACTIVATION_MAX < INT32_MAX, "a lane would overflow");
_Static_assert(SPAN_PRODUCT / MB_PANEL_OFFSET_MAX >= BYTE_SEGMENT && SPAN_PRODUCT / MB_Q_MAX >= WORD_SEGMENT,
               "a segment fits");

/* Panels that are decoded at once: about 64 rows of 2048 columns. */
static size_t block_panels_of(size_t n_cols)
{
    size_t panels = 131072 / (MB_PANEL_ROWS * n_cols);
    return panels < 1 ? 1 : panels > BLOCK_PANELS ? BLOCK_PANELS : panels;
}

/* Tokens that meet a panel, as vectors of bytes or of words. */
struct chunk {
    const struct mb_coded_matrix *w;
    const struct mb_activation *x;
    bool is_fast; /* bytes; else words */
    size_t n_tokens, row_nbytes, n_blocks;
    const int8_t *bytes[CHUNK_TOKENS];
    uint32_t *factors;               /* of bytes: a block's, in both halves, [n_tokens][n_blocks] */
    int16_t *words;                  /* [segments][CHUNK_TOKENS][WORD_SEGMENT] */
    const char *ahead;               /* memory to prefetch next */
    size_t ahead_nbytes;             /* with each tile */
    int64_t byte_sums[CHUNK_TOKENS]; /* of what a token's bytes mean */
    _Alignas(32) int32_t lanes[CHUNK_TOKENS][MB_PANEL_ROWS];
    _Alignas(32) double sums[CHUNK_TOKENS][MB_PANEL_ROWS], outliers[CHUNK_TOKENS][MB_PANEL_ROWS];
};

/* ---------------------------------------------------------------- tiles */

/* Four bytes or two words. */
typedef int32_t __attribute__((may_alias)) lane;

MB_INLINE void begin_bytes(__m256i sums[2], const __m256i u[2], const int8_t *x)
{
    __m256i v = _mm256_set1_epi32(*(const lane *)(const void *)x);
    sums[0] = _mm256_maddubs_epi16(u[0], v);
    sums[1] = _mm256_maddubs_epi16(u[1], v);
}

/* In assembler: gcc would copy sums between registers and to memory. */
MB_INLINE void add_bytes(__m256i sums[2], const __m256i u[2], const int8_t *x)
{
    __m256i v, product;
    __asm__("vpbroadcastd %[x], %[v]\n\t"
            "vpmaddubsw %[v], %[u0], %[product]\n\t"
            "vpmaddubsw %[v], %[u1], %[v]\n\t"
            "vpaddw %[product], %[sum0], %[sum0]\n\t"
            "vpaddw %[v], %[sum1], %[sum1]"
            : [sum0] "+x"(sums[0]), [sum1] "+x"(sums[1]), [v] "=&x"(v), [product] "=&x"(product)
            : [u0] "x"(u[0]), [u1] "x"(u[1]), [x] "m"(*(const lane *)(const void *)x));
}

/* sums are not needed afterwards. */
MB_INLINE void widen(__m256i acc[2], __m256i sums[2], const uint32_t *factor)
{
    __m256i v;
    __asm__(
        "vpbroadcastd %[factor], %[v]\n\t"
        "vpmaddwd %[v], %[sum0], %[sum0]\n\t"
        "vpmaddwd %[v], %[sum1], %[sum1]\n\t"
        "vpaddd %[sum0], %[acc0], %[acc0]\n\t"
        "vpaddd %[sum1], %[acc1], %[acc1]"
        : [acc0] "+x"(acc[0]), [acc1] "+x"(acc[1]), [sum0] "+x"(sums[0]), [sum1] "+x"(sums[1]), [v] "=&x"(v)
        : [factor] "m"(*factor));
}

MB_INLINE void add_words(__m256i sums[2], const __m256i q[2], const int16_t *x)
{
    __m256i v, product;
    __asm__("vpbroadcastd %[x], %[v]\n\t"
            "vpmaddwd %[v], %[q0], %[product]\n\t"
            "vpmaddwd %[v], %[q1], %[v]\n\t"
            "vpaddd %[product], %[sum0], %[sum0]\n\t"
            "vpaddd %[v], %[sum1], %[sum1]"
            : [sum0] "+x"(sums[0]), [sum1] "+x"(sums[1]), [v] "=&x"(v), [product] "=&x"(product)
            : [q0] "x"(q[0]), [q1] "x"(q[1]), [x] "m"(*(const lane *)(const void *)x));
}

MB_INLINE void load_lanes(const struct chunk *chunk, size_t vector, __m256i acc[2])
{
    acc[0] = _mm256_load_si256((const __m256i *)chunk->lanes[vector]);
    acc[1] = _mm256_load_si256((const __m256i *)(chunk->lanes[vector] + 8));
}

MB_INLINE void store_lanes(struct chunk *chunk, size_t vector, const __m256i acc[2])
{
    _mm256_store_si256((__m256i *)chunk->lanes[vector], acc[0]);
    _mm256_store_si256((__m256i *)(chunk->lanes[vector] + 8), acc[1]);
}

/* A step of both halves of a panel, which are half_nbytes apart. */
MB_INLINE void load_step(const uint8_t *codes, size_t half_nbytes, __m256i v[2])
{
    v[0] = _mm256_load_si256((const __m256i *)codes);
    v[1] = _mm256_load_si256((const __m256i *)(codes + half_nbytes));
}

/*
 * Adds columns [begin, end), whole blocks, of a panel of bytes times n vectors of a chunk from 'first' on.
 * The products of n_meet steps are added before they are widened.
 */
MB_INLINE void byte_tile(size_t n_meet, size_t n, const uint8_t *codes, struct chunk *chunk, size_t first,
                         size_t begin, size_t end)
{
    const size_t half_nbytes = MB_PANEL_HALF * chunk->row_nbytes;
    const int8_t *bytes[BYTE_VECTORS];
    const uint32_t *factors[BYTE_VECTORS];
    __m256i acc[BYTE_VECTORS][2];
#pragma GCC unroll 3
    for (size_t t = 0; t < n; t++) {
        bytes[t] = chunk->bytes[first + t];
        factors[t] = chunk->factors + (first + t) * chunk->n_blocks;
        load_lanes(chunk, first + t, acc[t]);
    }
    codes += MB_PANEL_HALF * begin;
    for (size_t c = begin; c < end; c += 4 * n_meet) {
        __m256i sums[BYTE_VECTORS][2];
#pragma GCC unroll 8
        for (size_t k = 0; k < n_meet; k++, codes += MB_PANEL_STEP_NBYTES) {
            __m256i u[2];
            load_step(codes, half_nbytes, u);
#pragma GCC unroll 3
            for (size_t t = 0; t < n; t++)
                if (k == 0)
                    begin_bytes(sums[t], u, bytes[t] + c);
                else
                    add_bytes(sums[t], u, bytes[t] + c + 4 * k);
        }
#pragma GCC unroll 3
        for (size_t t = 0; t < n; t++)
            widen(acc[t], sums[t], factors[t] + c / MB_ACTIVATION_BLOCK);
    }
#pragma GCC unroll 3
    for (size_t t = 0; t < n; t++)
        store_lanes(chunk, first + t, acc[t]);
}

/* The same with words, in one segment. */
MB_INLINE void word_tile(size_t n, const uint8_t *codes, struct chunk *chunk, size_t first, size_t begin,
                         size_t end)
{
    const size_t half_nbytes = 2 * MB_PANEL_HALF * chunk->row_nbytes;
    const int16_t *x = chunk->words + CHUNK_TOKENS * begin + WORD_SEGMENT * first;
    __m256i acc[WORD_VECTORS][2];
#pragma GCC unroll 6
    for (size_t t = 0; t < n; t++)
        load_lanes(chunk, first + t, acc[t]);
    codes += 2 * MB_PANEL_HALF * begin;
    for (size_t c = begin; c < end; c += 4, x += 4) {
#pragma GCC unroll 2
        for (size_t k = 0; k < 2; k++, codes += MB_PANEL_STEP_NBYTES) {
            __m256i q[2];
            load_step(codes, half_nbytes, q);
#pragma GCC unroll 6
            for (size_t t = 0; t < n; t++)
                add_words(acc[t], q, x + WORD_SEGMENT * t + 2 * k);
        }
    }
#pragma GCC unroll 6
    for (size_t t = 0; t < n; t++)
        store_lanes(chunk, first + t, acc[t]);
}

/* Functions for a constant number of vectors, which keeps all sums in registers. */
typedef void (*tile_fn)(const uint8_t *codes, struct chunk *chunk, size_t first, size_t begin, size_t end);

#define BYTE_TILE(n_meet, n)                                                                      \
    static void byte_tile_##n_meet##_##n(const uint8_t *codes, struct chunk *chunk, size_t first, \
                                         size_t begin, size_t end)                                \
    {                                                                                             \
        byte_tile(n_meet, n, codes, chunk, first, begin, end);                                    \
    }
#define BYTE_TILES(n_meet) BYTE_TILE(n_meet, 1) BYTE_TILE(n_meet, 2) BYTE_TILE(n_meet, 3)
#define BYTE_TILE_NAMES(n_meet)                                                \
    {                                                                          \
        byte_tile_##n_meet##_1, byte_tile_##n_meet##_2, byte_tile_##n_meet##_3 \
    }
BYTE_TILES(1)
BYTE_TILES(2)
BYTE_TILES(4)
BYTE_TILES(8)
_Static_assert(2 * 2 * MB_PANEL_OFFSET_MAX * 127 < 32768, "n_meet times offset is always that: 16 bits");

static const tile_fn *byte_tiles_of(size_t offset)
{
    static const tile_fn tiles[][BYTE_VECTORS] = {BYTE_TILE_NAMES(8), BYTE_TILE_NAMES(4), BYTE_TILE_NAMES(2),
                                                  BYTE_TILE_NAMES(1)};
    return tiles[offset == 8 ? 0 : offset == 16 ? 1 : offset == 32 ? 2 : 3];
}

#define WORD_TILE(n)                                                                                 \
    static void word_tile_##n(const uint8_t *codes, struct chunk *chunk, size_t first, size_t begin, \
                              size_t end)                                                            \
    {                                                                                                \
        word_tile(n, codes, chunk, first, begin, end);                                               \
    }
WORD_TILE(1)
WORD_TILE(2)
WORD_TILE(3)
WORD_TILE(4)
WORD_TILE(5)
WORD_TILE(6)
static const tile_fn word_tiles[WORD_VECTORS] = {word_tile_1, word_tile_2, word_tile_3,
                                                 word_tile_4, word_tile_5, word_tile_6};

/* Vectors of the next tile: those that are left are split evenly. */
static size_t tile_vectors(size_t n_left, size_t n_max)
{
    size_t n_tiles = (n_left + n_max - 1) / n_max;
    return (n_left + n_tiles - 1) / n_tiles;
}

/* Rows that are decoded next, a few lines with each tile. */
MB_INLINE void prefetch_ahead(struct chunk *chunk)
{
    const char *end = chunk->ahead + chunk->ahead_nbytes;
    for (; chunk->ahead < end; chunk->ahead += 64)
        _mm_prefetch(chunk->ahead, _MM_HINT_T1);
}

/* Adds the sums over a span to those over all columns. */
static void add_span(struct chunk *chunk)
{
    for (size_t t = 0; t < chunk->n_tokens; t++)
        for (size_t r = 0; r < MB_PANEL_ROWS; r += 4) {
            __m256d span = _mm256_cvtepi32_pd(_mm_load_si128((const __m128i *)(chunk->lanes[t] + r)));
            _mm256_store_pd(chunk->sums[t] + r, _mm256_add_pd(_mm256_load_pd(chunk->sums[t] + r), span));
        }
}

/* Adds the products of the codes of one part. */
static void multiply_codes(const struct mb_panel *panel, const uint8_t *codes, struct chunk *chunk)
{
    const bool is_words = !chunk->is_fast;
    const tile_fn *tiles = is_words ? word_tiles : byte_tiles_of(panel->offset);
    const size_t n_max = is_words ? WORD_VECTORS : BYTE_VECTORS;
    const size_t segment = is_words ? WORD_SEGMENT : BYTE_SEGMENT;
    const size_t most = !is_words ? panel->offset : panel->most > 0 ? panel->most : 1;
    const size_t span = SPAN_PRODUCT / most / segment * segment, n_cols = chunk->row_nbytes;
    for (size_t from = 0; from < n_cols; from += span) {
        const size_t to = n_cols - from < span ? n_cols : from + span;
        memset(chunk->lanes, 0, chunk->n_tokens * sizeof chunk->lanes[0]);
        for (size_t c = from; c < to; c += segment)
            for (size_t t = 0, n; t < chunk->n_tokens; t += n) {
                n = tile_vectors(chunk->n_tokens - t, n_max);
                prefetch_ahead(chunk);
                tiles[n - 1](codes, chunk, t, c, to - c < segment ? to : c + segment);
            }
        add_span(chunk);
    }
}

/* ---------------------------------------------------------------- wide blocks */

/* Eight rows' sums of a plane's 128 elements times indices, without those listed. */
static __m256i block_of_bytes(const struct mb_panel *panel, const uint8_t *codes, const int8_t *plane)
{
    const __m256i ones = _mm256_set1_epi16(1), offset = _mm256_set1_epi8((char)panel->offset);
    __m256i sum = _mm256_setzero_si256();
    for (size_t c = 0; c < MB_ACTIVATION_BLOCK; c += 4, codes += MB_PANEL_STEP_NBYTES) {
        __m256i x = _mm256_set1_epi32(*(const lane *)(const void *)(plane + c));
        __m256i u = _mm256_load_si256((const __m256i *)codes);
        __m256i add = _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), ones);
        __m256i off = _mm256_madd_epi16(_mm256_maddubs_epi16(offset, x), ones);
        sum = _mm256_add_epi32(sum, _mm256_sub_epi32(add, off));
    }
    return sum;
}

static __m256i block_of_words(const uint8_t *codes, const int8_t *plane)
{
    __m256i sum = _mm256_setzero_si256();
    for (size_t c = 0; c < MB_ACTIVATION_BLOCK; c += 2, codes += MB_PANEL_STEP_NBYTES) {
        __m256i x = _mm256_set1_epi32((int)((uint16_t)plane[c] | (uint32_t)plane[c + 1] << 16));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_load_si256((const __m256i *)codes), x));
    }
    return sum;
}

/* Adds 'factor' times these to the sums of all rows. */
static void add_plane(const struct mb_panel *panel, bool is_words, size_t block, const int8_t *plane,
                      int64_t factor, int64_t sums[MB_PANEL_ROWS])
{
    const size_t block_nbytes = MB_PANEL_HALF * MB_ACTIVATION_BLOCK;
    for (size_t first = 0; first < MB_PANEL_ROWS; first += MB_PANEL_HALF) {
        int32_t rows[MB_PANEL_HALF];
        const uint8_t *codes = panel->codes + first * panel->row_nbytes + block * block_nbytes;
        __m256i sum;
        if (is_words) {
            sum = block_of_words(codes + first * panel->row_nbytes + block * block_nbytes, plane);
        } else {
            sum = block_of_bytes(panel, codes, plane);
            if (panel->n_parts > 1)
                sum = _mm256_add_epi32(
                    sum, block_of_bytes(panel, codes + MB_PANEL_ROWS * panel->row_nbytes, plane));
        }
        _mm256_storeu_si256((__m256i *)rows, sum);
        for (size_t r = 0; r < MB_PANEL_HALF; r++)
            sums[first + r] += factor * rows[r];
    }
}

/* What E adds to the sums of a token, and what hi and lo of wide blocks do, which fast bytes leave out. */
MB_NOINLINE void add_wide(const struct mb_panel *panel, bool is_fast, const struct mb_activation *x,
                          double *sums)
{
    int64_t narrow[MB_PANEL_ROWS] = {0}, wide[MB_PANEL_ROWS] = {0};
    for (size_t k = 0; k < x->n_wide; k++) {
        const size_t block = x->wide_at[k], c = block * MB_ACTIVATION_BLOCK;
        const int8_t *plane = mb_wide_planes(x, k);
        if (is_fast) {
            add_plane(panel, false, block, x->hi + c, 256, narrow);
            add_plane(panel, false, block, x->lo + c, 1, narrow);
        }
        for (size_t p = 0; p < x->n_wide_planes; p++, plane += MB_ACTIVATION_BLOCK)
            add_plane(panel, !is_fast, block, plane, (int64_t)1 << 8 * p, wide);
    }
    for (size_t i = 0; i < panel->n_excess; i++)
        wide[panel->excess[i].row] += (int64_t)panel->excess[i].q * mb_wide_value(x, panel->excess[i].column);
    for (size_t r = 0; r < MB_PANEL_ROWS; r++) /* rounded once, as mb_sum_of_parts */
        sums[r] = (sums[r] + (double)narrow[r]) + (double)MB_WIDE_UNIT * (double)wide[r];
}

/* ---------------------------------------------------------------- ends of rows */

static void add_outliers(const struct mb_coded_matrix *w, const struct mb_panel *panel,
                         const struct mb_activation *x, double *sums)
{
    if (panel->has_all_outliers && x->n_wide == 0) {
        for (size_t i = 0; i < panel->n_outliers; i++) {
            const struct mb_panel_outlier *outlier = &panel->outliers[i];
            int32_t value = x->bytes != NULL ? mb_fast_narrow_value(x, outlier->column)
                                             : mb_narrow_value(x, outlier->column);
            sums[outlier->row] += outlier->value * (double)value;
        }
        return;
    }
    for (uint32_t rows = panel->outlier_rows; rows != 0; rows &= rows - 1) {
        size_t r = (size_t)__builtin_ctz(rows);
        unsigned first = 0;
        sums[r] = mb_row_outliers(w->dtype, &panel->rows[r].group, w->n_cols, panel->rows[r].row_in_group,
                                  &first, x);
    }
}

static void add_raw_rows(const struct mb_coded_matrix *w, const struct mb_panel *panel,
                         const struct mb_activation *x, float *y)
{
    for (uint32_t rows = panel->raw_rows; rows != 0; rows &= rows - 1) {
        size_t r = (size_t)__builtin_ctz(rows);
        const struct mb_panel_row *row = &panel->rows[r];
        y[r] = mb_raw_row_product(w->dtype,
                                  row->group.body + row->row_in_group * w->n_cols * mb_dtype_nbytes(w->dtype),
                                  w->n_cols, x);
    }
}

/* Adds to a token's sums, of codes alone, all that is not codes. Sums of narrow parts are exact. */
static void add_rest(const struct mb_panel *panel, struct chunk *chunk, size_t t)
{
    const struct mb_activation *x = &chunk->x[t];
    double *sums = chunk->sums[t];
    for (size_t i = 0; i < panel->n_excess; i++)
        sums[panel->excess[i].row] +=
            (double)((int64_t)panel->excess[i].q * mb_narrow_value(x, panel->excess[i].column));
    if (panel->outlier_rows != 0)
        add_outliers(chunk->w, panel, x, chunk->outliers[t]);
    if (x->n_wide > 0) {
        if (chunk->is_fast) { /* exact vectors have no sums of bytes */
            const double bias = (double)((int64_t)(panel->offset * panel->n_parts) * chunk->byte_sums[t]);
            for (size_t r = 0; r < MB_PANEL_ROWS; r++)
                sums[r] -= bias;
        }
        add_wide(panel, chunk->is_fast, x, sums);
    }
}

/* The results of a panel's rows for token t. */
static void finish(const struct mb_panel *panel, const struct chunk *chunk, size_t t, float *y)
{
    const struct mb_activation *x = &chunk->x[t];
    const bool is_biased = chunk->is_fast && x->n_wide == 0;
    const int64_t bias = is_biased ? (int64_t)(panel->offset * panel->n_parts) * chunk->byte_sums[t] : 0;
    const __m256d off = _mm256_set1_pd((double)bias);
    float some[MB_PANEL_ROWS], *out = panel->n_rows == MB_PANEL_ROWS ? y : some;
    for (size_t r = 0; r < MB_PANEL_ROWS; r += 4)
        _mm_storeu_ps(out + r,
                      mb_results_4(_mm256_sub_pd(_mm256_load_pd(chunk->sums[t] + r), off),
                                   _mm256_load_pd(chunk->outliers[t] + r), chunk->w->step, x->scale));
    if (out == some)
        memcpy(y, some, panel->n_rows * sizeof *y);
    add_raw_rows(chunk->w, panel, x, y);
}

/* All rows of a panel times all tokens of a chunk. Ends are added before any is read as a vector. */
static void multiply_panel(const struct mb_panel *panel, struct chunk *chunk, float *y, size_t y_stride)
{
    memset(chunk->sums, 0, chunk->n_tokens * sizeof chunk->sums[0]);
    memset(chunk->outliers, 0, chunk->n_tokens * sizeof chunk->outliers[0]);
    multiply_codes(panel, panel->codes, chunk);
    if (chunk->is_fast && panel->n_parts > 1)
        multiply_codes(panel, panel->codes + MB_PANEL_ROWS * panel->row_nbytes, chunk);
    for (size_t t = 0; t < chunk->n_tokens; t++)
        add_rest(panel, chunk, t);
    for (size_t t = 0; t < chunk->n_tokens; t++)
        finish(panel, chunk, t, y + t * y_stride);
}

/* ---------------------------------------------------------------- tokens */

/* The sum of X that 'bytes' stand for: all but those of wide blocks. */
static int64_t sum_of_bytes(const struct mb_activation *x)
{
    int64_t sum = x->sum;
    for (size_t k = 0; k < x->n_wide; k++) {
        size_t c = (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK;
        for (size_t i = 0; i < MB_ACTIVATION_BLOCK; i++)
            sum -= mb_narrow_value(x, c + i);
    }
    return sum;
}

static void begin_fast(struct chunk *chunk)
{
    for (size_t t = 0; t < chunk->n_tokens; t++) {
        const struct mb_activation *x = &chunk->x[t];
        chunk->bytes[t] = x->bytes;
        chunk->byte_sums[t] = sum_of_bytes(x);
        for (size_t i = 0; i < chunk->n_blocks; i++)
            chunk->factors[t * chunk->n_blocks + i] = x->factors[i] * 0x10001u;
    }
}

static void begin_exact(struct chunk *chunk)
{
    for (size_t t = 0; t < chunk->n_tokens; t++) {
        const struct mb_activation *x = &chunk->x[t];
        for (size_t c = 0; c < chunk->row_nbytes; c += 16) {
            __m256i hi = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(x->hi + c)));
            __m256i lo = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(x->lo + c)));
            int16_t *out = chunk->words + CHUNK_TOKENS * (c / WORD_SEGMENT * WORD_SEGMENT) +
                           WORD_SEGMENT * t + c % WORD_SEGMENT;
            _mm256_store_si256((__m256i *)out, _mm256_add_epi16(_mm256_slli_epi16(hi, 8), lo));
        }
    }
}

/* ---------------------------------------------------------------- all */

/* Of a panel's codes: two parts of bytes, or words. */
static size_t panel_nbytes(size_t n_cols)
{
    return 2 * MB_PANEL_ROWS * mb_matmul_row_nbytes(n_cols);
}

/* Decoded rows, panels, and the chunk's words or factors. */
size_t mb_matmul_scratch_nbytes_avx2(size_t n_cols)
{
    size_t segments = (n_cols + WORD_SEGMENT - 1) / WORD_SEGMENT;
    size_t nbytes = mb_panel_source_nbytes(n_cols) + block_panels_of(n_cols) * panel_nbytes(n_cols) +
                    CHUNK_TOKENS * WORD_SEGMENT * sizeof(int16_t) * segments;
    size_t few_nbytes = mb_matmul_few_scratch_nbytes_avx2(n_cols);
    return few_nbytes > nbytes ? few_nbytes : nbytes;
}

/* The next n_rows rows to panels. */
static void fill_block(struct mb_panel_source *source, bool is_fast, size_t n_rows, uint8_t *codes,
                       struct mb_panel *panels)
{
    const size_t n_cols = source->walk.w->n_cols;
    for (size_t r = 0; r < n_rows; r += MB_PANEL_ROWS, panels++, codes += panel_nbytes(n_cols)) {
        panels->codes = codes;
        panels->row_nbytes = mb_matmul_row_nbytes(n_cols);
        (is_fast ? mb_panel_fill_bytes : mb_panel_fill_words)(
            source, n_rows - r < MB_PANEL_ROWS ? n_rows - r : MB_PANEL_ROWS, panels);
    }
}

/* What to prefetch with each tile of a block, so that 'nbytes' are prefetched with all of them. */
static size_t ahead_nbytes_of(size_t nbytes, size_t n_rows, size_t n_tokens, size_t n_cols)
{
    size_t n_tiles =
        (n_rows / MB_PANEL_ROWS + 1) * (n_tokens / WORD_VECTORS + 1) * (n_cols / BYTE_SEGMENT + 1);
    return (nbytes / n_tiles + 63) / 64 * 64;
}

/* The panels of n_rows rows times all tokens. Prefetches as many bytes of the next rows as these have. */
static void multiply_block(const struct mb_panel *panels, size_t n_rows, struct chunk *chunk,
                           const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride)
{
    for (size_t t = 0; t < n_tokens; t += chunk->n_tokens) {
        chunk->x = x + t;
        chunk->n_tokens = n_tokens - t < CHUNK_TOKENS ? n_tokens - t : CHUNK_TOKENS;
        (chunk->is_fast ? begin_fast : begin_exact)(chunk);
        for (size_t r = 0; r < n_rows; r += MB_PANEL_ROWS)
            multiply_panel(&panels[r / MB_PANEL_ROWS], chunk, y + t * y_stride + r, y_stride);
    }
}

void mb_matmul_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                    const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride, void *scratch)
{
    if (n_rows == 0)
        return;
    if (n_tokens <= TOKENS_ONE_BY_ONE) {
        for (size_t t = 0; t < n_tokens; t++)
            mb_matvec_avx2(w, row, n_rows, &x[t], y + t * y_stride);
        return;
    }
    const bool is_fast = mb_all_fast(x, n_tokens);
    if (!is_fast && n_tokens <= EXACT_TOKENS_FEW) {
        mb_matmul_few_avx2(w, row, n_rows, x, n_tokens, y, y_stride, scratch);
        return;
    }
    const size_t block_panels = block_panels_of(w->n_cols), block_rows = block_panels * MB_PANEL_ROWS;
    struct mb_panel_source source = mb_panel_source_at(w, row, scratch);
    struct mb_panel panels[BLOCK_PANELS];
    struct chunk chunk;
    uint8_t *codes = (uint8_t *)scratch + mb_panel_source_nbytes(w->n_cols);
    chunk.w = w;
    chunk.is_fast = is_fast;
    chunk.row_nbytes = mb_matmul_row_nbytes(w->n_cols);
    chunk.n_blocks = chunk.row_nbytes / MB_ACTIVATION_BLOCK;
    chunk.words = (int16_t *)(void *)(codes + block_panels * panel_nbytes(w->n_cols));
    chunk.factors = (uint32_t *)(void *)chunk.words;
    for (uint64_t done = 0, n; done < n_rows; done += n) {
        n = n_rows - done < block_rows ? n_rows - done : block_rows;
        const uint8_t *begin = source.walk.record;
        fill_block(&source, chunk.is_fast, (size_t)n, codes, panels);
        chunk.ahead = (const char *)source.walk.record;
        chunk.ahead_nbytes =
            ahead_nbytes_of((size_t)(source.walk.record - begin), (size_t)n, n_tokens, chunk.row_nbytes);
        multiply_block(panels, (size_t)n, &chunk, x, n_tokens, y + done, y_stride);
    }
}
