/*
 * cpus.h - how many CPUs this process really gets: those that it may run on, and the time of them that its
 * control groups (cgroups, such as a container's) leave it.
 */
#ifndef MB_BASE_CPUS_H
#define MB_BASE_CPUS_H

#include <stdbool.h>

struct mb_cpu_share {
    int n_allowed; /* online CPUs that the process may run on (taskset, cpuset), 1 or more */
    double quota;  /* CPUs' worth of time that cgroups leave it, such as 1.5; 0: no limit below n_allowed */
};

/* Reads anew at each call. What cannot be read or understood limits nothing. Any thread. */
struct mb_cpu_share mb_cpu_share(void);

/* Threads that keep a share busy: its quota rounded up, or n_allowed. */
int mb_cpu_share_threads(const struct mb_cpu_share *share);

/* Whether so many threads are more than the share lets run at once, all the time. */
bool mb_cpu_share_is_exceeded(const struct mb_cpu_share *share, int n_threads);

/*
 * The tightest quota of this process's cgroup and those above it, in CPUs, by cpu.max (cgroup v2) and
 * cpu.cfs_quota_us (v1). 0: none. 'root' comes before every path that is read ("" but in tests):
 * root/proc/self/cgroup, root/proc/self/mountinfo, and the mounted folders that it names.
 */
double mb_cgroup_quota(const char *root);

#endif
