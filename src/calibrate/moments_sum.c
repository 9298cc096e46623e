/*
 * moments_sum.c - see moments_sum.h.
 */
#include "moments_sum.h"
#include "base/bytes.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

enum { TILE = MB_GRAM_PANEL * MB_GRAM_PANEL, BLOCK_PANEL = MB_GRAM_BLOCK * MB_GRAM_PANEL };

static uint64_t n_panels_of(size_t n_values)
{
    return (n_values + MB_GRAM_PANEL - 1) / MB_GRAM_PANEL;
}

static uint64_t tiles_nbytes(uint64_t n_panels)
{
    return n_panels * (n_panels + 1) / 2 * TILE * sizeof(float);
}

uint64_t mb_moments_sum_nbytes(size_t n_values)
{
    uint64_t n_panels = n_panels_of(n_values);
    return tiles_nbytes(n_panels) + n_panels * BLOCK_PANEL * sizeof(float);
}

void mb_moments_sum_open(struct mb_moments_sum *sum, size_t n_values)
{
    *sum = (struct mb_moments_sum){.n_values = n_values, .n_panels = n_panels_of(n_values)};
}

void mb_moments_sum_close(struct mb_moments_sum *sum)
{
    free(sum->pending);
    mb_pages_free(sum->tiles, tiles_nbytes(sum->n_panels));
    mb_moments_sum_open(sum, sum->n_values);
}

static bool take_memory(struct mb_moments_sum *sum)
{
    if (sum->pending == NULL)
        sum->pending = mb_alloc(sum->n_panels * BLOCK_PANEL, sizeof *sum->pending);
    if (sum->tiles == NULL)
        sum->tiles = mb_pages_alloc(tiles_nbytes(sum->n_panels));
    return sum->pending != NULL && sum->tiles != NULL;
}

/* ---------------------------------------------------------------- products */

struct adding {
    const struct mb_moments_sum *sum;
    const struct mb_gram_ops *ops;
};

/* The tiles of a panel's rows; the longest first. */
static void add_rows(void *ctx, size_t task, int thread)
{
    (void)thread;
    const struct adding *adding = ctx;
    const struct mb_moments_sum *sum = adding->sum;
    size_t q = sum->n_panels - 1 - task;
    const float *rows = sum->pending + q * BLOCK_PANEL;
    float *tile = sum->tiles + q * (q + 1) / 2 * TILE;
    for (size_t p = 0; p <= q; p++, tile += TILE)
        adding->ops->add(rows, sum->pending + p * BLOCK_PANEL, sum->n_pending, tile);
}

void mb_moments_sum_finish(struct mb_moments_sum *sum, const struct mb_gram_ops *ops, struct mb_pool *pool)
{
    struct adding adding = {sum, ops};
    if (sum->n_pending > 0)
        mb_pool_run(pool, sum->n_panels, add_rows, &adding);
    sum->n_pending = 0;
}

/* ---------------------------------------------------------------- vectors */

/* A vector becomes the last pending one; padding stays 0. */
static bool put(struct mb_moments_sum *sum, const float *x, float weight)
{
    uint32_t bad = 0;
    for (size_t p = 0; p < sum->n_panels; p++) {
        size_t first = p * MB_GRAM_PANEL, left = sum->n_values - first;
        size_t n = left < MB_GRAM_PANEL ? left : MB_GRAM_PANEL;
        float *to = sum->pending + p * BLOCK_PANEL + sum->n_pending * MB_GRAM_PANEL;
        for (size_t i = 0; i < n; i++) {
            to[i] = weight * x[first + i];
            bad |= (mb_bits_of_float(to[i]) & 0x7f800000) == 0x7f800000;
        }
    }
    sum->n_pending++;
    sum->n_tokens++;
    sum->sum_gg += (double)weight * weight;
    return bad == 0;
}

bool mb_moments_sum_add(struct mb_moments_sum *sum, const float *x, size_t stride, size_t n,
                        const float *weights, const struct mb_gram_ops *ops, struct mb_pool *pool,
                        bool *is_finite)
{
    *is_finite = true;
    if (n > 0 && !take_memory(sum))
        return false;
    for (size_t t = 0; t < n; t++) {
        *is_finite = put(sum, x + t * stride, weights == NULL ? 1.0F : weights[t]);
        if (!*is_finite)
            return false;
        if (sum->n_pending == MB_GRAM_BLOCK)
            mb_moments_sum_finish(sum, ops, pool);
    }
    return true;
}

void mb_moments_sum_row(const struct mb_moments_sum *sum, size_t i, float *row)
{
    size_t q = i / MB_GRAM_PANEL;
    const float *tile = sum->tiles + q * (q + 1) / 2 * TILE + i % MB_GRAM_PANEL * MB_GRAM_PANEL;
    for (size_t j = 0; j <= i; j += MB_GRAM_PANEL, tile += TILE)
        memcpy(row + j, tile, (i + 1 - j < MB_GRAM_PANEL ? i + 1 - j : MB_GRAM_PANEL) * sizeof *row);
}
