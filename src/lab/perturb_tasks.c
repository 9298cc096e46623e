/*
 * perturb_tasks.c - cuts matrices into pieces, and gives pieces or matrices to all threads.
 */
#include "base/error.h"
#include "perturb_work.h"

enum { PIECE_WEIGHTS = 1 << 15 };

uint64_t mb_perturb_piece_rows(uint64_t n_rows, size_t n_cols)
{
    size_t group_rows = mb_group_rows(n_cols), rows = PIECE_WEIGHTS / n_cols / group_rows * group_rows;
    rows = rows < group_rows ? group_rows : rows;
    return rows < n_rows ? rows : n_rows;
}

struct tasks {
    struct mb_perturb_work *work;
    mb_perturb_fn fn;
};

static void run_task(void *ctx, size_t task, int thread)
{
    const struct tasks *tasks = ctx;
    tasks->fn(tasks->work, task, thread);
}

enum mb_status mb_perturb_pieces(struct mb_perturb_work *work, mb_perturb_fn fn, struct mb_error *err)
{
    struct tasks tasks = {work, fn};
    mb_pool_run(work->perturber->pool, work->n_pieces, run_task, &tasks);
    for (size_t i = 0; i < work->n_pieces; i++)
        MB_TRY(mb_pass_on(err, work->pieces[i].status, &work->pieces[i].err));
    return MB_OK;
}

enum mb_status mb_perturb_items(struct mb_perturb_work *work, mb_perturb_fn fn, struct mb_error *err)
{
    struct tasks tasks = {work, fn};
    mb_pool_run(work->perturber->pool, work->n_items, run_task, &tasks);
    for (size_t i = 0; i < work->n_items; i++)
        MB_TRY(mb_pass_on(err, work->items[i].status, &work->items[i].err));
    return MB_OK;
}
