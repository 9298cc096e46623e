/*
 * test_cpus.c - quotas of control groups as machines and containers mount them, in folders that a test makes,
 * and the number of threads that follows.
 */
#include "base/cpus.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pool.h"
#include "cmocka_all.h"
#include <ftw.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define V1_CPU_MOUNT "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
#define V2_MOUNT "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define OTHER_MOUNTS                                  \
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n" \
    "27 1 254:0 / / rw,relatime master:1 - ext4 /dev/vda rw\n"

static char root[] = "/tmp/mb-test-cpus-XXXXXX";

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info, (void)type, (void)at;
    return remove(path);
}

static void empty_root(void)
{
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    assert_int_equal(mkdir(root, 0700), 0);
}

/* Writes a file below the root, with the folders that it is in. */
static void put(const char *name, const char *text)
{
    char path[MB_PATH_MAX];
    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
        *slash = '\0';
        mkdir(path, 0700);
    }
    assert_int_equal(mb_write_file(path, text, strlen(text), NULL), MB_OK);
}

static void put_proc(const char *cgroup, const char *mountinfo)
{
    empty_root();
    put("/proc/self/cgroup", cgroup);
    put("/proc/self/mountinfo", mountinfo);
}

static void assert_quota(double quota)
{
    double got = mb_cgroup_quota(root);
    if (fabs(got - quota) > 1e-9)
        fail_msg("quota %g instead of %g", got, quota);
}

static void the_tightest_of_nested_v2_groups_counts(void **state)
{
    (void)state;
    put_proc("0::/user.slice/app.service/inner\n", OTHER_MOUNTS V2_MOUNT);
    assert_quota(0);
    put("/sys/fs/cgroup/user.slice/app.service/inner/cpu.max", "max 100000\n");
    assert_quota(0);
    put("/sys/fs/cgroup/user.slice/cpu.max", "400000 100000\n");
    assert_quota(4);
    put("/sys/fs/cgroup/user.slice/app.service/cpu.max", "150000 100000\n");
    assert_quota(1.5);
    put("/sys/fs/cgroup/user.slice/app.service/inner/cpu.max", "20000 10000\n");
    assert_quota(1.5);
    put("/sys/fs/cgroup/user.slice/app.service/inner/cpu.max", "5000 10000\n");
    assert_quota(0.5);
    put("/sys/fs/cgroup/user.slice/other/cpu.max", "1000 100000\n");
    assert_quota(0.5);
}

static void quotas_of_v1_are_read(void **state)
{
    (void)state;
    put_proc("9:name=systemd:/\n5:cpuset:/\n4:cpu,cpuacct:/a/b\n",
             OTHER_MOUNTS V1_CPU_MOUNT "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_quota(0);
    put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "250000\n");
    assert_quota(0);
    put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
    assert_quota(2.5);
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "100000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "50000\n");
    assert_quota(2);
}

static void hybrid_machines_have_both(void **state)
{
    (void)state;
    put_proc("4:cpu,cpuacct:/a\n0::/b\n",
             V1_CPU_MOUNT "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "300000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    assert_quota(3);
    put("/sys/fs/cgroup/unified/b/cpu.max", "200000 100000\n");
    assert_quota(2);
}

/* A container's mount begins with its own group, whose path may or may not show the groups above. */
static void containers_see_their_own_group(void **state)
{
    (void)state;
    put_proc("4:cpu,cpuacct:/docker/abc/worker\n",
             "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_quota(0.5);
    put_proc("0::/\n", V2_MOUNT);
    put("/sys/fs/cgroup/cpu.max", "75000 100000\n");
    assert_quota(0.75);
    put_proc("0::/docker/abcd\n", "29 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/cpu.max", "75000 100000\n"); /* another group's */
    assert_quota(0);
}

static void mount_points_may_have_spaces(void **state)
{
    (void)state;
    put_proc("0::/a\n", "29 23 0:26 / /my\\040groups\\134 rw - cgroup2 cgroup2 rw\n");
    put("/my groups\\/a/cpu.max", "125000 100000\n");
    assert_quota(1.25);
}

/* A group outside of what the process may see: ".." would leave the mount. */
static void paths_do_not_leave_the_mount(void **state)
{
    (void)state;
    put_proc("0::/../outside\n", V2_MOUNT);
    put("/sys/fs/outside/cpu.max", "1000 100000\n");
    put("/sys/fs/cgroup/cpu.max", "1000 100000\n");
    assert_quota(0);
}

static void what_makes_no_sense_is_no_quota(void **state)
{
    (void)state;
    static const char *const contents[] = {
        "",
        "\n",
        "max",
        "max max",
        "100000",
        "100000 ",
        "100000 0",
        "0 100000",
        "-1 100000",
        "1e5 100000",
        "0x10 100",
        "100 -1",
        "1.5 100.0",
        "100000\t100",
        "100000 1e5",
        " 1 2",
        "99999999999999999999999 1",
        "1 99999999999999999999999",
        "100000000000000000000000000000000000000000000000000000000000000000000000000 100000"};
    put_proc("0::/a\n", V2_MOUNT);
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        put("/sys/fs/cgroup/a/cpu.max", contents[i]);
        assert_quota(0);
    }
    static const char *const mounts[] = {"",
                                         "\n",
                                         " - ",
                                         " - cgroup2",
                                         "1 2 3 / /x rw - cgroup2\n",
                                         "1 2 3 / - cgroup2 a b\n",
                                         "29 23 0:26 / /sys/fs/cgroup rw cgroup2 cgroup2 rw\n",
                                         "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"};
    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        put_proc("0::/a\n", mounts[i]);
        put("/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
        assert_quota(0);
    }
    static const char *const groups[] = {
        "", "\n", "0", "0:", "0::", "0::a\n", "1::/a\n", "0:cpu:/a\n", "::/a\n"};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        put_proc(groups[i], V2_MOUNT);
        put("/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
        assert_quota(0);
    }
    empty_root();
    assert_quota(0);
}

static void long_lines_are_passed_over(void **state)
{
    (void)state;
    enum { N = 100000 };
    char *text = malloc(N + 1000);
    assert_non_null(text);
    memset(text, 'a', N);
    memcpy(text, "0::/", 4);
    snprintf(text + N, 1000, "\n0::/a\n");
    put_proc(text, "");
    memcpy(text, "1 2 3 / /", 9);
    snprintf(text + N, 1000, " 0::/b - \n" V2_MOUNT);
    put("/proc/self/mountinfo", text);
    put("/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
    assert_quota(1);
    /* Long, but a line: the path of the file would be longer than paths are. */
    memset(text, '/', 5000);
    snprintf(text + 5000, 1000, "\n");
    memcpy(text, "0::/", 4);
    put("/proc/self/cgroup", text);
    assert_quota(0);
    memset(text + 3, 'b', 4090);
    memcpy(text, "0::/", 4);
    snprintf(text + 4090, 1000, "\n");
    put("/proc/self/cgroup", text);
    assert_quota(0);
    free(text);
}

static void threads_are_the_quota_rounded_up(void **state)
{
    (void)state;
    const struct mb_cpu_share free_share = {8, 0}, one = {8, 1}, half = {8, 0.25}, fraction = {8, 1.5};
    assert_int_equal(mb_cpu_share_threads(&free_share), 8);
    assert_int_equal(mb_cpu_share_threads(&one), 1);
    assert_int_equal(mb_cpu_share_threads(&half), 1);
    assert_int_equal(mb_cpu_share_threads(&fraction), 2);
    assert_false(mb_cpu_share_is_exceeded(&free_share, 8));
    assert_true(mb_cpu_share_is_exceeded(&free_share, 9));
    assert_false(mb_cpu_share_is_exceeded(&one, 1));
    assert_true(mb_cpu_share_is_exceeded(&one, 2));
    assert_true(mb_cpu_share_is_exceeded(&fraction, 2));
}

static void a_pool_has_as_many_threads_as_the_process_has_cpus(void **state)
{
    (void)state;
    cpu_set_t all, first;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&first);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&first) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &first);
    struct mb_cpu_share share = mb_cpu_share();
    assert_int_equal(share.n_allowed, CPU_COUNT(&all));
    assert_int_equal(sched_setaffinity(0, sizeof first, &first), 0);
    struct mb_pool *pool;
    share = mb_cpu_share();
    assert_int_equal(share.n_allowed, 1);
    assert_int_equal(mb_pool_create(0, &pool, NULL), MB_OK);
    assert_int_equal(mb_pool_n_threads(pool), 1);
    mb_pool_destroy(pool);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

static void sleep_in_task(void *ctx, size_t task, int thread)
{
    (void)task;
    _Atomic int *n_by_thread = ctx;
    atomic_fetch_add(&n_by_thread[thread != 0], 1);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

/* More threads than CPUs: none spins, and all take part in what takes long. */
static void threads_of_a_crowded_pool_wake_for_long_work(void **state)
{
    (void)state;
    struct mb_cpu_share share = mb_cpu_share();
    struct mb_pool *pool;
    if (share.n_allowed >= 256)
        skip();
    assert_int_equal(mb_pool_create(share.n_allowed + 1, &pool, NULL), MB_OK);
    _Atomic int n_by_thread[2] = {0};
    for (int i = 0; i < 5; i++)
        mb_pool_run(pool, 40, sleep_in_task, n_by_thread);
    assert_int_equal(n_by_thread[0] + n_by_thread[1], 200);
    assert_true(n_by_thread[1] > 0);
    mb_pool_destroy(pool);
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---------------------------------------------------------------- memory */

#define V1_MEMORY_MOUNT "34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"

static void what_groups_leave_of_memory_is_their_limit_less_what_is_no_cache(void **state)
{
    (void)state;
    put_proc("0::/a/b\n", V2_MOUNT);
    assert_true(mb_cgroup_memory_left(root) == UINT64_MAX);
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.stat", "anon 1000\nfile 5000000\n");
    assert_true(mb_cgroup_memory_left(root) == UINT64_MAX);
    put("/sys/fs/cgroup/a/b/memory.max", "10000\n");
    assert_int_equal(mb_cgroup_memory_left(root), 9000);
    put("/sys/fs/cgroup/a/memory.max", "8000\n"); /* a group above */
    put("/sys/fs/cgroup/a/memory.stat", "anon 3000\n");
    assert_int_equal(mb_cgroup_memory_left(root), 5000);
    put("/sys/fs/cgroup/a/memory.stat", "anon 9000\n");
    assert_int_equal(mb_cgroup_memory_left(root), 0);
    put_proc("4:memory:/c\n0::/a\n", V1_MEMORY_MOUNT);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put("/sys/fs/cgroup/memory/memory.stat", "rss 5\ntotal_rss 70\n");
    assert_true(mb_cgroup_memory_left(root) == UINT64_MAX);
    put("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "1000\n");
    put("/sys/fs/cgroup/memory/c/memory.stat", "cache 900\nrss 5\ntotal_rss 70\n");
    assert_int_equal(mb_cgroup_memory_left(root), 930);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tightest_of_nested_v2_groups_counts),
        cmocka_unit_test(quotas_of_v1_are_read),
        cmocka_unit_test(hybrid_machines_have_both),
        cmocka_unit_test(containers_see_their_own_group),
        cmocka_unit_test(mount_points_may_have_spaces),
        cmocka_unit_test(paths_do_not_leave_the_mount),
        cmocka_unit_test(what_makes_no_sense_is_no_quota),
        cmocka_unit_test(long_lines_are_passed_over),
        cmocka_unit_test(what_groups_leave_of_memory_is_their_limit_less_what_is_no_cache),
        cmocka_unit_test(threads_are_the_quota_rounded_up),
        cmocka_unit_test(a_pool_has_as_many_threads_as_the_process_has_cpus),
        cmocka_unit_test(threads_of_a_crowded_pool_wake_for_long_work),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
