/*
 * planner.h - what a plan is made from: the matrices of a model, what each costs at each bound, what its
 * error does, and the bounds that a policy gives them.
 */
#ifndef MB_PLAN_PLANNER_H
#define MB_PLAN_PLANNER_H

#include <math.h>
#include <moebius/plan.h>

/* Sizes are predicted at fractions from 1 % to 512 %, two to an octave, and between them along the logarithm.
 */
enum { MB_PLAN_N_GRID = 19 };
#define MB_PLAN_FRACTION_MIN 0.01
#define MB_PLAN_FRACTION_MAX 5.12

/* Steps far from the others' prune what was not measured well: no policy goes further than this (docs). */
#define MB_PLAN_FACTOR_MIN 0.4
#define MB_PLAN_FACTOR_MAX 2.5

struct mb_plan_matrix {
    char *name;
    struct mb_tensor_role role;
    uint64_t n_weights, n_rows;
    size_t n_cols;
    double mean_abs;               /* that its fractions are of */
    double nbytes[MB_PLAN_N_GRID]; /* coded */
    double amplitude;              /* of its error, where 1 is that of plain rounding at the same bound */
    double column_share; /* of that, by exponents of columns: for predictions alone (docs/plan.md) */
    bool is_planned;     /* else it has the default of its class */
    double effect; /* mean square that its error at the fraction 1 adds to its layer's outputs, in any unit */
    double weight; /* how its error counts beside others that were measured together */
    double sensitivity; /* KL = sensitivity (amplitude x column_share x fraction)^2; NAN: not known */
    size_t run;         /* from which it is; SIZE_MAX: from none */
    char reason[64];    /* where that is from */
    double factor;      /* of the level, from a policy */
    double fraction;    /* chosen */
};

/* A measured run: one error in several matrices. */
struct mb_plan_run {
    size_t *at; /* [n] numbers of matrices, increasing */
    size_t n;
    double kl, kl_low, kl_high;
    double fraction; /* of plain rounding with as much error */
    int rank;        /* of the error's kind: 0 is the codec itself */
    int64_t id;
};

struct mb_planner {
    const char *model_path;
    struct mb_plan_options options;
    char model_hash[MB_HASH_NBYTES];
    struct mb_plan_matrix *matrices; /* [n_matrices] by layer, expert, projection, name */
    size_t n_matrices;
    int n_layers;
    struct mb_plan_run *runs; /* [n_runs] */
    size_t n_runs;
    bool has_fisher, is_absolute; /* sensitivities are in nats */
    bool has_gates;               /* effects know how much of each expert there is in a token */
    struct mb_plan_report *report;
    double other_nbytes, other_coded_nbytes; /* of the folder, beside the planned matrices */
    int trial_fd;                            /* the plan that is tried, locked */
};

/* A rule that gives bounds. */
struct mb_plan_policy {
    const char *name;
    const char *what; /* for the plan file */
    /* Sets the factors of planned matrices, or says what is missing. */
    enum mb_status (*prepare)(struct mb_planner *planner, struct mb_error *err);
    /* Sets their fractions for a level; both grow together. NULL: level x factor. */
    enum mb_status (*choose)(struct mb_planner *planner, double level, struct mb_error *err);
};
extern const struct mb_plan_policy mb_plan_uniform, mb_plan_depth, mb_plan_frequency, mb_plan_waterfill,
    mb_plan_search;

/* ---------------------------------------------------------------- matrices.c */

/* Lists the matrices, with the sizes that dry runs predict. */
enum mb_status mb_plan_list(struct mb_planner *planner, struct mb_error *err);
double mb_plan_nbytes(const struct mb_plan_matrix *matrix, double fraction);

/* A matrix by its name, or the first of an expert; n_matrices: there is none. */
size_t mb_plan_find(const struct mb_planner *planner, const char *name);
size_t mb_plan_find_expert(const struct mb_planner *planner, int layer, int expert);

/* Adds a line to the report's notes. */
void mb_plan_note(struct mb_planner *planner, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---------------------------------------------------------------- sensitivity*.c */

/* Reads all sources and fills the matrices' sensitivities. */
enum mb_status mb_plan_sensitivities(struct mb_planner *planner, struct mb_error *err);
enum mb_status mb_plan_read_sweep(struct mb_planner *planner, const char *path, struct mb_error *err);
enum mb_status mb_plan_read_fisher(struct mb_planner *planner, const char *path, struct mb_error *err);
enum mb_status mb_plan_read_moments(struct mb_planner *planner, struct mb_error *err);

/* ---------------------------------------------------------------- the rest */

/* factors.c: to a geometric mean of 1 over weights, within MIN and MAX. */
void mb_plan_clamp_factors(struct mb_planner *planner);

/* predict.c: KL at a fraction of plain rounding, by the runs that changed the same matrices as 'like'. */
double mb_plan_measured(const struct mb_planner *planner, const struct mb_plan_run *like, double fraction);

/* KL of the fractions as they are; NAN: not known. */
void mb_plan_predict(const struct mb_planner *planner, double *kl, double *low, double *high);

/* write.c: the plan with what was predicted, as a file that is whole or not there. */
enum mb_status mb_plan_write(const struct mb_planner *planner, const struct mb_plan_policy *policy,
                             const char *path, struct mb_error *err);

/* Over what the trial's file held before: path is that of trial_fd. */
enum mb_status mb_plan_write_trial(const struct mb_planner *planner, const struct mb_plan_policy *policy,
                                   const char *path, struct mb_error *err);

#endif
