/*
 * sweep.h - many runs of one model, each with an error somewhere, measured and kept in a results file.
 *
 *     mb_sweep_read("sweep.json", NULL, &sweep, &err);
 *     mb_sweep_run("models/reference", sweep, "results.db", &options, &report, &err);
 *     mb_sweep_close(sweep);
 *
 * docs/sweep.md describes sweep files, results files and what the figures mean.
 */
#ifndef MOEBIUS_SWEEP_H
#define MOEBIUS_SWEEP_H

#include <moebius/engine.h>
#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mb_sweep;

/* What a command line says. Zeroed: nothing. What is given takes the place of what the file says. */
struct mb_sweep_flags {
    size_t size;                /* sizeof(struct mb_sweep_flags) */
    const char *task, *text;    /* paths */
    size_t limit, n_predict;    /* questions, tokens of a reply */
    size_t n_ctx, n_windows;    /* of the text */
    size_t n_seeds;             /* seeds 1 to n_seeds */
    const char *const *targets; /* [n_targets]; with errors and bounds: the runs, in place of the file's */
    size_t n_targets;
    const char *errors, *bounds; /* lists, commas between */
    const char *suite;           /* "paper": its runs; NULL: none */
    const char *examples;        /* path, and how many: docs/scoring.md, "Examples" */
    size_t n_examples;
    const char *const
        *plans; /* [n_plans] paths (docs/plan.md): runs of their own, after those of 'targets' */
    size_t n_plans;
    const char *dense_bound; /* of what the plans do not name, as compress has it; NULL: its default */
};

/*
 * Reads a sweep file; path NULL: the flags alone.  MB_BAD_DATA and MB_USAGE name what is wrong.  Which runs a
 * suite has, and what targets and errors mean, depends on the model: mb_sweep_run looks at that.
 */
MB_API enum mb_status mb_sweep_read(const char *path, const struct mb_sweep_flags *flags,
                                    struct mb_sweep **sweep, struct mb_error *err);
MB_API void mb_sweep_close(struct mb_sweep *sweep); /* NULL: nothing to do */

/* Called when the sweep knows what it will do, before the first run. true: stop. */
struct mb_sweep_plan {
    size_t n_runs, n_done; /* of n_runs, in the results file already */
    size_t n_comparisons;  /* groups of runs that differ in their seed alone */
    size_t n_questions, n_windows;
    double discordance;    /* assumed share of questions that flip */
    double detectable_one; /* smallest difference of PIA that one comparison most likely shows (power 80 %) */
    double detectable_sweep; /* the same, corrected for n_comparisons */
    const char *notes;       /* lines; "" when nothing */
};
typedef bool (*mb_sweep_plan_fn)(void *ctx, const struct mb_sweep_plan *plan);

/* A run begins or goes on. true: stop, MB_CANCELLED. By one thread at a time. */
struct mb_sweep_step {
    size_t run, n_runs; /* done, and to be done in this call */
    double share;       /* of the runs in hand, from 0 to the number of jobs */
    const char *what;   /* one of them: "layer=1 experts=top1 normal 80% seed 2" */
};
typedef bool (*mb_sweep_step_fn)(void *ctx, const struct mb_sweep_step *step);

/* What else a reader of the results has to know: a line that was left out, questions that have no room. */
typedef void (*mb_sweep_note_fn)(void *ctx, const char *text);

/* Zeroed means defaults. */
struct mb_sweep_options {
    size_t size; /* sizeof(struct mb_sweep_options) */
    bool resume;
    int n_threads;     /* of the model; 0: as many as CPUs allow */
    size_t n_parallel; /* questions answered at once; 0: 64. Changes no result */
    enum mb_cache_type cache_type;
    const char *commit;  /* of the program; kept in the manifest */
    const char *command; /* the command line; kept in the manifest */
    mb_sweep_plan_fn plan;
    mb_sweep_step_fn step;
    void *ctx;             /* of all callbacks */
    size_t n_jobs;         /* models side by side, which share the threads; 0: 1. Changes no result */
    bool is_strict;        /* a malformed line of the task is an error: else it is left out and counted */
    mb_sweep_note_fn note; /* NULL: nobody is told */
};

struct mb_sweep_report {
    size_t n_runs, n_done, n_done_before;
    double seconds;
};

/*
 * Opens the model, does the runs that are missing in the results file, and compares all with the clean run.
 * Threads: as mb_model_open.  MB_CANCELLED: a callback said so; the file is whole, and resume goes on.
 */
MB_API enum mb_status mb_sweep_run(const char *model_path, const struct mb_sweep *sweep,
                                   const char *results_path, const struct mb_sweep_options *options,
                                   struct mb_sweep_report *report, struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
