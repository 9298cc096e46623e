/*
 * matmul_avx512.c - products with many vectors: sixteen rows are decoded once, then meet all tokens.
 *
 * They are stored as a tile, which stays in L1 while the tokens pass.  A chunk is 16 columns of all rows, and
 * a register holds a quad: these columns of four rows.
 *
 *               64 bytes, one register
 *              +-----------+-----------+-----------+-----------+
 *       quad 0 | row 0     | row 1     | row 2     | row 3     |
 *       quad 1 | row 4     | row 5     | row 6     | row 7     |  chunk 0: columns 0 to 15
 *       quad 2 | row 8     | row 9     | row 10    | row 11    |
 *       quad 3 | row 12    | row 13    | row 14    | row 15    |
 *              +-----------+-----------+-----------+-----------+
 *       quad 0 | row 0     | row 1     | ...                   |  chunk 1: columns 16 to 31
 *
 * The load port broadcasts sixteen bytes of an activation to all four rows of a quad. vpdpbusd adds four
 * products to each 32-bit lane, so a row has four partial sums:
 *
 *       u of a row      | u0 u1 u2 u3         | u4 .. u7 | u8 .. u11 | u12 .. u15 |
 *       hi of a token   | x0 x1 x2 x3         | x4 .. x7 | x8 .. x11 | x12 .. x15 |
 *       partial sums    | u0 x0 + ... + u3 x3 | ...      | ...       | ...        |
 *
 * Four quads times three tokens times two planes (hi and lo) are 24 accumulators: 24 products for 10 loads,
 * so the two multiplying ports are the limit.
 *
 * A tile's rows are ordered by width. Most quads then have one width, and their four rows are decoded
 * together, straight to their places.
 */
#include "batch_avx512.h"
#include "by_width.h"
#include "carry_rows.h"
#include <string.h>

enum { TILE_ROWS = 16, QUADS = 4, TILE_TOKENS = 3, FAST_TOKENS = 6, CHUNK = 16, ROWS_WAITING = 4 };
enum { CHUNK_NBYTES = QUADS * 64 }; /* of a tile */

/* The processor drops a prefetch whose page is not in the TLB: pages are touched this far before lines. */
enum { PAGES_AHEAD_NBYTES = 16384 };

/* A row that has outliers or is raw: the values that are not in its codes, and so not in its bytes. */
struct uncoded {
    size_t slot, row;   /* in the tile; 'row' is its place in y */
    const uint8_t *raw; /* the original values of a raw row, else NULL */
    const uint8_t *outlier_positions, *outlier_values;
    size_t n_outliers;
    size_t begin; /* the row's first position in its group */
};

/* Decodes rows one after another, whatever their groups. */
struct source {
    const struct mb_coded_matrix *w;
    struct mb_group_walk walk;
    struct mb_group_view view;
    size_t next_row; /* in the group */
    uint8_t *bytes;  /* of a group that is not one of a batch */
    uint8_t *rows;   /* [ROWS_WAITING][row_nbytes], and slack: rows of the next quad */
    size_t row_nbytes;
};

/* The outliers of most tiles as the product's loop takes them: one in each of its first rounds. */
enum { OUTLIERS_BETWEEN = 32 };

struct outlier {
    double value;
    uint32_t column, slot;
};

struct tile {
    uint8_t *bytes; /* [chunks of columns][4 quads][4 rows][16 columns] */
    size_t n_rows, n_cols;
    int64_t offset[TILE_ROWS]; /* of each slot */
    uint32_t slot_of_row[TILE_ROWS];
    struct uncoded uncoded[TILE_ROWS];
    size_t n_uncoded;
    struct outlier outliers[OUTLIERS_BETWEEN];
    size_t n_outliers, n_listed; /* outliers listed, and uncoded rows whose outliers are all listed */
};

/*
 * 64 columns of a quad's four rows, in whole cache lines.  A letter is 16 columns of a row:
 *
 *     r0  a0 a1 a2 a3                chunk 0  a0 b0 c0 d0
 *     r1  b0 b1 b2 b3     becomes    chunk 1  a1 b1 c1 d1
 *     r2  c0 c1 c2 c3                chunk 2  a2 b2 c2 d2
 *     r3  d0 d1 d2 d3                chunk 3  a3 b3 c3 d3
 */
MB_INLINE void place_64(__m512i r0, __m512i r1, __m512i r2, __m512i r3, uint8_t *quad)
{
    __m512i even01 = _mm512_shuffle_i32x4(r0, r1, 0x88), odd01 = _mm512_shuffle_i32x4(r0, r1, 0xdd);
    __m512i even23 = _mm512_shuffle_i32x4(r2, r3, 0x88), odd23 = _mm512_shuffle_i32x4(r2, r3, 0xdd);
    _mm512_store_si512(quad, _mm512_shuffle_i32x4(even01, even23, 0x88));
    _mm512_store_si512(quad + CHUNK_NBYTES, _mm512_shuffle_i32x4(odd01, odd23, 0x88));
    _mm512_store_si512(quad + 2 * CHUNK_NBYTES, _mm512_shuffle_i32x4(even01, even23, 0xdd));
    _mm512_store_si512(quad + 3 * CHUNK_NBYTES, _mm512_shuffle_i32x4(odd01, odd23, 0xdd));
}

/* Four rows to their quad. Columns past n_cols hold unspecified bytes; their activations are 0. */
static void place_quad(const uint8_t *rows, size_t row_nbytes, size_t n_cols, uint8_t *quad)
{
    for (size_t c = 0; c < n_cols; c += 4 * CHUNK, quad += 4 * CHUNK_NBYTES, rows += 4 * CHUNK)
        place_64(_mm512_loadu_si512(rows), _mm512_loadu_si512(rows + row_nbytes),
                 _mm512_loadu_si512(rows + 2 * row_nbytes), _mm512_loadu_si512(rows + 3 * row_nbytes), quad);
}

/* ---------------------------------------------------------------- groups in order, of several rows or the
 * carry form */

/* q of the carry form, as unsigned bytes u = q + 128. */
enum { CARRY_OFFSET = 128 };

static void next_carry_group(struct source *source)
{
    mb_carry_rows_next(&source->walk, &source->view);
    if (source->view.is_raw)
        return;
    mb_carry_rows_indices(source->w, &source->view, (int8_t *)source->bytes);
    const __m512i offset = _mm512_set1_epi8((char)CARRY_OFFSET);
    for (size_t i = 0; i < source->view.n; i += 64) {
        __m512i q = _mm512_loadu_si512(source->bytes + i);
        _mm512_storeu_si512(source->bytes + i, _mm512_xor_si512(q, offset));
    }
}

static void next_group(struct source *source)
{
    source->next_row = 0;
    if (source->w->form == MB_FORM_CARRY) {
        next_carry_group(source);
        return;
    }
    mb_group_next(&source->walk, &source->view);
    if (!source->view.is_raw)
        mb_group_bytes_avx512(&source->view, source->bytes);
}

/* What is not in the codes of the source's next row, if anything. */
static bool find_uncoded(const struct source *source, struct uncoded *uncoded)
{
    const struct mb_group_view *view = &source->view;
    size_t n_cols = source->w->n_cols, elem_nbytes = mb_dtype_nbytes(source->w->dtype);
    size_t begin = source->next_row * n_cols, i;
    if (view->is_raw) {
        *uncoded = (struct uncoded){.raw = view->body + begin * elem_nbytes};
        return true;
    }
    size_t n = mb_find_row_outliers(view, begin, n_cols, 0, &i);
    *uncoded = (struct uncoded){.outlier_positions = view->outlier_positions + 2 * i,
                                .outlier_values = view->outlier_values + i * elem_nbytes,
                                .n_outliers = n,
                                .begin = begin};
    return n > 0;
}

static void fill_from_groups(struct source *source, struct tile *tile)
{
    size_t n_cols = source->w->n_cols;
    for (size_t slot = 0; slot < tile->n_rows; slot++, source->next_row++) {
        if (source->next_row == source->view.n_rows)
            next_group(source);
        struct uncoded *uncoded = &tile->uncoded[tile->n_uncoded];
        if (find_uncoded(source, uncoded)) {
            uncoded->slot = uncoded->row = slot;
            tile->n_uncoded++;
        }
        tile->offset[slot] =
            source->w->form == MB_FORM_CARRY ? CARRY_OFFSET : mb_offset_512(source->view.a, source->view.b);
        tile->slot_of_row[slot] = (uint32_t)slot;
        if (!source->view.is_raw)
            memcpy(source->rows + slot % 4 * source->row_nbytes, source->bytes + source->next_row * n_cols,
                   n_cols);
        if (slot % 4 == 3 || slot + 1 == tile->n_rows)
            place_quad(source->rows, source->row_nbytes, n_cols, tile->bytes + slot / 4 * 64);
    }
}

/* ---------------------------------------------------------------- groups of one row, by batches */

/* Four rows of width a straight to their quad. Returns what to prefetch next. */
MB_INLINE const uint8_t *decode_quad(unsigned a, const struct mb_batch_512 *batch, const uint32_t which[4],
                                     const uint8_t *tails, size_t n_cols, uint8_t *quad, const uint8_t *ahead)
{
    struct mb_body_512 body = mb_body_of_kind(a, 0); /* a <= 6: the same for all b */
    const uint8_t *codes[4], *tail[4];
    for (size_t i = 0; i < 4; i++) {
        codes[i] = batch->records + batch->body[which[i]];
        tail[i] = tails + batch->decoded_tail[which[i]];
    }
    __m512i u[4][2];
    size_t c = 0;
    for (; c + 128 <= n_cols; c += 128, quad += 8 * CHUNK_NBYTES, ahead += 64 * a) {
        mb_prefetch_to_512(ahead, 64 * a, batch->ahead_is_l2);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++) {
            mb_decode_128(codes[i], a, &body, &tail[i], u[i]);
            codes[i] += 16 * a;
        }
        place_64(u[0][0], u[1][0], u[2][0], u[3][0], quad);
        place_64(u[0][1], u[1][1], u[2][1], u[3][1], quad + 4 * CHUNK_NBYTES);
    }
    if (c < n_cols) {
        uint8_t last[4][2 * 128];
        for (size_t i = 0; i < 4; i++) {
            size_t at = mb_decode_last(codes[i], a, &body, n_cols - c, tail[i], u[i]);
            _mm512_storeu_si512(last[i], u[i][0]);
            _mm512_storeu_si512(last[i] + at, u[i][1]);
        }
        place_quad(last[0], sizeof last[0], n_cols - c, quad);
    }
    return ahead;
}

typedef const uint8_t *(*decode_quad_fn)(const struct mb_batch_512 *batch, const uint32_t which[4],
                                         const uint8_t *tails, size_t n_cols, uint8_t *quad,
                                         const uint8_t *ahead);

#define DECODE_QUAD(a)                                                                               \
    static const uint8_t *decode_quad_##a(const struct mb_batch_512 *batch, const uint32_t which[4], \
                                          const uint8_t *tails, size_t n_cols, uint8_t *quad,        \
                                          const uint8_t *ahead)                                      \
    {                                                                                                \
        return decode_quad(a, batch, which, tails, n_cols, quad, ahead);                             \
    }
MB_WIDTHS_1_TO_6(DECODE_QUAD)

static const decode_quad_fn decode_quad_of_width[] = {NULL, MB_NAMES_1_TO_6(decode_quad)};

/* Rows that do not come as a quad of one width wait in source->rows. */
struct filling {
    struct source *source;
    struct tile *tile;
    size_t slot; /* the next one */
};

/* Gives the next slot to 'row', whose bytes are among the source's rows. */
static void fill_slot(struct filling *f, size_t row, int64_t offset)
{
    struct source *source = f->source;
    f->tile->offset[f->slot] = offset;
    f->tile->slot_of_row[row] = (uint32_t)f->slot;
    f->slot++;
    if (f->slot % 4 == 0 || f->slot == f->tile->n_rows)
        place_quad(source->rows, source->row_nbytes, source->w->n_cols,
                   f->tile->bytes + (f->slot - 1) / 4 * 64);
}

static void fill_one(struct filling *f, const struct mb_batch_512 *batch, size_t i, size_t row)
{
    struct mb_group_view view = {.body = batch->records + batch->body[i],
                                 .tail = batch->records + batch->tail[i],
                                 .n = f->source->w->n_cols,
                                 .a = batch->a[i],
                                 .b = batch->b[i],
                                 .n_escapes = batch->n_escapes[i]};
    mb_group_bytes_avx512(&view, f->source->rows + f->slot % 4 * f->source->row_nbytes);
    fill_slot(f, row, batch->offset[i]);
}

/* Four rows of one width; 'row' is the batch's first row. Returns what to prefetch next. */
static const uint8_t *fill_four(struct filling *f, const struct mb_batch_512 *batch, const uint32_t which[4],
                                size_t row, const uint8_t *tails, const uint8_t *ahead)
{
    uint8_t *quad = f->tile->bytes + f->slot / 4 * 64;
    ahead = decode_quad_of_width[batch->a[which[0]]](batch, which, tails, f->source->w->n_cols, quad, ahead);
    for (size_t i = 0; i < 4; i++, f->slot++) {
        f->tile->offset[f->slot] = batch->offset[which[i]];
        f->tile->slot_of_row[row + which[i]] = (uint32_t)f->slot;
    }
    return ahead;
}

static void note_outliers(struct tile *tile, const struct mb_batch_512 *batch, size_t row)
{
    for (unsigned left = batch->has_outliers; left != 0; left &= left - 1) {
        size_t i = (size_t)__builtin_ctz(left);
        const uint8_t *positions = batch->records + batch->outliers[i];
        tile->uncoded[tile->n_uncoded++] =
            (struct uncoded){.slot = tile->slot_of_row[row + i],
                             .row = row + i,
                             .outlier_positions = positions,
                             .outlier_values = positions + 2 * (size_t)batch->n_outliers[i],
                             .n_outliers = batch->n_outliers[i]};
    }
}

/* The batch's rows, the first of which is 'row', ordered by width. */
static void fill_batch(struct filling *f, const struct mb_batch_512 *batch, size_t row)
{
    _Alignas(64) uint8_t tails[MB_TAILS_NBYTES + 64];
    uint32_t order[MB_BATCH + 16] = {0}; /* vectors are stored */
    size_t n_ordered = 0;
    for (__mmask16 left = mb_lanes_16(batch->n); left != 0;)
        n_ordered += mb_next_width_512(batch, &left, order + n_ordered);
    const uint8_t *ahead = mb_decode_tails_512(batch, tails);
    for (size_t i = 0; i < batch->n;) {
        unsigned width = batch->a[order[i]];
        if (f->slot % 4 == 0 && i + 4 <= batch->n && batch->a[order[i + 3]] == width && width >= 1 &&
            width <= 6) {
            ahead = fill_four(f, batch, order + i, row, tails, ahead);
            i += 4;
        } else {
            fill_one(f, batch, order[i], row + order[i]);
            i++;
        }
    }
    note_outliers(f->tile, batch, row);
}

static void fill_by_batches(struct source *source, struct tile *tile)
{
    struct filling f = {source, tile, 0};
    struct mb_batch_512 batch;
    size_t n_max = mb_batch_groups_512(source->w);
    while (f.slot < tile->n_rows) {
        size_t row = f.slot, n_left = tile->n_rows - row;
        if (mb_take_batch_512(&source->walk, n_left < n_max ? n_left : n_max, &batch) > 0) {
            fill_batch(&f, &batch, row);
            continue;
        }
        struct mb_group_view view;
        mb_group_next(&source->walk, &view);
        tile->uncoded[tile->n_uncoded++] = (struct uncoded){.slot = row, .row = row, .raw = view.body};
        fill_slot(&f, row, 0);
    }
}

/* ---------------------------------------------------------------- products */

/* Lane s is the sum of the four partial sums of slot s. */
static inline __m512i add_slots(const __m512i quad[QUADS])
{
    __m512i s01 =
        _mm512_add_epi32(_mm512_unpacklo_epi32(quad[0], quad[1]), _mm512_unpackhi_epi32(quad[0], quad[1]));
    __m512i s23 =
        _mm512_add_epi32(_mm512_unpacklo_epi32(quad[2], quad[3]), _mm512_unpackhi_epi32(quad[2], quad[3]));
    __m512i sums = _mm512_add_epi32(_mm512_unpacklo_epi64(s01, s23), _mm512_unpackhi_epi64(s01, s23));
    return _mm512_permutexvar_epi32(/* from slot by slot to quad by quad */
                                    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                    sums);
}

/* Sums of u X (256 hi + lo) of a tile's slots for some tokens, and of outliers. */
struct tile_sums {
    __m512i x[FAST_TOKENS][2];         /* eight slots each */
    __m512i total[FAST_TOKENS][QUADS]; /* of the blocks of a fast activation so far */
    double outliers[FAST_TOKENS][TILE_ROWS];
};

/* Lists outliers in the order of rows while all of a row fit; at most one for each chunk. */
static void list_outliers(enum mb_dtype dtype, size_t n_chunks, struct tile *tile)
{
    size_t n_max = n_chunks < OUTLIERS_BETWEEN ? n_chunks : OUTLIERS_BETWEEN;
    tile->n_outliers = tile->n_listed = 0;
    for (; tile->n_listed < tile->n_uncoded; tile->n_listed++) {
        const struct uncoded *uncoded = &tile->uncoded[tile->n_listed];
        if (tile->n_outliers + uncoded->n_outliers > n_max)
            return;
        for (size_t i = 0; i < uncoded->n_outliers; i++)
            tile->outliers[tile->n_outliers++] =
                (struct outlier){(double)mb_load_value(dtype, uncoded->outlier_values, i),
                                 (uint32_t)(mb_load_u16(uncoded->outlier_positions + 2 * i) - uncoded->begin),
                                 (uint32_t)uncoded->slot};
    }
}

static void clear_outliers(size_t n_tokens, struct tile_sums *sums)
{
    for (size_t t = 0; t < n_tokens; t++) {
        _mm512_storeu_pd(sums->outliers[t], _mm512_setzero_pd());
        _mm512_storeu_pd(sums->outliers[t] + 8, _mm512_setzero_pd());
    }
}

/* The k-th outlier of a tile that has so many. */
MB_INLINE void add_outlier(const struct tile *tile, size_t k, const struct mb_activation *x, size_t n_tokens,
                           bool is_fast, struct tile_sums *sums)
{
    if (k >= tile->n_outliers)
        return;
    const struct outlier *outlier = &tile->outliers[k];
#pragma GCC unroll 6
    for (size_t t = 0; t < n_tokens; t++) {
        int32_t value =
            is_fast ? mb_fast_narrow_value(x + t, outlier->column) : mb_narrow_value(x + t, outlier->column);
        sums->outliers[t][outlier->slot] += outlier->value * (double)value;
    }
}

/* 256 hi + lo. */
MB_INLINE __m512i of_planes(__m256i hi, __m256i lo)
{
    return _mm512_add_epi64(_mm512_slli_epi64(_mm512_cvtepi32_epi64(hi), 8), _mm512_cvtepi32_epi64(lo));
}

/*
 * The multiplying ports are busy for twelve cycles a round, the others for five: an outlier in each round
 * costs nothing.
 */
MB_INLINE void tile_product(const struct tile *tile, size_t n_chunks, const struct mb_activation *x,
                            size_t n_tokens, struct tile_sums *sums)
{
    const uint8_t *bytes = tile->bytes;
    clear_outliers(n_tokens, sums);
    __m512i hi[TILE_TOKENS][QUADS], lo[TILE_TOKENS][QUADS];
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
        for (size_t q = 0; q < QUADS; q++)
            hi[t][q] = lo[t][q] = _mm512_setzero_si512();
    for (size_t k = 0; k < n_chunks; k++, bytes += QUADS * 64) {
        add_outlier(tile, k, x, n_tokens, false, sums);
        __m512i u[QUADS];
#pragma GCC unroll 4
        for (size_t q = 0; q < QUADS; q++)
            u[q] = _mm512_load_si512(bytes + 64 * q);
#pragma GCC unroll 3
        for (size_t t = 0; t < n_tokens; t++) {
            __m512i h = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(x[t].hi + CHUNK * k)));
            __m512i l = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(x[t].lo + CHUNK * k)));
#pragma GCC unroll 4
            for (size_t q = 0; q < QUADS; q++) {
                hi[t][q] = mb_dot_512(hi[t][q], u[q], h);
                lo[t][q] = mb_dot_512(lo[t][q], u[q], l);
            }
        }
    }
#pragma GCC unroll 3
    for (size_t t = 0; t < n_tokens; t++) {
        __m512i h = add_slots(hi[t]), l = add_slots(lo[t]);
        sums->x[t][0] = of_planes(_mm512_castsi512_si256(h), _mm512_castsi512_si256(l));
        sums->x[t][1] = of_planes(_mm512_extracti64x4_epi64(h, 1), _mm512_extracti64x4_epi64(l, 1));
    }
}

MB_INLINE void clear_totals(size_t n_tokens, struct tile_sums *sums)
{
    for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
        for (size_t q = 0; q < QUADS; q++)
            _mm512_store_si512(&sums->total[t][q], _mm512_setzero_si512());
}

/* Lanes of two quads added in 64 bits: lane s of the result is slot s of their eight. */
MB_INLINE __m512i add_wide_slots(__m512i q0, __m512i q1)
{
    __m512i pairs0 =
        _mm512_add_epi64(_mm512_srai_epi64(q0, 32), _mm512_srai_epi64(_mm512_slli_epi64(q0, 32), 32));
    __m512i pairs1 =
        _mm512_add_epi64(_mm512_srai_epi64(q1, 32), _mm512_srai_epi64(_mm512_slli_epi64(q1, 32), 32));
    __m512i sums =
        _mm512_add_epi64(_mm512_unpacklo_epi64(pairs0, pairs1), _mm512_unpackhi_epi64(pairs0, pairs1));
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), sums);
}

/* Columns of fast activations whose products fit a lane of 32 bits: it takes four of each sixteen. */
enum { FAST_COLS = 2048 };
_Static_assert((int64_t)FAST_COLS / 4 * 255 * MB_FAST_MAX <= INT32_MAX, "a lane would overflow");

/*
 * The same for fast activations: one product a weight, and one more for each block, whose sums are added to
 * totals in memory.
 */
MB_INLINE void fast_product(const struct tile *tile, size_t n_chunks, const struct mb_activation *x,
                            size_t n_tokens, struct tile_sums *sums)
{
    enum { BLOCK_CHUNKS = MB_ACTIVATION_BLOCK / CHUNK, FAST_CHUNKS = FAST_COLS / CHUNK };
    const uint8_t *bytes = tile->bytes;
    const int8_t *plane[FAST_TOKENS];
    clear_outliers(n_tokens, sums);
    for (size_t t = 0; t < n_tokens; t++) {
        plane[t] = x[t].bytes;
        sums->x[t][0] = sums->x[t][1] = _mm512_setzero_si512();
    }
    for (size_t k = 0, end = 0; k < n_chunks;) {
        if (k == end) {
            end = k + FAST_CHUNKS < n_chunks ? k + FAST_CHUNKS : n_chunks;
            clear_totals(n_tokens, sums);
        }
        const size_t block = k / BLOCK_CHUNKS, block_end = k + BLOCK_CHUNKS < end ? k + BLOCK_CHUNKS : end;
        __m512i sum[FAST_TOKENS][QUADS];
#pragma GCC unroll 6
        for (size_t t = 0; t < n_tokens; t++)
#pragma GCC unroll 4
            for (size_t q = 0; q < QUADS; q++)
                sum[t][q] = _mm512_setzero_si512();
        for (; k < block_end; k++, bytes += CHUNK_NBYTES) {
            add_outlier(tile, k, x, n_tokens, true, sums);
            __m512i u[QUADS];
#pragma GCC unroll 4
            for (size_t q = 0; q < QUADS; q++) {
                u[q] = _mm512_load_si512(bytes + 64 * q);
                __asm__("" : "+v"(u[q])); /* gcc would load it for each token */
            }
#pragma GCC unroll 6
            for (size_t t = 0; t < n_tokens; t++) {
                __m512i v = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(plane[t] + CHUNK * k)));
#pragma GCC unroll 4
                for (size_t q = 0; q < QUADS; q++)
                    sum[t][q] = mb_dot_512(sum[t][q], u[q], v);
            }
        }
#pragma GCC unroll 6
        for (size_t t = 0; t < n_tokens; t++) {
            __m512i factor = _mm512_set1_epi32(x[t].factors[block]);
#pragma GCC unroll 4
            for (size_t q = 0; q < QUADS; q++) {
                __m512i product = _mm512_mullo_epi32(sum[t][q], factor);
                _mm512_store_si512(&sums->total[t][q], _mm512_add_epi32(product, sums->total[t][q]));
                __asm__("" ::: "memory"); /* gcc would collect totals in registers that it does not have */
            }
        }
        for (size_t t = 0; t < n_tokens && k == end; t++) {
            const __m512i *total = sums->total[t];
            sums->x[t][0] = _mm512_add_epi64(sums->x[t][0], add_wide_slots(total[0], total[1]));
            sums->x[t][1] = _mm512_add_epi64(sums->x[t][1], add_wide_slots(total[2], total[3]));
        }
    }
}

/* A function for each number of tokens, so that all sums stay in registers. */
#define TILE_PRODUCT(name, n_tokens)                                                          \
    MB_NOINLINE void name##_##n_tokens(const struct tile *tile, size_t n_chunks,              \
                                       const struct mb_activation *x, struct tile_sums *sums) \
    {                                                                                         \
        name(tile, n_chunks, x, n_tokens, sums);                                              \
    }
TILE_PRODUCT(tile_product, 1)
TILE_PRODUCT(tile_product, 2)
TILE_PRODUCT(tile_product, 3)
TILE_PRODUCT(fast_product, 1)
TILE_PRODUCT(fast_product, 2)
TILE_PRODUCT(fast_product, 3)
TILE_PRODUCT(fast_product, 4)
TILE_PRODUCT(fast_product, 5)
TILE_PRODUCT(fast_product, 6)

typedef void (*tile_product_fn)(const struct tile *tile, size_t n_chunks, const struct mb_activation *x,
                                struct tile_sums *sums);
static const tile_product_fn tile_product_of[2][FAST_TOKENS + 1] = {
    {NULL, tile_product_1, tile_product_2, tile_product_3},
    {NULL, fast_product_1, fast_product_2, fast_product_3, fast_product_4, fast_product_5, fast_product_6},
};

/* Adds the products of a token's k-th wide block with one of its planes. */
MB_INLINE void add_wide_block(const struct tile *tile, const struct mb_activation *x, size_t k,
                              const int8_t *plane, __m512i quad[QUADS])
{
    size_t first = (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK;
    const uint8_t *bytes = tile->bytes + first * (CHUNK_NBYTES / CHUNK);
    for (size_t c = 0; c < MB_ACTIVATION_BLOCK && first + c < tile->n_cols;
         c += CHUNK, bytes += CHUNK_NBYTES) {
        __m512i v = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(plane + c)));
#pragma GCC unroll 4
        for (size_t q = 0; q < QUADS; q++)
            quad[q] = mb_dot_512(quad[q], _mm512_load_si512(bytes + 64 * q), v);
    }
}

/* Adds 256 hi + lo of the wide blocks of a fast activation, whose one plane is 0 there. */
static void add_wide_planes(const struct tile *tile, const struct mb_activation *x, __m512i sums[2])
{
    __m512i hi[QUADS] = {0}, lo[QUADS] = {0};
    for (size_t k = 0; k < x->n_wide; k++) {
        size_t c = (size_t)x->wide_at[k] * MB_ACTIVATION_BLOCK;
        add_wide_block(tile, x, k, x->hi + c, hi);
        add_wide_block(tile, x, k, x->lo + c, lo);
    }
    __m512i h = add_slots(hi), l = add_slots(lo);
    sums[0] = _mm512_add_epi64(sums[0], of_planes(_mm512_castsi512_si256(h), _mm512_castsi512_si256(l)));
    sums[1] = _mm512_add_epi64(sums[1],
                               of_planes(_mm512_extracti64x4_epi64(h, 1), _mm512_extracti64x4_epi64(l, 1)));
}

/* The sums of q E of a tile's rows and one token: its wide blocks once more. */
static void tile_wide(const struct tile *tile, const struct mb_activation *x, int64_t wide[TILE_ROWS])
{
    __m512i sums[2], sum_e = _mm512_set1_epi64(x->wide_sum);
    for (size_t i = 0; i < 2; i++)
        sums[i] = _mm512_sub_epi64(_mm512_setzero_si512(),
                                   _mm512_mullo_epi64(_mm512_loadu_si512(tile->offset + 8 * i), sum_e));
    for (unsigned p = 0; p < x->n_wide_planes; p++) {
        __m512i quad[QUADS] = {0};
        for (size_t k = 0; k < x->n_wide; k++)
            add_wide_block(tile, x, k, mb_wide_planes(x, k) + p * MB_ACTIVATION_BLOCK, quad);
        __m512i rows = add_slots(quad);
        __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(rows));
        __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(rows, 1));
        sums[0] = _mm512_add_epi64(sums[0], _mm512_slli_epi64(low, 8 * p));
        sums[1] = _mm512_add_epi64(sums[1], _mm512_slli_epi64(high, 8 * p));
    }
    memcpy(wide, sums, sizeof sums);
}

/* Adds the wide parts of a token's products with outliers. */
static void add_wide_outliers(enum mb_dtype dtype, const struct tile *tile, const struct mb_activation *x,
                              double *outliers)
{
    const struct uncoded *end = tile->uncoded + tile->n_uncoded;
    for (const struct uncoded *uncoded = tile->uncoded; uncoded < end; uncoded++)
        if (uncoded->n_outliers > 0)
            outliers[uncoded->slot] +=
                mb_wide_outliers(dtype, uncoded->outlier_positions, uncoded->outlier_values,
                                 uncoded->n_outliers, uncoded->begin, x);
}

/* Eight slots of one token, finished: S step scale + O scale. s: of u X. 'wide': sums of q E, or NULL. */
static inline __m256 finish_8(__m512i s, const int64_t *wide, const int64_t *offset, const double *outliers,
                              const struct mb_coded_matrix *w, const struct mb_activation *x)
{
    __m512d scale = _mm512_set1_pd((double)x->scale);
    __m512i shift = _mm512_mullo_epi64(_mm512_loadu_si512(offset), _mm512_set1_epi64(x->sum));
    __m512d sum = _mm512_cvtepi64_pd(_mm512_sub_epi64(s, shift));
    if (wide != NULL) /* mb_sum_of_parts */
        sum = _mm512_add_pd(
            sum, _mm512_mul_pd(_mm512_cvtepi64_pd(_mm512_loadu_si512(wide)), _mm512_set1_pd(MB_WIDE_UNIT)));
    __m512d coded = _mm512_mul_pd(sum, _mm512_set1_pd((double)w->step));
    return _mm512_cvtpd_ps(
        _mm512_add_pd(_mm512_mul_pd(coded, scale), _mm512_mul_pd(_mm512_loadu_pd(outliers), scale)));
}

/* A tile's rows of up to three tokens. */
MB_INLINE void finish_tile(const struct mb_coded_matrix *w, const struct tile *tile, struct tile_sums *sums,
                           bool is_fast, const struct mb_activation *x, size_t n_tokens, float *y,
                           size_t y_stride)
{
    const struct uncoded *end = tile->uncoded + tile->n_uncoded;
    for (const struct uncoded *uncoded = tile->uncoded + tile->n_listed; uncoded < end; uncoded++)
        for (size_t i = 0; i < uncoded->n_outliers; i++)
            for (size_t t = 0; t < n_tokens; t++)
                sums->outliers[t][uncoded->slot] += mb_outlier_product(
                    w->dtype, uncoded->outlier_positions, uncoded->outlier_values, i, uncoded->begin, x + t);
    __mmask16 lanes = mb_lanes_16(tile->n_rows);
    __m512i slot_of_row = _mm512_loadu_si512(tile->slot_of_row);
    for (size_t t = 0; t < n_tokens; t++, x++, y += y_stride) {
        int64_t wide[TILE_ROWS];
        bool is_wide = x->n_wide > 0;
        if (is_wide) {
            if (is_fast)
                add_wide_planes(tile, x, sums->x[t]);
            tile_wide(tile, x, wide);
            add_wide_outliers(w->dtype, tile, x, sums->outliers[t]);
        }
        __m256 low = finish_8(sums->x[t][0], is_wide ? wide : NULL, tile->offset, sums->outliers[t], w, x);
        __m256 high =
            finish_8(sums->x[t][1], is_wide ? wide + 8 : NULL, tile->offset + 8, sums->outliers[t] + 8, w, x);
        __m512 slots = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
        _mm512_mask_storeu_ps(y, lanes, _mm512_permutexvar_ps(slot_of_row, slots));
        for (const struct uncoded *uncoded = tile->uncoded; uncoded < end; uncoded++)
            if (uncoded->raw != NULL)
                y[uncoded->row] = mb_raw_row_product_avx512(w->dtype, uncoded->raw, w->n_cols, x);
    }
}

/* As evenly as possible: few tokens at once use the ports less well. */
static size_t next_fast(size_t n_left)
{
    return n_left <= FAST_TOKENS ? n_left : n_left < 2 * FAST_TOKENS ? (n_left + 1) / 2 : FAST_TOKENS;
}

/*
 * A tile times all tokens.  Meanwhile the next tile's records are prefetched: about as many
 * bytes as this one's.
 */
static void multiply_tile(const struct mb_coded_matrix *w, struct tile *tile, const struct mb_activation *x,
                          size_t n_tokens, float *y, size_t y_stride, const uint8_t *next, size_t next_nbytes)
{
    size_t n_chunks = (w->n_cols + CHUNK - 1) / CHUNK;
    bool is_fast = mb_all_fast(x, n_tokens);
    list_outliers(w->dtype, n_chunks, tile);
    size_t n_together = is_fast ? FAST_TOKENS : TILE_TOKENS;
    size_t step_nbytes = next_nbytes / ((n_tokens + n_together - 1) / n_together) + 64;
    for (size_t t = 0, n; t < n_tokens; t += n, x += n, y += n * y_stride) {
        _mm_prefetch((const char *)next + PAGES_AHEAD_NBYTES, _MM_HINT_T1);
        next = mb_prefetch_lines(next, step_nbytes);
        size_t left = n_tokens - t;
        n = is_fast ? next_fast(left) : left == 4 || left == 2 ? 2 : left == 1 ? 1 : TILE_TOKENS;
        struct tile_sums sums;
        tile_product_of[is_fast][n](tile, n_chunks, x, &sums);
        finish_tile(w, tile, &sums, is_fast, x, n, y, y_stride);
    }
}

/*
 * A group, a tile, and up to four rows that wait for their quad, with slack.  The fused product of few tokens
 * needs less: two planes of each token.
 */
_Static_assert(TILE_ROWS + ROWS_WAITING >= 2 * MB_FUSED_TOKENS, "too little for the fused product");

size_t mb_matmul_scratch_nbytes_avx512(size_t n_cols)
{
    return mb_group_room(n_cols) + (TILE_ROWS + ROWS_WAITING) * mb_matmul_row_nbytes(n_cols) +
           MB_DECODED_SLACK;
}

void mb_matmul_avx512(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                      const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride,
                      void *scratch)
{
    /* The fused product is faster for so few: it writes nothing in between. */
    const bool is_carry = w->form == MB_FORM_CARRY;
    if (n_tokens <= MB_FUSED_TOKENS && !is_carry) {
        mb_matvecs_avx512(w, row, n_rows, x, n_tokens, y, y_stride, scratch);
        return;
    }
    if (n_rows == 0)
        return;
    size_t row_nbytes = mb_matmul_row_nbytes(w->n_cols);
    struct tile tile = {.bytes = (uint8_t *)scratch + mb_group_room(w->n_cols), .n_cols = w->n_cols};
    struct source source = {
        .w = w,
        .walk = is_carry ? mb_carry_rows_seek(w, row) : mb_group_seek(w, row),
        .bytes = scratch,
        .rows = tile.bytes + TILE_ROWS * row_nbytes,
        .row_nbytes = row_nbytes,
    };
    const bool by_batches = w->group_rows == 1 && !is_carry;
    if (!by_batches) {
        next_group(&source);
        source.next_row = (size_t)(row - source.view.row);
    }
    for (uint64_t done = 0; done < n_rows; done += tile.n_rows) {
        const uint8_t *begin = source.walk.record;
        tile.n_rows = n_rows - done < TILE_ROWS ? (size_t)(n_rows - done) : TILE_ROWS;
        tile.n_uncoded = 0;
        (by_batches ? fill_by_batches : fill_from_groups)(&source, &tile);
        const uint8_t *end = source.walk.record;
        multiply_tile(w, &tile, x, n_tokens, y + done, y_stride, end, (size_t)(end - begin));
    }
}
