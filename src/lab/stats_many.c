/*
 * stats_many.c - p-values corrected for how many comparisons there are.
 */
#include "base/error.h"
#include <moebius/lab.h>
#include <stdlib.h>

struct ranked {
    double p;
    size_t place; /* in the caller's order */
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->p != y->p)
        return x->p < y->p ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

/* Smallest first, to be freed. */
static enum mb_status rank_values(const double *p, size_t n, struct ranked **ranked, struct mb_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!(p[i] >= 0 && p[i] <= 1))
            return mb_fail(err, MB_USAGE, "p-value %zu is not in 0 to 1", i);
    *ranked = calloc(n > 0 ? n : 1, sizeof **ranked);
    if (*ranked == NULL)
        return mb_fail_memory(err, "the p-values");
    for (size_t i = 0; i < n; i++)
        (*ranked)[i] = (struct ranked){p[i], i};
    qsort(*ranked, n, sizeof **ranked, compare_ranked);
    return MB_OK;
}

enum mb_status mb_adjust_holm(const double *p, size_t n, double *adjusted, struct mb_error *err)
{
    struct ranked *ranked;
    double largest = 0;
    MB_TRY(rank_values(p, n, &ranked, err));
    for (size_t i = 0; i < n; i++) {
        double scaled = ranked[i].p * (double)(n - i);
        largest = scaled > largest ? scaled : largest;
        adjusted[ranked[i].place] = largest < 1 ? largest : 1;
    }
    free(ranked);
    return MB_OK;
}

enum mb_status mb_adjust_benjamini_hochberg(const double *p, size_t n, double *adjusted, struct mb_error *err)
{
    struct ranked *ranked;
    double smallest = 1;
    MB_TRY(rank_values(p, n, &ranked, err));
    for (size_t i = n; i-- > 0;) {
        double scaled = ranked[i].p * (double)n / (double)(i + 1);
        smallest = scaled < smallest ? scaled : smallest;
        adjusted[ranked[i].place] = smallest;
    }
    free(ranked);
    return MB_OK;
}
