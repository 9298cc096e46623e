/*
 * carry_make_avx2.c - a matrix of the patched form as one of the carry form (carry_avx2.h), and back to
 * indices.
 */
#include "carry_avx2.h"
#include "patched.h"
#include <stdlib.h>
#include <string.h>

enum { WIDTH_MIN = 2, WIDTH_MAX = 6 };

/* Half of the code space: what is added to q in even columns. */
MB_INLINE __m256i bias_of(unsigned a)
{
    int even = 1 << (a - 1);
    return _mm256_set1_epi16((short)(even | (even - 1) << 8));
}

/* ---------------------------------------------------------------- lists */

/* Columns of one list, in order; one is there as often as it counts. */
struct columns {
    uint16_t *at;
    size_t n, next;
    int last;
};

/* Both lists while they are written: gaps of plus and minus, without those in front. */
struct gaps {
    uint8_t *of[2];
    size_t n[2];
};

enum { GAP_MAX = 255 };

MB_INLINE int next_column(const struct columns *list, int none)
{
    return list->next < list->n ? list->at[list->next] : none;
}

MB_INLINE void add_gap(struct gaps *gaps, int i, struct columns *list, int column)
{
    gaps->of[i][gaps->n[i]++] = (uint8_t)(column - list->last);
    list->last = column;
}

/* The gaps of one list. False: one is too long. */
static bool list_to_gaps(const struct columns *list, uint8_t *gaps)
{
    int last = -1, longest = 0;
    for (size_t i = 0; i < list->n; i++) {
        int gap = list->at[i] - last;
        longest = gap > longest ? gap : longest;
        gaps[i] = (uint8_t)gap;
        last = list->at[i];
    }
    return longest <= GAP_MAX;
}

/*
 * The same for both, from left to right.  Where the nearest column is out of a list's reach, both lists get
 * an entry at the last column that is in reach of both.
 */
static void bridge_gaps(struct columns lists[2], struct gaps *gaps)
{
    const int none = 1 << 20;
    for (;;) {
        int plus = next_column(&lists[0], none), minus = next_column(&lists[1], none);
        int nearest = plus < minus ? plus : minus;
        if (nearest == none)
            return;
        int reach = (lists[0].last < lists[1].last ? lists[0].last : lists[1].last) + GAP_MAX;
        if (nearest > reach) {
            add_gap(gaps, 0, &lists[0], reach);
            add_gap(gaps, 1, &lists[1], reach);
        } else {
            int i = plus <= minus ? 0 : 1;
            add_gap(gaps, i, &lists[i], nearest);
            lists[i].next++;
        }
    }
}

static void columns_to_gaps(struct columns lists[2], struct gaps *gaps)
{
    if (list_to_gaps(&lists[0], gaps->of[0]) && list_to_gaps(&lists[1], gaps->of[1])) {
        gaps->n[0] = lists[0].n;
        gaps->n[1] = lists[1].n;
    } else {
        bridge_gaps(lists, gaps);
    }
}

/* Room for the entries of a row that is worth listing, 32 columns more (k <= 32), and bridges. */
enum { ENTRIES_MAX = MB_COLS_MAX / 2 + 2048 };

struct scratch {
    int8_t q[MB_GROUP_WEIGHTS_MAX + MB_CARRY_BLOCK + MB_DECODED_SLACK]; /* of a group of the patched form */
    int8_t row[MB_GROUP_WEIGHTS_MAX + MB_CARRY_BLOCK];                  /* 0 after the columns */
    uint16_t at[2][ENTRIES_MAX];
    uint8_t gaps[2][ENTRIES_MAX];
};

/* Adds the columns [c, c + 32) whose bit is set to their lists. False: they would be too many. */
static bool list_columns(const struct scratch *scratch, size_t c, uint32_t mask, unsigned a, size_t n_max,
                         struct columns lists[2])
{
    for (; mask != 0; mask &= mask - 1) {
        size_t column = c + (size_t)__builtin_ctz(mask);
        int bias = (1 << (a - 1)) - (int)(column & 1);
        int k = (scratch->row[column] + bias) >> a;
        size_t is_minus = k < 0, n = (size_t)abs(k);
        struct columns *list = &lists[is_minus];
        list->at[list->n++] = (uint16_t)column;
        for (size_t i = 1; i < n; i++)
            list->at[list->n++] = (uint16_t)column;
    }
    return lists[0].n <= n_max && lists[1].n <= n_max;
}

/*
 * Writes the body of scratch->row and its pairs.  0: the row is not worth it.  Else *n_pairs, and the bytes
 * of both.
 */
static size_t write_coded_row(struct scratch *scratch, size_t n_cols, unsigned a, uint8_t *out,
                              size_t *n_pairs)
{
    const size_t n_blocks = mb_carry_n_blocks(n_cols), body_nbytes = 16 * a * n_blocks;
    const size_t n_max = n_blocks * (16 * (MB_CARRY_BYTES - a)) / 2; /* together as long as bytes would be */
    struct columns lists[2] = {{scratch->at[0], 0, 0, -1}, {scratch->at[1], 0, 0, -1}};
    const __m256i bias = bias_of(a), most = _mm256_sub_epi8(_mm256_set1_epi8((char)((1 << a) - 1)), bias);
    const __m256i least = _mm256_sub_epi8(_mm256_setzero_si256(), bias);
    for (size_t block = 0; block < n_blocks; block++) {
        __m256i u[4];
        for (size_t k = 0; k < 4; k++) {
            size_t c = MB_CARRY_BLOCK * block + 32 * k;
            __m256i q = _mm256_loadu_si256((const __m256i *)(scratch->row + c));
            __m256i off = _mm256_or_si256(_mm256_cmpgt_epi8(q, most), _mm256_cmpgt_epi8(least, q));
            u[k] = _mm256_add_epi8(q, bias);
            if (!list_columns(scratch, c, (uint32_t)_mm256_movemask_epi8(off), a, n_max, lists))
                return 0;
        }
        mb_carry_pack(a, u, out + 16 * a * block);
    }
    struct gaps gaps = {{scratch->gaps[0], scratch->gaps[1]}, {0, 0}};
    columns_to_gaps(lists, &gaps);
    size_t n = gaps.n[0] > gaps.n[1] ? gaps.n[0] : gaps.n[1];
    *n_pairs = (n + 3) / 4 * 4;
    memset(out + body_nbytes, 0, 2 * *n_pairs);
    for (int i = 0; i < 2; i++) {
        size_t first = *n_pairs - gaps.n[i];
        for (size_t j = 0; j < gaps.n[i]; j++)
            out[body_nbytes + (first + j) / 4 * 8 + 4 * (size_t)i + (first + j) % 4] = gaps.of[i][j];
    }
    return body_nbytes + 2 * *n_pairs;
}

/* ---------------------------------------------------------------- matrices */

/* The carry form while it is written. */
struct making {
    const struct mb_coded_matrix *w;
    uint8_t *kinds, *pair_counts, *outlier_counts, *next_outlier_count, *record;
    struct mb_tile *tiles;
    size_t tile_rows;
    uint64_t row;
    unsigned n_more_bits;
    struct scratch scratch;
};

static void begin_tile(struct making *making, const uint8_t *data)
{
    if (making->row % making->tile_rows == 0)
        making->tiles[making->row / making->tile_rows] = (struct mb_tile){
            .data_pos = (uint64_t)(making->record - data),
            .first_outlier = (uint32_t)((making->next_outlier_count - making->outlier_counts) / 2),
        };
}

/* Copies the outliers of a row of a group of the patched form. */
static void add_outliers(struct making *making, const struct mb_group_view *group, size_t row_in_group,
                         size_t *next)
{
    const size_t n_cols = making->w->n_cols, begin = row_in_group * n_cols;
    const size_t value_nbytes = mb_dtype_nbytes(making->w->dtype);
    size_t first, n = mb_find_row_outliers(group, begin, n_cols, *next, &first);
    *next = first + n;
    if (n == 0)
        return;
    for (size_t i = 0; i < n; i++)
        mb_store_u16(making->record + 2 * i,
                     (uint16_t)(mb_load_u16(group->outlier_positions + 2 * (first + i)) - begin));
    memcpy(making->record + 2 * n, group->outlier_values + first * value_nbytes, n * value_nbytes);
    making->record += n * (2 + value_nbytes);
    mb_store_u16(making->next_outlier_count, (uint16_t)n);
    making->next_outlier_count += 2;
    making->kinds[making->row] |= MB_KIND_OUTLIERS;
}

static void add_raw_row(struct making *making, const uint8_t *values)
{
    size_t nbytes = making->w->n_cols * mb_dtype_nbytes(making->w->dtype);
    memcpy(making->record, values, nbytes);
    making->record += nbytes;
    making->kinds[making->row] = MB_KIND_RAW;
    mb_store_u16(making->pair_counts + 2 * making->row, 0);
}

/* 'q': a row's indices; 'a': the width that the patched form chose. */
static void add_coded_row(struct making *making, const int8_t *q, unsigned a)
{
    const size_t n_cols = making->w->n_cols, room = mb_carry_n_blocks(n_cols) * MB_CARRY_BLOCK;
    memcpy(making->scratch.row, q, n_cols);
    memset(making->scratch.row + n_cols, 0, room - n_cols);
    a = (a < WIDTH_MIN ? WIDTH_MIN : a) + making->n_more_bits;
    if (a > WIDTH_MAX && a - making->n_more_bits <= WIDTH_MAX)
        a = WIDTH_MAX;
    size_t n_pairs = 0;
    size_t nbytes =
        a > WIDTH_MAX ? 0 : write_coded_row(&making->scratch, n_cols, a, making->record, &n_pairs);
    if (nbytes == 0) {
        a = MB_CARRY_BYTES;
        nbytes = room;
        memcpy(making->record, making->scratch.row, room);
    }
    making->record += nbytes;
    making->kinds[making->row] = (uint8_t)a;
    mb_store_u16(making->pair_counts + 2 * making->row, (uint16_t)n_pairs);
}

static void add_group(struct making *making, const struct mb_group_view *group, const uint8_t *data)
{
    const size_t n_cols = making->w->n_cols;
    size_t next_outlier = 0;
    if (!group->is_raw)
        mb_group_indices_avx2(group, making->scratch.q);
    for (size_t r = 0; r < group->n_rows; r++, making->row++) {
        begin_tile(making, data);
        if (group->is_raw) {
            add_raw_row(making, group->body + r * n_cols * mb_dtype_nbytes(making->w->dtype));
        } else {
            add_coded_row(making, making->scratch.q + r * n_cols, group->a);
            add_outliers(making, group, r, &next_outlier);
        }
    }
}

static size_t tile_rows_of(size_t n_cols)
{
    size_t rows = MB_TILE_WEIGHTS / n_cols / 16 * 16;
    return rows < 16 ? 16 : rows;
}

static size_t n_tiles_of(const struct mb_coded_matrix *w)
{
    return (size_t)((w->n_rows + tile_rows_of(w->n_cols) - 1) / tile_rows_of(w->n_cols));
}

/* Tiles, then kinds, pair counts and outlier counts. */
static uint64_t directory_nbytes(const struct mb_coded_matrix *w)
{
    return n_tiles_of(w) * sizeof(struct mb_tile) + 5 * w->n_rows + MB_SLACK_NBYTES;
}

static uint64_t carry_nbytes_max(const struct mb_coded_matrix *w)
{
    if (mb_makes_stripes(w))
        return mb_stripes_nbytes_max(w);
    uint64_t value_nbytes = mb_dtype_nbytes(w->dtype);
    /* A coded row is no longer than its bytes, but for a pair a bridge and the rounding of lists. */
    uint64_t row_nbytes = MB_CARRY_BLOCK * mb_carry_n_blocks(w->n_cols) + w->n_cols * value_nbytes + 16;
    uint64_t n_outliers = w->data_nbytes / (2 + value_nbytes); /* each took as many bytes there */
    return directory_nbytes(w) + w->n_rows * row_nbytes + n_outliers * (2 + value_nbytes) + MB_SLACK_NBYTES;
}

static uint64_t carry_make(const struct mb_coded_matrix *w, unsigned n_more_bits, void *memory)
{
    if (mb_makes_stripes(w))
        return mb_stripes_make(w, n_more_bits, memory);
    struct making making = {
        .w = w, .n_more_bits = n_more_bits, .tiles = memory, .tile_rows = tile_rows_of(w->n_cols)};
    making.kinds = (uint8_t *)(making.tiles + n_tiles_of(w));
    making.pair_counts = making.kinds + w->n_rows;
    making.outlier_counts = making.next_outlier_count = making.pair_counts + 2 * w->n_rows;
    uint8_t *data = (uint8_t *)memory + directory_nbytes(w);
    making.record = data;
    struct mb_group_walk walk = mb_group_seek(w, 0);
    for (uint64_t group = 0; group < w->n_groups; group++) {
        struct mb_group_view view;
        mb_group_next(&walk, &view);
        add_group(&making, &view, data);
    }
    return (uint64_t)(making.record - (uint8_t *)memory) + MB_SLACK_NBYTES;
}

static struct mb_coded_matrix carry_view(const struct mb_coded_matrix *w, const void *memory, uint64_t nbytes)
{
    if (mb_makes_stripes(w))
        return mb_stripes_view(w, memory, nbytes);
    struct mb_coded_matrix view = *w;
    view.form = MB_FORM_CARRY;
    view.group_rows = 1;
    view.n_groups = w->n_rows;
    view.tile_groups = tile_rows_of(w->n_cols);
    view.n_tiles = n_tiles_of(w);
    view.tiles = memory;
    view.kinds = (const uint8_t *)(view.tiles + view.n_tiles);
    view.escape_counts = view.kinds + w->n_rows;
    view.outlier_counts = view.escape_counts + 2 * w->n_rows;
    view.data = (const uint8_t *)memory + directory_nbytes(w);
    view.data_nbytes = nbytes - MB_SLACK_NBYTES - directory_nbytes(w);
    return view;
}

const struct mb_resident_form mb_carry_form_avx2 = {carry_nbytes_max, carry_make, carry_view};

/* ---------------------------------------------------------------- back to indices */

static void add_carries(const struct mb_group_view *view, int8_t *q)
{
    const uint8_t *gaps = view->tail;
    const int full = 1 << view->a;
    int plus = -1, minus = -1;
    for (unsigned i = 0; i < view->n_escapes; i += 4, gaps += 8)
        for (unsigned k = 0; k < 4; k++) {
            plus += gaps[k];
            minus += gaps[4 + k];
            if (plus >= 0)
                q[plus] = (int8_t)(q[plus] + full);
            if (minus >= 0)
                q[minus] = (int8_t)(q[minus] - full);
        }
}

MB_INLINE void indices_of_width(unsigned a, const struct mb_group_view *view, size_t n_blocks, int8_t *q)
{
    const __m256i bias = bias_of(a);
    for (size_t block = 0; block < n_blocks; block++) {
        __m256i u[4];
        mb_carry_unpack(a, view->body + 16 * a * block, u);
        for (size_t k = 0; k < 4; k++)
            _mm256_storeu_si256((__m256i *)(q + MB_CARRY_BLOCK * block + 32 * k),
                                _mm256_sub_epi8(u[k], bias));
    }
    add_carries(view, q);
}

void mb_carry_indices_avx2(const struct mb_group_view *view, size_t n_cols, int8_t *q)
{
    size_t n_blocks = mb_carry_n_blocks(n_cols);
    switch (view->a) {
    case 2:
        indices_of_width(2, view, n_blocks, q);
        break;
    case 3:
        indices_of_width(3, view, n_blocks, q);
        break;
    case 4:
        indices_of_width(4, view, n_blocks, q);
        break;
    case 5:
        indices_of_width(5, view, n_blocks, q);
        break;
    case 6:
        indices_of_width(6, view, n_blocks, q);
        break;
    default:
        memcpy(q, view->body, n_blocks * MB_CARRY_BLOCK);
    }
}
