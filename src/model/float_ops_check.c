/*
 * float_ops_check.c - whether a table of float functions gives the bits of the scalar one on short hard
 * vectors.
 *
 * Some microseconds, once in a process. Like the codec's check (codec/selfcheck.c) it catches a miscompiled
 * table; other mistakes are for the tests to find.
 */
#include "base/bytes.h"
#include "float_ops_tables.h"
#include <math.h>
#include <string.h>

enum { N_MAX = 53, N_ROWS = 5, N_TOKENS = 7, N_RESULTS = 11 };

struct results {
    float each[N_RESULTS][N_MAX];
    float products[3][N_TOKENS * N_ROWS];
    float weighted[3][N_TOKENS * N_MAX];
};

struct vectors {
    float x[N_TOKENS * N_MAX], w[N_ROWS * N_MAX];
};

static void fill(float *x, size_t n, uint64_t state)
{
    static const float hard[] = {0,     -0.0F,  NAN,   INFINITY, -INFINITY, 1e-42F,
                                 88.5F, -87.5F, 3e38F, 65520.0F, 2049.5F};
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t dice = (uint32_t)(state >> 33);
        x[i] = dice % 16 == 0 ? hard[dice / 16 % (sizeof hard / sizeof *hard)] : (float)dice * 0x1p-28F - 4;
    }
}

static void run(const struct mb_float_ops *ops, const struct vectors *v, size_t n, struct results *r)
{
    memset(r, 0, sizeof *r);
    for (size_t i = 0; i < N_RESULTS; i++)
        memcpy(r->each[i], v->w, n * sizeof(float));
    ops->rms_norm(v->x, v->w, n, 1e-5F, r->each[0]);
    ops->add(v->x, n, r->each[1]);
    ops->axpy(0.7F, v->x, n, r->each[2]);
    ops->scale(0.7F, n, r->each[3]);
    ops->silu_mul(r->each[4], v->x, n);
    ops->sigmoid(v->x, n, r->each[5]);
    r->each[6][0] = ops->max(v->x, n);
    r->each[7][0] += ops->exp_sum(r->each[7], n, 0.3F, 1.5F);
    ops->to_f16(v->x, n, (uint16_t *)(void *)r->each[8]);
    ops->widen(MB_BF16, v->x, n, r->each[9]);
    ops->layer_norm(v->x, v->w, v->x + n, n, 1e-5F, r->each[10]);
    for (enum mb_dtype dtype = MB_F32; dtype <= MB_BF16; dtype++) {
        ops->dense(dtype, v->w, n, N_ROWS, n, v->x, n, N_TOKENS, r->products[dtype], N_ROWS);
        ops->weighted_rows(dtype, v->w, n, N_ROWS, n, v->x, N_ROWS, N_TOKENS, r->weighted[dtype], n);
    }
}

/* NaNs are equal, whatever their bits. */
static bool same(const void *a, const void *b, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i += sizeof(float)) {
        uint32_t p = mb_load_u32((const uint8_t *)a + i), q = mb_load_u32((const uint8_t *)b + i);
        if (p != q && !(isnan(mb_float_of_bits(p)) && isnan(mb_float_of_bits(q))))
            return false;
    }
    return true;
}

bool mb_float_ops_agree(const struct mb_float_ops *ops)
{
    static const size_t sizes[] = {1, 15, 16, 32, N_MAX};
    static struct vectors v;
    static struct results expected, got;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fill(v.x, N_TOKENS * N_MAX, 1 + i);
        fill(v.w, N_ROWS * N_MAX, 100 + i);
        run(&mb_float_ops_scalar, &v, sizes[i], &expected);
        run(ops, &v, sizes[i], &got);
        if (!same(&expected, &got, sizeof got))
            return false;
    }
    return true;
}
