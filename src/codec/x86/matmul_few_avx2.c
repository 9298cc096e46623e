/*
 * matmul_few_avx2.c - products with a few vectors whose activations are exact: a block of rows is decoded to
 * indices q, row by row, which meet all tokens.
 *
 * X is one integer of 16 bits: without vpdpbusd, vpmaddwd is the shortest way, and multiplies q and X in one
 * step.  Sixteen registers hold the sums of two rows and four tokens.
 */
#include "encode.h"
#include "panel_avx2.h"
#include <string.h>

enum { TILE_ROWS = 2, TILE_TOKENS = 4, BLOCK_ROWS_MAX = 64 };

/* Tokens whose activations are kept with a block, as 16-bit integers. */
enum { BLOCK_TOKENS = 8 };

/* Rows that are decoded at once: about 128 KiB, which stay in L2 while all tokens pass. */
static size_t block_rows_of(size_t n_cols)
{
    size_t rows = 131072 / n_cols / 16 * 16;
    return rows < 16 ? 16 : rows > BLOCK_ROWS_MAX ? BLOCK_ROWS_MAX : rows;
}

/* Columns whose products fit a lane of 32 bits: each 16 of them add two. */
enum { SEGMENT_COLS = 4096 };
_Static_assert((int64_t)SEGMENT_COLS / 8 * MB_Q_MAX * MB_ACTIVATION_MAX < INT32_MAX, "a lane would overflow");

struct block {
    const struct mb_coded_matrix *w;
    size_t n_rows, row_nbytes;
    int8_t *q;  /* [BLOCK_ROWS_MAX][row_nbytes] */
    int16_t *x; /* [BLOCK_TOKENS][row_nbytes], 0 after the columns */
    struct mb_panel_row rows[BLOCK_ROWS_MAX];
};

/* Decodes rows one after another, whatever their groups. */
struct source {
    struct mb_group_walk walk;
    struct mb_panel_row next;
    int8_t *q; /* of its group, where that has several rows */
};

static void next_group(struct source *source)
{
    mb_next_avx2(&source->walk, &source->next.group);
    source->next.row_in_group = 0;
    if (!source->next.group.is_raw && source->walk.w->group_rows > 1)
        mb_indices_avx2(source->walk.w, &source->next.group, source->q);
}

/* Bytes after a row's columns are unspecified: X is 0 there. */
static void fill_block(struct source *source, struct block *block, size_t n_rows)
{
    size_t n_cols = block->w->n_cols;
    block->n_rows = n_rows;
    for (size_t r = 0; r < n_rows; r++) {
        struct mb_panel_row *next = &source->next;
        int8_t *q = block->q + r * block->row_nbytes;
        if (next->row_in_group == next->group.n_rows)
            next_group(source);
        block->rows[r] = *next;
        if (!next->group.is_raw && block->w->group_rows > 1)
            memcpy(q, source->q + next->row_in_group * n_cols, n_cols);
        else if (!next->group.is_raw)
            mb_indices_avx2(block->w, &next->group, q);
        next->row_in_group++;
    }
}

/* The X of a token as 16-bit integers, to the end of its padding. */
static void place_token(const struct mb_activation *x, size_t n, int16_t *out)
{
    for (size_t c = 0; c < n; c += 16) {
        __m256i hi = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(x->hi + c)));
        __m256i lo = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(x->lo + c)));
        _mm256_storeu_si256((__m256i *)(out + c), _mm256_add_epi16(_mm256_slli_epi16(hi, 8), lo));
    }
}

static int64_t add_lanes(__m256i sum)
{
    __m256i wide = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(sum)),
                                    _mm256_cvtepi32_epi64(_mm256_extracti128_si256(sum, 1)));
    __m128i pair = _mm_add_epi64(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    return _mm_cvtsi128_si64(pair) + _mm_extract_epi64(pair, 1);
}

/* In assembler: gcc would copy sums between registers in the loop, at a third of the speed. */
MB_INLINE void add_products(__m256i *sum, __m256i q, __m256i x)
{
    __m256i products = _mm256_madd_epi16(q, x);
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(products));
}

/* Adds columns [0, n) of two rows times some tokens; n is at most SEGMENT_COLS. */
MB_INLINE void tile_segment(const int8_t *q, const int16_t *x, size_t row_nbytes, size_t n, size_t n_tokens,
                            int64_t sums[TILE_TOKENS][TILE_ROWS])
{
    __m256i acc[TILE_TOKENS][TILE_ROWS];
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++)
        acc[t][0] = acc[t][1] = _mm256_setzero_si256();
    for (size_t c = 0; c < n; c += 16) {
        __m256i q0 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(q + c)));
        __m256i q1 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(q + row_nbytes + c)));
#pragma GCC unroll 4
        for (size_t t = 0; t < n_tokens; t++) {
            __m256i v = _mm256_loadu_si256((const __m256i *)(x + t * row_nbytes + c));
            __asm__("" : "+x"(v)); /* gcc would load it for each row */
            add_products(&acc[t][0], q0, v);
            add_products(&acc[t][1], q1, v);
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++) {
        sums[t][0] += add_lanes(acc[t][0]);
        sums[t][1] += add_lanes(acc[t][1]);
    }
}

/* A function for each number of tokens, so that all sums stay in registers. */
#define TILE_SEGMENT(n_tokens)                                                                          \
    static void tile_segment_##n_tokens(const int8_t *q, const int16_t *x, size_t row_nbytes, size_t n, \
                                        int64_t sums[TILE_TOKENS][TILE_ROWS])                           \
    {                                                                                                   \
        tile_segment(q, x, row_nbytes, n, n_tokens, sums);                                              \
    }
TILE_SEGMENT(1)
TILE_SEGMENT(2)
TILE_SEGMENT(3)
TILE_SEGMENT(4)

typedef void (*tile_segment_fn)(const int8_t *q, const int16_t *x, size_t row_nbytes, size_t n,
                                int64_t sums[TILE_TOKENS][TILE_ROWS]);
static const tile_segment_fn tile_segment_of[] = {NULL, tile_segment_1, tile_segment_2, tile_segment_3,
                                                  tile_segment_4};

static void tile_product(const struct block *block, size_t r, const int16_t *x, size_t n_tokens,
                         int64_t sums[TILE_TOKENS][TILE_ROWS])
{
    for (size_t c = 0; c < block->w->n_cols; c += SEGMENT_COLS) {
        size_t n = block->w->n_cols - c < SEGMENT_COLS ? block->w->n_cols - c : SEGMENT_COLS;
        const int8_t *q = block->q + r * block->row_nbytes + c;
        tile_segment_of[n_tokens](q, x + c, block->row_nbytes, n, sums);
    }
}

/* The row's S, given the sum of its q (256 hi + lo). */
MB_NOINLINE double add_wide(const int8_t *q, int64_t narrow, const struct mb_activation *x)
{
    int64_t wide = 0;
    for (size_t k = 0; k < x->n_wide; k++)
        wide += mb_wide_sum_avx2(q + (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK, mb_wide_planes(x, k),
                                 x->n_wide_planes);
    return mb_sum_of_parts(narrow, wide);
}

static float finish(const struct mb_coded_matrix *w, const struct mb_panel_row *row, double s,
                    const struct mb_activation *x)
{
    const struct mb_group_view *group = &row->group;
    if (group->is_raw)
        return mb_raw_row_product(
            w->dtype, group->body + row->row_in_group * w->n_cols * mb_dtype_nbytes(w->dtype), w->n_cols, x);
    unsigned first = 0;
    double scale = (double)x->scale;
    double o = group->n_outliers == 0
                   ? 0
                   : mb_row_outliers(w->dtype, group, w->n_cols, row->row_in_group, &first, x);
    return (float)(s * (double)w->step * scale + o * scale);
}

/* All rows of a block times at most BLOCK_TOKENS tokens. */
static void multiply_block(const struct block *block, const struct mb_activation *x, size_t n_tokens,
                           float *y, size_t y_stride)
{
    for (size_t t = 0; t < n_tokens; t++)
        place_token(&x[t], block->row_nbytes, block->x + t * block->row_nbytes);
    for (size_t t = 0; t < n_tokens; t += TILE_TOKENS) {
        size_t tokens = n_tokens - t < TILE_TOKENS ? n_tokens - t : TILE_TOKENS;
        for (size_t r = 0; r < block->n_rows; r += TILE_ROWS) {
            int64_t sums[TILE_TOKENS][TILE_ROWS] = {{0}};
            tile_product(block, r, block->x + t * block->row_nbytes, tokens, sums);
            for (size_t i = 0; i < tokens; i++)
                for (size_t k = 0; k < TILE_ROWS && r + k < block->n_rows; k++) {
                    double s = (double)sums[i][k];
                    if (x[t + i].n_wide > 0)
                        s = add_wide(block->q + (r + k) * block->row_nbytes, sums[i][k], &x[t + i]);
                    y[(t + i) * y_stride + r + k] = finish(block->w, &block->rows[r + k], s, &x[t + i]);
                }
        }
    }
}

/* ---------------------------------------------------------------- all */

/* A group, a block of rows, and the activations that meet it. */
size_t mb_matmul_few_scratch_nbytes_avx2(size_t n_cols)
{
    size_t n_rows = block_rows_of(n_cols) + BLOCK_TOKENS * sizeof(int16_t);
    return mb_group_room(n_cols) + n_rows * mb_matmul_row_nbytes(n_cols);
}

void mb_matmul_few_avx2(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                        const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                        void *scratch)
{
    size_t block_rows = block_rows_of(w->n_cols), row_nbytes = mb_matmul_row_nbytes(w->n_cols);
    struct source source = {.walk = mb_seek_avx2(w, row), .q = scratch};
    struct block block = {
        .w = w, .row_nbytes = row_nbytes, .q = (int8_t *)scratch + mb_group_room(w->n_cols)};
    block.x = (int16_t *)(void *)(block.q + block_rows * row_nbytes);
    next_group(&source);
    source.next.row_in_group = (size_t)(row - source.next.group.row);
    for (uint64_t done = 0; done < n_rows; done += block.n_rows) {
        fill_block(&source, &block, n_rows - done < block_rows ? (size_t)(n_rows - done) : block_rows);
        for (size_t t = 0; t < n_tokens; t += BLOCK_TOKENS)
            multiply_block(&block, x + t, n_tokens - t < BLOCK_TOKENS ? n_tokens - t : BLOCK_TOKENS,
                           y + t * y_stride + done, y_stride);
    }
}
