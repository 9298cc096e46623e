/*
 * output_file.c - writes PATH.tmp and renames it when it is complete.
 */
#include "output_file.h"
#include "base/error.h"
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_same_file(const struct stat *a, const char *path)
{
    struct stat b;
    return stat(path, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

static bool folder_of(const char *path, char folder[MB_PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int n = slash == NULL ? snprintf(folder, MB_PATH_MAX, ".")
                          : snprintf(folder, MB_PATH_MAX, "%.*s", (int)(slash - path + 1), path);
    return n > 0 && n < MB_PATH_MAX;
}

enum mb_status cli_output_check(const char *path, const char *input, struct mb_error *err)
{
    struct stat there, folder;
    char name[MB_PATH_MAX];
    if (path[0] == '\0')
        return mb_fail(err, MB_USAGE, "the name of a file to write is empty");
    if (stat(path, &there) != 0)
        return MB_OK;
    if (is_same_file(&there, input))
        return mb_fail(err, MB_USAGE, "%s: is the input; name another file for the output", path);
    if (folder_of(path, name) && stat(name, &folder) == 0 && is_same_file(&folder, input))
        return mb_fail(err, MB_USAGE, "%s: is a file of the model; name another one for the output", path);
    return MB_OK;
}

static enum mb_status open_direct(struct cli_output_file *output, const char *path, struct mb_error *err)
{
    output->file = fopen(path, "wb");
    return output->file == NULL ? mb_fail_errno(err, path, "create") : MB_OK;
}

static enum mb_status open_partial(struct cli_output_file *output, struct mb_error *err)
{
    int fd;
    MB_TRY(mb_create_partial(output->partial, &fd, err));
    output->file = fdopen(fd, "wb");
    if (output->file != NULL)
        return MB_OK;
    close(fd);
    return mb_fail_memory(err, "a file that is written");
}

enum mb_status cli_output_open(struct cli_output_file *output, const char *path, const char *input,
                               struct mb_error *err)
{
    struct stat there;
    bool is_there = stat(path, &there) == 0;
    MB_TRY(cli_output_check(path, input, err));
    if (is_there && S_ISDIR(there.st_mode))
        return mb_fail(err, MB_BAD_DATA, "%s: Is a directory", path);
    output->path = path;
    bool is_direct = is_there && !S_ISREG(there.st_mode); /* a rename would take its place */
    int n = is_direct ? 0 : snprintf(output->partial, sizeof output->partial, "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof output->partial)
        return mb_fail(err, MB_USAGE, "%.200s...: path too long", path);
    return is_direct ? open_direct(output, path, err) : open_partial(output, err);
}

/* A write that failed before has left a hole, even if the last one did not fail. */
static enum mb_status flush(const struct cli_output_file *output, struct mb_error *err)
{
    bool has_failed = ferror(output->file) != 0;
    if (fflush(output->file) != 0 || (output->partial[0] != '\0' && fsync(fileno(output->file)) != 0))
        return mb_fail_errno(err, output->path, "write");
    return has_failed ? mb_fail(err, MB_IO, "%s: write: not everything was written", output->path) : MB_OK;
}

enum mb_status cli_output_close(struct cli_output_file *output, enum mb_status status, struct mb_error *err)
{
    if (output->file == NULL)
        return status;
    bool has_partial = output->partial[0] != '\0';
    if (status == MB_OK)
        status = flush(output, err);
    if (has_partial && status == MB_OK && rename(output->partial, output->path) != 0)
        status = mb_fail_errno(err, output->path, "rename");
    if (has_partial && status != MB_OK)
        unlink(output->partial);
    if (fclose(output->file) != 0 && status == MB_OK && !has_partial)
        status = mb_fail_errno(err, output->path, "close");
    output->file = NULL;
    return status;
}
