/*
 * matmul_avx2.c - products with many vectors: a block of rows is decoded to panels (panel_avx2.h), which meet
 * all tokens while they are in L1 and L2.
 *
 * Exact activations are integers X of 16 bits: without vpdpbusd, vpmaddwd is the shortest way, and multiplies
 * q and X in one step.  Fast ones are bytes, which vpmaddubsw multiplies by u = q + offset: as many products
 * as are sure to fit a lane of 16 bits are added there, and the vpmaddwd that widens them takes the block's
 * factor.
 *
 * Sums are in registers over a segment of columns, in lanes of 32 bits that are sure to suffice, then in
 * double, where they are exact as well.
 */
#include "encode.h"
#include "panel_avx2.h"
#include "row_ends_avx2.h"
#include <string.h>

enum {
    BLOCK_PANELS = 4,
    CHUNK_TOKENS = 24,   /* that meet a panel together */
    BYTE_TOKENS = 3,     /* of a tile: 6 sums of 16 bits, 6 of 32 bits, 2 registers of u, 2 more */
    WORD_TOKENS = 6,     /* 12 sums, 2 registers of q, 2 more */
    BYTE_SEGMENT = 1024, /* columns */
    WORD_SEGMENT = 512,
    TOKENS_ONE_BY_ONE = 1,
};
_Static_assert((int64_t)BYTE_SEGMENT * 2 * MB_PANEL_OFFSET_MAX * MB_FAST_MAX < INT32_MAX, "32 bits");
_Static_assert((int64_t)WORD_SEGMENT *MB_Q_MAX *MB_ACTIVATION_MAX < INT32_MAX, "32 bits");

/* Panels that are decoded at once: about 64 rows of 2048 columns. */
static size_t block_panels_of(size_t n_cols)
{
    size_t panels = 131072 / (MB_PANEL_ROWS * n_cols);
    return panels < 1 ? 1 : panels > BLOCK_PANELS ? BLOCK_PANELS : panels;
}

/* Tokens that meet a panel, and what a product makes of them first. */
struct chunk {
    const struct mb_activation *x;
    size_t n_tokens, plane_nbytes, n_blocks;
    int16_t *words;             /* exact ones: X, [n_tokens][plane_nbytes] */
    uint32_t *factors;          /* fast ones: of each block, in both halves, [n_tokens][n_blocks] */
    int64_t sums[CHUNK_TOKENS]; /* fast ones: of factor times byte */
    _Alignas(32) double products[CHUNK_TOKENS][MB_PANEL_ROWS]; /* with a panel */
};

/* ---------------------------------------------------------------- tiles */

/* Adds lanes of 32 bits, one a row. */
MB_INLINE void add_rows_8(double *sums, __m256i lanes)
{
    __m256d first = _mm256_cvtepi32_pd(_mm256_castsi256_si128(lanes));
    __m256d second = _mm256_cvtepi32_pd(_mm256_extracti128_si256(lanes, 1));
    _mm256_store_pd(sums, _mm256_add_pd(_mm256_load_pd(sums), first));
    _mm256_store_pd(sums + 4, _mm256_add_pd(_mm256_load_pd(sums + 4), second));
}

/* In assembler: gcc would copy sums between registers and to memory. */
MB_INLINE void begin_bytes(__m256i sums[2], const __m256i u[2], const int8_t *x)
{
    __m256i v = _mm256_set1_epi32(*(const int32_t *)(const void *)x);
    sums[0] = _mm256_maddubs_epi16(u[0], v);
    sums[1] = _mm256_maddubs_epi16(u[1], v);
}

MB_INLINE void add_bytes(__m256i sums[2], const __m256i u[2], const int8_t *x)
{
    __m256i v, product;
    __asm__("vpbroadcastd %[x], %[v]\n\t"
            "vpmaddubsw %[v], %[u0], %[product]\n\t"
            "vpmaddubsw %[v], %[u1], %[v]\n\t"
            "vpaddw %[product], %[sum0], %[sum0]\n\t"
            "vpaddw %[v], %[sum1], %[sum1]"
            : [sum0] "+x"(sums[0]), [sum1] "+x"(sums[1]), [v] "=&x"(v), [product] "=&x"(product)
            : [u0] "x"(u[0]), [u1] "x"(u[1]), [x] "m"(*(const int32_t *)(const void *)x));
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
            : [q0] "x"(q[0]), [q1] "x"(q[1]), [x] "m"(*(const int32_t *)(const void *)x));
}

/*
 * Adds columns [begin, end), whole blocks, of a panel of bytes times tokens of a chunk from 'first' on.  The
 * products of n_meet steps are added before they are widened.
 */
MB_INLINE void byte_tile(size_t n_meet, size_t n_tokens, const uint8_t *codes, struct chunk *chunk,
                         size_t first, size_t begin, size_t end)
{
    const int8_t *bytes[BYTE_TOKENS];
    const uint32_t *factors[BYTE_TOKENS];
    __m256i acc[BYTE_TOKENS][2];
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++) {
        bytes[t] = chunk->x[first + t].bytes;
        factors[t] = chunk->factors + (first + t) * chunk->n_blocks;
        acc[t][0] = acc[t][1] = _mm256_setzero_si256();
    }
    codes += MB_PANEL_STEP_NBYTES / 4 * begin;
    for (size_t c = begin; c < end; c += 4 * n_meet) {
        __m256i sums[BYTE_TOKENS][2];
#pragma GCC unroll 8
        for (size_t k = 0; k < n_meet; k++, codes += MB_PANEL_STEP_NBYTES) {
            __m256i u[2] = {_mm256_load_si256((const __m256i *)codes),
                            _mm256_load_si256((const __m256i *)(codes + 32))};
#pragma GCC unroll 3
            for (size_t t = 0; t < n_tokens; t++)
                if (k == 0)
                    begin_bytes(sums[t], u, bytes[t] + c);
                else
                    add_bytes(sums[t], u, bytes[t] + c + 4 * k);
        }
#pragma GCC unroll 3
        for (size_t t = 0; t < n_tokens; t++)
            widen(acc[t], sums[t], factors[t] + c / MB_ACTIVATION_BLOCK);
    }
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++) {
        add_rows_8(chunk->products[first + t], acc[t][0]);
        add_rows_8(chunk->products[first + t] + 8, acc[t][1]);
    }
}

/* The same with words. */
MB_INLINE void word_tile(size_t n_tokens, const uint8_t *codes, struct chunk *chunk, size_t first,
                         size_t begin, size_t end)
{
    const int16_t *x = chunk->words + first * chunk->plane_nbytes;
    const size_t stride = chunk->plane_nbytes;
    __m256i acc[WORD_TOKENS][2];
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++)
        acc[t][0] = acc[t][1] = _mm256_setzero_si256();
    codes += MB_PANEL_STEP_NBYTES / 2 * begin;
    for (size_t c = begin; c < end; c += 4) {
#pragma GCC unroll 2
        for (size_t k = 0; k < 2; k++, codes += MB_PANEL_STEP_NBYTES) {
            __m256i q[2] = {_mm256_load_si256((const __m256i *)codes),
                            _mm256_load_si256((const __m256i *)(codes + 32))};
#pragma GCC unroll 6
            for (size_t t = 0; t < n_tokens; t++)
                add_words(acc[t], q, x + t * stride + c + 2 * k);
        }
    }
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++) {
        add_rows_8(chunk->products[first + t], acc[t][0]);
        add_rows_8(chunk->products[first + t] + 8, acc[t][1]);
    }
}

/* Functions for a constant number of tokens, which keeps all sums in registers. */
typedef void (*tile_fn)(const uint8_t *codes, struct chunk *chunk, size_t first, size_t begin, size_t end);

#define BYTE_TILE(n_meet, n_tokens)                                                                      \
    static void byte_tile_##n_meet##_##n_tokens(const uint8_t *codes, struct chunk *chunk, size_t first, \
                                                size_t begin, size_t end)                                \
    {                                                                                                    \
        byte_tile(n_meet, n_tokens, codes, chunk, first, begin, end);                                    \
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
/* n_meet offset is 64: */
_Static_assert(2 * 2 * MB_PANEL_OFFSET_MAX * 127 < 32768, "16 bits");

static const tile_fn *byte_tiles_of(size_t offset)
{
    static const tile_fn tiles[][BYTE_TOKENS] = {BYTE_TILE_NAMES(8), BYTE_TILE_NAMES(4), BYTE_TILE_NAMES(2),
                                                 BYTE_TILE_NAMES(1)};
    return tiles[offset == 8 ? 0 : offset == 16 ? 1 : offset == 32 ? 2 : 3];
}

#define WORD_TILE(n_tokens)                                                                                 \
    static void word_tile_##n_tokens(const uint8_t *codes, struct chunk *chunk, size_t first, size_t begin, \
                                     size_t end)                                                            \
    {                                                                                                       \
        word_tile(n_tokens, codes, chunk, first, begin, end);                                               \
    }
WORD_TILE(1)
WORD_TILE(2)
WORD_TILE(3)
WORD_TILE(4)
WORD_TILE(5)
WORD_TILE(6)
static const tile_fn word_tiles[WORD_TOKENS] = {word_tile_1, word_tile_2, word_tile_3,
                                                word_tile_4, word_tile_5, word_tile_6};

/* Tokens of the next tile: those that are left are split evenly. */
static size_t tile_tokens(size_t n_left, size_t n_max)
{
    size_t n_tiles = (n_left + n_max - 1) / n_max;
    return (n_left + n_tiles - 1) / n_tiles;
}

/* Adds the products of all columns of one part, all tokens of the chunk. */
static void multiply_codes(const uint8_t *codes, const tile_fn *tiles, size_t n_max, size_t segment,
                           struct chunk *chunk)
{
    for (size_t c = 0; c < chunk->plane_nbytes; c += segment) {
        size_t end = chunk->plane_nbytes - c < segment ? chunk->plane_nbytes : c + segment;
        for (size_t t = 0, n; t < chunk->n_tokens; t += n) {
            n = tile_tokens(chunk->n_tokens - t, n_max);
            tiles[n - 1](codes, chunk, t, c, end);
        }
    }
}

/* ---------------------------------------------------------------- wide blocks */

/* Adds, for each row, the sum of a plane's 128 elements times the panel's indices without those listed. */
static void add_plane(const struct mb_panel *panel, bool is_bytes, size_t block, const int8_t *plane,
                      int64_t factor, int64_t sums[MB_PANEL_ROWS])
{
    const __m256i ones = _mm256_set1_epi16(1), offset = _mm256_set1_epi8((char)panel->offset);
    __m256i acc[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t part = 0; is_bytes && part < panel->n_parts; part++) {
        const __m256i *u = (const __m256i *)(const void *)(panel->codes + part * panel->part_nbytes +
                                                           block * MB_ACTIVATION_BLOCK * MB_PANEL_ROWS);
        for (size_t c = 0; c < MB_ACTIVATION_BLOCK; c += 4, u += 2) {
            int32_t four;
            memcpy(&four, plane + c, 4);
            __m256i x = _mm256_set1_epi32(four);
            __m256i off = _mm256_madd_epi16(_mm256_maddubs_epi16(offset, x), ones);
            for (size_t i = 0; i < 2; i++)
                acc[i] = _mm256_add_epi32(
                    acc[i], _mm256_sub_epi32(_mm256_madd_epi16(_mm256_maddubs_epi16(u[i], x), ones), off));
        }
    }
    const __m256i *q =
        (const __m256i *)(const void *)(panel->codes + 2 * block * MB_ACTIVATION_BLOCK * MB_PANEL_ROWS);
    for (size_t c = 0; !is_bytes && c < MB_ACTIVATION_BLOCK; c += 2, q += 2) {
        __m256i x = _mm256_set1_epi32((int)((uint16_t)plane[c] | (uint32_t)plane[c + 1] << 16));
        for (size_t i = 0; i < 2; i++)
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(q[i], x));
    }
    int32_t rows[MB_PANEL_ROWS];
    _mm256_storeu_si256((__m256i *)rows, acc[0]);
    _mm256_storeu_si256((__m256i *)(rows + 8), acc[1]);
    for (size_t r = 0; r < MB_PANEL_ROWS; r++)
        sums[r] += factor * rows[r];
}

/* What wide blocks add to the sums of q (256 hi + lo), for bytes, and the sums of q E times its unit. */
MB_NOINLINE void add_wide(const struct mb_panel *panel, const struct mb_activation *x, double *products,
                          double *wide)
{
    const bool is_bytes = x->bytes != NULL;
    int64_t narrow_sums[MB_PANEL_ROWS] = {0}, wide_sums[MB_PANEL_ROWS] = {0};
    for (size_t k = 0; k < x->n_wide; k++) {
        const size_t block = x->wide_at[k], c = block * MB_ACTIVATION_BLOCK;
        const int8_t *plane = mb_wide_planes(x, k);
        if (is_bytes) {
            add_plane(panel, true, block, x->hi + c, 256, narrow_sums);
            add_plane(panel, true, block, x->lo + c, 1, narrow_sums);
        }
        for (size_t p = 0; p < x->n_wide_planes; p++, plane += MB_ACTIVATION_BLOCK)
            add_plane(panel, is_bytes, block, plane, (int64_t)1 << 8 * p, wide_sums);
    }
    for (size_t i = 0; i < panel->n_excess; i++)
        wide_sums[panel->excess[i].row] +=
            (int64_t)panel->excess[i].q * mb_wide_value(x, panel->excess[i].column);
    for (size_t r = 0; r < MB_PANEL_ROWS; r++) {
        products[r] += (double)narrow_sums[r];
        wide[r] = (double)MB_WIDE_UNIT * (double)wide_sums[r];
    }
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

/* The results of a panel's rows for token t, given the products of its codes. S is exact: below 2^53. */
static void finish(const struct mb_coded_matrix *w, const struct mb_panel *panel, struct chunk *chunk,
                   size_t t, float *y)
{
    const struct mb_activation *x = &chunk->x[t];
    double *products = chunk->products[t];
    _Alignas(32) double wide[MB_PANEL_ROWS], outliers[MB_PANEL_ROWS] = {0};
    for (size_t i = 0; i < panel->n_excess; i++)
        products[panel->excess[i].row] +=
            (double)((int64_t)panel->excess[i].q * mb_narrow_value(x, panel->excess[i].column));
    if (panel->outlier_rows != 0)
        add_outliers(w, panel, x, outliers);
    if (x->n_wide > 0)
        add_wide(panel, x, products, wide);
    const double bias =
        x->bytes != NULL ? (double)((int64_t)(panel->offset * panel->n_parts) * chunk->sums[t]) : 0;
    float some[MB_PANEL_ROWS], *out = panel->n_rows == MB_PANEL_ROWS ? y : some;
    for (size_t r = 0; r < MB_PANEL_ROWS; r += 4) {
        __m256d s = _mm256_sub_pd(_mm256_load_pd(products + r), _mm256_set1_pd(bias));
        if (x->n_wide > 0)
            s = _mm256_add_pd(s, _mm256_load_pd(wide + r));
        _mm_storeu_ps(out + r, mb_results_4(s, _mm256_load_pd(outliers + r), w->step, x->scale));
    }
    if (out == some)
        memcpy(y, some, panel->n_rows * sizeof *y);
    add_raw_rows(w, panel, x, y);
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
        chunk->sums[t] = sum_of_bytes(x);
        for (size_t i = 0; i < chunk->n_blocks; i++)
            chunk->factors[t * chunk->n_blocks + i] = x->factors[i] * 0x10001u;
    }
}

static void begin_exact(struct chunk *chunk)
{
    for (size_t t = 0; t < chunk->n_tokens; t++) {
        const struct mb_activation *x = &chunk->x[t];
        int16_t *out = chunk->words + t * chunk->plane_nbytes;
        for (size_t c = 0; c < chunk->plane_nbytes; c += 16) {
            __m256i hi = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(x->hi + c)));
            __m256i lo = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(x->lo + c)));
            _mm256_store_si256((__m256i *)(out + c), _mm256_add_epi16(_mm256_slli_epi16(hi, 8), lo));
        }
    }
}

/* All rows of a panel times all tokens of a chunk. */
static void multiply_panel(const struct mb_coded_matrix *w, const struct mb_panel *panel, bool is_fast,
                           struct chunk *chunk, float *y, size_t y_stride)
{
    memset(chunk->products, 0, chunk->n_tokens * sizeof chunk->products[0]);
    if (is_fast)
        for (size_t part = 0; part < panel->n_parts; part++)
            multiply_codes(panel->codes + part * panel->part_nbytes, byte_tiles_of(panel->offset),
                           BYTE_TOKENS, BYTE_SEGMENT, chunk);
    else
        multiply_codes(panel->codes, word_tiles, WORD_TOKENS, WORD_SEGMENT, chunk);
    for (size_t t = 0; t < chunk->n_tokens; t++)
        finish(w, panel, chunk, t, y + t * y_stride);
}

/* ---------------------------------------------------------------- all */

/* Of a panel's codes. */
static size_t panel_nbytes(size_t n_cols)
{
    return 2 * MB_PANEL_ROWS * mb_matmul_row_nbytes(n_cols);
}

/* Decoded rows, panels, and the chunk's words or factors. */
size_t mb_matmul_scratch_nbytes_avx2(size_t n_cols)
{
    return mb_panel_source_nbytes(n_cols) + block_panels_of(n_cols) * panel_nbytes(n_cols) +
           CHUNK_TOKENS * sizeof(int16_t) * mb_matmul_row_nbytes(n_cols);
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
    const size_t block_rows = block_panels_of(w->n_cols) * MB_PANEL_ROWS;
    struct mb_panel_source source = mb_panel_source_at(w, row, scratch);
    struct mb_panel panels[BLOCK_PANELS];
    struct chunk chunk = {.plane_nbytes = mb_matmul_row_nbytes(w->n_cols)};
    uint8_t *codes = (uint8_t *)scratch + mb_panel_source_nbytes(w->n_cols);
    chunk.words = (int16_t *)(void *)(codes + block_panels_of(w->n_cols) * panel_nbytes(w->n_cols));
    chunk.factors = (uint32_t *)(void *)chunk.words;
    chunk.n_blocks = chunk.plane_nbytes / MB_ACTIVATION_BLOCK;
    for (uint64_t done = 0, n; done < n_rows; done += n) {
        n = n_rows - done < block_rows ? n_rows - done : block_rows;
        for (size_t r = 0; r < n; r += MB_PANEL_ROWS) {
            struct mb_panel *panel = &panels[r / MB_PANEL_ROWS];
            size_t panel_rows = n - r < MB_PANEL_ROWS ? (size_t)n - r : MB_PANEL_ROWS;
            panel->codes = codes + r / MB_PANEL_ROWS * panel_nbytes(w->n_cols);
            panel->part_nbytes = panel_nbytes(w->n_cols) / 2;
            (is_fast ? mb_panel_fill_bytes : mb_panel_fill_words)(&source, panel_rows, panel);
        }
        for (size_t t = 0; t < n_tokens; t += chunk.n_tokens) {
            chunk.x = x + t;
            chunk.n_tokens = n_tokens - t < CHUNK_TOKENS ? n_tokens - t : CHUNK_TOKENS;
            (is_fast ? begin_fast : begin_exact)(&chunk);
            for (size_t r = 0; r < n; r += MB_PANEL_ROWS)
                multiply_panel(w, &panels[r / MB_PANEL_ROWS], is_fast, &chunk, y + t * y_stride + done + r,
                               y_stride);
        }
    }
}
