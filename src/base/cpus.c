/*
 * cpus.c - the CPUs that this process may use, and the quotas of its cgroups (man 7 cgroups, man 5 proc).
 *
 * A control group is a folder of a mounted file system. /proc/self/cgroup names the group of this process,
 * /proc/self/mountinfo says where groups are mounted and which of them the mount begins with. A quota of a
 * group above ours limits us as well, so we look at all of them, up to the mount.
 */
#include "base/cpus.h"
#include "base/file.h"
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CPUS_MAX = 8192, LINE_MAX_NBYTES = 3 * MB_PATH_MAX };

/* The next line without its newline, of those that fit. */
static bool next_line(FILE *file, char line[LINE_MAX_NBYTES])
{
    bool is_rest = false; /* of a line that does not fit */
    while (fgets(line, LINE_MAX_NBYTES, file) != NULL) {
        size_t n = strlen(line);
        bool is_end = n > 0 && line[n - 1] == '\n';
        if (is_end && !is_rest) {
            line[n - 1] = '\0';
            return true;
        }
        is_rest = !is_end;
    }
    return false;
}

static FILE *open_text(const char *root, const char *name)
{
    char path[MB_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s%s", root, name);
    return n < (int)sizeof path ? fopen(path, "re") : NULL;
}

/* ---------------------------------------------------------------- one group */

/* A number of microseconds that ends at a space, a newline or the end. 0: it is none. */
static uint64_t parse_us(const char *text)
{
    size_t n = strspn(text, "0123456789");
    bool is_number = n > 0 && n <= 15 && (text[n] == '\0' || text[n] == ' ' || text[n] == '\n');
    return is_number ? strtoull(text, NULL, 10) : 0;
}

/* The text of a small file of a folder; "" when there is none. */
static void read_small(const char *folder, const char *name, char text[64])
{
    char path[MB_PATH_MAX];
    text[0] = '\0';
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, 63);
    text[n < 0 ? 0 : n] = '\0';
    close(fd);
}

/* The quota that a group sets itself, in CPUs. 0: none. */
static double group_quota(const char *folder, bool is_v2)
{
    char quota[64], period[64];
    const char *period_text = period;
    if (is_v2) { /* cpu.max is "max 100000" or "150000 100000" */
        read_small(folder, "cpu.max", quota);
        const char *space = strchr(quota, ' ');
        period_text = space == NULL ? "" : space + 1;
    } else { /* -1 is no quota */
        read_small(folder, "cpu.cfs_quota_us", quota);
        read_small(folder, "cpu.cfs_period_us", period);
    }
    uint64_t quota_us = parse_us(quota), period_us = parse_us(period_text);
    return quota_us > 0 && period_us > 0 ? (double)quota_us / (double)period_us : 0;
}

static double tighter(double a, double b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The tightest quota of a group and of those above it up to the mount, whose path is the first n bytes. */
static double quota_up_to(char folder[MB_PATH_MAX], size_t n, bool is_v2)
{
    double quota = 0;
    for (;;) {
        quota = tighter(quota, group_quota(folder, is_v2));
        char *end = strrchr(folder, '/');
        if (end == NULL || (size_t)(end - folder) < n)
            return quota;
        *end = '\0';
    }
}

/* ---------------------------------------------------------------- where groups are */

/* Whether 'item' is in a list with commas between. */
static bool has_item(const char *list, const char *item)
{
    for (size_t n; *list != '\0'; list += n + (list[n] == ',')) {
        n = strcspn(list, ",");
        if (n == strlen(item) && memcmp(list, item, n) == 0)
            return true;
    }
    return false;
}

/* The process's group in version 2 and, of version 1, in the hierarchy of "cpu". "": there is none. */
struct groups {
    char v2[MB_PATH_MAX], v1[MB_PATH_MAX];
};

/* A line is "ID:CONTROLLERS:PATH", and "0::PATH" for version 2. */
static void read_groups(const char *root, struct groups *groups)
{
    char line[LINE_MAX_NBYTES];
    groups->v2[0] = groups->v1[0] = '\0';
    FILE *file = open_text(root, "/proc/self/cgroup");
    while (file != NULL && next_line(file, line)) {
        char *controllers = strchr(line, ':'), *path = NULL;
        if (controllers != NULL)
            path = strchr(controllers + 1, ':');
        if (path == NULL || path[1] != '/' || strlen(path + 1) >= MB_PATH_MAX)
            continue;
        *path++ = '\0';
        if (strcmp(line, "0:") == 0)
            memcpy(groups->v2, path, strlen(path) + 1);
        else if (has_item(controllers + 1, "cpu"))
            memcpy(groups->v1, path, strlen(path) + 1);
    }
    if (file != NULL)
        fclose(file);
}

/* A mount as a line of mountinfo has it: "36 35 98:0 ROOT FOLDER OPTIONS [...] - TYPE SOURCE SUPER_OPTIONS".
 */
struct mount {
    char *root, *folder, *type, *super_options;
};

static bool split_mount(char *line, struct mount *mount)
{
    enum { N_FIELDS = 5 };
    char *fields[N_FIELDS + 1], *rest = NULL;
    char *second = strstr(line, " - ");
    if (second == NULL)
        return false;
    *second = '\0';
    size_t n = 0;
    for (char *field = strtok_r(line, " ", &rest); field != NULL && n < N_FIELDS;
         field = strtok_r(NULL, " ", &rest))
        fields[n++] = field;
    mount->type = strtok_r(second + 3, " ", &rest);
    char *source = strtok_r(NULL, " ", &rest);
    mount->super_options = strtok_r(NULL, " ", &rest);
    if (n < N_FIELDS || mount->type == NULL || source == NULL || mount->super_options == NULL)
        return false;
    mount->root = fields[3];
    mount->folder = fields[4];
    return true;
}

/* Spaces and the like are "\040" in mountinfo. */
static void unescape(char *text)
{
    char *out = text;
    for (; *text != '\0'; text++) {
        const unsigned char *t = (const unsigned char *)text;
        if (t[0] == '\\' && t[1] >= '0' && t[1] <= '3' && t[2] >= '0' && t[2] <= '7' && t[3] >= '0' &&
            t[3] <= '7') {
            *out++ = (char)((t[1] - '0') << 6 | (t[2] - '0') << 3 | (t[3] - '0'));
            text += 3;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

/*
 * The part of a group's path below the mount's root. NULL: the group is not in this mount, or is outside of
 * what this process may see (".." in its path).
 */
static const char *path_below(const char *mount_root, const char *group)
{
    size_t n = strlen(mount_root);
    if (n > 0 && mount_root[n - 1] == '/')
        n--; /* the root itself */
    if (group[0] == '\0' || strncmp(group, mount_root, n) != 0 || (group[n] != '\0' && group[n] != '/'))
        return NULL;
    return strstr(group, "/..") != NULL ? NULL : group + n;
}

/* The quota that shows in one mount. 0: none, or it is no mount of the process's groups. */
static double mount_quota(const char *root, struct mount *mount, const struct groups *groups)
{
    bool is_v2 = strcmp(mount->type, "cgroup2") == 0;
    if (!is_v2 && (strcmp(mount->type, "cgroup") != 0 || !has_item(mount->super_options, "cpu")))
        return 0;
    unescape(mount->root);
    unescape(mount->folder);
    const char *below = path_below(mount->root, is_v2 ? groups->v2 : groups->v1);
    if (below == NULL)
        return 0;
    char folder[MB_PATH_MAX];
    int n = snprintf(folder, sizeof folder, "%s%s%s", root, mount->folder, below);
    if (n >= (int)sizeof folder)
        return 0;
    return quota_up_to(folder, strlen(root) + strlen(mount->folder), is_v2);
}

double mb_cgroup_quota(const char *root)
{
    struct groups groups;
    char line[LINE_MAX_NBYTES];
    struct mount mount;
    double quota = 0;
    read_groups(root, &groups);
    FILE *file = open_text(root, "/proc/self/mountinfo");
    while (file != NULL && next_line(file, line))
        if (split_mount(line, &mount))
            quota = tighter(quota, mount_quota(root, &mount, &groups));
    if (file != NULL)
        fclose(file);
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
