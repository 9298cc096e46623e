/*
 * measure_figures.h - what is known of each scored token, and the figures that are made of it.
 */
#ifndef MB_LAB_MEASURE_FIGURES_H
#define MB_LAB_MEASURE_FIGURES_H

#include "measure_rows.h"
#include <moebius/measure.h>

/*
 * Figures of comparison from rows[windows->n_scored], in the order of windows; sums [windows->n] becomes
 * those of each window.  seconds is left alone.
 */
enum mb_status mb_figures_make(const struct mb_windows *windows, const struct mb_row_figures *rows,
                               struct mb_window_sums *sums, struct mb_comparison *comparison,
                               struct mb_error *err);

#endif
