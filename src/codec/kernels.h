/*
 * kernels.h - what all kernel tables share: kinds, sizes of records, and the walk over row groups.
 */
#ifndef MB_CODEC_KERNELS_H
#define MB_CODEC_KERNELS_H

#include "base/bytes.h"
#include "base/dispatch.h"
#include "base/value.h"
#include <moebius/codec.h>

enum {
    MB_KIND_RAW = 81,
    MB_KIND_OUTLIERS = 0x80,
    MB_WIDTH_MAX = 8,
    MB_GROUP_WEIGHTS_MAX = MB_COLS_MAX, /* one row of the most columns, or less than 1024 + 1023 weights */
    MB_TILE_WEIGHTS = 32768,            /* 16 rows where that is more */
    MB_ACTIVATION_MAX = 32639,          /* 127 * 256 + 127: hi and lo both fit a signed byte */
    MB_FAST_MAX = 16383,                /* of fast activations: factors up to 129 */
    MB_DECODED_SLACK = 192, /* readable and writable bytes that vector kernels need after decoded weights */
};

/* Where a tile (whole row groups, about 32 Ki weights, 16 rows or more) begins. */
struct mb_tile {
    uint64_t data_pos;      /* in the matrix's records */
    uint32_t first_outlier; /* index into outlier_counts of the tile's first flagged group */
};

/* Bytes of a decoded row in a matmul's scratch memory. */
static inline size_t mb_matmul_row_nbytes(size_t n_cols)
{
    return (n_cols + 127) / 128 * 128;
}

/* Room for the decoded bytes of one group (of short rows: eight, x86/stripes_avx2.h), and for vectors that
 * end after them. */
static inline size_t mb_group_room(size_t n_cols)
{
    size_t rows = mb_group_rows(n_cols);
    return ((rows > 1 && rows < 8 ? 8 : rows) * n_cols + MB_DECODED_SLACK + 63) / 64 * 64;
}

/*
 * What the products of a table must do with activations (mb_activation in codec.h).  S, the sum of q X over a
 * row, is exact, whatever the order:
 *
 *     S = sum q (256 hi + lo) + 32768 sum q E        the second sum over the wide blocks alone
 *
 * Each plane's sum of q or of u = q + offset <= 255 fits 32 bits: 65535 * 255 * 128 < 2^31.  The second sum
 * is below 2^53.  Both meet once, at the end of a row (mb_sum_of_parts).  Most vectors have no wide block,
 * and a kernel's loop should not see them; real models have the same one to three in all their tokens, so
 * that a kernel must multiply them while it has the decoded block, or decodes these blocks once more, and not
 * the row.  Tokens of one matmul differ in their blocks.  Outliers and raw rows of a matrix meet the whole X
 * (mb_activation_value).  The rows of matvec_transposed are the elements of x: few have an E that is not 0.
 */
extern const struct mb_kernels mb_kernels_scalar;
extern const struct mb_kernels mb_kernels_avx2;
extern const struct mb_kernels mb_kernels_avxvnni;
extern const struct mb_kernels mb_kernels_avx512;
extern const struct mb_kernels mb_kernels_zen4;

/* What the architecture has, slowest first (x86/tables.c, generic/tables.c). */
extern const struct mb_dispatch_table mb_codec_tables[];

/* The widths of a kind byte, which is not raw. */
static inline unsigned mb_kind_a(uint8_t kind)
{
    return (kind & 0x7fu) / 9;
}

static inline unsigned mb_kind_b(uint8_t kind)
{
    return (kind & 0x7fu) % 9;
}

/* M and T of the format. */
static inline int mb_inner_max(unsigned a)
{
    return a == 0 ? 0 : (1 << (a - 1)) - 1;
}

static inline int mb_tail_half(unsigned b)
{
    return b == 0 ? 0 : 1 << (b - 1);
}

static inline bool mb_kind_is_legal(uint8_t kind)
{
    unsigned a = mb_kind_a(kind), b = mb_kind_b(kind);
    if (kind == MB_KIND_RAW)
        return true;
    return a <= MB_WIDTH_MAX && (a > 0 || b == 0) && mb_inner_max(a) + mb_tail_half(b) <= 127;
}

static inline size_t mb_bits_nbytes(size_t n, unsigned width)
{
    return (n * width + 7) / 8;
}

/* Codes of a word of at most 8 bytes, as many as are a whole number of bytes. */
static inline unsigned mb_word_codes(unsigned width)
{
    return width <= 4 ? 16 : 8;
}

/* The lowest bit of each of them. */
static inline uint64_t mb_lowest_bits(unsigned width)
{
    uint64_t bits = 0;
    for (unsigned k = 0; k < mb_word_codes(width); k++)
        bits |= (uint64_t)1 << (k * width);
    return bits;
}

/* As count_full_codes of a table, a word at a time: what vectors leave over. */
size_t mb_count_full_codes_scalar(const uint8_t *stream, size_t n, unsigned width);

/* Where the parts of a row group's record are. */
struct mb_group_view {
    const uint8_t *body; /* of raw groups: the original values */
    const uint8_t *tail;
    const uint8_t *outlier_positions; /* [n_outliers] uint16, unaligned */
    const uint8_t *outlier_values;    /* [n_outliers] of the matrix's dtype, unaligned */
    const uint8_t *end;               /* of the record */
    uint64_t row;                     /* its first row */
    size_t n_rows;
    size_t n; /* weights */
    unsigned a, b;
    unsigned n_escapes, n_outliers;
    bool is_raw;
};

/* A walk over groups in order. */
struct mb_group_walk {
    const struct mb_coded_matrix *w;
    uint64_t group;               /* the next one */
    const uint8_t *record;        /* its record */
    const uint8_t *outlier_count; /* of the next flagged group */
};

/* Takes the next group (the caller knows that there is one). */
static inline void mb_group_next(struct mb_group_walk *walk, struct mb_group_view *view)
{
    const struct mb_coded_matrix *w = walk->w;
    uint64_t group = walk->group++;
    uint8_t kind = w->kinds[group];
    view->row = group * w->group_rows;
    view->n_rows = w->n_rows - view->row < w->group_rows ? (size_t)(w->n_rows - view->row) : w->group_rows;
    view->n = view->n_rows * w->n_cols;
    view->body = walk->record;
    view->is_raw = kind == MB_KIND_RAW;
    view->n_outliers = 0;
    if (view->is_raw) {
        view->a = view->b = view->n_escapes = 0;
        view->tail = view->end = walk->record + view->n * mb_dtype_nbytes(w->dtype);
    } else {
        view->a = mb_kind_a(kind);
        view->b = mb_kind_b(kind);
        view->n_escapes = mb_load_u16(w->escape_counts + 2 * group);
        view->tail = walk->record + mb_bits_nbytes(view->n, view->a);
        view->end = view->tail + mb_bits_nbytes(view->n_escapes, view->b);
    }
    /* About every third row has outliers: without a branch, which would be mispredicted. */
    unsigned flag = kind >> 7;
    view->n_outliers = flag * mb_load_u16(walk->outlier_count);
    walk->outlier_count += 2 * flag;
    view->outlier_positions = view->end;
    view->outlier_values = view->end + 2 * (size_t)view->n_outliers;
    view->end = view->outlier_values + view->n_outliers * mb_dtype_nbytes(w->dtype);
    walk->record = view->end;
}

/*
 * The directory has a few bytes a group, too few for the hardware prefetcher to see that they are read in
 * order: waiting for them would cost 6 % of a product from memory.  n_ahead is a number of groups, enough for
 * some microseconds.
 */
enum { MB_GROUPS_AHEAD = 128, MB_TILES_AHEAD = 8 };

static inline void mb_prefetch_directory(const struct mb_group_walk *walk, size_t n_ahead)
{
    __builtin_prefetch(walk->w->kinds + walk->group + n_ahead);
    __builtin_prefetch(walk->w->escape_counts + 2 * (walk->group + n_ahead));
    __builtin_prefetch(walk->outlier_count + n_ahead); /* half of the groups or less have one */
}

/* A walk that begins at the group of 'row' (row < n_rows): from its tile, over the groups before it. */
static inline struct mb_group_walk mb_group_seek(const struct mb_coded_matrix *w, uint64_t row)
{
    uint64_t group = row / w->group_rows, tile = group / w->tile_groups;
    __builtin_prefetch(w->tiles + tile + MB_TILES_AHEAD); /* for the rows that come next: as the directory */
    struct mb_group_walk walk = {
        .w = w,
        .group = tile * w->tile_groups,
        .record = w->data + w->tiles[tile].data_pos,
        .outlier_count = w->outlier_counts + 2 * (size_t)w->tiles[tile].first_outlier,
    };
    struct mb_group_view skipped;
    while (walk.group < group)
        mb_group_next(&walk, &skipped);
    return walk;
}

/* E of element i, which is 0 outside wide blocks. Not for loops over all elements. */
int32_t mb_wide_value(const struct mb_activation *x, size_t i);

/* The part of X that all blocks have. */
static inline int32_t mb_narrow_value(const struct mb_activation *x, size_t i)
{
    return 256 * x->hi[i] + x->lo[i];
}

/* The same of a fast activation, from memory that its products read anyway. */
static inline int32_t mb_fast_narrow_value(const struct mb_activation *x, size_t i)
{
    return x->n_wide > 0 ? mb_narrow_value(x, i) : x->factors[i / MB_ACTIVATION_BLOCK] * x->bytes[i];
}

/* X, below 2^46; it has at most 24 significant bits, so that its product with a float is exact in double. */
static inline double mb_activation_value(const struct mb_activation *x, size_t i)
{
    double narrow = mb_narrow_value(x, i);
    return x->n_wide == 0 ? narrow : narrow + (double)MB_WIDE_UNIT * mb_wide_value(x, i);
}

/* Whether one plane is enough for all blocks that are not wide. */
static inline bool mb_all_fast(const struct mb_activation *x, size_t n_tokens)
{
    for (size_t t = 0; t < n_tokens; t++)
        if (x[t].bytes == NULL)
            return false;
    return n_tokens > 0;
}

/* The planes of a vector's k-th wide block. */
static inline const int8_t *mb_wide_planes(const struct mb_activation *x, size_t k)
{
    return x->wide + k * x->n_wide_planes * MB_ACTIVATION_BLOCK;
}

/*
 * S from its parts, which are exact: the sum of q (256 hi + lo), below 2^38, and that of q E, below 2^53.  It
 * is rounded to double once.
 */
static inline double mb_sum_of_parts(int64_t narrow, int64_t wide)
{
    return (double)narrow + (double)MB_WIDE_UNIT * (double)wide;
}

/* The narrow part of an outlier's product; 'begin' is the row's first position in its group. */
static inline double mb_outlier_product(enum mb_dtype dtype, const uint8_t *positions, const uint8_t *values,
                                        size_t i, size_t begin, const struct mb_activation *x)
{
    size_t c = mb_load_u16(positions + 2 * i) - begin;
    return (double)mb_load_value(dtype, values, i) * (double)mb_narrow_value(x, c);
}

/*
 * The wide part of n outliers' products: 32768 times the sum of (double)w E, in order.  It is added to the
 * sum of the narrow parts, for activations with wide blocks alone.
 */
double mb_wide_outliers(enum mb_dtype dtype, const uint8_t *positions, const uint8_t *values, size_t n,
                        size_t begin, const struct mb_activation *x);

/* The same of a raw row. */
double mb_wide_raw_row(enum mb_dtype dtype, const uint8_t *values, size_t n_cols,
                       const struct mb_activation *x);

/* Products of raw rows and of outliers, which no instruction set speeds up; scalar.c says their order. */
float mb_raw_row_product(enum mb_dtype dtype, const uint8_t *values, size_t n_cols,
                         const struct mb_activation *x);

/* The sum of a row's n outliers; 'begin' is the row's first position in its group. */
double mb_outliers(enum mb_dtype dtype, const uint8_t *positions, const uint8_t *values, size_t n,
                   size_t begin, const struct mb_activation *x);

/*
 * The outliers of a row of a view: how many, and *first, the first of them.  Outliers before 'from' are known
 * to belong to earlier rows.
 */
static inline size_t mb_find_row_outliers(const struct mb_group_view *view, size_t begin, size_t n_cols,
                                          size_t from, size_t *first)
{
    while (from < view->n_outliers && mb_load_u16(view->outlier_positions + 2 * from) < begin)
        from++;
    *first = from;
    while (from < view->n_outliers && mb_load_u16(view->outlier_positions + 2 * from) < begin + n_cols)
        from++;
    return from - *first;
}

/* The sum of a row's outliers, from the view's *next on; *next moves on to the next row's. */
double mb_row_outliers(enum mb_dtype dtype, const struct mb_group_view *view, size_t n_cols,
                       size_t row_in_group, unsigned *next, const struct mb_activation *x);

#endif
