/*
 * measure.h - a measurement's own view of itself.
 */
#ifndef MB_LAB_MEASURE_H
#define MB_LAB_MEASURE_H

#include "base/pool.h"
#include "measure_figures.h"
#include "measure_reader.h"
#include "measure_routes.h"
#include <moebius/measure.h>

/* Compares rows of logits on all threads, and keeps what each token says. */
struct mb_scorer {
    const struct mb_windows *windows;
    struct mb_pool *pool;
    size_t n_vocab;
    double **scratch;            /* [threads][2 * n_vocab + 2] */
    struct mb_row_figures *rows; /* [n_scored] */
    int32_t *targets;            /* [n_scored] the tokens that are there */
    struct mb_window_sums *sums; /* [windows.n] */
    float *clean, *changed;      /* [MB_WINDOW_READER_ROWS][n_vocab], as far as rows are read at once */
};

struct mb_measure {
    const struct mb_windows *windows;
    struct mb_measure_options options;
    struct mb_window_reader reader;
    struct mb_scorer scorer;
    struct mb_routes routes;
    struct mb_route_place places[MB_WINDOW_READER_WINDOWS];
    float **hidden; /* [n_layers] of NULL or [n_tokens][d_model] */
    float *scored;  /* [n_scored][d_model] of the clean pass, after the last layer */
    float *logits;  /* NULL or [n_scored][n_vocab] of the clean pass */
    float *changed; /* [batch][d_model] of a run */
    struct mb_measure_kept kept;
    bool has_run;
};

#endif
