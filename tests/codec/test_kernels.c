/*
 * test_kernels.c - every kernel of every instruction set gives the scalar kernel's bits, on hard row groups
 * that no encoder would choose, from and to buffers that end (or begin) at an unmapped page.
 */
#include "base/cpu.h"
#include "cmocka_all.h"
#include "codec/decode.h"
#include "codec/encode.h"
#include "codec/patched.h"
#include "guarded.h"
#include "matrices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stands for a: each group has its own widths. */
enum { MIXED_WIDTHS = 99 };

/* What the indices of a matrix look like. CLUSTERS, LAST_CLUSTER: few escapes, but 40 in a row. */
enum pattern {
    LARGEST,
    SMALLEST,
    ESCAPES,
    CLUSTERS,
    LAST_CLUSTER,
    MIXED,
    ONE_OUTLIER,
    MANY_OUTLIERS,
    EVERY_SECOND_RAW,
    N_PATTERNS
};

/*
 * A coded matrix made by hand; its records and its directory are guarded and have exactly the slack that
 * kernels may read.
 */
struct sample {
    struct mb_coded_matrix w;
    struct guarded data, directory;
    struct mb_tile *tiles;
    uint64_t seed;
};

static int pick_index(enum pattern pattern, bool in_cluster, unsigned a, unsigned b, uint64_t *seed)
{
    int inner = mb_inner_max(a), outer = inner + mb_tail_half(b);
    uint64_t dice = test_random(seed);
    if (pattern == LARGEST)
        return outer;
    if (pattern == SMALLEST)
        return -outer;
    int magnitude = inner == 0 ? 0 : (int)(dice % (unsigned)(inner + 1));
    bool is_escape = pattern == ESCAPES || in_cluster;
    if (pattern != CLUSTERS && pattern != LAST_CLUSTER)
        is_escape = is_escape || (dice >> 32) % 8 == 0;
    if (outer > inner && is_escape)
        magnitude = inner + 1 + (int)(dice % (unsigned)(outer - inner));
    return dice >> 40 & 1 ? -magnitude : magnitude;
}

/* Writes a group's record; returns its bytes. */
static size_t make_group(struct sample *s, enum pattern pattern, size_t group, size_t n, unsigned a,
                         unsigned b, uint8_t *out, struct mb_group *entry)
{
    static int8_t q[MB_GROUP_WEIGHTS_MAX];
    static float values[MB_GROUP_WEIGHTS_MAX];
    static uint16_t halves[MB_GROUP_WEIGHTS_MAX];
    struct mb_widths widths = {.a = a, .b = b, .is_raw = pattern == EVERY_SECOND_RAW && group % 2 == 1};
    for (size_t i = 0; i < n; i++) {
        bool in_cluster = (pattern == CLUSTERS && i % 320 >= 280) || (pattern == LAST_CLUSTER && i + 40 >= n);
        q[i] = (int8_t)pick_index(pattern, in_cluster, a, b, &s->seed);
        values[i] = (float)test_normal(&s->seed);
        halves[i] = s->w.dtype == MB_F16 ? mb_f16_of_float(values[i]) : mb_bf16_of_float(values[i]);
        if (pattern == MANY_OUTLIERS && test_random(&s->seed) % 16 == 0)
            q[i] = MB_Q_OUTLIER;
    }
    if (pattern == ONE_OUTLIER)
        q[test_random(&s->seed) % n] = MB_Q_OUTLIER;
    int inner = mb_inner_max(a), outer = inner + mb_tail_half(b);
    for (size_t i = 0; i < n; i++) {
        widths.n_outliers += abs(q[i]) > outer;
        widths.n_escapes += abs(q[i]) > inner && abs(q[i]) <= outer;
    }
    const void *weights = s->w.dtype == MB_F32 ? (const void *)values : halves;
    return mb_write_group(&widths, s->w.dtype, q, n, weights, out, entry);
}

static bool is_legal(unsigned a, unsigned b)
{
    return mb_kind_is_legal((uint8_t)(9 * a + b));
}

/* Mostly runs of one width, as in real matrices. */
static void pick_widths(uint64_t *seed, unsigned *a, unsigned *b)
{
    bool is_first = *a == MIXED_WIDTHS;
    if (!is_first && test_random(seed) % 4 != 0)
        return;
    do {
        *a = (unsigned)(test_random(seed) % (MB_WIDTH_MAX + 1));
        *b = (unsigned)(test_random(seed) % (MB_WIDTH_MAX + 1));
    } while ((*a == 0 && *b > 0) || !is_legal(*a, *b));
}

/* 'nbytes', and slack after them, which is not zero. */
static struct guarded alloc_with_slack(size_t nbytes, bool at_end)
{
    struct guarded g = guarded_alloc(nbytes + MB_SLACK_NBYTES, at_end);
    memset(g.data + nbytes, 0xff, MB_SLACK_NBYTES);
    return g;
}

/* Tiles of three groups: shorter than in a blob, so that kernels meet more of their ends. */
static void place(struct sample *s, const struct mb_blob_matrix *info, const uint8_t *records,
                  const struct mb_group *groups, size_t n_groups, bool at_end)
{
    enum { TILE_GROUPS = 3 };
    s->data = alloc_with_slack((size_t)info->data_nbytes, at_end);
    memcpy(s->data.data, records, (size_t)info->data_nbytes);
    s->directory = alloc_with_slack((size_t)mb_directory_nbytes(MB_FORM_PATCHED, groups, n_groups), at_end);
    mb_directory_write(MB_FORM_PATCHED, groups, n_groups, s->directory.data);
    s->w = mb_view_without_tiles(info, s->data.data, s->directory.data, TILE_GROUPS);
    s->tiles = calloc(s->w.n_tiles, sizeof *s->tiles);
    mb_view_add_tiles(&s->w, s->tiles);
}

static struct sample make_sample(enum pattern pattern, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                                 unsigned a, unsigned b, bool at_end)
{
    struct sample s = {.seed = n_rows * 1000 + n_cols * 77 + a * 9 + b + (uint64_t)pattern * 131};
    size_t group_rows = mb_group_rows(n_cols), n_groups = (n_rows + group_rows - 1) / group_rows;
    s.w.dtype = dtype;
    struct mb_blob_matrix info = {.dtype = dtype, .n_rows = n_rows, .n_cols = n_cols};
    /* A subnormal step is a step, too: with every escape, and with every third shape of other patterns. */
    info.step = pattern == ESCAPES || (n_cols + a + b) % 3 == 0 ? 0x1p-140F : 0.0123F;
    struct mb_group *groups = calloc(n_groups, sizeof *groups);
    uint8_t *records = malloc(n_rows * n_cols * 8 + 64 * n_groups);
    bool is_mixed = a == MIXED_WIDTHS;
    for (size_t g = 0; g < n_groups; g++) {
        if (is_mixed)
            pick_widths(&s.seed, &a, &b);
        size_t rows = n_rows - g * group_rows < group_rows ? n_rows - g * group_rows : group_rows;
        info.data_nbytes +=
            make_group(&s, pattern, g, rows * n_cols, a, b, records + info.data_nbytes, &groups[g]);
    }
    place(&s, &info, records, groups, n_groups, at_end);
    free(records);
    free(groups);
    return s;
}

static void free_sample(struct sample *s)
{
    guarded_free(&s->data);
    guarded_free(&s->directory);
    free(s->tiles);
}

enum { N_TOKENS_MAX = 13 };

/* Activations of n elements whose planes end, or every third token's begin, at unmapped pages. */
struct vectors {
    struct guarded planes[2 * N_TOKENS_MAX], wide[N_TOKENS_MAX];
    struct guarded fast_planes[2 * N_TOKENS_MAX], fast_wide[N_TOKENS_MAX], bytes[N_TOKENS_MAX];
    struct mb_activation x[N_TOKENS_MAX], fast[N_TOKENS_MAX];
};

/*
 * Token by token more outliers, up to one in every block and more, and larger ones: of one to four planes,
 * and beyond.
 */
static void add_outliers(float *x, size_t n, size_t token, uint64_t *seed)
{
    static const double factors[] = {30, 1000, 0x1p12, 0x1p20, 0x1p28, 0x1p34, 0x1p60};
    size_t n_outliers = token % 3 == 1 ? token : 1 + test_random(seed) % (n / 40 + 1);
    for (size_t i = 0; i < n_outliers; i++)
        x[test_random(seed) % n] *= (float)factors[(token + (i > 0 ? test_random(seed) % 3 : 0)) % 7];
    if (token % 2 == 0)
        x[n - 1] *= 1e5F;
}

static const struct mb_kernels *tables[MB_DISPATCH_TABLES_MAX];
static size_t n_tables;

/* All tables make the same activations, but some add what their resident form needs. */
static const struct mb_kernels *maker(void)
{
    for (size_t i = 0; i < n_tables; i++)
        if (tables[i]->resident != NULL)
            return tables[i];
    return &mb_kernels_scalar;
}

static void make_vectors(struct vectors *v, size_t n)
{
    uint64_t seed = n;
    float *x = malloc(n * sizeof *x);
    for (size_t t = 0; t < N_TOKENS_MAX; t++) {
        for (size_t i = 0; i < n; i++) /* the first one is all extremes */
            x[i] = t == 0 ? (test_random(&seed) & 1 ? -1.0F : 1.0F) : (float)test_normal(&seed);
        for (size_t p = 0; p < 2; p++) {
            v->planes[2 * t + p] = guarded_alloc(mb_activation_plane_nbytes(n), t % 3 != 2);
            v->fast_planes[2 * t + p] = guarded_alloc(mb_activation_plane_nbytes(n), t % 3 != 2);
        }
        v->wide[t] = guarded_alloc(mb_activation_wide_nbytes(n), t % 3 != 2);
        v->fast_wide[t] = guarded_alloc(mb_activation_wide_nbytes(n), t % 3 != 2);
        v->bytes[t] = guarded_alloc(mb_activation_fast_nbytes(n), t % 3 != 2);
        if (t % 3 != 0)
            add_outliers(x, n, t, &seed);
        maker()->activation(x, n, (int8_t *)v->planes[2 * t].data, (int8_t *)v->planes[2 * t + 1].data,
                            v->wide[t].data, &v->x[t]);
        maker()->activation_fast(x, n, (int8_t *)v->bytes[t].data, (int8_t *)v->fast_planes[2 * t].data,
                                 (int8_t *)v->fast_planes[2 * t + 1].data, v->fast_wide[t].data, &v->fast[t]);
    }
    free(x);
}

static void free_vectors(struct vectors *v)
{
    for (size_t i = 0; i < 2 * N_TOKENS_MAX; i++) {
        guarded_free(&v->planes[i]);
        guarded_free(&v->fast_planes[i]);
    }
    for (size_t i = 0; i < N_TOKENS_MAX; i++) {
        guarded_free(&v->wide[i]);
        guarded_free(&v->fast_wide[i]);
        guarded_free(&v->bytes[i]);
    }
}

static void assert_same(const void *a, const void *b, size_t nbytes)
{
    assert_memory_equal(a, b, nbytes);
}

static void check_matvec(const struct mb_kernels *k, const struct mb_coded_matrix *w,
                         const struct mb_coded_matrix *own, uint64_t row, size_t n,
                         const struct mb_activation *x)
{
    float *expected = malloc(n * sizeof(float));
    for (size_t t = 0; t < 3; t++) {
        struct guarded y = guarded_alloc(n * sizeof(float), row % 2 == 0);
        mb_kernels_scalar.matvec(w, row, n, &x[t], expected);
        k->matvec(own, row, n, &x[t], (float *)y.data);
        assert_same(y.data, expected, n * sizeof(float));
        guarded_free(&y);
    }
    free(expected);
}

static void check_matmul(const struct mb_kernels *k, const struct mb_coded_matrix *w,
                         const struct mb_coded_matrix *own, uint64_t row, size_t n,
                         const struct mb_activation *x, size_t n_tokens)
{
    size_t stride = n + 3, nbytes = (stride * (n_tokens - 1) + n) * sizeof(float);
    float *expected = calloc(1, nbytes);
    size_t scratch_nbytes = k->matmul_scratch_nbytes(w->n_cols);
    bool at_end = row % 2 == 0;
    struct guarded y = guarded_alloc(nbytes, at_end),
                   scratch = guarded_alloc((scratch_nbytes + 63) / 64 * 64, at_end);
    mb_kernels_scalar.matmul(w, row, n, x, n_tokens, expected, stride, NULL);
    k->matmul(own, row, n, x, n_tokens, (float *)y.data, stride, scratch.data);
    assert_same(y.data, expected, nbytes); /* what lies between rows of y is still 0 */
    guarded_free(&y);
    guarded_free(&scratch);
    free(expected);
}

static void check_transposed(const struct mb_kernels *k, const struct mb_coded_matrix *w,
                             const struct mb_coded_matrix *own, uint64_t row, size_t n)
{
    struct vectors v;
    make_vectors(&v, n);
    float *expected = malloc(w->n_cols * sizeof(float));
    size_t scratch_nbytes = (k->transposed_scratch_nbytes(w->n_cols) + 63) / 64 * 64;
    void *scalar_scratch =
        aligned_alloc(64, (mb_kernels_scalar.transposed_scratch_nbytes(w->n_cols) + 63) / 64 * 64);
    bool at_end = row % 2 == 0;
    struct guarded y = guarded_alloc(w->n_cols * sizeof(float), at_end),
                   scratch = guarded_alloc(scratch_nbytes, at_end);
    for (size_t t = 0; t < 3; t++) {
        mb_kernels_scalar.matvec_transposed(w, row, n, &v.x[t], expected, scalar_scratch);
        k->matvec_transposed(own, row, n, &v.x[t], (float *)y.data, scratch.data);
        assert_same(y.data, expected, w->n_cols * sizeof(float));
    }
    free(scalar_scratch);
    guarded_free(&y);
    guarded_free(&scratch);
    free(expected);
    free_vectors(&v);
}

static void check_rows(const struct mb_kernels *k, const struct mb_coded_matrix *w,
                       const struct mb_coded_matrix *own, uint64_t row, size_t n)
{
    size_t nbytes = n * w->n_cols * sizeof(float);
    float *expected = malloc(nbytes);
    struct guarded out = guarded_alloc(nbytes, row % 2 == 0);
    mb_kernels_scalar.decode_rows(w, row, n, expected);
    k->decode_rows(own, row, n, (float *)out.data);
    assert_same(out.data, expected, nbytes);
    guarded_free(&out);
    free(expected);
}

/* 'own': the same matrix in a form that the table takes. */
static void check_form(const struct mb_kernels *k, struct sample *s, const struct mb_coded_matrix *own,
                       const struct vectors *v)
{
    const struct mb_coded_matrix *w = &s->w;
    size_t n = (size_t)w->n_rows;
    size_t row = (size_t)(test_random(&s->seed) % n), part = 1 + (size_t)(test_random(&s->seed) % (n - row));
    size_t n_tokens = 1 + (size_t)(test_random(&s->seed) % N_TOKENS_MAX);
    check_matvec(k, w, own, 0, n, v->x);
    check_matvec(k, w, own, 0, n, v->fast);
    check_matvec(k, w, own, row, part, v->x);
    check_matmul(k, w, own, 0, n, v->x, n_tokens);
    check_matmul(k, w, own, 0, n, v->fast, 1 + (n_tokens + 6) % N_TOKENS_MAX);
    check_matmul(k, w, own, row, part, v->x, 1 + n_tokens / 2);
    check_matmul(k, w, own, row, part, v->fast, n_tokens);
    check_transposed(k, w, own, 0, n);
    check_transposed(k, w, own, row, part);
    check_rows(k, w, own, 0, n);
    check_rows(k, w, own, row, part);
}

/* What is made is moved to memory that ends where it ends. */
static void check_resident(const struct mb_kernels *k, struct sample *s, unsigned n_more_bits,
                           const struct vectors *v)
{
    uint64_t room = k->resident->nbytes_max(&s->w);
    struct guarded made = guarded_alloc((room + 7) / 8 * 8, true);
    uint64_t nbytes = k->resident->make(&s->w, n_more_bits, made.data);
    assert_true(nbytes <= room);
    struct guarded moved = guarded_alloc((nbytes + 7) / 8 * 8, true);
    memcpy(moved.data, made.data, nbytes);
    guarded_free(&made);
    struct mb_coded_matrix own = k->resident->view(&s->w, moved.data, nbytes);
    check_form(k, s, &own, v);
    guarded_free(&moved);
}

static void check_sample(const struct mb_kernels *k, struct sample *s, const struct vectors *v)
{
    check_form(k, s, &s->w, v);
    for (unsigned n_more_bits = 0; k->resident != NULL && n_more_bits < 2; n_more_bits++)
        check_resident(k, s, n_more_bits, v);
}

static void check_all_tables(enum pattern pattern, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                             unsigned a, unsigned b)
{
    struct vectors v;
    make_vectors(&v, n_cols);
    struct sample s = make_sample(pattern, dtype, n_rows, n_cols, a, b, (a + b + n_cols) % 4 != 0);
    for (size_t i = 0; i < n_tables; i++)
        check_sample(tables[i], &s, &v);
    free_sample(&s);
    free_vectors(&v);
}

/* Groups of one row, of several rows that can and that cannot be multiplied in place, and odd ends. */
static void every_pair_of_widths(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{5, 1408}, {3, 1100}, {11, 256}, {17, 192}, {70, 33}};
    for (unsigned a = 0; a <= MB_WIDTH_MAX; a++)
        for (unsigned b = 0; b <= (a == 0 ? 0 : MB_WIDTH_MAX); b++)
            for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && is_legal(a, b); i++)
                for (enum pattern p = 0; p < N_PATTERNS; p++)
                    check_all_tables(p, (enum mb_dtype)((a + b + i) % 3), shapes[i][0], shapes[i][1], a, b);
}

static void every_number_of_columns(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (size_t n_cols = 1; n_cols <= 300; n_cols++) {
        unsigned a, b;
        do {
            a = 1 + (unsigned)(test_random(&seed) % MB_WIDTH_MAX);
            b = (unsigned)(test_random(&seed) % MB_WIDTH_MAX);
        } while (!is_legal(a, b));
        size_t n_rows = 1 + (size_t)(test_random(&seed) % (2 * mb_group_rows(n_cols)));
        check_all_tables((enum pattern)(n_cols % N_PATTERNS), MB_BF16, n_rows, n_cols, a, b);
        check_all_tables(MIXED, MB_F32, 1 + n_cols % 5, n_cols, 4, 4);
    }
}

/* Kernels that take several rows of one width at once meet rows of other widths, and raw ones, between them.
 */
static void rows_of_mixed_widths(void **state)
{
    (void)state;
    static const size_t n_cols[] = {128, 640, 896, 1023, 1024, 1100, 2048};
    for (size_t i = 0; i < sizeof n_cols / sizeof n_cols[0]; i++)
        for (enum pattern p = 0; p < N_PATTERNS; p++)
            for (enum mb_dtype dtype = MB_F32; dtype <= MB_BF16; dtype++)
                check_all_tables(p, dtype, 71, n_cols[i], MIXED_WIDTHS, 0);
}

/* Kernels split many tokens into parts: an odd number, more than any part has. */
static void check_many_tokens(enum pattern pattern, size_t n_rows, size_t n_cols, unsigned a, unsigned b)
{
    enum { MANY = 5 * N_TOKENS_MAX };
    struct vectors v;
    struct mb_activation exact[MANY], fast[MANY];
    make_vectors(&v, n_cols);
    for (size_t t = 0; t < MANY; t++) {
        exact[t] = v.x[t % N_TOKENS_MAX];
        fast[t] = v.fast[t % N_TOKENS_MAX];
    }
    struct sample s = make_sample(pattern, MB_BF16, n_rows, n_cols, a, b, true);
    for (size_t i = 0; i < n_tables; i++) {
        const struct mb_kernels *k = tables[i];
        check_matmul(k, &s.w, &s.w, 0, n_rows, exact, MANY);
        check_matmul(k, &s.w, &s.w, 0, n_rows, fast, MANY);
        if (k->resident == NULL)
            continue;
        struct guarded made = guarded_alloc((k->resident->nbytes_max(&s.w) + 7) / 8 * 8, true);
        uint64_t nbytes = k->resident->make(&s.w, 1, made.data);
        struct mb_coded_matrix own = k->resident->view(&s.w, made.data, nbytes);
        check_matmul(k, &s.w, &own, 1, n_rows - 1, exact, MANY);
        check_matmul(k, &s.w, &own, 1, n_rows - 1, fast, MANY);
        guarded_free(&made);
    }
    free_sample(&s);
    free_vectors(&v);
}

static void many_tokens_at_once(void **state)
{
    (void)state;
    static const size_t n_cols[] = {96, 512, 1023, 1408, 2048, 5000};
    for (size_t i = 0; i < sizeof n_cols / sizeof n_cols[0]; i++)
        for (enum pattern p = 0; p < N_PATTERNS; p++)
            check_many_tokens(p, 37, n_cols[i], MIXED_WIDTHS, 0);
}

/* The rows in each group of a matrix in the table's own form. */
static size_t resident_group_rows(const struct mb_kernels *k, enum pattern pattern, size_t n_cols)
{
    struct sample s = make_sample(pattern, MB_BF16, 40, n_cols, 4, 4, true);
    struct guarded made = guarded_alloc((k->resident->nbytes_max(&s.w) + 7) / 8 * 8, true);
    uint64_t nbytes = k->resident->make(&s.w, 0, made.data);
    size_t rows = k->resident->view(&s.w, made.data, nbytes).group_rows;
    guarded_free(&made);
    free_sample(&s);
    return rows;
}

static void short_rows_lie_side_by_side_unless_some_are_raw(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_tables; i++) {
        if (tables[i]->resident == NULL)
            continue;
        assert_int_equal(resident_group_rows(tables[i], MIXED, 96), 8);
        assert_int_equal(resident_group_rows(tables[i], MANY_OUTLIERS, 1023), 8);
        assert_int_equal(resident_group_rows(tables[i], MIXED, 1024), 1);
        assert_int_equal(resident_group_rows(tables[i], EVERY_SECOND_RAW, 96), 1);
    }
}

static void the_widest_row(void **state)
{
    (void)state;
    check_all_tables(LARGEST, MB_BF16, 2, MB_COLS_MAX, 7, 7);
    check_all_tables(SMALLEST, MB_BF16, 2, MB_COLS_MAX, 6, 7);
    check_all_tables(MIXED, MB_BF16, 2, MB_COLS_MAX - 63, 4, 5);
    check_all_tables(LARGEST, MB_F32, 2, MB_COLS_MAX, 8, 0);
}

/* Streams of mostly ones, in memory that ends (or begins) at an unmapped page. */
static void check_counts(size_t n, unsigned width, uint64_t *seed, bool at_end)
{
    struct guarded stream = guarded_alloc(mb_bits_nbytes(n, width), at_end);
    size_t expected = 0;
    for (size_t i = 0; i < mb_bits_nbytes(n, width); i++)
        stream.data[i] = (uint8_t)(test_random(seed) | test_random(seed) | test_random(seed));
    for (size_t i = 0; i < n; i++)
        expected += mb_stream_code(stream.data, i, width) == (1u << width) - 1;
    for (size_t i = 0; i < n_tables; i++)
        assert_int_equal(tables[i]->count_full_codes(stream.data, n, width), expected);
    assert_int_equal(mb_count_full_codes_scalar(stream.data, n, width), expected);
    memset(stream.data, 0xff, mb_bits_nbytes(n, width));
    for (size_t i = 0; i < n_tables; i++)
        assert_int_equal(tables[i]->count_full_codes(stream.data, n, width), n);
    guarded_free(&stream);
}

static void codes_with_all_bits_set_are_counted(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (unsigned width = 1; width <= MB_WIDTH_MAX; width++) {
        for (size_t n = 1; n <= 300; n++)
            check_counts(n, width, &seed, n % 3 != 0);
        check_counts(2048, width, &seed, true);
        check_counts(MB_GROUP_WEIGHTS_MAX, width, &seed, true);
    }
}

static void make(const struct mb_kernels *k, bool is_fast, const float *x, size_t n, int8_t *planes,
                 void *wide, struct mb_activation *out)
{
    size_t plane = mb_activation_plane_nbytes(n);
    if (is_fast)
        k->activation_fast(x, n, planes + 2 * plane, planes, planes + plane, wide, out);
    else
        k->activation(x, n, planes, planes + plane, wide, out);
}

/* All tables make the scalar one's activation of x[n]. */
static void check_activation(const float *x, size_t n, bool is_fast)
{
    size_t plane = mb_activation_plane_nbytes(n), wide_nbytes = mb_activation_wide_nbytes(n),
           planes_nbytes = 2 * plane + (is_fast ? mb_activation_fast_nbytes(n) : 0);
    struct guarded in = guarded_alloc(n * sizeof *x, true), planes = guarded_alloc(planes_nbytes, true),
                   wide = guarded_alloc(wide_nbytes, true);
    int8_t *expected = aligned_alloc(64, planes_nbytes + wide_nbytes), *data = (int8_t *)planes.data;
    struct mb_activation a, b;
    memcpy(in.data, x, n * sizeof *x);
    make(&mb_kernels_scalar, is_fast, (float *)in.data, n, expected, expected + planes_nbytes, &a);
    for (size_t i = 0; i < n_tables; i++) {
        make(tables[i], is_fast, (float *)in.data, n, data, wide.data, &b);
        assert_same(data, expected, is_fast ? 3 * plane : 2 * plane);
        assert_same(&a.scale, &b.scale, sizeof a.scale);
        assert_int_equal(a.sum, b.sum);
        assert_true(b.hi == data && b.lo == data + plane);
        assert_true(b.bytes == (is_fast ? data + 2 * plane : NULL));
        if (is_fast)
            assert_same(a.factors, b.factors, plane / MB_ACTIVATION_BLOCK);
        assert_true(a.n_wide == b.n_wide && a.n_wide_planes == b.n_wide_planes && a.wide_sum == b.wide_sum);
        if (a.n_wide == 0)
            continue;
        assert_same(a.wide_at, b.wide_at, a.n_wide * sizeof *a.wide_at);
        assert_same(a.wide, b.wide, (size_t)a.n_wide * a.n_wide_planes * MB_ACTIVATION_BLOCK);
        assert_true((const uint8_t *)b.wide_at == wide.data);
    }
    free(expected);
    guarded_free(&in);
    guarded_free(&planes);
    guarded_free(&wide);
}

static void activations(void **state)
{
    (void)state;
    uint64_t seed = 5;
    static const float odd[] = {0, -0.0F, 1e-44F, 3e38F, INFINITY, -INFINITY, NAN, -NAN, 1e-35F};
    enum { N_ODD = sizeof odd / sizeof odd[0], N_MAX = 300 };
    float x[N_MAX];
    for (size_t n = 1; n <= N_MAX; n++)
        for (size_t k = 0; k <= N_ODD + 6; k++) {
            for (size_t i = 0; i < n; i++)
                x[i] = k == 1 || k == 2 ? odd[k] : (float)test_normal(&seed);
            if (k < N_ODD)
                x[test_random(&seed) % n] = odd[k];
            else if (k > N_ODD)
                add_outliers(x, n, k, &seed);
            if (k == N_ODD - 1) /* the scale that the others would have is subnormal */
                for (size_t i = 0; i < n; i++)
                    x[i] = i == n / 2 ? 1e-30F : 1e-42F;
            check_activation(x, n, false);
            check_activation(x, n, true);
        }
}

static void check_encode_of(const void *weights, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                            double eps, bool spoil)
{
    size_t n = n_rows * n_cols, nbytes = n * mb_dtype_nbytes(dtype),
           n_groups = n_rows / mb_group_rows(n_cols) + 1;
    struct guarded in = guarded_alloc(nbytes, true);
    memcpy(in.data, weights, nbytes);
    if (spoil) /* an infinity, at a place that depends on the shape */
        memcpy(in.data + (n * 7 / 11) * mb_dtype_nbytes(dtype),
               dtype == MB_F32   ? "\0\0\x80\x7f"
               : dtype == MB_F16 ? "\0\x7c"
                                 : "\x80\x7f",
               mb_dtype_nbytes(dtype));
    const struct mb_coding coding = {dtype, MB_FORM_PATCHED, n_cols, eps, mb_step_of_eps(eps), NULL};
    size_t cap = mb_encode_bound(dtype, n_rows, n_cols), out_nbytes[2] = {0}, bad[2] = {0};
    struct guarded out[2] = {guarded_alloc(cap, true), guarded_alloc(cap, true)};
    struct mb_group *groups[2] = {calloc(n_groups, sizeof **groups), calloc(n_groups, sizeof **groups)};
    enum mb_status expected = mb_kernels_scalar.encode_rows(&coding, in.data, n_rows, out[0].data, cap,
                                                            &out_nbytes[0], groups[0], &bad[0]);
    assert_int_equal(expected, spoil ? MB_BAD_DATA : MB_OK);
    for (size_t i = 0; i < n_tables; i++) {
        enum mb_status status = tables[i]->encode_rows(&coding, in.data, n_rows, out[1].data, cap,
                                                       &out_nbytes[1], groups[1], &bad[1]);
        assert_int_equal(status, expected);
        assert_int_equal(bad[0], bad[1]);
        if (spoil)
            continue;
        assert_int_equal(out_nbytes[0], out_nbytes[1]);
        assert_same(out[0].data, out[1].data, out_nbytes[0]);
        for (size_t g = 0; g < (n_rows + mb_group_rows(n_cols) - 1) / mb_group_rows(n_cols); g++)
            assert_true(groups[0][g].kind == groups[1][g].kind &&
                        groups[0][g].nbytes == groups[1][g].nbytes &&
                        groups[0][g].n_escapes == groups[1][g].n_escapes &&
                        groups[0][g].n_outliers == groups[1][g].n_outliers);
        memset(out[1].data, 0xee, cap);
    }
    for (int i = 0; i < 2; i++) {
        guarded_free(&out[i]);
        free(groups[i]);
    }
    guarded_free(&in);
}

static void check_encode(enum test_weights kind, enum mb_dtype dtype, size_t n_rows, size_t n_cols,
                         double eps, bool spoil)
{
    void *weights = test_weights_make(kind, dtype, n_rows, n_cols, n_cols + n_rows);
    check_encode_of(weights, dtype, n_rows, n_cols, eps, spoil);
    free(weights);
}

/* Where the bound is decided by the last bits: half-way between two levels, and a few floats to both sides.
 */
static void weights_between_levels(void **state)
{
    (void)state;
    float w[2048];
    uint64_t seed = 3;
    for (int k = 0; k < 200; k++) {
        double eps = ldexp(1 + test_uniform(&seed), k % 40 - 20);
        float step = mb_step_of_eps(eps);
        for (size_t i = 0; i < 2048; i++) {
            int level = (int)(test_random(&seed) % 256) - 128, n_ulps = (int)(test_random(&seed) % 9) - 4;
            w[i] = (float)((level + 0.5) * (double)step);
            for (; n_ulps != 0; n_ulps += n_ulps < 0 ? 1 : -1)
                w[i] = nextafterf(w[i], n_ulps < 0 ? -INFINITY : INFINITY);
        }
        check_encode_of(w, MB_F32, 2, 1024, eps, false);
        check_encode_of(w, MB_F32, 1, 2048, nextafter(eps, 0), false);
    }
}

static void encoded_bytes(void **state)
{
    (void)state;
    static const size_t cols[] = {1,   2,   31,   64,   96,   127,  128,  129,  255,
                                  300, 768, 1000, 1023, 1024, 1025, 1408, 2047, 5000};
    static const double eps[] = {2, 0.5, 0.25, 0.167, 0.122, 0.05, 0.02, 0.008, 0.0005, 1e-44, 0};
    for (enum test_weights kind = 0; kind < TEST_N_WEIGHTS; kind++)
        for (size_t c = 0; c < sizeof cols / sizeof cols[0]; c++)
            for (size_t e = 0; e < sizeof eps / sizeof eps[0]; e++)
                check_encode(kind, (enum mb_dtype)((c + e) % 3), 1 + (c + e) % 4, cols[c], eps[e],
                             (c + e + kind) % 16 == 3);
}

int main(void)
{
    /* The tables themselves, not what mb_kernels hands out: that compares a few rows first and would hide a
     * fault. */
    for (const struct mb_dispatch_table *table = mb_codec_tables; table->isa != NULL; table++)
        if (table->needs != 0 && (table->needs & ~mb_cpu_features()) == 0)
            tables[n_tables++] = table->table;
    if (n_tables == 0) {
        puts("skipped: this processor has scalar kernels only");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_widths),
        cmocka_unit_test(every_number_of_columns),
        cmocka_unit_test(rows_of_mixed_widths),
        cmocka_unit_test(many_tokens_at_once),
        cmocka_unit_test(short_rows_lie_side_by_side_unless_some_are_raw),
        cmocka_unit_test(the_widest_row),
        cmocka_unit_test(codes_with_all_bits_set_are_counted),
        cmocka_unit_test(activations),
        cmocka_unit_test(encoded_bytes),
        cmocka_unit_test(weights_between_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
