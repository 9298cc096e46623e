/*
 * cpus.c - the CPUs that this process may use, and the quotas of its cgroups.
 */
#include "base/cpus.h"
#include "base/cgroup.h"
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CPUS_MAX = 8192 };

/* ---------------------------------------------------------------- one group */

/* A number of microseconds that ends at a space, a newline or the end. 0: it is none. */
static uint64_t parse_us(const char *text)
{
    size_t n = strspn(text, "0123456789");
    bool is_number = n > 0 && n <= 15 && (text[n] == '\0' || text[n] == ' ' || text[n] == '\n');
    return is_number ? strtoull(text, NULL, 10) : 0;
}

/* The quota that a group sets itself, in CPUs. 0: none. */
static double group_quota(const char *folder, bool is_v2)
{
    char quota[64], period[64];
    const char *period_text = period;
    if (is_v2) { /* cpu.max is "max 100000" or "150000 100000" */
        mb_cgroup_read(folder, "cpu.max", quota, sizeof quota);
        const char *space = strchr(quota, ' ');
        period_text = space == NULL ? "" : space + 1;
    } else { /* -1 is no quota */
        mb_cgroup_read(folder, "cpu.cfs_quota_us", quota, sizeof quota);
        mb_cgroup_read(folder, "cpu.cfs_period_us", period, sizeof period);
    }
    uint64_t quota_us = parse_us(quota), period_us = parse_us(period_text);
    return quota_us > 0 && period_us > 0 ? (double)quota_us / (double)period_us : 0;
}

static double tighter(double a, double b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* An mb_cgroup_fn: the tightest quota so far. */
static void take_quota(void *ctx, const char *folder, bool is_v2)
{
    double *quota = ctx;
    *quota = tighter(*quota, group_quota(folder, is_v2));
}

double mb_cgroup_quota(const char *root)
{
    double quota = 0;
    mb_cgroup_each(root, "cpu", take_quota, &quota);
    return quota;
}

/* ---------------------------------------------------------------- the share */

static int n_allowed(void)
{
    cpu_set_t sets[CPUS_MAX / CPU_SETSIZE];
    if (sched_getaffinity(0, sizeof sets, sets) == 0)
        return CPU_COUNT_S(sizeof sets, sets);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (int)(n < CPUS_MAX ? n : CPUS_MAX);
}

struct mb_cpu_share mb_cpu_share(void)
{
    struct mb_cpu_share share = {.n_allowed = n_allowed()};
    double quota = mb_cgroup_quota("");
    if (quota < share.n_allowed)
        share.quota = quota;
    return share;
}

int mb_cpu_share_threads(const struct mb_cpu_share *share)
{
    if (share->quota == 0)
        return share->n_allowed;
    int whole = (int)share->quota;
    return whole < share->quota ? whole + 1 : whole;
}

bool mb_cpu_share_is_exceeded(const struct mb_cpu_share *share, int n_threads)
{
    return n_threads > share->n_allowed || (share->quota != 0 && n_threads > share->quota);
}
