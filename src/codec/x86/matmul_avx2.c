/*
 * matmul_avx2.c - products with many vectors: a block of rows is decoded once to indices q, then meets all
 * tokens.
 *
 * X is one integer of 16 bits here, not two planes as with AVX-512: without vpdpbusd, vpmaddwd is the
 * shortest way, and multiplies q and X in one step.  Sixteen registers hold the sums of two rows and four
 * tokens, so that rows need no tile.
 *
 * Fast activations are one plane, which vpmaddubsw multiplies by u = q + offset.  Where |q| is small, two or
 * four products fit a lane of 16 bits together, and the vpmaddwd that widens them takes the block's factor.
 */
#include "carry_avx2.h"
#include "encode.h"
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

/* So few tokens use the fused product, which is faster than decoding rows to memory. */
enum { TOKENS_ONE_BY_ONE = 2 };

/* Columns whose products fit a lane of 32 bits: each 16 of them add two. */
enum { SEGMENT_COLS = 4096 };
_Static_assert((int64_t)SEGMENT_COLS / 8 * MB_Q_MAX * MB_ACTIVATION_MAX < INT32_MAX, "a lane would overflow");

struct row {
    struct mb_group_view group;
    size_t row_in_group;
};

struct block {
    const struct mb_coded_matrix *w;
    size_t n_rows, row_nbytes;
    int8_t *q;  /* [BLOCK_ROWS_MAX][row_nbytes] */
    int16_t *x; /* [BLOCK_TOKENS][row_nbytes], 0 after the columns */
    struct row rows[BLOCK_ROWS_MAX];
    uint8_t q_max[BLOCK_ROWS_MAX]; /* of each row the largest |q|, for fast activations alone */
};

/* Decodes rows one after another, whatever their groups. */
struct source {
    struct mb_group_walk walk;
    struct row next;
    int8_t *q; /* of its group, where that has several rows */
};

static void next_group(struct source *source)
{
    mb_next_avx2(&source->walk, &source->next.group);
    source->next.row_in_group = 0;
    if (!source->next.group.is_raw && source->walk.w->group_rows > 1)
        mb_indices_avx2(source->walk.w, &source->next.group, source->q);
}

static uint8_t largest_of(const int8_t *q, size_t n)
{
    __m256i most = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        most = _mm256_max_epu8(most, _mm256_abs_epi8(_mm256_loadu_si256((const __m256i *)(q + i))));
    uint8_t bytes[32], largest = 0;
    _mm256_storeu_si256((__m256i *)bytes, most);
    for (size_t k = 0; k < 32; k++)
        largest = bytes[k] > largest ? bytes[k] : largest;
    for (; i < n; i++) {
        uint8_t magnitude = (uint8_t)(q[i] < 0 ? -q[i] : q[i]);
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/* Bytes after a row's columns are unspecified: X is 0 there. */
static void fill_block(struct source *source, struct block *block, size_t n_rows, bool is_fast)
{
    size_t n_cols = block->w->n_cols;
    block->n_rows = n_rows;
    for (size_t r = 0; r < n_rows; r++) {
        struct row *next = &source->next;
        int8_t *q = block->q + r * block->row_nbytes;
        if (next->row_in_group == next->group.n_rows)
            next_group(source);
        block->rows[r] = *next;
        if (!next->group.is_raw && block->w->group_rows > 1)
            memcpy(q, source->q + next->row_in_group * n_cols, n_cols);
        else if (!next->group.is_raw)
            mb_indices_avx2(block->w, &next->group, q);
        block->q_max[r] = is_fast && !next->group.is_raw ? largest_of(q, n_cols) : 0;
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

static float finish(const struct mb_coded_matrix *w, const struct row *row, double s,
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

/* ---------------------------------------------------------------- fast activations */

enum { FAST_TOKENS = 2 }; /* four sums, eight registers of u, and three more */

/* Columns whose products fit a lane of 32 bits: it takes one of each eight. */
enum { FAST_COLS = 8192 };
_Static_assert((int64_t)FAST_COLS / 8 * 127 * MB_FAST_MAX < INT32_MAX, "a lane would overflow");

/* What multiplies two rows whose |q| are below 'offset', which is added to q. */
struct fast_kind {
    int offset; /* 0: any q, whose signs x takes */
    void (*segment)(const int8_t *q, size_t row_nbytes, const struct mb_activation *x, size_t n_tokens,
                    size_t begin, size_t end, int64_t sums[FAST_TOKENS][TILE_ROWS]);
};

/* In assembler: gcc would spread the additions over more registers than there are. */
MB_INLINE void add_two(__m256i *acc, const __m256i *u, const __m256i *x, __m256i factor)
{
    __m256i sum, next;
    __asm__("vpmaddubsw %[x0], %[u0], %[sum]\n\t"
            "vpmaddubsw %[x1], %[u1], %[next]\n\t"
            "vpaddw %[next], %[sum], %[sum]\n\t"
            "vpmaddwd %[factor], %[sum], %[sum]\n\t"
            "vpaddd %[sum], %[acc], %[acc]"
            : [acc] "+x"(*acc), [sum] "=&x"(sum), [next] "=&x"(next)
            : [u0] "x"(u[0]), [u1] "x"(u[1]), [x0] "m"(x[0]), [x1] "m"(x[1]), [factor] "x"(factor));
}

MB_INLINE void add_four(__m256i *acc, const __m256i *u, const __m256i *x, __m256i factor)
{
    __m256i sum, next;
    __asm__("vpmaddubsw %[x0], %[u0], %[sum]\n\t"
            "vpmaddubsw %[x1], %[u1], %[next]\n\t"
            "vpaddw %[next], %[sum], %[sum]\n\t"
            "vpmaddubsw %[x2], %[u2], %[next]\n\t"
            "vpaddw %[next], %[sum], %[sum]\n\t"
            "vpmaddubsw %[x3], %[u3], %[next]\n\t"
            "vpaddw %[next], %[sum], %[sum]\n\t"
            "vpmaddwd %[factor], %[sum], %[sum]\n\t"
            "vpaddd %[sum], %[acc], %[acc]"
            : [acc] "+x"(*acc), [sum] "=&x"(sum), [next] "=&x"(next)
            : [u0] "x"(u[0]), [u1] "x"(u[1]), [u2] "x"(u[2]), [u3] "x"(u[3]), [x0] "m"(x[0]), [x1] "m"(x[1]),
              [x2] "m"(x[2]), [x3] "m"(x[3]), [factor] "x"(factor));
}

/*
 * Adds columns [begin, end), whole blocks, of two rows times some tokens. n_meet: products of 16 bits that
 * are added before they are widened; their sum is at most n_meet * 2 * (2 offset - 1) * 127.
 */
MB_INLINE void fast_segment(size_t n_meet, int offset, const int8_t *q, size_t row_nbytes,
                            const struct mb_activation *x, size_t n_tokens, size_t begin, size_t end,
                            int64_t sums[FAST_TOKENS][TILE_ROWS])
{
    const __m256i plus = _mm256_set1_epi8((char)offset);
    const int8_t *bytes[FAST_TOKENS];
    const uint8_t *factors[FAST_TOKENS];
    __m256i acc[FAST_TOKENS][TILE_ROWS];
#pragma GCC unroll 2
    for (size_t t = 0; t < n_tokens; t++) {
        bytes[t] = x[t].bytes;
        factors[t] = x[t].factors;
        acc[t][0] = acc[t][1] = _mm256_setzero_si256();
    }
    for (size_t c = begin; c < end; c += 32 * n_meet) {
        __m256i u[TILE_ROWS][4];
#pragma GCC unroll 4
        for (size_t k = 0; k < n_meet; k++)
#pragma GCC unroll 2
            for (size_t r = 0; r < TILE_ROWS; r++)
                u[r][k] = _mm256_add_epi8(
                    _mm256_loadu_si256((const __m256i *)(q + r * row_nbytes + c + 32 * k)), plus);
#pragma GCC unroll 2
        for (size_t t = 0; t < n_tokens; t++) {
            const __m256i *v = (const __m256i *)(const void *)(bytes[t] + c);
            __m256i factor = _mm256_set1_epi16(factors[t][c / MB_ACTIVATION_BLOCK]);
#pragma GCC unroll 2
            for (size_t r = 0; r < TILE_ROWS; r++)
                if (offset == 0)
                    acc[t][r] = _mm256_add_epi32(
                        acc[t][r], _mm256_madd_epi16(mb_signed_pairs_avx2(u[r][0], bytes[t] + c), factor));
                else if (n_meet == 1)
                    acc[t][r] = _mm256_add_epi32(
                        acc[t][r], _mm256_madd_epi16(_mm256_maddubs_epi16(u[r][0], *v), factor));
                else if (n_meet == 2)
                    add_two(&acc[t][r], u[r], v, factor);
                else
                    add_four(&acc[t][r], u[r], v, factor);
        }
    }
#pragma GCC unroll 2
    for (size_t t = 0; t < n_tokens; t++) {
        sums[t][0] += add_lanes(acc[t][0]);
        sums[t][1] += add_lanes(acc[t][1]);
    }
}

/* A constant number of tokens keeps all sums in registers. */
#define FAST_SEGMENT(n_meet, offset)                                                                     \
    static void fast_segment_##offset(const int8_t *q, size_t row_nbytes, const struct mb_activation *x, \
                                      size_t n_tokens, size_t begin, size_t end,                         \
                                      int64_t sums[FAST_TOKENS][TILE_ROWS])                              \
    {                                                                                                    \
        if (n_tokens == 1)                                                                               \
            fast_segment(n_meet, offset, q, row_nbytes, x, 1, begin, end, sums);                         \
        else                                                                                             \
            fast_segment(n_meet, offset, q, row_nbytes, x, 2, begin, end, sums);                         \
    }
FAST_SEGMENT(4, 16)
FAST_SEGMENT(2, 32)
FAST_SEGMENT(1, 64)
FAST_SEGMENT(1, 0)
_Static_assert(4 * 2 * 31 * 127 < 32768 && 2 * 2 * 63 * 127 < 32768 && 2 * 127 * 127 < 32768, "16 bits");

static struct fast_kind fast_kind_of(uint8_t q_max)
{
    return q_max < 16   ? (struct fast_kind){16, fast_segment_16}
           : q_max < 32 ? (struct fast_kind){32, fast_segment_32}
           : q_max < 64 ? (struct fast_kind){64, fast_segment_64}
                        : (struct fast_kind){0, fast_segment_0};
}

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

/* The row's S, given the sum of its q X outside of wide blocks. */
MB_NOINLINE double add_wide_fast(const int8_t *q, int64_t narrow, const struct mb_activation *x)
{
    for (size_t k = 0; k < x->n_wide; k++) {
        size_t c = (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK;
        narrow += 256 * mb_wide_sum_avx2(q + c, x->hi + c, 1) + mb_wide_sum_avx2(q + c, x->lo + c, 1);
    }
    return add_wide(q, narrow, x);
}

/* All rows of a block times at most BLOCK_TOKENS tokens: a pair of rows and these stay in L1. */
static void multiply_block_fast(const struct block *block, const struct mb_activation *x, size_t n_tokens,
                                float *y, size_t y_stride)
{
    const size_t n_cols = mb_activation_plane_nbytes(block->w->n_cols);
    int64_t x_sum[BLOCK_TOKENS];
    for (size_t t = 0; t < n_tokens; t++)
        x_sum[t] = sum_of_bytes(&x[t]);
    for (size_t r = 0; r < block->n_rows; r += TILE_ROWS) {
        const int8_t *q = block->q + r * block->row_nbytes;
        bool is_last = r + 1 == block->n_rows;
        uint8_t q_max =
            is_last || block->q_max[r] > block->q_max[r + 1] ? block->q_max[r] : block->q_max[r + 1];
        struct fast_kind kind = fast_kind_of(q_max);
        for (size_t t = 0; t < n_tokens; t += FAST_TOKENS) {
            size_t tokens = n_tokens - t < FAST_TOKENS ? n_tokens - t : FAST_TOKENS;
            int64_t sums[FAST_TOKENS][TILE_ROWS] = {{0}};
            for (size_t c = 0; c < n_cols; c += FAST_COLS)
                kind.segment(q, block->row_nbytes, x + t, tokens, c,
                             n_cols - c < FAST_COLS ? n_cols : c + FAST_COLS, sums);
            for (size_t i = 0; i < tokens; i++)
                for (size_t k = 0; k < TILE_ROWS && r + k < block->n_rows; k++) {
                    int64_t narrow = sums[i][k] - kind.offset * x_sum[t + i];
                    double s = x[t + i].n_wide > 0
                                   ? add_wide_fast(q + k * block->row_nbytes, narrow, &x[t + i])
                                   : (double)narrow;
                    y[(t + i) * y_stride + r + k] = finish(block->w, &block->rows[r + k], s, &x[t + i]);
                }
        }
    }
}

/* ---------------------------------------------------------------- all */

/* A group, a block of rows, and the activations that meet it. */
size_t mb_matmul_scratch_nbytes_avx2(size_t n_cols)
{
    size_t n_rows = block_rows_of(n_cols) + BLOCK_TOKENS * sizeof(int16_t);
    return mb_group_room(n_cols) + n_rows * mb_matmul_row_nbytes(n_cols);
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
    size_t block_rows = block_rows_of(w->n_cols), row_nbytes = mb_matmul_row_nbytes(w->n_cols);
    struct source source = {.walk = mb_seek_avx2(w, row), .q = scratch};
    struct block block = {
        .w = w, .row_nbytes = row_nbytes, .q = (int8_t *)scratch + mb_group_room(w->n_cols)};
    block.x = (int16_t *)(void *)(block.q + block_rows * row_nbytes);
    next_group(&source);
    source.next.row_in_group = (size_t)(row - source.next.group.row);
    const bool is_fast = mb_all_fast(x, n_tokens);
    for (uint64_t done = 0; done < n_rows; done += block.n_rows) {
        fill_block(&source, &block, n_rows - done < block_rows ? (size_t)(n_rows - done) : block_rows,
                   is_fast);
        for (size_t t = 0; t < n_tokens; t += BLOCK_TOKENS)
            (is_fast ? multiply_block_fast : multiply_block)(
                &block, x + t, n_tokens - t < BLOCK_TOKENS ? n_tokens - t : BLOCK_TOKENS,
                y + t * y_stride + done, y_stride);
    }
}
