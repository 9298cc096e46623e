/*
 * crash.c - a library put before libc (LD_PRELOAD): the n-th call of a kind does not happen. Instead the
 * process is killed, or the call fails; or the process gets another signal, and the call happens.
 *
 * CRASH_CALLS: "changes" of files (default), "reads", or "memory" (only where no sanitizer has its own).
 * CRASH_AT: n, from 1.  CRASH_ERRNO: the error that the call reports; without it the process is killed, or
 * gets CRASH_SIGNAL.  CRASH_LASTS: all later calls fail too, as on a full disk.  The calls are counted over
 * all threads.  CRASH_NO_URING: io_uring cannot be had, so that experts are read by calls that are counted.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long n_calls;

/* true: a call of this kind is to fail, and errno is set. */
static bool strikes_at(const char *kind)
{
    const char *asked = getenv("CRASH_CALLS");
    if (strcmp(asked == NULL ? "changes" : asked, kind) != 0)
        return false;
    const char *at = getenv("CRASH_AT"), *number = getenv("CRASH_ERRNO"), *sent = getenv("CRASH_SIGNAL");
    long call = atomic_fetch_add(&n_calls, 1) + 1;
    if (at == NULL || call < atol(at) || (call > atol(at) && getenv("CRASH_LASTS") == NULL))
        return false;
    if (number == NULL) {
        kill(getpid(), sent == NULL ? SIGKILL : atoi(sent));
        return false;
    }
    errno = atoi(number);
    return true;
}

static bool strikes(void)
{
    return strikes_at("changes");
}

/* POSIX lets a function's address come back as a void pointer. */
#define NEXT(type, name) \
    static type next;    \
    if (next == NULL)    \
        next = (type)dlsym(RTLD_NEXT, name);

typedef ssize_t (*pread_fn)(int, void *, size_t, off_t);
typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);
typedef int (*open_fn)(const char *, int, ...);
typedef int (*fd_fn)(int);
typedef int (*truncate_fn)(int, off_t);
typedef int (*path_fn)(const char *);
typedef int (*mkdir_fn)(const char *, mode_t);
typedef int (*rename_fn)(const char *, const char *);
typedef int (*renameat2_fn)(int, const char *, int, const char *, unsigned);
typedef int (*unlinkat_fn)(int, const char *, int);

int open(const char *path, int flags, ...)
{
    NEXT(open_fn, "open")
    mode_t mode = 0;
    if ((flags & O_CREAT) != 0) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
        if (strikes())
            return -1;
    } else if (strikes_at("reads")) {
        return -1;
    }
    return next(path, flags, mode);
}

ssize_t pread(int fd, void *to, size_t nbytes, off_t pos)
{
    NEXT(pread_fn, "pread")
    return strikes_at("reads") ? -1 : next(fd, to, nbytes, pos);
}

ssize_t pwrite(int fd, const void *bytes, size_t nbytes, off_t pos)
{
    NEXT(pwrite_fn, "pwrite")
    return strikes() ? -1 : next(fd, bytes, nbytes, pos);
}

int fsync(int fd)
{
    NEXT(fd_fn, "fsync")
    return strikes() ? -1 : next(fd);
}

int ftruncate(int fd, off_t nbytes)
{
    NEXT(truncate_fn, "ftruncate")
    return strikes() ? -1 : next(fd, nbytes);
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir_fn, "mkdir")
    return strikes() ? -1 : next(path, mode);
}

int rmdir(const char *path)
{
    NEXT(path_fn, "rmdir")
    return strikes() ? -1 : next(path);
}

int unlink(const char *path)
{
    NEXT(path_fn, "unlink")
    return strikes() ? -1 : next(path);
}

int unlinkat(int fd, const char *path, int flags)
{
    NEXT(unlinkat_fn, "unlinkat")
    return strikes() ? -1 : next(fd, path, flags);
}

int rename(const char *from, const char *to)
{
    NEXT(rename_fn, "rename")
    return strikes() ? -1 : next(from, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    NEXT(renameat2_fn, "renameat2")
    return strikes() ? -1 : next(from_fd, from, to_fd, to, flags);
}

typedef int (*ring_fn)(unsigned, void *, unsigned);

/* Of liburing. */
int io_uring_queue_init(unsigned n_entries, void *ring, unsigned flags);

int io_uring_queue_init(unsigned n_entries, void *ring, unsigned flags)
{
    NEXT(ring_fn, "io_uring_queue_init")
    return getenv("CRASH_NO_URING") != NULL ? -ENOSYS : next(n_entries, ring, flags);
}

#ifdef MB_CRASH_MEMORY
void *__libc_malloc(size_t nbytes);
void *__libc_calloc(size_t n, size_t nbytes);
void *__libc_realloc(void *block, size_t nbytes);
void *__libc_memalign(size_t alignment, size_t nbytes);

void *malloc(size_t nbytes)
{
    return strikes_at("memory") ? NULL : __libc_malloc(nbytes);
}

void *calloc(size_t n, size_t nbytes)
{
    return strikes_at("memory") ? NULL : __libc_calloc(n, nbytes);
}

void *realloc(void *block, size_t nbytes)
{
    return strikes_at("memory") ? NULL : __libc_realloc(block, nbytes);
}

void *aligned_alloc(size_t alignment, size_t nbytes)
{
    return strikes_at("memory") ? NULL : __libc_memalign(alignment, nbytes);
}
#endif

/* Says how many calls there were, for the tests to know when n is beyond the last one. */
__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("CRASH_TELL");
    FILE *file = path == NULL ? NULL : fopen(path, "w");
    if (file != NULL) {
        fprintf(file, "%ld\n", (long)n_calls);
        fclose(file);
    }
}
