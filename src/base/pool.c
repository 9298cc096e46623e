/*
 * pool.c - a pool of threads that sleep on a futex when a short spin finds nothing.
 *
 * A crowded pool has more threads than the process gets CPUs: a thread that spins then takes the time of one
 * that works, and a thread that wakes for a few microseconds of work costs more than it brings.  Its threads
 * sleep at once, and are woken for work that has turned out to be long.
 *
 * Work is one (fn, ctx, n_tasks) at a time.  Threads claim spans of task numbers from one 64-bit word that
 * holds the work's generation in its upper half and the next task in its lower half: a thread that wakes late
 * can never claim a task of later work with the earlier work's function.
 */
#include "base/pool.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/error.h"
#include "pause.h"
#include <assert.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    N_THREADS_MAX = 256,
    /* Longer than the gaps between a layer's steps, shorter than a scheduler's slice. */
    SPIN_NS = 30000,
    /* Many times what it costs to put a thread to sleep, to wake it and to change to it. */
    LONG_WORK_NS = 200000,
    /* Reading the clock costs about as much as a pause, so we read it once in so many pauses. */
    CLOCK_PAUSES = 16,
};

/* A task number beyond those of any work. */
#define CLAIM_CLOSED UINT32_MAX

struct worker {
    struct mb_pool *pool;
    pthread_t thread;
    int index;
};

struct mb_pool {
    /* Work; written by the giver before 'claim' shows its generation. */
    _Atomic(mb_span_fn) fn;
    _Atomic(void *) ctx;
    _Atomic uint32_t n_tasks;

    _Alignas(64) _Atomic uint64_t claim; /* generation << 32 | next task */
    _Alignas(64) _Atomic uint32_t n_done;
    _Alignas(64) _Atomic uint32_t generation; /* futex of sleeping workers */
    _Atomic uint32_t n_asleep;
    _Alignas(64) _Atomic uint32_t giver_asleep; /* futex of the giver */
    _Atomic bool stop;

    /* Of the giver alone. */
    uint64_t waited_ns;
    uint64_t begun_ns; /* a crowded pool's work */
    bool workers_know; /* of a crowded pool's work: they have been woken */

    bool is_crowded;
    int n_threads;
    struct worker *workers; /* n_threads - 1 */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/*
 * How many of the remaining tasks a thread claims at once: many at first, since neighbouring tasks read
 * neighbouring memory, and single ones at the end, so that all threads finish together.
 */
static uint32_t span_of_tasks(const struct mb_pool *pool, uint32_t n_left)
{
    uint32_t n = n_left / (4 * (uint32_t)pool->n_threads);
    return n == 0 ? 1 : n;
}

static void wake_workers(struct mb_pool *pool)
{
    if (atomic_load(&pool->n_asleep) > 0)
        futex_wake(&pool->generation, pool->n_threads);
}

/* What the giver of a crowded pool does between two spans of tasks. */
static void wake_workers_if_long(struct mb_pool *pool)
{
    if (pool->workers_know || mb_now_ns() - pool->begun_ns < LONG_WORK_NS)
        return;
    pool->workers_know = true;
    wake_workers(pool);
}

/*
 * Runs tasks of one generation until none is left. fn, ctx and n_tasks are read before the claim: when the
 * claim succeeds, 'claim' had not changed since, so they belonged to its generation (the giver closes 'claim'
 * before it changes them).
 */
static void work(struct mb_pool *pool, uint32_t generation, int thread)
{
    for (;;) {
        uint64_t claim = atomic_load(&pool->claim);
        if ((uint32_t)(claim >> 32) != generation)
            return;
        mb_span_fn fn = atomic_load(&pool->fn);
        void *ctx = atomic_load(&pool->ctx);
        uint32_t n_tasks = atomic_load(&pool->n_tasks), task = (uint32_t)claim;
        if (task >= n_tasks)
            return;
        uint32_t n = span_of_tasks(pool, n_tasks - task);
        if (!atomic_compare_exchange_weak(&pool->claim, &claim, claim + n))
            continue;
        fn(ctx, task, n, thread);
        if (atomic_fetch_add(&pool->n_done, n) + n == n_tasks && atomic_exchange(&pool->giver_asleep, 0) == 1)
            futex_wake(&pool->giver_asleep, 1);
        if (pool->is_crowded && thread == 0)
            wake_workers_if_long(pool);
    }
}

struct spin {
    uint64_t begun_ns;
    unsigned n_pauses;
};

/* false: the spin has lasted long enough, the thread should sleep. */
static bool spin_on(const struct mb_pool *pool, struct spin *spin)
{
    if (pool->is_crowded)
        return false;
    mb_pause();
    if (++spin->n_pauses % CLOCK_PAUSES != 0)
        return true;
    uint64_t now = mb_now_ns();
    if (spin->begun_ns == 0)
        spin->begun_ns = now;
    return now - spin->begun_ns < SPIN_NS;
}

static uint32_t wait_for_generation(struct mb_pool *pool, uint32_t seen)
{
    struct spin spin = {0};
    do {
        uint32_t generation = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (generation != seen)
            return generation;
    } while (spin_on(pool, &spin));
    atomic_fetch_add(&pool->n_asleep, 1);
    uint32_t generation;
    while ((generation = atomic_load(&pool->generation)) == seen)
        futex_wait(&pool->generation, seen);
    atomic_fetch_sub(&pool->n_asleep, 1);
    return generation;
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct mb_pool *pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_generation(pool, seen);
        if (atomic_load(&pool->stop))
            return NULL;
        work(pool, seen, worker->index);
    }
}

static void show_generation(struct mb_pool *pool, uint32_t generation)
{
    atomic_store(&pool->generation, generation);
    if (pool->is_crowded) {
        pool->workers_know = false;
        pool->begun_ns = mb_now_ns();
    } else {
        wake_workers(pool);
    }
}

static void wait_for_done(struct mb_pool *pool, uint32_t n_tasks)
{
    struct spin spin = {0};
    do {
        if (atomic_load_explicit(&pool->n_done, memory_order_acquire) == n_tasks)
            return;
    } while (spin_on(pool, &spin));
    for (;;) {
        atomic_store(&pool->giver_asleep, 1);
        if (atomic_load(&pool->n_done) == n_tasks)
            break;
        futex_wait(&pool->giver_asleep, 1);
        if (atomic_load(&pool->n_done) == n_tasks)
            break;
    }
    atomic_store(&pool->giver_asleep, 0);
}

static void run_together(struct mb_pool *pool, uint32_t n_tasks, mb_span_fn fn, void *ctx)
{
    uint32_t generation = atomic_load(&pool->generation) + 1;
    /* A thread that still looks for a task of the last work must not compare with this work's n_tasks. */
    atomic_store(&pool->claim, (uint64_t)generation << 32 | CLAIM_CLOSED);
    atomic_store(&pool->n_done, 0);
    atomic_store(&pool->fn, fn);
    atomic_store(&pool->ctx, ctx);
    atomic_store(&pool->n_tasks, n_tasks);
    atomic_store(&pool->claim, (uint64_t)generation << 32);
    show_generation(pool, generation);
    work(pool, generation, 0);
    if (atomic_load_explicit(&pool->n_done, memory_order_acquire) == n_tasks)
        return;
    uint64_t begun = mb_now_ns();
    wait_for_done(pool, n_tasks);
    pool->waited_ns += mb_now_ns() - begun;
}

void mb_pool_run_spans(struct mb_pool *pool, size_t n_tasks, mb_span_fn fn, void *ctx)
{
    assert(n_tasks <= MB_POOL_TASKS_MAX);
    if (pool->n_threads > 1 && n_tasks > 1)
        run_together(pool, (uint32_t)n_tasks, fn, ctx);
    else if (n_tasks > 0)
        fn(ctx, 0, n_tasks, 0);
}

struct one_by_one {
    mb_task_fn fn;
    void *ctx;
};

static void run_one_by_one(void *ctx, size_t first, size_t n, int thread)
{
    const struct one_by_one *tasks = ctx;
    for (size_t i = 0; i < n; i++)
        tasks->fn(tasks->ctx, first + i, thread);
}

void mb_pool_run(struct mb_pool *pool, size_t n_tasks, mb_task_fn fn, void *ctx)
{
    mb_pool_run_spans(pool, n_tasks, run_one_by_one, &(struct one_by_one){fn, ctx});
}

enum mb_status mb_pool_create(int n_threads, struct mb_pool **pool, struct mb_error *err)
{
    if (n_threads < 0)
        return mb_fail(err, MB_USAGE, "%d threads: must not be negative", n_threads);
    struct mb_cpu_share share = mb_cpu_share();
    if (n_threads == 0)
        n_threads = mb_cpu_share_threads(&share);
    if (n_threads > N_THREADS_MAX)
        n_threads = N_THREADS_MAX;
    struct mb_pool *p = aligned_alloc(64, sizeof *p);
    if (p == NULL)
        return mb_fail_memory(err, "the threads");
    memset(p, 0, sizeof *p);
    p->n_threads = 1;
    p->is_crowded = mb_cpu_share_is_exceeded(&share, n_threads);
    p->workers = calloc((size_t)n_threads, sizeof *p->workers);
    if (p->workers == NULL) {
        free(p);
        return mb_fail_memory(err, "the threads");
    }
    for (int i = 1; i < n_threads; i++) {
        struct worker *worker = &p->workers[i - 1];
        *worker = (struct worker){.pool = p, .index = i};
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
            mb_pool_destroy(p);
            return mb_fail(err, MB_NO_MEMORY, "thread %d of %d cannot be started", i + 1, n_threads);
        }
        p->n_threads++;
    }
    *pool = p;
    return MB_OK;
}

void mb_pool_destroy(struct mb_pool *pool)
{
    if (pool == NULL)
        return;
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->generation, 1);
    futex_wake(&pool->generation, pool->n_threads);
    for (int i = 1; i < pool->n_threads; i++)
        pthread_join(pool->workers[i - 1].thread, NULL);
    free(pool->workers);
    free(pool);
}

int mb_pool_n_threads(const struct mb_pool *pool)
{
    return pool->n_threads;
}

uint64_t mb_pool_waited_ns(const struct mb_pool *pool)
{
    return pool->waited_ns;
}
