/*
 * selfcheck.c - whether a table encodes, decodes and multiplies small hard matrices to the bits of the scalar
 * one.
 *
 * About a millisecond, once in a process.  It catches a miscompiled kernel or an emulator that lies about its
 * features; other mistakes are for the tests to find.
 */
#include "selfcheck.h"
#include "patched.h"
#include <stdlib.h>
#include <string.h>

enum { N_ROWS = 5, N_COLS_MAX = 1100, N_GROUPS_MAX = 8, N_TOKENS = 3 };

/* Small matrices of weights that need every kind of code: narrow, wide, with outliers, raw. */
struct trial {
    float w[N_ROWS * N_COLS_MAX];
    float x[N_TOKENS * N_COLS_MAX];
    float y[2][N_TOKENS * N_COLS_MAX + N_ROWS * N_COLS_MAX];
    _Alignas(64) int8_t planes[2][2][2 * N_TOKENS][1152];
    _Alignas(64) uint8_t wide[2][2 * N_TOKENS][64 + MB_WIDE_PLANES_MAX * 1152 + 2 * (64 + 4 * 1152)];
    _Alignas(64) int8_t bytes[2][N_TOKENS][1152 + 64];
    struct mb_group groups[2][N_GROUPS_MAX];
    uint8_t records[2][sizeof(float) * N_ROWS * N_COLS_MAX + 64 + MB_SLACK_NBYTES];
    uint8_t directory[5 * N_GROUPS_MAX + MB_SLACK_NBYTES];
    _Alignas(64) uint8_t scratch[1 << 17];
    _Alignas(64) uint8_t resident[1 << 16];
};

/* The second token has one outlier, the third several that need more planes. */
static void add_outliers(float *x, size_t n)
{
    x[n + n / 2] *= 100;
    for (size_t i = 0; i < 3; i++)
        x[2 * n + i * (n - 1) / 2] *= 1e6F;
}

static void fill(struct trial *trial, size_t n_cols, double spread)
{
    uint64_t state = 12345 + n_cols;
    for (size_t i = 0; i < N_ROWS * n_cols + N_TOKENS * n_cols; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        double u = (double)(state >> 33) * 0x1p-30 - 1; /* -1 .. 1 */
        double v = u * u * u * spread;
        if (i % 97 == 13 && i / n_cols % 2 == 1)
            v *= 1000; /* an outlier, in every second row */
        if (i < N_ROWS * n_cols)
            trial->w[i] = (float)v;
        else
            trial->x[i - N_ROWS * n_cols] = (float)u;
    }
    add_outliers(trial->x, n_cols);
}

static bool same(const void *a, const void *b, size_t nbytes)
{
    return memcmp(a, b, nbytes) == 0;
}

static bool encode_agrees(const struct mb_kernels *k, struct trial *t, size_t n_cols, float step,
                          size_t *nbytes, size_t *n_groups)
{
    const struct mb_coding coding = {MB_F32, MB_FORM_PATCHED, n_cols, (double)step * 0.50001, step, NULL};
    const struct mb_kernels *tables[2] = {&mb_kernels_scalar, k};
    size_t n[2] = {0};
    *n_groups = (N_ROWS + mb_group_rows(n_cols) - 1) / mb_group_rows(n_cols);
    memset(t->records, 0, sizeof t->records);
    memset(t->groups, 0, sizeof t->groups);
    for (int i = 0; i < 2; i++)
        if (tables[i]->encode_rows(&coding, t->w, N_ROWS, t->records[i],
                                   mb_patched_encode_bound(MB_F32, N_ROWS, n_cols), &n[i], t->groups[i],
                                   NULL) != MB_OK)
            return false;
    *nbytes = n[0];
    for (size_t g = 0; g < *n_groups; g++)
        if (t->groups[0][g].kind != t->groups[1][g].kind ||
            t->groups[0][g].nbytes != t->groups[1][g].nbytes ||
            t->groups[0][g].n_escapes != t->groups[1][g].n_escapes)
            return false;
    return n[0] == n[1] && same(t->records[0], t->records[1], n[0]);
}

/* Records are as good as any bytes. */
static bool counts_agree(const struct mb_kernels *k, const uint8_t *bytes, size_t nbytes)
{
    for (unsigned width = 1; width <= MB_WIDTH_MAX; width++) {
        size_t n = 8 * nbytes / width;
        if (k->count_full_codes(bytes, n, width) != mb_count_full_codes_scalar(bytes, n, width))
            return false;
    }
    return true;
}

static bool same_activations(const struct mb_activation *a, const struct mb_activation *b, size_t n)
{
    return a->sum == b->sum && same(&a->scale, &b->scale, sizeof(float)) && same(a->hi, b->hi, n) &&
           same(a->lo, b->lo, n) && a->n_wide == b->n_wide && a->n_wide_planes == b->n_wide_planes &&
           a->wide_sum == b->wide_sum && (a->bytes == NULL) == (b->bytes == NULL) &&
           (a->bytes == NULL ||
            (same(a->bytes, b->bytes, n) &&
             same(a->factors, b->factors, (n + MB_ACTIVATION_BLOCK - 1) / MB_ACTIVATION_BLOCK))) &&
           (a->n_wide == 0 || same(a->wide_at, b->wide_at, 2 * a->n_wide)) &&
           (a->n_wide == 0 || same(a->wide, b->wide, (size_t)(mb_wide_planes(a, a->n_wide) - a->wide)));
}

/* 'own': w in a form that the table takes. */
static bool products_agree(const struct mb_kernels *k, struct trial *t, const struct mb_coded_matrix *w,
                           const struct mb_coded_matrix *own)
{
    const struct mb_coded_matrix *forms[2] = {w, own};
    const struct mb_kernels *tables[2] = {&mb_kernels_scalar, k};
    struct mb_activation x[2][2 * N_TOKENS]; /* exact, then fast */
    size_t n_cols = w->n_cols;
    for (int i = 0; i < 2; i++) {
        float *y = t->y[i];
        for (size_t token = 0; token < N_TOKENS; token++) {
            size_t fast = N_TOKENS + token;
            tables[i]->activation(t->x + token * n_cols, n_cols, t->planes[i][0][token],
                                  t->planes[i][1][token], t->wide[i][token], &x[i][token]);
            tables[i]->activation_fast(t->x + token * n_cols, n_cols, t->bytes[i][token],
                                       t->planes[i][0][fast], t->planes[i][1][fast], t->wide[i][fast],
                                       &x[i][fast]);
        }
        tables[i]->matvec(forms[i], 0, N_ROWS, &x[i][0], y);
        tables[i]->matmul(forms[i], 1, N_ROWS - 1, x[i], N_TOKENS, y + N_ROWS, N_ROWS, t->scratch);
        tables[i]->matmul(forms[i], 0, N_ROWS - 1, x[i] + N_TOKENS, N_TOKENS, y + N_ROWS + 16, N_ROWS,
                          t->scratch);
        struct mb_activation column = x[i][2];
        tables[i]->matvec_transposed(forms[i], 0, N_ROWS < n_cols ? N_ROWS : n_cols, &column, y + 64,
                                     t->scratch);
        tables[i]->decode_rows(forms[i], 0, N_ROWS, y + 64 + n_cols);
    }
    for (size_t token = 0; token < 2 * N_TOKENS; token++)
        if (!same_activations(&x[0][token], &x[1][token], n_cols))
            return false;
    return same(t->y[0], t->y[1], sizeof t->y[0]);
}

static bool resident_agrees(const struct mb_kernels *k, struct trial *t, const struct mb_coded_matrix *w)
{
    for (unsigned n_more_bits = 0; k->resident != NULL && n_more_bits < 2; n_more_bits++) {
        if (k->resident->nbytes_max(w) > sizeof t->resident)
            return false;
        uint64_t nbytes = k->resident->make(w, n_more_bits, t->resident);
        struct mb_coded_matrix own = k->resident->view(w, t->resident, nbytes);
        if (!products_agree(k, t, w, &own))
            return false;
    }
    return true;
}

static bool shape_agrees(const struct mb_kernels *k, struct trial *t, size_t n_cols, float step)
{
    fill(t, n_cols, 1.0);
    memset(t->y, 0, sizeof t->y);
    size_t nbytes, n_groups;
    if (!encode_agrees(k, t, n_cols, step, &nbytes, &n_groups))
        return false;
    mb_patched_directory_write(t->groups[0], n_groups, t->directory);
    const struct mb_blob_matrix info = {.dtype = MB_F32,
                                        .form = MB_FORM_PATCHED,
                                        .n_rows = N_ROWS,
                                        .n_cols = n_cols,
                                        .eps = (double)step * 0.50001,
                                        .step = step,
                                        .data_nbytes = nbytes};
    struct mb_tile tiles[N_GROUPS_MAX];
    struct mb_coded_matrix w = mb_patched_view(&info, t->records[0], t->directory, tiles);
    return counts_agree(k, t->records[0], nbytes < 1500 ? nbytes : 1500) && products_agree(k, t, &w, &w) &&
           resident_agrees(k, t, &w);
}

bool mb_kernels_agree(const struct mb_kernels *kernels)
{
    static const struct {
        size_t n_cols;
        float step;
    } shapes[] = {{1, 0.5F},     {37, 0.03F},    {128, 0.3F}, {256, 0.1F},
                  {1024, 0.02F}, {1100, 0.006F}, {1100, 1.5F}};
    static struct trial trial; /* static: a lack of memory must not look like a wrong kernel */
    bool agree = true;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && agree; i++)
        agree = shape_agrees(kernels, &trial, shapes[i].n_cols, shapes[i].step);
    return agree;
}
