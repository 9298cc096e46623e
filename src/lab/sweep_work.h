/*
 * sweep_work.h - a sweep under way: what is open, the row of the run in hand, and the seams to errors and
 * measurements.
 */
#ifndef MB_LAB_SWEEP_WORK_H
#define MB_LAB_SWEEP_WORK_H

#include "base/buf.h"
#include "sweep_file.h"
#include "sweep_paper.h"
#include <moebius/lab.h>
#include <moebius/measure.h>
#include <moebius/perturb.h>
#include <moebius/results.h>
#include <moebius/tokenizer.h>
#include <pthread.h>

/* ---------------------------------------------------------------- the row of a run */

enum { MB_SWEEP_VALUES_MAX = 48 };

struct mb_sweep_row {
    struct mb_result_value values[MB_SWEEP_VALUES_MAX];
    size_t n_values;
    struct mb_result_answer *answers;
    size_t n_answers;
    char **replies; /* [n_answers], of the clean run alone; else NULL */
    struct mb_result_routing *routing;
    size_t n_routing;
    struct mb_result_load *loads;
    size_t n_loads;
    struct mb_result_flow *flows;
    size_t n_flows;
    struct mb_result_percentile *percentiles;
    size_t n_percentiles;
};

void mb_sweep_row_free(struct mb_sweep_row *row); /* and zeroed */

/* 'name' is not copied. Low and high are NAN where there is no interval. */
void mb_sweep_row_value(struct mb_sweep_row *row, const char *name, double value, double low, double high,
                        uint64_t n);

/* k of n, with its Wilson interval. */
void mb_sweep_row_share(struct mb_sweep_row *row, const char *name, uint64_t k, uint64_t n);

/* ---------------------------------------------------------------- the sweep */

/* The matrices that compress codes by a plan file, and their bounds. */
struct mb_sweep_bounds {
    size_t *at;              /* [n] numbers in mb_model_matrices, increasing */
    struct mb_bound *bounds; /* [n] */
    size_t n;
};

/* What an error has done. Texts are malloc'ed. */
struct mb_sweep_change {
    char *selected, *projection;
    uint64_t n_matrices, n_weights;
    double err_max, err_rms, norm, bits; /* NAN: not known */
    bool *has_expert; /* [n_layers * n_experts] routed experts that are changed; NULL: none. malloc'ed */
    struct mb_measure_change layers;
};

/* What the jobs of a sweep share; all but the mutex is looked at while it is held. */
struct mb_sweep_shared {
    pthread_mutex_t mutex;
    size_t next;           /* run to be taken, 0: the clean one */
    size_t n_runs, n_done; /* of this call */
    double share;          /* of the runs in hand, added up */
    enum mb_status status; /* why all stop */
    struct mb_error err;
};

/* One job: a model, and what is done with it. */
struct mb_sweep_work {
    const struct mb_sweep *sweep; /* as it was read */
    struct mb_sweep *plan; /* a copy with the runs that the suite, if there is one, has for the model */
    struct mb_sweep_bounds *bounds; /* [plan->n_items] of items that have a plan file; else zeroed */
    char notes[1024];               /* lines, about these */
    struct mb_sweep_options options;
    const char *model_path;
    struct mb_model *model;
    struct mb_tokenizer *tokenizer;
    struct mb_task task; /* no questions: no task */
    char *text;          /* NULL: none */
    size_t text_nbytes;
    int *moe_layers; /* [n_moe_layers] that have routed experts, numbers as in tensor names */
    size_t n_moe_layers;
    struct mb_results *results;
    struct mb_result_answer *clean; /* [n_questions]: the clean run's, once it is done */
    char **clean_replies;           /* the same; NULL: a task of choices has none */
    size_t n_clean_replies;
    struct mb_windows windows;  /* that KL is of */
    struct mb_measure *measure; /* NULL until the clean model has read them */
    struct mb_profile *profile; /* usage of experts, of the same tokens */
    struct mb_perturber *perturber;
    struct mb_sweep_shared *shared;
    const bool *is_done;                  /* [plan->n_items] before this call */
    char what[160];                       /* the run in hand */
    double share, share_begin, share_end; /* of it: done, and that the measurement in hand takes */
};

/* ---------------------------------------------------------------- sweep_work.c, beside the row */

/* Of the task, answered in words or by choosing. 0: there is no task. */
size_t mb_sweep_n_questions(const struct mb_sweep_work *work);

struct mb_sweep_shape mb_sweep_shape_of(const struct mb_sweep_work *work);

/* Shows that 'share' of the run in hand is done. true: stop. */
bool mb_sweep_show(struct mb_sweep_work *work, double share);

/* A job's model, and all that belongs to it. */
enum mb_status mb_sweep_open_model(struct mb_sweep_work *work, struct mb_error *err);
void mb_sweep_close_model(struct mb_sweep_work *work);

/* An mb_progress_fn for what a measurement calls; ctx is the work. */
bool mb_sweep_progress(void *work, const char *what, uint64_t done, uint64_t total);

/* sweep_questions.c: reads the questions and notes lines that are left out; notes questions without room. */
enum mb_status mb_sweep_open_task(struct mb_sweep_work *work, struct mb_error *err);
void mb_sweep_note_no_room(const struct mb_sweep_work *work);

/* sweep_task.c, sweep_text.c: one way to measure a run. Each has its place in a table in sweep_run.c. */
enum mb_status mb_sweep_measure_task(struct mb_sweep_work *work, const struct mb_sweep_change *change,
                                     struct mb_sweep_row *row, struct mb_error *err);
enum mb_status mb_sweep_measure_text(struct mb_sweep_work *work, const struct mb_sweep_change *change,
                                     struct mb_sweep_row *row, struct mb_error *err);

/* sweep_routes.c: the router's choices in the run that has just been measured. */
enum mb_status mb_sweep_measure_routes(struct mb_sweep_work *work, const struct mb_sweep_change *change,
                                       struct mb_sweep_row *row, struct mb_error *err);

/*
 * sweep_text.c: the clean model reads what KL is of, once, however often this is called: the text, or
 * without one questions of the task with the clean run's replies.  The model has to be clean, and
 * work->clean_replies there.
 */
enum mb_status mb_sweep_read_clean(struct mb_sweep_work *work, struct mb_error *err);

/*
 * Windows of the text, before the plan is shown; and how many windows KL is of.  The text may be JSON lines:
 * then they are questions with replies.
 */
enum mb_status mb_sweep_add_text(struct mb_sweep_work *work, struct mb_error *err);
bool mb_sweep_has_lines(const struct mb_sweep_work *work);
size_t mb_sweep_n_windows(const struct mb_sweep_work *work);

/*
 * sweep_error.c: looks at all errors of the plan, at the words of all targets before there is a results file,
 * and at what they select once the clean model has read what usage of experts is of; puts the error of a run
 * into the model, and takes it out.
 */
enum mb_status mb_sweep_check_errors(struct mb_sweep_work *work, struct mb_error *err);
enum mb_status mb_sweep_check_words(struct mb_sweep_work *work, struct mb_error *err);
enum mb_status mb_sweep_check_targets(struct mb_sweep_work *work, struct mb_error *err);
enum mb_status mb_sweep_apply(struct mb_sweep_work *work, const struct mb_sweep_item *item,
                              struct mb_sweep_change *change, struct mb_error *err);
enum mb_status mb_sweep_undo(struct mb_sweep_work *work, struct mb_error *err);

/* sweep_bounds.c: reads the plan files of all items, whose bounds become the files' checksums. */
enum mb_status mb_sweep_read_bounds(struct mb_sweep_work *work, struct mb_error *err);
void mb_sweep_free_bounds(struct mb_sweep_work *work);

/* sweep_run.c: one run, and its row in the results file. */
enum mb_status mb_sweep_do_run(struct mb_sweep_work *work, size_t id, struct mb_error *err);

/* sweep_jobs.c: all that are not done, the clean one first. */
enum mb_status mb_sweep_do_all(struct mb_sweep_work *work, const bool *is_done,
                               struct mb_sweep_report *report, struct mb_error *err);

/* sweep_compare.c: all runs of the results file against the clean one. */
enum mb_status mb_sweep_compare(struct mb_sweep_work *work, bool is_ended, struct mb_error *err);

/* sweep_hash.c: XXH3-128 as 32 hexadecimal digits. */
enum { MB_SWEEP_HASH_NBYTES = MB_HASH_NBYTES };

/* Of the files beside the weights that mb_model_hash leaves out: tokenizer, chat template, settings. */
enum mb_status mb_sweep_hash_files(const char *model_path, char hash[MB_SWEEP_HASH_NBYTES],
                                   struct mb_error *err);

/* *layers is malloc'ed: numbers of the layers with routed experts, ascending. */
enum mb_status mb_sweep_find_moe_layers(const char *model_path, int **layers, size_t *n,
                                        struct mb_error *err);
void mb_sweep_hash_task(const struct mb_task *task, char hash[MB_SWEEP_HASH_NBYTES]);
void mb_sweep_hash_bytes(const void *bytes, size_t nbytes, char hash[MB_SWEEP_HASH_NBYTES]);

/* Of all that the rows of a plan depend on beside model, task and text. */
enum mb_status mb_sweep_hash_plan(const struct mb_sweep_work *work, char hash[MB_SWEEP_HASH_NBYTES],
                                  struct mb_error *err);
int64_t mb_sweep_hash_text(const char *text); /* XXH3-64 */

/* UTC, ISO 8601. */
void mb_sweep_now(char text[32]);

#endif
