/*
 * statistics.c - counts over coded matrices: sums of them, and what an ideal code would take.  A form adds
 * its groups (mb_coded_statistics_add).
 */
#include <math.h>
#include <moebius/codec.h>

void mb_coded_statistics_merge(struct mb_coded_statistics *to, const struct mb_coded_statistics *from)
{
    to->n_weights += from->n_weights;
    to->n_groups += from->n_groups;
    to->n_raw_groups += from->n_raw_groups;
    to->n_escapes += from->n_escapes;
    to->n_outliers += from->n_outliers;
    for (size_t i = 0; i < MB_N_SYMBOLS; i++)
        to->n_symbols[i] += from->n_symbols[i];
}

double mb_coded_entropy_bits(const struct mb_coded_statistics *statistics)
{
    double bits = 0, n = (double)statistics->n_weights;
    for (size_t i = 0; i < MB_N_SYMBOLS; i++) {
        double share = (double)statistics->n_symbols[i] / n;
        if (statistics->n_symbols[i] > 0)
            bits -= share * log2(share);
    }
    return bits;
}
