/*
 * widths.c - which body and tail widths a row group takes: shared by all encoders, so that they write the
 * same bytes.
 */
#include "encode.h"

/*
 * Costs in sixteenths of a bit.  An escape's time is worth three eighths of a bit: nothing where 64 codes are
 * decoded at once, but about a cycle on AVX2, where they are patched one by one.  At eps/sigma 0.167, where
 * widths (3, 4) and (4, 3) are equally large, this takes the latter for most rows: 0.2 % larger, and 1.4
 * times as fast on AVX2. An outlier is patched one by one in double (some 5 ns, the time of about 100
 * weights): 16 bits keep them to where codes cannot reach.
 */
enum { BIT = 16, ESCAPE_TIME = 6, OUTLIER_TIME = 16 * BIT };

const uint8_t mb_reaches[MB_N_REACHES] = {0,  1,  2,  3,  4,  5,  7,  8,  9,  11, 15, 16, 17, 19, 23,
                                          31, 32, 33, 35, 39, 47, 63, 64, 65, 67, 71, 79, 95, 127};

struct mb_widths mb_choose_widths(const uint32_t reach[MB_Q_MAX + 1], size_t n, size_t elem_nbytes)
{
    struct mb_widths best = {.is_raw = true};
    uint64_t best_cost = (uint64_t)n * elem_nbytes * 8 * BIT;
    for (unsigned a = 0; a <= MB_WIDTH_MAX; a++) {
        for (unsigned b = 0; b <= (a == 0 ? 0 : MB_WIDTH_MAX); b++) {
            int inner = mb_inner_max(a), outer = inner + mb_tail_half(b);
            if (outer > MB_Q_MAX)
                break;
            uint64_t n_escapes = reach[outer] - reach[inner], n_outliers = n - reach[outer];
            uint64_t nbytes = mb_bits_nbytes(n, a) + mb_bits_nbytes(n_escapes, b) +
                              n_outliers * (2 + elem_nbytes) + (n_outliers > 0 ? 2 : 0);
            uint64_t cost = nbytes * 8 * BIT + n_escapes * ESCAPE_TIME + n_outliers * OUTLIER_TIME;
            if (cost < best_cost) {
                best_cost = cost;
                best = (struct mb_widths){a, b, (uint16_t)n_escapes, (uint16_t)n_outliers, false};
            }
        }
    }
    return best;
}
