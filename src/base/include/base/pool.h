/*
 * pool.h - a pool of threads that sleep while there is no work.
 *
 * One thread at a time gives work, and takes part in it.  Tasks are numbers; each is run once, by any thread.
 */
#ifndef MB_BASE_POOL_H
#define MB_BASE_POOL_H

#include <moebius/status.h>
#include <stddef.h>
#include <stdint.h>

struct mb_pool;

/* n_threads 0: as many as the process gets CPUs (mb_cpu_share, cpus.h). Capped at 256. */
enum mb_status mb_pool_create(int n_threads, struct mb_pool **pool, struct mb_error *err);
void mb_pool_destroy(struct mb_pool *pool);
int mb_pool_n_threads(const struct mb_pool *pool);

/* 'thread' is 0 .. n_threads - 1, so that a task can use its thread's scratch memory. */
typedef void (*mb_task_fn)(void *ctx, size_t task, int thread);

/* Most tasks of one call: their numbers are half of a 64-bit word. */
enum { MB_POOL_TASKS_MAX = 1 << 30 };

/* Runs tasks 0 .. n_tasks - 1, about lowest first, and returns when all are done.  Allocates nothing. */
void mb_pool_run(struct mb_pool *pool, size_t n_tasks, mb_task_fn fn, void *ctx);

/* The same where neighbouring tasks are better done together: fn does tasks first .. first + n - 1. */
typedef void (*mb_span_fn)(void *ctx, size_t first, size_t n, int thread);
void mb_pool_run_spans(struct mb_pool *pool, size_t n_tasks, mb_span_fn fn, void *ctx);

/* Time since the pool was made in which the giving thread had no task left and waited for the others. */
uint64_t mb_pool_waited_ns(const struct mb_pool *pool);

#endif
