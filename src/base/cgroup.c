/*
 * cgroup.c - the control groups of this process (man 7 cgroups, man 5 proc).
 *
 * A control group is a folder of a mounted file system. /proc/self/cgroup names the group of this process,
 * /proc/self/mountinfo says where groups are mounted and which of them the mount begins with. A limit of a
 * group above ours limits us as well, so we look at all of them, up to the mount.
 */
#include "base/cgroup.h"
#include "base/file.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_NBYTES = 3 * MB_PATH_MAX };

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

/* The process's group in version 2 and, of version 1, in the hierarchy of a controller. "": there is none. */
struct groups {
    char v2[MB_PATH_MAX], v1[MB_PATH_MAX];
};

/* A line is "ID:CONTROLLERS:PATH", and "0::PATH" for version 2. */
static void read_groups(const char *root, const char *controller, struct groups *groups)
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
        else if (has_item(controllers + 1, controller))
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

/* The folders of a group and of those above it up to the mount, whose path is the first n bytes. */
static void each_up_to(char folder[MB_PATH_MAX], size_t n, bool is_v2, mb_cgroup_fn fn, void *ctx)
{
    for (;;) {
        fn(ctx, folder, is_v2);
        char *end = strrchr(folder, '/');
        if (end == NULL || (size_t)(end - folder) < n)
            return;
        *end = '\0';
    }
}

/* Those that show in one mount, if it is one of the process's groups. */
static void each_of_mount(const char *root, const char *controller, struct mount *mount,
                          const struct groups *groups, mb_cgroup_fn fn, void *ctx)
{
    bool is_v2 = strcmp(mount->type, "cgroup2") == 0;
    if (!is_v2 && (strcmp(mount->type, "cgroup") != 0 || !has_item(mount->super_options, controller)))
        return;
    unescape(mount->root);
    unescape(mount->folder);
    const char *below = path_below(mount->root, is_v2 ? groups->v2 : groups->v1);
    if (below == NULL)
        return;
    char folder[MB_PATH_MAX];
    int n = snprintf(folder, sizeof folder, "%s%s%s", root, mount->folder, below);
    if (n < (int)sizeof folder)
        each_up_to(folder, strlen(root) + strlen(mount->folder), is_v2, fn, ctx);
}

void mb_cgroup_each(const char *root, const char *controller, mb_cgroup_fn fn, void *ctx)
{
    struct groups groups;
    char line[LINE_MAX_NBYTES];
    struct mount mount;
    read_groups(root, controller, &groups);
    FILE *file = open_text(root, "/proc/self/mountinfo");
    while (file != NULL && next_line(file, line))
        if (split_mount(line, &mount))
            each_of_mount(root, controller, &mount, &groups, fn, ctx);
    if (file != NULL)
        fclose(file);
}

void mb_cgroup_read(const char *folder, const char *name, char *text, size_t n_max)
{
    char path[MB_PATH_MAX];
    text[0] = '\0';
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, n_max - 1);
    text[n < 0 ? 0 : n] = '\0';
    close(fd);
}
