/*
 * results.h - the results file of a sweep: SQLite, one row a run, with everything that repeats it.
 *
 * docs/sweep.md has the tables.  One call writes a run, in one transaction: after a kill or a full disk the
 * file holds whole runs only.  While a file is open for writing nobody else can write it; readers can read.
 *
 * Threads: one at a time uses an mb_results.  Texts are UTF-8 and borrowed for the time of a call.
 */
#ifndef MOEBIUS_RESULTS_H
#define MOEBIUS_RESULTS_H

#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mb_results;

/* A row of 'manifest'. What 'is_telling' has to be the same where a sweep goes on. */
struct mb_manifest_row {
    const char *key, *value;
    bool is_telling;
    const char *what; /* is_telling: "the model", for the message */
};

/*
 * Makes the file; MB_USAGE: it exists.  With 'resume' a file that exists is opened and checked: MB_BAD_DATA
 * names what is of another model, task, plan or version, or says that it is no results file; one that does
 * not exist or holds nothing is made.  MB_IO: another process writes it.
 */
MB_API enum mb_status mb_results_open(const char *path, const struct mb_manifest_row *manifest,
                                      size_t n_manifest, bool resume, struct mb_results **results,
                                      struct mb_error *err);

/* For reading alone. */
MB_API enum mb_status mb_results_read(const char *path, struct mb_results **results, struct mb_error *err);
MB_API void mb_results_close(struct mb_results *results); /* NULL: nothing to do */

/* The open sqlite3 * for questions of one's own; not to be closed. */
MB_API void *mb_results_sqlite(struct mb_results *results);

/* ---------------------------------------------------------------- rows */

/* NaN is stored as NULL: not measured, or no value. */
struct mb_result_value {
    const char *name;
    double value, low, high;
    uint64_t n;
};

struct mb_result_answer {
    bool ica, pia;
    int dead; /* enum mb_dead */
    uint64_t n_tokens;
    int64_t reply_hash;
};

struct mb_result_question {
    const char *format, *expected;
    int64_t hash;
};

/* One MoE layer; layers as in tensor names. */
struct mb_result_routing {
    int layer;
    uint64_t n_tokens;
    double utilisation, entropy, gini, imbalance, changed, moved;
};

struct mb_result_load {
    int layer, expert;
    uint64_t n;
    double gate;
};

/* An expert of a layer in which routed experts are changed; against the clean run. */
struct mb_result_flow {
    int layer, expert;
    bool is_changed;
    uint64_t n_left, n_joined; /* tokens that went to it in the clean run alone, and in this run alone */
    double n_got;              /* of the tokens that left changed experts (mb_measure_flow) */
};

struct mb_result_percentile {
    const char *name;
    double percent, value;
};

struct mb_result_run {
    int64_t id;
    const char *label, *target, *selected, *projection, *error;
    const char *bound; /* NULL: none */
    uint64_t seed;
    uint64_t n_matrices, n_weights;
    bool has_task, has_text;
    const struct mb_result_value *values;
    size_t n_values;
    const struct mb_result_answer *answers; /* in the order of the questions */
    size_t n_answers;
    const char *const *replies; /* the same; no text is kept where n_replies is 0 */
    size_t n_replies;
    const struct mb_result_routing *routing;
    size_t n_routing;
    const struct mb_result_load *loads;
    size_t n_loads;
    const struct mb_result_percentile *percentiles;
    size_t n_percentiles;
    const char *begun; /* UTC */
    double seconds;
    int n_threads;
    const struct mb_result_flow *flows;
    size_t n_flows;
};

/* Whole or not at all. MB_NO_SPACE: the disk is full. */
MB_API enum mb_status mb_results_put_run(struct mb_results *results, const struct mb_result_run *run,
                                         struct mb_error *err);

/* The questions, once; where they are there already nothing happens. */
MB_API enum mb_status mb_results_put_questions(struct mb_results *results,
                                               const struct mb_result_question *questions, size_t n,
                                               struct mb_error *err);

MB_API enum mb_status mb_results_has_run(struct mb_results *results, int64_t id, bool *has,
                                         struct mb_error *err);

/*
 * Answers of a run: *answers is malloc'ed, the caller frees it; 0 of them: the run is not there or has none.
 * So are *replies and each of them.
 * The value of a name: NaN where there is none.
 */
MB_API enum mb_status mb_results_get_answers(struct mb_results *results, int64_t run,
                                             struct mb_result_answer **answers, size_t *n,
                                             struct mb_error *err);
MB_API enum mb_status mb_results_get_replies(struct mb_results *results, int64_t run, char ***replies,
                                             size_t *n, struct mb_error *err);
MB_API enum mb_status mb_results_get_value(struct mb_results *results, int64_t run, const char *name,
                                           struct mb_result_value *value, struct mb_error *err);

/* ---------------------------------------------------------------- what is computed from the runs */

struct mb_result_comparison {
    int64_t run;
    const char *name;
    double difference, low, high, p, p_adjusted;
    uint64_t n;
    char verdict[64];
};

struct mb_result_pooled {
    const char *label, *target, *error, *bound, *name;
    uint64_t n_seeds;
    double mean, low, high, seed_sd, difference, difference_low, difference_high, p, p_adjusted;
    char verdict[64];
};

struct mb_result_paper {
    const char *part, *place, *bound, *error, *name;
    double paper, paper_clean, paper_low, paper_high; /* low, high: of the difference from the clean run */
    double ours, ours_clean, low, high;
    const char *agrees;
};

/* Takes the place of what was there, in one transaction. */
struct mb_result_summary {
    const struct mb_result_comparison *comparisons;
    size_t n_comparisons;
    const struct mb_result_pooled *pooled;
    size_t n_pooled;
    const struct mb_result_paper *paper;
    size_t n_paper;
    const char *ended; /* UTC; NULL: runs are missing */
};
MB_API enum mb_status mb_results_put_summary(struct mb_results *results,
                                             const struct mb_result_summary *summary, struct mb_error *err);

/* Each row in the order in which it was put; its texts are valid during the call. */
typedef void (*mb_pooled_fn)(void *ctx, const struct mb_result_pooled *row);
MB_API enum mb_status mb_results_each_pooled(struct mb_results *results, mb_pooled_fn fn, void *ctx,
                                             struct mb_error *err);
typedef void (*mb_paper_fn)(void *ctx, const struct mb_result_paper *row);
MB_API enum mb_status mb_results_each_paper(struct mb_results *results, mb_paper_fn fn, void *ctx,
                                            struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
