/*
 * sweep_jobs.c - the runs that are missing, by one model or by several side by side.
 *
 * A job is a thread with a model, an error and a clean pass of its own.  Plan, data, clean answers and
 * windows are shared and only read.  What is shared and changes is behind one mutex: the next run, the
 * results file, progress, and why all have to stop.
 */
#include "base/error.h"
#include "sweep_work.h"
#include <moebius/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- one run after another */

static void describe(const struct mb_sweep_item *item, char text[160])
{
    int n =
        snprintf(text, 160, "%.80s%s%.20s", item->target, item->target[0] == '\0' ? "" : " ", item->error);
    if (item->bound != NULL && n < 120)
        n += snprintf(text + n, 160 - (size_t)n, " %.20s", item->bound);
    if (item->seed != 0 && n < 140)
        snprintf(text + n, 160 - (size_t)n, " seed %llu", (unsigned long long)item->seed);
}

/* Takes 'id' as the run in hand; true: stop. */
static bool begin(struct mb_sweep_work *work, size_t id)
{
    describe(&work->plan->items[id], work->what);
    return mb_sweep_show(work, 0);
}

static enum mb_status do_step(struct mb_sweep_work *work, size_t id, struct mb_error *err)
{
    if (begin(work, id))
        return mb_fail(err, MB_CANCELLED, "stopped before %s", work->what);
    enum mb_status status = mb_sweep_do_run(work, id, err);
    return status == MB_OK || status == MB_CANCELLED ? status
                                                     : mb_fail_in(err, status, "run %zu, %s", id, work->what);
}

/* The number of a run that nobody has taken; false: there is none, or all have to stop. */
static bool take(struct mb_sweep_shared *shared, const struct mb_sweep *plan, const bool *is_done, size_t *id)
{
    pthread_mutex_lock(&shared->mutex);
    while (shared->next < plan->n_items && is_done[shared->next])
        shared->next++;
    bool has = shared->next < plan->n_items && shared->status == MB_OK;
    *id = shared->next;
    shared->next += has;
    pthread_mutex_unlock(&shared->mutex);
    return has;
}

/* The first failure is the sweep's. */
static void finish(struct mb_sweep_work *work, enum mb_status status, const struct mb_error *err)
{
    struct mb_sweep_shared *shared = work->shared;
    pthread_mutex_lock(&shared->mutex);
    shared->share -= work->share; /* what was shown of the run */
    work->share = 0;
    shared->n_done += status == MB_OK;
    if (status != MB_OK && shared->status == MB_OK) {
        shared->status = status;
        shared->err = *err;
    }
    pthread_mutex_unlock(&shared->mutex);
}

/* A thread's whole work; ctx is a struct mb_sweep_work. */
static void *work_off(void *ctx)
{
    struct mb_sweep_work *work = ctx;
    struct mb_error err;
    size_t id;
    while (take(work->shared, work->plan, work->is_done, &id)) {
        enum mb_status status = mb_sweep_read_clean(work, &err);
        if (status == MB_OK)
            status = do_step(work, id, &err);
        finish(work, status, &err);
    }
    return NULL;
}

/* ---------------------------------------------------------------- several models */

/* The windows that the first job has read are there: another one only reads them, too. */
static enum mb_status open_job(const struct mb_sweep_work *first, struct mb_sweep_work *job,
                               struct mb_error *err)
{
    *job = *first;
    job->model = NULL;
    job->measure = NULL;
    job->profile = NULL;
    job->perturber = NULL;
    job->share = 0;
    return mb_sweep_open_model(job, err);
}

static enum mb_status run_jobs(struct mb_sweep_work *first, struct mb_sweep_work *jobs, size_t n,
                               struct mb_error *err)
{
    pthread_t *threads = calloc(n + 1, sizeof *threads);
    size_t n_begun = 0;
    bool failed = false;
    if (threads == NULL)
        return mb_fail_memory(err, "the jobs");
    for (; n_begun < n && !failed; n_begun += !failed)
        failed = pthread_create(&threads[n_begun], NULL, work_off, &jobs[n_begun]) != 0;
    work_off(first); /* with fewer threads than jobs the work is done all the same */
    for (size_t i = 0; i < n_begun; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    return mb_pass_on(err, first->shared->status, &first->shared->err);
}

/* Jobs beside the first, which is the calling thread's. */
static enum mb_status open_and_run(struct mb_sweep_work *first, size_t n, struct mb_error *err)
{
    struct mb_sweep_work *jobs = calloc(n + 1, sizeof *jobs);
    enum mb_status status = MB_OK;
    size_t n_open = 0;
    if (jobs == NULL)
        return mb_fail_memory(err, "the jobs");
    for (; n_open < n && status == MB_OK; n_open++)
        status = open_job(first, &jobs[n_open], err);
    if (status == MB_OK)
        status = run_jobs(first, jobs, n, err);
    for (size_t i = 0; i < n_open; i++)
        mb_sweep_close_model(&jobs[i]);
    free(jobs);
    return status;
}

/* ---------------------------------------------------------------- all runs */

static size_t count_missing(const struct mb_sweep_work *work)
{
    size_t n = 0;
    for (size_t id = 1; id < work->plan->n_items; id++)
        n += !work->is_done[id];
    return n;
}

/*
 * The clean run comes first: all others are compared with it.  Targets are looked at before the first of them
 * has its turn, so that a wrong one is not found after hours.
 */
static enum mb_status do_all(struct mb_sweep_work *work, struct mb_error *err)
{
    if (!work->is_done[0]) {
        struct mb_error why;
        enum mb_status status = do_step(work, 0, &why);
        finish(work, status, &why);
        MB_TRY(mb_pass_on(err, status, &why));
    }
    mb_sweep_note_no_room(work);
    size_t n_missing = count_missing(work), n_jobs = work->options.n_jobs;
    work->shared->next = 1;
    if (n_missing == 0)
        return MB_OK;
    MB_TRY(mb_sweep_read_clean(work, err));
    MB_TRY(mb_sweep_check_targets(work, err));
    size_t n = n_jobs < n_missing ? n_jobs : n_missing;
    return open_and_run(work, n > 1 ? n - 1 : 0, err);
}

enum mb_status mb_sweep_do_all(struct mb_sweep_work *work, const bool *is_done,
                               struct mb_sweep_report *report, struct mb_error *err)
{
    work->is_done = is_done;
    enum mb_status status = do_all(work, err);
    report->n_done = work->shared->n_done;
    return status;
}
