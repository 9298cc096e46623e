/*
 * bench_codecs.h - what the files of "bench codecs" share: the matrices that are coded, and the rows.
 */
#ifndef MOEBIUS_CLI_BENCH_CODECS_H
#define MOEBIUS_CLI_BENCH_CODECS_H

#include "base/pool.h"
#include <moebius/checkpoint.h>
#include <moebius/codecs.h>
#include <stdbool.h>
#include <stddef.h>

/* A matrix of an expert. */
struct bench_matrix {
    const char *name; /* the checkpoint's */
    size_t expert;    /* its number in 'experts' */
    struct mb_codec_matrix codec;
    void *weights; /* what codec points to; 'values' is NULL where they are the weights */
    float *values;
    uint8_t *coded; /* by the codec of the row at hand, with slack; NULL: it does not take this matrix */
    size_t coded_nbytes;
    struct mb_codec_opened *opened; /* of 'coded' */
    struct mb_codec_error error;
};

struct bench_expert {
    int layer, expert;
    struct mb_weight_stats stats; /* of its matrices together, as "compress" takes them */
};

struct bench_matrices {
    struct bench_matrix *at;
    size_t n;
    struct bench_expert *experts;
    size_t n_experts, n_model_experts; /* that were taken, and that the layers have */
    uint64_t n_weights;
    size_t n_weights_max, n_rows_max, n_cols_max; /* of one matrix */
};

struct bench_choice {
    int first_layer, last_layer; /* of the model, from 0 */
    int n_experts;               /* at most, spread evenly */
};

/* Reads experts of a plain checkpoint. Free with bench_matrices_free, after a failure too. */
enum mb_status bench_matrices_read(const struct mb_checkpoint *ckpt, const struct bench_choice *choice,
                                   struct bench_matrices *matrices, struct mb_error *err);
void bench_matrices_free(struct bench_matrices *matrices);

enum bench_threads { ONE_THREAD, ALL_THREADS, N_THREAD_COUNTS };

/* A codec at a bound. */
struct bench_row {
    const struct mb_codec *codec;
    bool has_bound; /* false: the codec takes none, and what depends on one is NaN */
    struct mb_bound bound;
    size_t n_matrices; /* that the codec took; 0: none, and nothing below is filled */
    uint64_t n_weights;
    double bits;  /* a weight, everything counted */
    double worst; /* largest error over the bound of its expert */
    double met;   /* largest error over the mean absolute weight of its expert */
    double rms;   /* root of the mean squared error, over the mean absolute weight */
    double sqnr;  /* dB */
    bool is_kept; /* worst <= 1 */
    double encode_rate[N_THREAD_COUNTS], decode_rate[N_THREAD_COUNTS]; /* weights a second */
    double check_rate;   /* of opening, on one thread; 0: the codec checks nothing */
    double product_rate; /* of products from the coded form, on one thread; 0: the codec has none */
    char refusal[160];   /* why a matrix was left out; "": none was */
};

/* Memory of each thread of the pool. */
struct bench_scratch {
    uint8_t *bytes;
    size_t bytes_cap;
    float *decoded;
    float *x, *y; /* of products: as many as a matrix has columns and rows */
};

struct bench_work {
    struct bench_matrices *matrices;
    struct mb_pool *pool;
    struct bench_scratch *scratch; /* [threads] */
    int n_repeats;
};

/* Fills all but codec, has_bound and bound. MB_CANCELLED: interrupted. */
enum mb_status bench_codecs_measure(struct bench_work *work, struct bench_row *row, struct mb_error *err);

struct bench_codecs {
    const char *model;
    const struct bench_matrices *matrices;
    const struct bench_row *rows;
    size_t n_rows;
    const char *const *missing; /* lines: codecs that are not on this machine, and why */
    size_t n_missing;
    int n_threads;
};

void bench_codecs_print_tables(const struct bench_codecs *bench);
void bench_codecs_print_csv(const struct bench_codecs *bench);
int bench_codecs_print_json(const struct bench_codecs *bench);

/* Our row at a bound and SZ3's rows there: the smallest and the fastest decoder; false: one is not there. */
struct bench_pair {
    const struct bench_row *ours, *smallest, *fastest;
};
bool bench_codecs_pair(const struct bench_codecs *bench, const struct bench_row *ours,
                       struct bench_pair *pair);

/* Writes a chart as SVG. */
enum mb_status bench_codecs_chart(const struct bench_codecs *bench, const char *path, struct mb_error *err);

#endif
