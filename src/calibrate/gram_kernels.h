/*
 * gram_kernels.h - the function of gram.h over vectors of LANES floats, ROWS of one panel against COLS
 * vectors of the other at a time: as many sums as there are registers for.
 *
 * A file that includes this has defined ISA, LANES, ROWS and COLS for its instruction set.
 */
#include "gram_tables.h"
#include <string.h>

#define PASTE(a, b) a##_##b
#define NAMED(name, isa) PASTE(name, isa)
#define TEXT(x) #x
#define QUOTED(x) TEXT(x)

typedef float vec __attribute__((vector_size(4 * LANES)));

static inline vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void add_part(const float *a, const float *b, size_t n, float *sums)
{
    vec sum[ROWS][COLS];
    memset(sum, 0, sizeof sum);
    for (size_t t = 0; t < n; t++, a += MB_GRAM_PANEL, b += MB_GRAM_PANEL) {
        vec right[COLS];
        for (size_t c = 0; c < COLS; c++)
            right[c] = load(b + c * LANES);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t c = 0; c < COLS; c++)
                sum[r][c] = sum[r][c] + a[r] * right[c];
    }
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLS; c++) {
            vec v = load(sums + r * MB_GRAM_PANEL + c * LANES) + sum[r][c];
            memcpy(sums + r * MB_GRAM_PANEL + c * LANES, &v, sizeof v);
        }
}

static void add(const float *a, const float *b, size_t n, float *sums)
{
    for (size_t i = 0; i < MB_GRAM_PANEL; i += ROWS)
        for (size_t j = 0; j < MB_GRAM_PANEL; j += COLS * LANES)
            add_part(a + i, b + j, n, sums + i * MB_GRAM_PANEL + j);
}

const struct mb_gram_ops NAMED(mb_gram, ISA) = {QUOTED(ISA), add};
