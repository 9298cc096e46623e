/*
 * carry_matvec_kernels.h - the fused product y = W x of the carry form (carry_avx2.h), of one token or a few,
 * written once for AVX2 and AVX-VNNI.
 *
 * Rows are taken in batches.  Rows of one width are multiplied one after another; then the sums of all rows
 * are added over their lanes and scaled, four at a time.  A block is unpacked once for all tokens, which meet
 * it in registers.  One token reads the lists between blocks of the body, so that scalar and vector units
 * work at the same time.
 *
 * Fast activations are multiplied as bytes, and each block's sums by its factor: half of the products of both
 * planes, and the same integers.  Their wide blocks, which bytes leave out, are added afterwards.
 *
 * A file that includes this has defined, for its instruction set:
 *   NAMED(name)      the name with the suffix of the instruction set
 *   multiply_plane   adds a block's products with four vectors of a plane to lanes of 32 bits
 *   add_signed       the same of 32 indices q, of any sign, with one
 *   add_scaled       adds pairs of 16-bit lanes, each times a factor, to lanes of 32 bits
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

/* Tokens that meet an unpacked block. */
enum { FEW_TOKENS = 4 };

/* Columns over which lanes of 32 bits suffice for fast activations; longer rows take both planes. */
enum { FAST_COLS_MAX = 16384, FAST_U_MAX = 63, FAST_FACTORS_MAX = FAST_COLS_MAX / MB_CARRY_BLOCK };
_Static_assert((int64_t)FAST_COLS_MAX / 8 * FAST_U_MAX * MB_FAST_MAX < INT32_MAX, "a lane would overflow");

/* A row whose body and lists are to be multiplied. */
struct task {
    const uint8_t *body, *pairs, *pairs_end;
    size_t row; /* among the pending ones */
};

struct row_outliers {
    const uint8_t *positions, *values;
    size_t n, row;
};

/* What a token adds up to. */
struct pending_token {
    struct sums sums[ROWS_PENDING]; /* of fast activations: all in lo */
    double offset[ROWS_PENDING];    /* what is added to the sums: whole numbers */
    int64_t wide[ROWS_PENDING];     /* sums of q E */
    double outliers[ROWS_PENDING];
};

/* Rows that were taken. */
struct pending {
    struct pending_token tokens[FEW_TOKENS];
    uint32_t factors[FAST_FACTORS_MAX][FEW_TOKENS]; /* of fast activations, in both halves */
    size_t n_tokens;
    bool is_fast;
    size_t n;
    struct row_outliers row_outliers[ROWS_PENDING];
    size_t n_row_outliers;
    struct task tasks[MB_CARRY_BYTES + 1][ROWS_PENDING]; /* by width */
    size_t n_tasks[MB_CARRY_BYTES + 1];
    const struct mb_coded_matrix *w;
    const struct mb_activation *x; /* [n_tokens] */
    float *y;                      /* of the first pending row and token */
    size_t y_stride;
};

/* 32 columns of a plane, and the next. */
MB_INLINE const __m256i *block_of(const int8_t *plane)
{
    return (const __m256i *)(const void *)plane;
}

/* What a row is multiplied with: the planes, or bytes and factors; and X by column from column -1 on. */
struct operand {
    const int8_t *hi[FEW_TOKENS], *lo[FEW_TOKENS]; /* or bytes, and none */
    const uint32_t (*factors)[FEW_TOKENS];         /* of the next block */
    const int32_t *columns[FEW_TOKENS];
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

/*
 * Adds a block's products with bytes, times the block's factor.  A pair's sum is at most 254 u, and a lane of
 * 16 bits holds 32767: four of u <= 31 (a = 5) fit, two of u <= 63.
 */
MB_INLINE void multiply_fast(unsigned a, const __m256i u[4], const __m256i x[4], __m256i factor, __m256i *sum)
{
    __m256i first = _mm256_add_epi16(_mm256_maddubs_epi16(u[0], x[0]), _mm256_maddubs_epi16(u[1], x[1]));
    __m256i second = _mm256_add_epi16(_mm256_maddubs_epi16(u[2], x[2]), _mm256_maddubs_epi16(u[3], x[3]));
    if (a <= 5) {
        *sum = add_scaled(*sum, _mm256_add_epi16(first, second), factor);
    } else {
        *sum = add_scaled(*sum, first, factor);
        *sum = add_scaled(*sum, second, factor);
    }
}

/* Adds the products of the block at p with the next block of x. */
MB_INLINE void multiply_block(unsigned a, size_t n_tokens, bool is_fast, const uint8_t *p, struct operand *x,
                              struct sums s[FEW_TOKENS])
{
    __m256i u[4];
    _mm_prefetch((const char *)p + AHEAD_NBYTES, _MM_HINT_T1);
    if (a > 4)
        _mm_prefetch((const char *)p + AHEAD_NBYTES + LINE_NBYTES, _MM_HINT_T1);
    mb_carry_unpack(a, p, u);
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++) {
        if (is_fast) {
            multiply_fast(a, u, block_of(x->hi[t]), _mm256_set1_epi32((int)(*x->factors)[t]), &s[t].lo);
        } else {
            multiply_plane(a, u, block_of(x->hi[t]), &s[t].hi);
            multiply_plane(a, u, block_of(x->lo[t]), &s[t].lo);
            x->lo[t] += MB_CARRY_BLOCK;
        }
        x->hi[t] += MB_CARRY_BLOCK;
    }
    x->factors += is_fast;
}

MB_INLINE void clear_sums(size_t n_tokens, struct sums s[FEW_TOKENS])
{
#pragma GCC unroll 4
    for (size_t t = 0; t < n_tokens; t++)
        s[t].hi = s[t].lo = _mm256_setzero_si256();
}

/* The sums of a row's body. */
MB_INLINE void multiply_body(unsigned a, size_t n_tokens, bool is_fast, const struct task *task,
                             const struct operand *operand, struct sums s[FEW_TOKENS])
{
    struct operand x = *operand;
    const uint8_t *p = task->body;
    const int8_t *const end = x.hi[0] + MB_CARRY_BLOCK * x.n_blocks;
    clear_sums(n_tokens, s);
    for (; x.hi[0] < end; p += 16 * a)
        multiply_block(a, n_tokens, is_fast, p, &x, s);
}

/*
 * The sums of a row with lists and one token, and *off: those of X in plus less those in minus.  A function
 * of its own: inside the loop over rows, compilers run out of registers.
 */
MB_INLINE void multiply_listed(unsigned a, bool is_fast, const struct task *task,
                               const struct operand *operand, struct sums *s, int64_t *off)
{
    const size_t pairs_a_block = a == 2 ? 8 : 4;
    struct operand x = *operand;
    const uint8_t *p = task->body, *gaps = task->pairs;
    const uint8_t *const last = task->pairs_end - 2 * pairs_a_block;
    const int32_t *const columns = x.columns[0];
    const int8_t *const end = x.hi[0] + MB_CARRY_BLOCK * x.n_blocks;
    struct lists lists = {0, 0, 0, 0};
    struct sums sums[FEW_TOKENS];
    clear_sums(1, sums);
    while (x.hi[0] < end) {
        multiply_block(a, 1, is_fast, p, &x, sums);
        p += 16 * a;
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
    *s = sums[0];
    *off = (int64_t)lists.plus_sum - lists.minus_sum;
}

#define MULTIPLY_LISTED(a)                                                                                 \
    MB_NOINLINE void multiply_listed_##a(const struct task *task, const struct operand *x, struct sums *s, \
                                         int64_t *off)                                                     \
    {                                                                                                      \
        multiply_listed(a, false, task, x, s, off);                                                        \
    }                                                                                                      \
    MB_NOINLINE void multiply_listed_fast_##a(const struct task *task, const struct operand *x,            \
                                              struct sums *s, int64_t *off)                                \
    {                                                                                                      \
        multiply_listed(a, true, task, x, s, off);                                                         \
    }
MB_WIDTHS_2_TO_6(MULTIPLY_LISTED)

static void (*const multiply_listed_of_width[2][7])(const struct task *, const struct operand *,
                                                    struct sums *, int64_t *) = {
    {NULL, NULL, MB_NAMES_2_TO_6(multiply_listed)}, {NULL, NULL, MB_NAMES_2_TO_6(multiply_listed_fast)}};

/* The same for n_tokens tokens, of the lists alone. */
MB_INLINE void add_lists(size_t n_tokens, const struct task *task, const int32_t *const columns[FEW_TOKENS],
                         int64_t off[FEW_TOKENS])
{
    uint64_t plus = 0, minus = 0;
    for (const uint8_t *gaps = task->pairs; gaps < task->pairs_end; gaps += 8)
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++) {
            plus += gaps[i];
            minus += gaps[4 + i];
#pragma GCC unroll 4
            for (size_t t = 0; t < n_tokens; t++)
                off[t] += (int64_t)columns[t][plus] - columns[t][minus];
        }
    for (const uint8_t *ahead = task->pairs; ahead < task->pairs_end; ahead += LINE_NBYTES)
        _mm_prefetch((const char *)ahead + AHEAD_NBYTES, _MM_HINT_T1);
}

static struct operand operand_of(const struct pending *pending)
{
    struct operand operand = {.factors = pending->factors, .n_blocks = mb_carry_n_blocks(pending->w->n_cols)};
    for (size_t t = 0; t < pending->n_tokens; t++) {
        const struct mb_activation *x = &pending->x[t];
        operand.hi[t] = pending->is_fast ? x->bytes : x->hi;
        operand.lo[t] = x->lo;
        operand.columns[t] = x->columns - 1;
    }
    return operand;
}

MB_INLINE void multiply_rows(unsigned a, size_t n_tokens, bool is_fast, struct pending *pending)
{
    const struct operand operand = operand_of(pending);
    for (const struct task *task = pending->tasks[a]; task < pending->tasks[a] + pending->n_tasks[a];
         task++) {
        int64_t off[FEW_TOKENS] = {0};
        /* Sums that one branch keeps in registers and the other in memory would be stored twice. */
        if (n_tokens == 1 && task->pairs < task->pairs_end) {
            multiply_listed_of_width[is_fast][a](task, &operand, &pending->tokens[0].sums[task->row], off);
        } else {
            struct sums s[FEW_TOKENS];
            multiply_body(a, n_tokens, is_fast, task, &operand, s);
            if (task->pairs < task->pairs_end)
                add_lists(n_tokens, task, operand.columns, off);
#pragma GCC unroll 4
            for (size_t t = 0; t < n_tokens; t++)
                pending->tokens[t].sums[task->row] = s[t];
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < n_tokens; t++) {
            const struct mb_activation *x = &pending->x[t];
            const int64_t bias = x->sum * (1 << (a - 1)) - x->odd_sum;
            pending->tokens[t].offset[task->row] = (double)(off[t] * (1 << a) - bias);
        }
    }
}

/* ---------------------------------------------------------------- wide blocks */

/* A block's products with a plane, added up. */
MB_INLINE int64_t plane_sum(unsigned a, const __m256i u[4], const int8_t *plane)
{
    __m256i s = _mm256_setzero_si256();
    multiply_plane(a, u, block_of(plane), &s);
    return mb_add_lanes_avx2(s);
}

/* The sums of q E of all rows of width a, from the wide blocks alone, and what fast bytes leave out there. */
MB_INLINE void multiply_wide_rows(unsigned a, struct pending *pending, size_t t)
{
    const struct mb_activation *x = &pending->x[t];
    const int64_t bias = x->wide_sum * (1 << (a - 1)) - x->wide_odd_sum;
    const int32_t *const columns[FEW_TOKENS] = {x->wide_columns - 1};
    for (const struct task *task = pending->tasks[a]; task < pending->tasks[a] + pending->n_tasks[a];
         task++) {
        int64_t off[FEW_TOKENS] = {0}, narrow = 0;
        add_lists(1, task, columns, off);
        int64_t sum = off[0] * (1 << a) - bias;
        for (size_t k = 0; k < x->n_wide; k++) {
            __m256i u[4];
            mb_carry_unpack(a, task->body + 16 * a * (size_t)x->wide_at[k], u);
            const int8_t *planes = mb_wide_planes(x, k);
            for (size_t p = 0; p < x->n_wide_planes; p++, planes += MB_CARRY_BLOCK)
                sum += plane_sum(a, u, planes) * ((int64_t)1 << 8 * p);
            if (pending->is_fast) {
                const size_t c = MB_CARRY_BLOCK * (size_t)x->wide_at[k];
                narrow += 256 * plane_sum(a, u, x->hi + c) + plane_sum(a, u, x->lo + c);
            }
        }
        pending->tokens[t].wide[task->row] = sum;
        pending->tokens[t].offset[task->row] += (double)narrow;
    }
}

/* A function for each width, number of tokens, and kind of activations. */
#define MULTIPLY(name, a, n_tokens, is_fast)             \
    MB_NOINLINE void name##_##a(struct pending *pending) \
    {                                                    \
        multiply_rows(a, n_tokens, is_fast, pending);    \
        for (size_t t = 0; t < (n_tokens); t++)          \
            if (pending->x[t].n_wide > 0)                \
                multiply_wide_rows(a, pending, t);       \
    }
#define MULTIPLY_BOTH(a, n_tokens)                    \
    MULTIPLY(multiply_##n_tokens, a, n_tokens, false) \
    MULTIPLY(multiply_fast_##n_tokens, a, n_tokens, true)
#define MULTIPLY_ALL(a) MULTIPLY_BOTH(a, 1) MULTIPLY_BOTH(a, 2) MULTIPLY_BOTH(a, 3) MULTIPLY_BOTH(a, 4)
MB_WIDTHS_2_TO_6(MULTIPLY_ALL)

static void multiply_bytes(struct pending *pending)
{
    const size_t n = mb_carry_n_blocks(pending->w->n_cols) * MB_CARRY_BLOCK;
    for (size_t i = 0; i < pending->n_tasks[MB_CARRY_BYTES] * pending->n_tokens; i++) {
        const struct task *task = &pending->tasks[MB_CARRY_BYTES][i / pending->n_tokens];
        const struct mb_activation *x = &pending->x[i % pending->n_tokens];
        struct pending_token *token = &pending->tokens[i % pending->n_tokens];
        struct sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (size_t c = 0; c < n; c += 32) {
            __m256i q = _mm256_loadu_si256((const __m256i *)(task->body + c));
            s.hi = add_signed(s.hi, q, *block_of(x->hi + c));
            s.lo = add_signed(s.lo, q, *block_of(x->lo + c));
        }
        token->sums[task->row] = s;
        token->offset[task->row] = 0;
        token->wide[task->row] = 0;
        for (size_t k = 0; k < x->n_wide; k++)
            token->wide[task->row] +=
                mb_wide_sum_avx2((const int8_t *)task->body + MB_CARRY_BLOCK * (size_t)x->wide_at[k],
                                 mb_wide_planes(x, k), x->n_wide_planes);
    }
}

typedef void (*multiply_fn)(struct pending *pending);
#define MULTIPLY_NAMES(n_tokens)                                                        \
    {                                                                                   \
        {NULL, NULL, MB_NAMES_2_TO_6(multiply_##n_tokens), NULL, multiply_bytes},       \
        {                                                                               \
            NULL, NULL, MB_NAMES_2_TO_6(multiply_fast_##n_tokens), NULL, multiply_bytes \
        }                                                                               \
    }
static const multiply_fn multiply_of[FEW_TOKENS + 1][2][MB_CARRY_BYTES + 1] = {
    {{NULL}}, MULTIPLY_NAMES(1), MULTIPLY_NAMES(2), MULTIPLY_NAMES(3), MULTIPLY_NAMES(4)};

/* ---------------------------------------------------------------- batches */

/* What E adds to four sums. Rounded as mb_sum_of_parts rounds it: once, when both parts meet. */
static __m256d wide_4(const int64_t *wide)
{
    const double unit = MB_WIDE_UNIT;
    return _mm256_setr_pd(unit * (double)wide[0], unit * (double)wide[1], unit * (double)wide[2],
                          unit * (double)wide[3]);
}

/* A token's results of four rows from the first-th pending one on. S is exact in double: below 2^53. */
static __m128 results_4(const struct pending *pending, size_t t, size_t first)
{
    const struct pending_token *token = &pending->tokens[t];
    const struct mb_activation *x = &pending->x[t];
    __m256d s = _mm256_add_pd(mb_row_sums_4(token->sums + first), _mm256_loadu_pd(token->offset + first));
    if (x->n_wide > 0)
        s = _mm256_add_pd(s, wide_4(token->wide + first));
    return mb_results_4(s, _mm256_loadu_pd(token->outliers + first), pending->w->step, x->scale);
}

/*
 * mb_outliers of a row of bf16.  Few rows have more than four, and a branch for each number below would often
 * be mispredicted: those that are missing have the value 0, which changes no sum that began with 0.
 */
static double bf16_outliers(const struct row_outliers *row, const struct mb_activation *x)
{
    const uint64_t columns =
        _bzhi_u64(mb_load_u64(row->positions), (unsigned)(row->n < 4 ? 16 * row->n : 64));
    const uint64_t values = _bzhi_u64(mb_load_u64(row->values), (unsigned)(row->n < 4 ? 16 * row->n : 64));
    double sum = 0;
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        const float value = mb_float_of_bits((uint32_t)(values >> 16 * i & 0xffff) << 16);
        sum += (double)value * (double)x->columns[columns >> 16 * i & 0xffff];
    }
    for (size_t i = 4; i < row->n; i++)
        sum += (double)mb_load_value(MB_BF16, row->values, i) *
               (double)x->columns[mb_load_u16(row->positions + 2 * i)];
    if (x->n_wide > 0)
        sum += mb_wide_outliers(MB_BF16, row->positions, row->values, row->n, 0, x);
    return sum;
}

static void finish_token(struct pending *pending, size_t t)
{
    struct pending_token *token = &pending->tokens[t];
    float *out = pending->y + t * pending->y_stride;
    const bool is_bf16 = pending->w->dtype == MB_BF16;
    for (size_t r = pending->n; r % 4 != 0; r++) { /* finished with the others, and not used */
        token->sums[r].hi = token->sums[r].lo = _mm256_setzero_si256();
        token->offset[r] = token->outliers[r] = 0;
        token->wide[r] = 0;
    }
    for (const struct row_outliers *row = pending->row_outliers;
         row < pending->row_outliers + pending->n_row_outliers; row++)
        token->outliers[row->row] =
            is_bf16 ? bf16_outliers(row, &pending->x[t])
                    : mb_outliers(pending->w->dtype, row->positions, row->values, row->n, 0, &pending->x[t]);
    for (size_t first = 0; first < pending->n; first += 4) {
        float y[4];
        size_t left = pending->n - first;
        _mm_storeu_ps(left >= 4 ? out + first : y, results_4(pending, t, first));
        if (left < 4)
            memcpy(out + first, y, left * sizeof y[0]);
    }
}

static void flush(struct pending *pending)
{
    for (unsigned a = 0; a <= MB_CARRY_BYTES; a++)
        if (pending->n_tasks[a] > 0) {
            multiply_fn multiply = multiply_of[pending->n_tokens][pending->is_fast][a];
            assert(multiply != NULL); /* the loader makes no row of another width */
            multiply(pending);
            pending->n_tasks[a] = 0;
        }
    for (size_t t = 0; t < pending->n_tokens; t++)
        finish_token(pending, t);
    pending->y += pending->n;
    pending->n = pending->n_row_outliers = 0;
}

static void take_row(struct pending *pending, const struct mb_group_view *view)
{
    size_t row = pending->n++;
    pending->tasks[view->a][pending->n_tasks[view->a]++] =
        (struct task){view->body, view->tail, view->tail + 2 * view->n_escapes, row};
    for (size_t t = 0; t < pending->n_tokens; t++)
        pending->tokens[t].outliers[row] = 0;
    /* Without a branch: the processor cannot predict whether a row has outliers. */
    pending->row_outliers[pending->n_row_outliers] =
        (struct row_outliers){view->outlier_positions, view->outlier_values, view->n_outliers, row};
    pending->n_row_outliers += view->n_outliers > 0;
}

static void take_raw_row(struct pending *pending, const uint8_t *values)
{
    for (size_t t = 0; t < pending->n_tokens; t++)
        pending->y[t * pending->y_stride] =
            mb_raw_row_product(pending->w->dtype, values, pending->w->n_cols, &pending->x[t]);
    pending->y++;
}

static void take_factors(struct pending *pending)
{
    const size_t n_blocks = mb_carry_n_blocks(pending->w->n_cols);
    for (size_t t = 0; t < pending->n_tokens; t++)
        for (size_t i = 0; i < n_blocks; i++)
            pending->factors[i][t] = pending->x[t].factors[i] * 0x10001u;
}

/* Rows [row, end) times at most FEW_TOKENS tokens. */
static void multiply_few(const struct mb_coded_matrix *w, uint64_t row, uint64_t end,
                         const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride)
{
    struct pending pending;
    pending.n = pending.n_row_outliers = 0;
    memset(pending.n_tasks, 0, sizeof pending.n_tasks);
    pending.w = w;
    pending.x = x;
    pending.n_tokens = n_tokens;
    pending.is_fast = w->n_cols <= FAST_COLS_MAX && mb_all_fast(x, n_tokens);
    pending.y = y;
    pending.y_stride = y_stride;
    if (pending.is_fast)
        take_factors(&pending);
    struct mb_group_walk walk = mb_carry_seek(w, row);
    for (; row < end; row++) {
        struct mb_group_view view;
        mb_carry_next(&walk, &view);
        if (pending.n == ROWS_PENDING || (view.is_raw && pending.n > 0))
            flush(&pending);
        if (view.is_raw)
            take_raw_row(&pending, view.body);
        else
            take_row(&pending, &view);
    }
    flush(&pending);
}

/* More tokens take turns on a tile, which stays in the cache meanwhile; as evenly as possible. */
void NAMED(mb_carry_matmul)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                            const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride)
{
    if (n_rows == 0 || n_tokens == 0)
        return;
    const size_t n_turns = (n_tokens + FEW_TOKENS - 1) / FEW_TOKENS;
    const uint64_t end = row + n_rows, tile_rows = n_turns == 1 ? end : w->tile_groups;
    for (uint64_t at = row, stop; at < end; at = stop) {
        stop = (at / tile_rows + 1) * tile_rows;
        stop = stop < end ? stop : end;
        for (size_t t = 0, n, turn = n_turns; t < n_tokens; t += n, turn--) {
            n = (n_tokens - t + turn - 1) / turn;
            multiply_few(w, at, stop, x + t, n, y + t * y_stride + (at - row), y_stride);
        }
    }
}

void NAMED(mb_carry_matvec)(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                            const struct mb_activation *x, float *y)
{
    (mb_is_striped(w) ? NAMED(mb_stripes_matmul) : NAMED(mb_carry_matmul))(w, row, n_rows, x, 1, y, 0);
}
