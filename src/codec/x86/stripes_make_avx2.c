/*
 * stripes_make_avx2.c - a matrix of the patched form as stripes (stripes_avx2.h), and back to indices.
 */
#include "by_width.h"
#include "carry_avx2.h"
#include <stdlib.h>
#include <string.h>

enum { WIDTH_MIN = 2, WIDTH_MAX = 6 };

/* Bytes of a row while a stripe is made, and of all eight. */
enum { ROW_ROOM = MB_STRIPE_COLS_MAX + 1, STRIPE_WEIGHTS = MB_STRIPE_ROWS * ROW_ROOM };

/*
 * Bits that an entry costs when a width is chosen: its own 16, and what its time is worth.  An entry takes as
 * long as some 60 weights, and one bit more makes a weight take a tenth longer: so many more where bytes are
 * cheap.
 */
enum { ENTRY_BITS_COMPACT = 32, ENTRY_BITS_FAST = 128 };

bool mb_makes_stripes(const struct mb_coded_matrix *w)
{
    return w->n_cols <= MB_STRIPE_COLS_MAX && memchr(w->kinds, MB_KIND_RAW, (size_t)w->n_groups) == NULL;
}

/* ---------------------------------------------------------------- one stripe */

struct stripe {
    int8_t q[STRIPE_WEIGHTS]; /* [8 rows][ROW_ROOM], 0 after rows and columns */
    size_t n_rows, n_outliers;
    uint16_t positions[STRIPE_WEIGHTS]; /* of outliers */
    uint8_t values[STRIPE_WEIGHTS * sizeof(float)];
};

/* Which of 32 indices are off in width a. */
MB_INLINE uint32_t mask_off(const int8_t *at, unsigned a)
{
    const __m256i most = _mm256_set1_epi8((char)((1 << (a - 1)) - 1));
    const __m256i least = _mm256_set1_epi8((char)-(1 << (a - 1)));
    __m256i q = _mm256_loadu_si256((const __m256i *)at);
    __m256i off = _mm256_or_si256(_mm256_cmpgt_epi8(q, most), _mm256_cmpgt_epi8(least, q));
    return (uint32_t)_mm256_movemask_epi8(off);
}

static size_t count_off(const struct stripe *stripe, size_t n_cols, unsigned a)
{
    size_t n = 0;
    for (size_t r = 0; r < MB_STRIPE_ROWS; r++)
        for (size_t c = 0; c < n_cols; c += 32)
            n += (size_t)_mm_popcnt_u32(mask_off(stripe->q + r * ROW_ROOM + c, a));
    return n;
}

static unsigned choose_width(const struct stripe *stripe, size_t n_cols, size_t entry_bits)
{
    const size_t n = MB_STRIPE_ROWS * n_cols;
    size_t fewest = MB_CARRY_BYTES * n;
    unsigned best = MB_CARRY_BYTES;
    for (unsigned a = WIDTH_MIN; a <= WIDTH_MAX; a++) {
        size_t bits = a * n + entry_bits * count_off(stripe, n_cols, a);
        if (bits < fewest) {
            fewest = bits;
            best = a;
        }
    }
    return best;
}

/*
 * Writes at most n_max entries; returns how many, or n_max + 1.  Neighbours are mostly of different rows, so
 * that kernels do not add to one sum again and again.
 */
static size_t write_entries(const struct stripe *stripe, size_t n_cols, unsigned a, size_t n_max,
                            uint8_t *out)
{
    const int half = 1 << (a - 1);
    size_t n = 0;
    for (size_t step = 0; step < MB_STRIPE_ROWS * ((n_cols + 31) / 32); step++) {
        size_t at = step % MB_STRIPE_ROWS * ROW_ROOM + step / MB_STRIPE_ROWS * 32;
        for (uint32_t mask = mask_off(stripe->q + at, a); mask != 0; mask &= mask - 1) {
            size_t i = at + (size_t)__builtin_ctz(mask);
            int k = (stripe->q[i] + half) >> a;
            size_t row = i / ROW_ROOM, sign = k < 0 ? MB_STRIPE_MINUS : 0;
            for (int left = abs(k); left > 0; left--) {
                if (n == n_max)
                    return n_max + 1;
                mb_store_u16(out + 2 * n++, (uint16_t)(i % ROW_ROOM | sign | row << MB_STRIPE_ROW_SHIFT));
            }
        }
    }
    return n;
}

/* The codes of columns [c, c + 16), as they are in a block. */
static void gather_block(const struct stripe *stripe, size_t c, __m256i q[4])
{
    _Alignas(32) int8_t codes[MB_CARRY_BLOCK];
    for (size_t r = 0; r < MB_STRIPE_ROWS; r++)
        for (size_t k = 0; k < 4; k++)
            memcpy(codes + 32 * k + 4 * r, stripe->q + r * ROW_ROOM + c + 4 * k, 4);
    for (size_t k = 0; k < 4; k++)
        q[k] = _mm256_load_si256((const __m256i *)(codes + 32 * k));
}

static void write_body(const struct stripe *stripe, size_t n_cols, unsigned a, uint8_t *out)
{
    const __m256i half = _mm256_set1_epi8(a == MB_CARRY_BYTES ? 0 : (char)(1 << (a - 1)));
    for (size_t block = 0; block < mb_stripe_n_blocks(n_cols); block++, out += 16 * a) {
        __m256i u[4];
        gather_block(stripe, MB_STRIPE_BLOCK_COLS * block, u);
        for (size_t k = 0; k < 4; k++)
            u[k] = _mm256_add_epi8(u[k], half);
        mb_carry_pack(a, u, out);
    }
}

/* ---------------------------------------------------------------- matrices */

struct making {
    const struct mb_coded_matrix *w;
    uint8_t *kinds, *entry_counts, *outlier_counts, *next_outlier_count, *data, *record;
    struct mb_tile *tiles;
    size_t tile_stripes, entry_bits;
    uint64_t n_done; /* stripes */
    struct stripe stripe;
    int8_t q[MB_GROUP_WEIGHTS * 2 + MB_DECODED_SLACK]; /* of a group of the patched form */
};

static void end_stripe(struct making *making)
{
    struct stripe *stripe = &making->stripe;
    const size_t n_cols = making->w->n_cols, n_blocks = mb_stripe_n_blocks(n_cols);
    const size_t value_nbytes = mb_dtype_nbytes(making->w->dtype), i = (size_t)making->n_done++;
    if (i % making->tile_stripes == 0)
        making->tiles[i / making->tile_stripes] = (struct mb_tile){
            .data_pos = (uint64_t)(making->record - making->data),
            .first_outlier = (uint32_t)((making->next_outlier_count - making->outlier_counts) / 2),
        };
    unsigned a = choose_width(stripe, n_cols, making->entry_bits);
    uint8_t *entries = making->record + 16 * a * n_blocks;
    size_t n_max = 16 * (MB_CARRY_BYTES - a) * n_blocks / 2, n = 0; /* together as long as bytes would be */
    if (a < MB_CARRY_BYTES && (n = write_entries(stripe, n_cols, a, n_max, entries)) > n_max) {
        a = MB_CARRY_BYTES;
        entries = making->record + 16 * a * n_blocks;
        n = 0;
    }
    write_body(stripe, n_cols, a, making->record);
    making->record = entries + 2 * n;
    mb_store_u16(making->entry_counts + 2 * i, (uint16_t)n);
    making->kinds[i] = (uint8_t)(a | (stripe->n_outliers > 0 ? MB_KIND_OUTLIERS : 0));
    if (stripe->n_outliers > 0) {
        for (size_t k = 0; k < stripe->n_outliers; k++)
            mb_store_u16(making->record + 2 * k, stripe->positions[k]);
        memcpy(making->record + 2 * stripe->n_outliers, stripe->values, stripe->n_outliers * value_nbytes);
        making->record += stripe->n_outliers * (2 + value_nbytes);
        mb_store_u16(making->next_outlier_count, (uint16_t)stripe->n_outliers);
        making->next_outlier_count += 2;
    }
    stripe->n_rows = stripe->n_outliers = 0;
}

static void add_row(struct making *making, const struct mb_group_view *group, size_t row_in_group,
                    size_t *next_outlier)
{
    struct stripe *stripe = &making->stripe;
    const size_t n_cols = making->w->n_cols, begin = row_in_group * n_cols;
    const size_t value_nbytes = mb_dtype_nbytes(making->w->dtype);
    memcpy(stripe->q + stripe->n_rows * ROW_ROOM, making->q + begin, n_cols);
    size_t first, n = mb_find_row_outliers(group, begin, n_cols, *next_outlier, &first);
    *next_outlier = first + n;
    for (size_t i = 0; i < n; i++)
        stripe->positions[stripe->n_outliers + i] =
            (uint16_t)(mb_load_u16(group->outlier_positions + 2 * (first + i)) - begin +
                       stripe->n_rows * n_cols);
    if (n > 0)
        memcpy(stripe->values + stripe->n_outliers * value_nbytes,
               group->outlier_values + first * value_nbytes, n * value_nbytes);
    stripe->n_outliers += n;
    stripe->n_rows++;
}

static size_t n_stripes_of(const struct mb_coded_matrix *w)
{
    return (size_t)((w->n_rows + MB_STRIPE_ROWS - 1) / MB_STRIPE_ROWS);
}

static size_t tile_stripes_of(size_t n_cols)
{
    return MB_TILE_WEIGHTS / n_cols / 16 * 16 / MB_STRIPE_ROWS;
}

static size_t n_tiles_of(const struct mb_coded_matrix *w)
{
    size_t tile_stripes = tile_stripes_of(w->n_cols);
    return (n_stripes_of(w) + tile_stripes - 1) / tile_stripes;
}

/* Tiles, then kinds, counts of entries and of outliers. */
static uint64_t directory_nbytes(const struct mb_coded_matrix *w)
{
    return n_tiles_of(w) * sizeof(struct mb_tile) + 5 * n_stripes_of(w) + MB_SLACK_NBYTES;
}

uint64_t mb_stripes_nbytes_max(const struct mb_coded_matrix *w)
{
    uint64_t value_nbytes = mb_dtype_nbytes(w->dtype);
    uint64_t n_outliers = w->data_nbytes / (2 + value_nbytes); /* each took as many bytes there */
    return directory_nbytes(w) + n_stripes_of(w) * MB_CARRY_BLOCK * mb_stripe_n_blocks(w->n_cols) +
           n_outliers * (2 + value_nbytes) + MB_SLACK_NBYTES;
}

uint64_t mb_stripes_make(const struct mb_coded_matrix *w, unsigned n_more_bits, void *memory)
{
    const size_t n_stripes = n_stripes_of(w);
    struct making making = {.w = w, .tiles = memory, .tile_stripes = tile_stripes_of(w->n_cols)};
    making.entry_bits = n_more_bits > 0 ? ENTRY_BITS_FAST : ENTRY_BITS_COMPACT;
    making.kinds = (uint8_t *)(making.tiles + n_tiles_of(w));
    making.entry_counts = making.kinds + n_stripes;
    making.outlier_counts = making.next_outlier_count = making.entry_counts + 2 * n_stripes;
    making.data = making.record = (uint8_t *)memory + directory_nbytes(w);
    struct mb_group_walk walk = mb_group_seek(w, 0);
    for (uint64_t i = 0; i < w->n_groups; i++) {
        struct mb_group_view group;
        size_t next_outlier = 0;
        mb_group_next(&walk, &group);
        mb_group_indices_avx2(&group, making.q);
        for (size_t r = 0; r < group.n_rows; r++) {
            add_row(&making, &group, r, &next_outlier);
            if (making.stripe.n_rows == MB_STRIPE_ROWS)
                end_stripe(&making);
        }
    }
    if (making.stripe.n_rows > 0) {
        size_t at = making.stripe.n_rows * ROW_ROOM;
        memset(making.stripe.q + at, 0, STRIPE_WEIGHTS - at);
        end_stripe(&making);
    }
    return (uint64_t)(making.record - (uint8_t *)memory) + MB_SLACK_NBYTES;
}

struct mb_coded_matrix mb_stripes_view(const struct mb_coded_matrix *w, const void *memory, uint64_t nbytes)
{
    struct mb_coded_matrix view = *w;
    view.form = MB_FORM_CARRY;
    view.group_rows = MB_STRIPE_ROWS;
    view.n_groups = n_stripes_of(w);
    view.tile_groups = tile_stripes_of(w->n_cols);
    view.n_tiles = n_tiles_of(w);
    view.tiles = memory;
    view.kinds = (const uint8_t *)(view.tiles + view.n_tiles);
    view.escape_counts = view.kinds + view.n_groups;
    view.outlier_counts = view.escape_counts + 2 * view.n_groups;
    view.data = (const uint8_t *)memory + directory_nbytes(w);
    view.data_nbytes = nbytes - MB_SLACK_NBYTES - directory_nbytes(w);
    return view;
}

/* ---------------------------------------------------------------- back to indices */

/* The first n_left columns of a block's rows to q. */
static void scatter_block(const __m256i codes[4], size_t n_rows, size_t n_cols, size_t n_left, int8_t *q)
{
    _Alignas(32) int8_t bytes[MB_CARRY_BLOCK];
    for (size_t k = 0; k < 4; k++)
        _mm256_store_si256((__m256i *)(bytes + 32 * k), codes[k]);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t k = 0; k < 4; k++) {
            size_t n = n_left < 4 * k ? 0 : n_left - 4 * k;
            memcpy(q + r * n_cols + 4 * k, bytes + 32 * k + 4 * r, n < 4 ? n : 4);
        }
}

static void add_entries(const struct mb_group_view *view, size_t n_cols, int8_t *q)
{
    const int full = 1 << view->a;
    for (size_t i = 0; i < view->n_escapes; i++) {
        unsigned entry = mb_load_u16(view->tail + 2 * i);
        int8_t *at = q + (entry >> MB_STRIPE_ROW_SHIFT) * n_cols + (entry & MB_STRIPE_COLUMN);
        *at = (int8_t)(*at + (entry & MB_STRIPE_MINUS ? -full : full));
    }
}

MB_INLINE void indices_of_width(unsigned a, const struct mb_group_view *view, size_t n_cols, int8_t *q)
{
    const __m256i half = _mm256_set1_epi8(a == MB_CARRY_BYTES ? 0 : (char)(1 << (a - 1)));
    const uint8_t *p = view->body;
    for (size_t c = 0; c < n_cols; c += MB_STRIPE_BLOCK_COLS, p += 16 * a) {
        __m256i codes[4];
        mb_carry_unpack(a, p, codes);
        for (size_t k = 0; k < 4; k++)
            codes[k] = _mm256_sub_epi8(codes[k], half);
        if (c + MB_STRIPE_BLOCK_COLS <= n_cols)
            scatter_block(codes, view->n_rows, n_cols, MB_STRIPE_BLOCK_COLS, q + c);
        else
            scatter_block(codes, view->n_rows, n_cols, n_cols - c, q + c);
    }
    add_entries(view, n_cols, q);
}

#define INDICES(a)                                                                           \
    MB_NOINLINE void indices_##a(const struct mb_group_view *view, size_t n_cols, int8_t *q) \
    {                                                                                        \
        indices_of_width(a, view, n_cols, q);                                                \
    }
MB_WIDTHS_2_TO_6(INDICES)
INDICES(8)

void mb_stripe_indices_avx2(const struct mb_group_view *view, size_t n_cols, int8_t *q)
{
    static void (*const of_width[])(const struct mb_group_view *, size_t,
                                    int8_t *) = {NULL, NULL, MB_NAMES_2_TO_6(indices), NULL, indices_8};
    of_width[view->a](view, n_cols, q);
}
