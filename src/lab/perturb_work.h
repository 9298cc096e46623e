/*
 * perturb_work.h - an error in the making: the matrices that it goes into, what is laid over them, and the
 * pieces that threads work on.
 */
#ifndef MB_LAB_PERTURB_WORK_H
#define MB_LAB_PERTURB_WORK_H

#include "base/pool.h"
#include <moebius/perturb.h>

/* What a thread needs for itself: a piece of a matrix. */
struct mb_perturb_scratch {
    float *weights, *changed; /* [piece_weights_max] */
    double *draws;            /* [piece_weights_max] */
    uint8_t *coded;           /* [coded_nbytes] */
    size_t coded_nbytes;
};

struct mb_perturber {
    struct mb_model *model;
    struct mb_perturb_options options;
    const struct mb_model_matrix *matrices;
    size_t n_matrices, n_layers;
    bool has_head;
    struct mb_pool *pool;
    struct mb_perturb_scratch *scratch; /* [threads] */
    bool *is_changed;                   /* [n_matrices] */
    struct mb_weight_stats *stats; /* [n_matrices] at the first matrix of a unit; n is 0: not known yet */
    struct mb_perturb_applied *applied; /* the last one first */
};

/* What an error did to a piece. */
struct mb_perturb_sums {
    double error_squares, weight_squares;
    double err_max; /* in weight units */
    uint64_t n_beyond, n_bad_weights, n_infinite;
};

/* A matrix that gets an error. */
struct mb_perturb_item {
    size_t number;
    struct mb_matrix original, laid;
    double eps;       /* NAN: the error has none */
    double deviation; /* of normal values */
    double mean;      /* RANDOM: their mean */
    uint64_t key;
    float *out;              /* where values go: inside the arena */
    struct mb_group *groups; /* CODEC: [n_groups], while it is coded */
    void *block;             /* CODEC: records, directory and view */
    uint64_t block_nbytes;
    uint64_t coded_nbytes; /* CODEC: of the coded form with all that decoding needs */
    struct mb_perturb_sums sums;
    enum mb_status status; /* of its own task */
    struct mb_error err;
};

/* Rows of an item: whole row groups. */
struct mb_perturb_piece {
    struct mb_perturb_item *item;
    uint64_t row, n_rows;
    uint8_t *coded; /* records, malloc'ed */
    size_t coded_nbytes;
    struct mb_perturb_sums sums;
    enum mb_status status;
    struct mb_error err;
};

struct mb_perturb_work {
    struct mb_perturber *perturber;
    const struct mb_perturbation *perturbation;
    struct mb_perturb_item *items;
    struct mb_perturb_piece *pieces;
    size_t n_items, n_pieces;
    void *arena; /* pages */
    uint64_t arena_nbytes;
};

/* ---------------------------------------------------------------- perturb_tasks.c */

/* Rows of a piece of a matrix: about 32 Ki weights. */
uint64_t mb_perturb_piece_rows(uint64_t n_rows, size_t n_cols);

/* Runs fn(work, number, thread) for all pieces or items; the first failure is the result. */
typedef void (*mb_perturb_fn)(struct mb_perturb_work *work, size_t number, int thread);
enum mb_status mb_perturb_pieces(struct mb_perturb_work *work, mb_perturb_fn fn, struct mb_error *err);
enum mb_status mb_perturb_items(struct mb_perturb_work *work, mb_perturb_fn fn, struct mb_error *err);

/* ---------------------------------------------------------------- perturb_bounds.c */

/* eps of all items, by what it is relative to. */
enum mb_status mb_perturb_bounds(struct mb_perturb_work *work, struct mb_error *err);

/* Mean and deviation of all items' own weights. */
enum mb_status mb_perturb_moments(struct mb_perturb_work *work, struct mb_error *err);

/* ---------------------------------------------------------------- perturb_codec.c */

/* items[].laid: coded with their eps, in blocks of their own. */
enum mb_status mb_perturb_code(struct mb_perturb_work *work, struct mb_error *err);

/* ---------------------------------------------------------------- perturb_make.c */

/* items[].laid of any kind but DROP. */
enum mb_status mb_perturb_make(struct mb_perturb_work *work, struct mb_error *err);

#endif
