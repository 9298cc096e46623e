/*
 * gram.h - sums of products of columns: what second moments are made of.
 *
 * Vectors wait in *panels*: MB_GRAM_PANEL neighbouring values of up to MB_GRAM_BLOCK vectors, one vector
 * after another.  A *tile* is a square of sums over two panels.  A kernel adds a block of vectors to a tile:
 * each sum over the block begins at 0, runs over the vectors in order, without fma, and is then added to the
 * tile.  So all tables give the same bits, and a sum of many vectors loses little: it is one of short sums.
 */
#ifndef MB_CALIBRATE_GRAM_H
#define MB_CALIBRATE_GRAM_H

#include <stddef.h>

enum { MB_GRAM_PANEL = 32, MB_GRAM_BLOCK = 256 };

struct mb_gram_ops {
    const char *isa;

    /* sums[i * MB_GRAM_PANEL + j] += sum over t < n of a[t * MB_GRAM_PANEL + i] b[t * MB_GRAM_PANEL + j]. */
    void (*add)(const float *a, const float *b, size_t n, float *sums);
};

/* The best table for this CPU, less what MOEBIUS_CPU takes away, that has proved itself against scalar. */
const struct mb_gram_ops *mb_gram_ops(void);

/* A table by its isa ("scalar", "avx2", "avx512", "neon"); NULL when it is not usable. */
const struct mb_gram_ops *mb_gram_ops_by_isa(const char *isa);

#endif
