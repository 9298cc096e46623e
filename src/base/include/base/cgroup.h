/*
 * cgroup.h - folders of the control groups (cgroups) that this process is in.
 */
#ifndef MB_BASE_CGROUP_H
#define MB_BASE_CGROUP_H

#include <stdbool.h>
#include <stddef.h>

/* 'folder' is a group's, this process's own or one above it; valid during the call. */
typedef void (*mb_cgroup_fn)(void *ctx, const char *folder, bool is_v2);

/*
 * Calls fn for every group that may limit this process by a controller ("cpu", "memory"), of version 1 and 2,
 * as far as it may see them.  'root' comes before every path that is read ("" but in tests):
 * root/proc/self/cgroup, root/proc/self/mountinfo, and the mounted folders that it names.
 */
void mb_cgroup_each(const char *root, const char *controller, mb_cgroup_fn fn, void *ctx);

/* The text of a small file of a folder, as much as fits; "" when there is none. */
void mb_cgroup_read(const char *folder, const char *name, char *text, size_t n_max);

#endif
