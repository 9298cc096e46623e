/*
 * file.c - whole reads and writes on file descriptors and paths.
 */
#include "base/file.h"
#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_NBYTES = 1 << 30 }; /* Linux transfers less than 2 GiB in a call */

enum mb_status mb_look_at(const char *path, bool *is_there, struct stat *info, struct mb_error *err)
{
    struct stat own;
    *is_there = stat(path, info == NULL ? &own : info) == 0;
    return *is_there || errno == ENOENT || errno == ENOTDIR ? MB_OK : mb_fail_errno(err, path, "stat");
}

enum mb_status mb_look_for(const char *path, bool *is_there, struct mb_error *err)
{
    struct stat link;
    MB_TRY(mb_look_at(path, is_there, NULL, err));
    if (*is_there || lstat(path, &link) != 0)
        return MB_OK;
    return mb_fail(err, MB_BAD_DATA,
                   "%s: a link to a file that is not there, as half a download leaves it: download it again",
                   path);
}

enum mb_status mb_read_at(int fd, const char *path, uint64_t pos, void *out, uint64_t nbytes,
                          struct mb_error *err)
{
    uint8_t *to = out;
    while (nbytes > 0) {
        ssize_t n = pread(fd, to, nbytes < PIECE_NBYTES ? nbytes : PIECE_NBYTES, (off_t)pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mb_fail_errno(err, path, "read");
        if (n == 0)
            return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": truncated, %" PRIu64 " bytes are missing",
                           path, pos, nbytes);
        to += n;
        pos += (uint64_t)n;
        nbytes -= (uint64_t)n;
    }
    return MB_OK;
}

enum mb_status mb_write_at(int fd, const char *path, uint64_t pos, const void *bytes, uint64_t nbytes,
                           struct mb_error *err)
{
    const uint8_t *from = bytes;
    while (nbytes > 0) {
        ssize_t n = pwrite(fd, from, nbytes < PIECE_NBYTES ? nbytes : PIECE_NBYTES, (off_t)pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mb_fail_errno(err, path, "write");
        from += n;
        pos += (uint64_t)n;
        nbytes -= (uint64_t)n;
    }
    return MB_OK;
}

static enum mb_status read_open_file(int fd, const char *path, uint64_t max_nbytes, char **bytes,
                                     size_t *nbytes, struct mb_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return mb_fail_errno(err, path, "stat");
    if (!S_ISREG(st.st_mode))
        return mb_fail(err, MB_BAD_DATA, "%s: not a regular file", path);
    if ((uint64_t)st.st_size > max_nbytes)
        return mb_fail(err, MB_BAD_DATA, "%s: %" PRIu64 " bytes are more than the limit of %" PRIu64, path,
                       (uint64_t)st.st_size, max_nbytes);
    size_t size = (size_t)st.st_size;
    char *text = malloc(size + 1);
    if (text == NULL)
        return mb_fail_memory(err, "a file that is read");
    enum mb_status status = mb_read_at(fd, path, 0, text, size, err);
    if (status != MB_OK) {
        free(text);
        return status;
    }
    text[size] = '\0';
    *bytes = text;
    *nbytes = size;
    return MB_OK;
}

enum mb_status mb_read_file(const char *path, uint64_t max_nbytes, char **bytes, size_t *nbytes,
                            struct mb_error *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mb_fail_errno(err, path, "open");
    enum mb_status status = read_open_file(fd, path, max_nbytes, bytes, nbytes, err);
    close(fd);
    return status;
}

/* Locks what is open, if it is still what the path names. Where nothing can be locked it is not. */
static enum mb_status lock_partial(int fd, const char *path, struct mb_error *err)
{
    struct stat ours, there;
    bool is_free = flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    bool is_there = stat(path, &there) == 0;
    if ((!is_there && errno != ENOENT) || fstat(fd, &ours) != 0)
        return mb_fail_errno(err, path, "stat");
    if (!is_free || !is_there || there.st_dev != ours.st_dev || there.st_ino != ours.st_ino)
        return mb_fail(err, MB_IO, "%s: another process is writing there", path);
    if (ours.st_size > 0 && ftruncate(fd, 0) != 0) /* what a kill has left */
        return mb_fail_errno(err, path, "truncate");
    return MB_OK;
}

enum mb_status mb_create_partial(const char *path, int *fd, struct mb_error *err)
{
    *fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return mb_fail_errno(err, path, "create");
    enum mb_status status = lock_partial(*fd, path, err);
    if (status != MB_OK)
        close(*fd);
    return status;
}

enum mb_status mb_sync_folder_of(const char *path, struct mb_error *err)
{
    char folder[MB_PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : (int)(slash - path + 1),
             slash == NULL ? "." : path);
    enum mb_status status = mb_sync_folder(folder, err);
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "%s", path);
}

enum mb_status mb_write_file(const char *path, const void *bytes, size_t nbytes, struct mb_error *err)
{
    char temporary[MB_PATH_MAX];
    int fd, n = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof temporary)
        return mb_fail(err, MB_BAD_DATA, "%.200s...: path too long", path);
    MB_TRY(mb_create_partial(temporary, &fd, err));
    enum mb_status status = mb_write_at(fd, temporary, 0, bytes, nbytes, err);
    if (status == MB_OK && fsync(fd) != 0)
        status = mb_fail_errno(err, temporary, "fsync");
    if (status == MB_OK && rename(temporary, path) != 0)
        status = mb_fail_errno(err, path, "rename");
    if (status != MB_OK)
        unlink(temporary);
    close(fd); /* after fsync nothing can be lost any more */
    return status == MB_OK ? mb_sync_folder_of(path, err) : status;
}

enum mb_status mb_sync_folder(const char *path, struct mb_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return mb_fail_errno(err, path, "open");
    enum mb_status status = MB_OK;
    if (fsync(fd) != 0 && errno != EINVAL) /* EINVAL: a file system that has nothing to sync */
        status = mb_fail_errno(err, path, "fsync");
    close(fd);
    return status;
}

enum mb_status mb_join_path(char out[MB_PATH_MAX], const char *folder, const char *name, struct mb_error *err)
{
    size_t n_folder = strlen(folder);
    const char *slash = n_folder > 0 && folder[n_folder - 1] == '/' ? "" : "/";
    int n = snprintf(out, MB_PATH_MAX, "%s%s%s", folder, slash, name);
    if (n < 0 || n >= MB_PATH_MAX)
        return mb_fail(err, MB_BAD_DATA, "%.200s...: path too long", folder);
    return MB_OK;
}
