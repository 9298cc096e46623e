/*
 * test_pool.c - every task runs exactly once, whatever the number of threads and tasks, work after work.
 */
#include "base/pool.h"
#include "cmocka_all.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { N_TASKS_MAX = 1000 };

struct counts {
    _Atomic int n_runs[N_TASKS_MAX];
    _Atomic int n_bad_threads;
    int n_threads;
};

static void count(void *ctx, size_t task, int thread)
{
    struct counts *counts = ctx;
    atomic_fetch_add(&counts->n_runs[task], 1);
    if (thread < 0 || thread >= counts->n_threads)
        atomic_fetch_add(&counts->n_bad_threads, 1);
}

static void run_many_times(int n_threads, int n_times)
{
    struct mb_pool *pool;
    assert_int_equal(mb_pool_create(n_threads, &pool, NULL), MB_OK);
    struct counts *counts = calloc(1, sizeof *counts);
    assert_non_null(counts);
    counts->n_threads = mb_pool_n_threads(pool);
    int expected[N_TASKS_MAX] = {0};
    for (int i = 0; i < n_times; i++) {
        size_t n_tasks = (size_t)(i * 37 % (N_TASKS_MAX + 1)) >> (i % 9);
        mb_pool_run(pool, n_tasks, count, counts);
        for (size_t task = 0; task < n_tasks; task++) {
            expected[task]++;
            assert_int_equal(counts->n_runs[task], expected[task]); /* done when run returns */
        }
    }
    assert_int_equal(counts->n_bad_threads, 0);
    free(counts);
    mb_pool_destroy(pool);
}

static void each_task_runs_once(void **state)
{
    (void)state;
    run_many_times(1, 100);
    run_many_times(2, 3000);
    run_many_times(5, 1000); /* more threads than this machine may have */
    run_many_times(0, 100);
}

/* A thread that is late in one work must not take a task of the next, which has more of them. */
static void works_follow_one_another(void **state)
{
    enum { N_WORKS = 100000 };
    (void)state;
    struct mb_pool *pool;
    assert_int_equal(mb_pool_create(2, &pool, NULL), MB_OK);
    static struct counts counts;
    counts.n_threads = 2;
    for (int i = 0; i < N_WORKS; i++)
        mb_pool_run(pool, 2 + (size_t)(i % 2) * 5, count, &counts);
    for (size_t task = 0; task < 7; task++)
        assert_int_equal(counts.n_runs[task], task < 2 ? N_WORKS : N_WORKS / 2);
    assert_int_equal(counts.n_bad_threads, 0);
    mb_pool_destroy(pool);
}

static void sleeping_threads_wake(void **state)
{
    (void)state;
    struct mb_pool *pool;
    assert_int_equal(mb_pool_create(3, &pool, NULL), MB_OK);
    static struct counts counts;
    counts.n_threads = 3;
    for (int i = 1; i <= 20; i++) {
        usleep(2000); /* long past the spin */
        mb_pool_run(pool, 50, count, &counts);
        for (size_t task = 0; task < 50; task++)
            assert_int_equal(counts.n_runs[task], i);
    }
    mb_pool_destroy(pool);
}

static void numbers_of_threads_are_checked(void **state)
{
    (void)state;
    struct mb_pool *pool = NULL;
    struct mb_error err;
    assert_int_equal(mb_pool_create(-1, &pool, &err), MB_USAGE);
    assert_null(pool);
    mb_pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_task_runs_once),
        cmocka_unit_test(works_follow_one_another),
        cmocka_unit_test(sleeping_threads_wake),
        cmocka_unit_test(numbers_of_threads_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
