/*
 * carry_matvec_kernels.h - the fused product y = W x of the carry form (carry_avx2.h), written once for AVX2
 * and AVX-VNNI.
 *
 * Rows are taken in batches.  Rows of one width are multiplied one after another; then the sums of all rows
 * are added over their lanes and scaled, four at a time.  The lists are read between blocks of the body, so
 * that scalar and vector units work at the same time.
 *
 * A file that includes this has defined, for its instruction set:
 *   NAMED(name)      the name with the suffix of the instruction set
 *   multiply_plane   adds a block's products with four vectors of a plane to lanes of 32 bits
 *   add_signed       the same of 32 indices q, of any sign, with one
 */
#include "by_width.h"
#include "carry_avx2.h"
#include "row_ends_avx2.h"
#include <assert.h>
#include <string.h>

/*
 * Memory is prefetched in order, line by line, so far ahead of a batch: rows of one width are not neighbours,
 * and hardware sees no stream.
 */
enum { ROWS_PENDING = 32, AHEAD_NBYTES = 24576, LINE_NBYTES = 64 };

/* A row whose body and lists are to be multiplied. */
struct task {
    const uint8_t *body, *pairs, *pairs_end;
    size_t row; /* among the pending ones */
};

struct row_outliers {
    const uint8_t *positions, *values;
    size_t n, row;
};

/* Rows that were taken. */
struct pending {
    struct sums sums[ROWS_PENDING];
    double offset[ROWS_PENDING]; /* what is added to the sums: whole numbers */
    int64_t wide[ROWS_PENDING];  /* sums of q E */
    double outliers[ROWS_PENDING];
    size_t n;
    struct row_outliers row_outliers[ROWS_PENDING];
    size_t n_row_outliers;
    struct task tasks[MB_CARRY_BYTES + 1][ROWS_PENDING]; /* by width */
    size_t n_tasks[MB_CARRY_BYTES + 1];
    const struct mb_coded_matrix *w;
    const struct mb_activation *x;
    float *y; /* of the first pending row */
};

/* 32 columns of a plane, and the next. */
MB_INLINE const __m256i *block_of(const int8_t *plane)
{
    return (const __m256i *)(const void *)plane;
}

/* What rows are multiplied with: the planes, and X by column from column -1 on. */
struct operand {
    const int8_t *hi, *lo;
    const int32_t *columns;
    size_t n_blocks;
};

/* Places in both lists, and the sums of X there. */
struct lists {
    uint64_t plus, minus; /* not pointers: a scaled lea takes two cycles on Zen */
    int32_t plus_sum, minus_sum;
};

/* The next four pairs. */
MB_INLINE void add_pairs_4(const uint8_t *gaps, const int32_t *columns, struct lists *lists)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        lists->plus += gaps[i];
        __asm__("" : "+r"(lists->plus));
        lists->plus_sum += columns[lists->plus];
        lists->minus += gaps[4 + i];
        __asm__("" : "+r"(lists->minus));
        lists->minus_sum += columns[lists->minus];
    }
}

/* Adds the products of the block at p. */
MB_INLINE void multiply_block(unsigned a, const uint8_t *p, const int8_t *hi, const int8_t *lo,
                              struct sums *s)
{
    __m256i u[4];
    _mm_prefetch((const char *)p + AHEAD_NBYTES, _MM_HINT_T1);
    if (a > 4)
        _mm_prefetch((const char *)p + AHEAD_NBYTES + LINE_NBYTES, _MM_HINT_T1);
    mb_carry_unpack(a, p, u);
    multiply_plane(a, u, block_of(hi), &s->hi);
    multiply_plane(a, u, block_of(lo), &s->lo);
}

/* The sums of a row that lists nothing. */
MB_INLINE struct sums multiply_body(unsigned a, const struct task *task, const struct operand *x)
{
    const uint8_t *p = task->body;
    const int8_t *hi = x->hi, *lo = x->lo, *const end = hi + MB_CARRY_BLOCK * x->n_blocks;
    struct sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (; hi < end; hi += MB_CARRY_BLOCK, lo += MB_CARRY_BLOCK, p += 16 * a)
        multiply_block(a, p, hi, lo, &s);
    return s;
}

/*
 * The sums of a row with lists, and *off: those of X in plus less those in minus.  A function of its own:
 * inside the loop over rows, compilers run out of registers.
 */
MB_INLINE struct sums multiply_listed(unsigned a, const struct task *task, const struct operand *x,
                                      int64_t *off)
{
    const size_t pairs_a_block = a == 2 ? 8 : 4;
    const uint8_t *p = task->body, *gaps = task->pairs;
    const uint8_t *const last = task->pairs_end - 2 * pairs_a_block;
    const int8_t *hi = x->hi, *lo = x->lo, *const end = hi + MB_CARRY_BLOCK * x->n_blocks;
    const int32_t *const columns = x->columns;
    struct sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    struct lists lists = {0, 0, 0, 0};
    for (; hi < end; hi += MB_CARRY_BLOCK, lo += MB_CARRY_BLOCK, p += 16 * a) {
        multiply_block(a, p, hi, lo, &s);
        if (gaps <= last) {
#pragma GCC unroll 2
            for (size_t k = 0; k < pairs_a_block; k += 4, gaps += 8)
                add_pairs_4(gaps, columns, &lists);
        }
    }
    for (; gaps <= last + 2 * pairs_a_block - 8; gaps += 8)
        add_pairs_4(gaps, columns, &lists);
    for (const uint8_t *ahead = task->pairs; ahead < gaps; ahead += LINE_NBYTES)
        _mm_prefetch((const char *)ahead + AHEAD_NBYTES, _MM_HINT_T1);
    *off = (int64_t)lists.plus_sum - lists.minus_sum;
    return s;
}

#define MULTIPLY_LISTED(a)                                                                        \
    MB_NOINLINE struct sums multiply_listed_##a(const struct task *task, const struct operand *x, \
                                                int64_t *off)                                     \
    {                                                                                             \
        return multiply_listed(a, task, x, off);                                                  \
    }
MB_WIDTHS_2_TO_6(MULTIPLY_LISTED)

static struct sums (*const multiply_listed_of_width[])(const struct task *, const struct operand *,
                                                       int64_t *) = {NULL, NULL,
                                                                     MB_NAMES_2_TO_6(multiply_listed)};

MB_INLINE void multiply_rows(unsigned a, struct pending *pending)
{
    const struct mb_activation *x = pending->x;
    const struct operand operand = {x->hi, x->lo, x->columns - 1, mb_carry_n_blocks(pending->w->n_cols)};
    const int64_t bias = x->sum * (1 << (a - 1)) - x->odd_sum;
    for (const struct task *task = pending->tasks[a]; task < pending->tasks[a] + pending->n_tasks[a];
         task++) {
        int64_t off = 0;
        pending->sums[task->row] = task->pairs == task->pairs_end
                                       ? multiply_body(a, task, &operand)
                                       : multiply_listed_of_width[a](task, &operand, &off);
        pending->offset[task->row] = (double)(off * (1 << a) - bias);
    }
}

/* ---------------------------------------------------------------- wide blocks */

/* The sum of E at the places of plus less that at those of minus. */
static int64_t lists_of_wide(const struct task *task, const int32_t *wide_columns)
{
    const int32_t *x = wide_columns - 1;
    uint64_t plus = 0, minus = 0;
    int64_t sum = 0;
    for (const uint8_t *gaps = task->pairs; gaps < task->pairs_end; gaps += 8)
        for (size_t i = 0; i < 4; i++) {
            plus += gaps[i];
            minus += gaps[4 + i];
            sum += (int64_t)x[plus] - x[minus];
        }
    return sum;
}

/* The sums of q E of all rows of width a, from the wide blocks alone. */
MB_INLINE void multiply_wide_rows(unsigned a, struct pending *pending)
{
    const struct mb_activation *x = pending->x;
    const int64_t bias = x->wide_sum * (1 << (a - 1)) - x->wide_odd_sum;
    for (const struct task *task = pending->tasks[a]; task < pending->tasks[a] + pending->n_tasks[a];
         task++) {
        int64_t sum = lists_of_wide(task, x->wide_columns) * (1 << a) - bias;
        for (size_t k = 0; k < x->n_wide; k++) {
            __m256i u[4];
            mb_carry_unpack(a, task->body + 16 * a * (size_t)x->wide_at[k], u);
            const int8_t *planes = mb_wide_planes(x, k);
            for (size_t p = 0; p < x->n_wide_planes; p++, planes += MB_CARRY_BLOCK) {
                __m256i s = _mm256_setzero_si256();
                multiply_plane(a, u, block_of(planes), &s);
                sum += (int64_t)mb_add_lanes_avx2(s) * ((int64_t)1 << 8 * p);
            }
        }
        pending->wide[task->row] = sum;
    }
}

#define MULTIPLY(a)                                        \
    MB_NOINLINE void multiply_##a(struct pending *pending) \
    {                                                      \
        multiply_rows(a, pending);                         \
        if (pending->x->n_wide > 0)                        \
            multiply_wide_rows(a, pending);                \
    }
MB_WIDTHS_2_TO_6(MULTIPLY)

static void multiply_bytes(struct pending *pending)
{
    const size_t n = mb_carry_n_blocks(pending->w->n_cols) * MB_CARRY_BLOCK;
    for (size_t i = 0; i < pending->n_tasks[MB_CARRY_BYTES]; i++) {
        const struct task *task = &pending->tasks[MB_CARRY_BYTES][i];
        struct sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (size_t c = 0; c < n; c += 32) {
            __m256i q = _mm256_loadu_si256((const __m256i *)(task->body + c));
            s.hi = add_signed(s.hi, q, *block_of(pending->x->hi + c));
            s.lo = add_signed(s.lo, q, *block_of(pending->x->lo + c));
        }
        pending->sums[task->row] = s;
        pending->offset[task->row] = 0;
        pending->wide[task->row] = 0;
        for (size_t k = 0; k < pending->x->n_wide; k++)
            pending->wide[task->row] +=
                mb_wide_sum_avx2((const int8_t *)task->body + MB_CARRY_BLOCK * (size_t)pending->x->wide_at[k],
                                 mb_wide_planes(pending->x, k), pending->x->n_wide_planes);
    }
}

static void (*const multiply_of_width[])(struct pending *) = {NULL, NULL, MB_NAMES_2_TO_6(multiply), NULL,
                                                              multiply_bytes};

/* ---------------------------------------------------------------- batches */

/* What E adds to four sums. Rounded as mb_sum_of_parts rounds it: once, when both parts meet. */
static __m256d wide_4(const int64_t *wide)
{
    const double unit = MB_WIDE_UNIT;
    return _mm256_setr_pd(unit * (double)wide[0], unit * (double)wide[1], unit * (double)wide[2],
                          unit * (double)wide[3]);
}

/* The results of four rows from the first-th pending one on. S is exact in double: it is below 2^53. */
static __m128 results_4(const struct pending *pending, size_t first)
{
    __m256d s = _mm256_add_pd(mb_row_sums_4(pending->sums + first), _mm256_loadu_pd(pending->offset + first));
    if (pending->x->n_wide > 0)
        s = _mm256_add_pd(s, wide_4(pending->wide + first));
    return mb_results_4(s, _mm256_loadu_pd(pending->outliers + first), pending->w->step, pending->x->scale);
}

static void flush(struct pending *pending)
{
    for (unsigned a = 0; a <= MB_CARRY_BYTES; a++)
        if (pending->n_tasks[a] > 0) {
            assert(multiply_of_width[a] != NULL); /* the loader makes no row of another width */
            multiply_of_width[a](pending);
            pending->n_tasks[a] = 0;
        }
    for (size_t r = pending->n; r % 4 != 0; r++) { /* finished with the others, and not used */
        pending->sums[r].hi = pending->sums[r].lo = _mm256_setzero_si256();
        pending->offset[r] = pending->outliers[r] = 0;
        pending->wide[r] = 0;
    }
    for (const struct row_outliers *row = pending->row_outliers;
         row < pending->row_outliers + pending->n_row_outliers; row++)
        pending->outliers[row->row] =
            mb_outliers(pending->w->dtype, row->positions, row->values, row->n, 0, pending->x);
    for (size_t first = 0; first < pending->n; first += 4) {
        float y[4];
        size_t left = pending->n - first;
        _mm_storeu_ps(left >= 4 ? pending->y + first : y, results_4(pending, first));
        if (left < 4)
            memcpy(pending->y + first, y, left * sizeof y[0]);
    }
    pending->y += pending->n;
    pending->n = pending->n_row_outliers = 0;
}

static void take_row(struct pending *pending, const struct mb_group_view *view)
{
    size_t row = pending->n++;
    pending->tasks[view->a][pending->n_tasks[view->a]++] =
        (struct task){view->body, view->tail, view->tail + 2 * view->n_escapes, row};
    pending->outliers[row] = 0;
    /* Without a branch: the processor cannot predict whether a row has outliers. */
    pending->row_outliers[pending->n_row_outliers] =
        (struct row_outliers){view->outlier_positions, view->outlier_values, view->n_outliers, row};
    pending->n_row_outliers += view->n_outliers > 0;
}

void NAMED(mb_carry_matvec)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                            const struct mb_activation *x, float *y)
{
    if (n_rows == 0)
        return;
    if (mb_is_striped(w)) {
        NAMED(mb_stripes_matmul)(w, row, n_rows, x, 1, y, 0);
        return;
    }
    struct pending pending;
    pending.n = pending.n_row_outliers = 0;
    memset(pending.n_tasks, 0, sizeof pending.n_tasks);
    pending.w = w;
    pending.x = x;
    pending.y = y;
    struct mb_group_walk walk = mb_carry_seek(w, row);
    for (uint64_t end = row + n_rows; row < end; row++) {
        struct mb_group_view view;
        mb_carry_next(&walk, &view);
        if (pending.n == ROWS_PENDING || (view.is_raw && pending.n > 0))
            flush(&pending);
        if (view.is_raw)
            *pending.y++ = mb_raw_row_product(w->dtype, view.body, w->n_cols, x);
        else
            take_row(&pending, &view);
    }
    flush(&pending);
}
