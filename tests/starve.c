/*
 * starve.c - takes the place of libc's functions in a test program, counts their calls, and lets one fail.
 */
#include "starve.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* libc spells its parameters differently. NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

/* The allocator behind us. The address sanitizer has its own, which has to see every block. */
#if defined(__SANITIZE_ADDRESS__)
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t nbytes);
void *REAL(calloc)(size_t n, size_t nbytes);
void *REAL(realloc)(void *block, size_t nbytes);
void *REAL(memalign)(size_t alignment, size_t nbytes);
void REAL(free)(void *block);

static atomic_long n_calls, n_blocks, mapped_nbytes;
static _Thread_local bool is_ours; /* the thread is inside of our code, not at its beginning or end */
static _Thread_local int n_pauses;
static enum starve_kind kind_now;
static long strikes_at;
static bool is_counting, strikes_on;

void starve_begin(enum starve_kind kind, long n, bool lasts)
{
    kind_now = kind;
    strikes_at = n;
    strikes_on = lasts;
    n_calls = 0;
    is_ours = true;
    is_counting = true;
}

long starve_end(void)
{
    is_counting = false;
    return n_calls;
}

static bool strikes(enum starve_kind kind)
{
    if (!is_counting || kind != kind_now || !is_ours || n_pauses > 0)
        return false;
    long call = atomic_fetch_add(&n_calls, 1) + 1;
    return strikes_at != 0 && (call == strikes_at || (strikes_on && call > strikes_at));
}

/* errno is set where the real function would have set it. */
static bool strikes_memory(void)
{
    bool is_struck = strikes(STARVE_MEMORY);
    if (is_struck)
        errno = ENOMEM;
    return is_struck;
}

static bool strikes_read(void)
{
    bool is_struck = strikes(STARVE_READ);
    if (is_struck)
        errno = EIO;
    return is_struck;
}

static long count_files(void)
{
    long n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

struct starve_held starve_held(void)
{
    return (struct starve_held){n_blocks, mapped_nbytes, count_files()};
}

/* ---------------------------------------------------------------- memory */

static void *counted(void *block)
{
    n_blocks += block != NULL;
    return block;
}

void *malloc(size_t nbytes)
{
    return strikes_memory() ? NULL : counted(REAL(malloc)(nbytes));
}

void *starve_spared_malloc(size_t nbytes)
{
    return counted(REAL(malloc)(nbytes));
}

void *calloc(size_t n, size_t nbytes)
{
    return strikes_memory() ? NULL : counted(REAL(calloc)(n, nbytes));
}

void *realloc(void *block, size_t nbytes)
{
    if (strikes_memory())
        return NULL;
    bool is_new = block == NULL;
    void *moved = REAL(realloc)(block, nbytes);
    n_blocks += is_new && moved != NULL;
    return moved;
}

void *aligned_alloc(size_t alignment, size_t nbytes)
{
    return strikes_memory() ? NULL : counted(REAL(memalign)(alignment, nbytes));
}

int posix_memalign(void **block, size_t alignment, size_t nbytes)
{
    void *got = strikes_memory() ? NULL : counted(REAL(memalign)(alignment, nbytes));
    if (got == NULL)
        return ENOMEM;
    *block = got;
    return 0;
}

/* The sanitizers' own do not come by here. */
char *strndup(const char *text, size_t n_max)
{
    size_t n = strnlen(text, n_max);
    char *copy = malloc(n + 1);
    if (copy != NULL) {
        memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

char *strdup(const char *text)
{
    return strndup(text, SIZE_MAX);
}

/* libc's own takes a second block and does without where it cannot have it. */
int vasprintf(char **text, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    *text = n < 0 ? NULL : malloc((size_t)n + 1);
    if (*text != NULL)
        vsnprintf(*text, (size_t)n + 1, format, again);
    va_end(again);
    return *text == NULL ? -1 : n;
}

int asprintf(char **text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vasprintf(text, format, args);
    va_end(args);
    return n;
}

void free(void *block)
{
    n_blocks -= block != NULL;
    REAL(free)(block);
}

/* POSIX lets a function's address come back as a void pointer. */
#define NEXT(type, name) \
    static type next;    \
    if (next == NULL)    \
        next = (type)dlsym(RTLD_NEXT, name);

typedef void *(*mmap_fn)(void *, size_t, int, int, int, off_t);
typedef int (*munmap_fn)(void *, size_t);
typedef int (*thread_fn)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
typedef void (*qsort_fn)(void *, size_t, size_t, int (*)(const void *, const void *));

void *mmap(void *at, size_t nbytes, int protection, int flags, int fd, off_t pos)
{
    NEXT(mmap_fn, "mmap")
    if (strikes_memory() || (fd >= 0 && strikes_read()))
        return MAP_FAILED;
    void *map = next(at, nbytes, protection, flags, fd, pos);
    if (map != MAP_FAILED)
        mapped_nbytes += (long)nbytes;
    return map;
}

int munmap(void *map, size_t nbytes)
{
    NEXT(munmap_fn, "munmap")
    mapped_nbytes -= (long)nbytes;
    return next(map, nbytes);
}

struct start {
    void *(*run)(void *);
    void *arg;
};

static void *run_thread(void *arg)
{
    struct start start = *(struct start *)arg;
    REAL(free)(arg);
    is_ours = true;
    void *result = start.run(start.arg);
    is_ours = false;
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
    NEXT(thread_fn, "pthread_create")
    if (strikes_memory())
        return EAGAIN;
    struct start *start = REAL(malloc)(sizeof *start);
    if (start == NULL)
        return EAGAIN;
    *start = (struct start){run, arg};
    n_pauses++; /* stacks are kept for the next thread: what they need differs from call to call */
    int failed = next(thread, attributes, run_thread, start);
    n_pauses--;
    if (failed != 0)
        REAL(free)(start);
    return failed;
}

void qsort(void *items, size_t n, size_t nbytes, int (*compare)(const void *, const void *))
{
    NEXT(qsort_fn, "qsort")
    n_pauses++;
    next(items, n, nbytes, compare);
    n_pauses--;
}

/* ---------------------------------------------------------------- reading */

typedef FILE *(*fopen_fn)(const char *, const char *);
typedef int (*fclose_fn)(FILE *);
static _Thread_local FILE *about_process;

/* How many CPUs a process gets is asked of /proc: where that fails it counts on all of them. */
FILE *fopen(const char *path, const char *mode)
{
    NEXT(fopen_fn, "fopen")
    bool is_about_process = about_process == NULL && strncmp(path, "/proc/self/", 11) == 0;
    n_pauses += is_about_process;
    FILE *file = next(path, mode);
    if (is_about_process && file == NULL)
        n_pauses--;
    else if (is_about_process)
        about_process = file; /* until it is closed */
    return file;
}

int fclose(FILE *file)
{
    NEXT(fclose_fn, "fclose")
    bool is_about_process = file != NULL && file == about_process;
    int failed = next(file);
    if (is_about_process) {
        about_process = NULL;
        n_pauses--;
    }
    return failed;
}

typedef int (*open_fn)(const char *, int, ...);
typedef ssize_t (*pread_fn)(int, void *, size_t, off_t);
typedef int (*fstat_fn)(int, struct stat *);
typedef int (*stat_fn)(const char *, struct stat *);
typedef DIR *(*opendir_fn)(const char *);
typedef struct dirent *(*readdir_fn)(DIR *);

int open(const char *path, int flags, ...)
{
    NEXT(open_fn, "open")
    mode_t mode = 0;
    if ((flags & O_CREAT) != 0) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    } else if (strikes_read()) {
        return -1;
    }
    return next(path, flags, mode);
}

ssize_t pread(int fd, void *to, size_t nbytes, off_t pos)
{
    NEXT(pread_fn, "pread")
    if (strikes_read())
        return -1;
    if (strikes(STARVE_SHORT))
        return 0;
    if (nbytes > 1 && strikes(STARVE_HALF))
        nbytes /= 2;
    return next(fd, to, nbytes, pos);
}

int fstat(int fd, struct stat *info)
{
    NEXT(fstat_fn, "fstat")
    return strikes_read() ? -1 : next(fd, info);
}

int stat(const char *path, struct stat *info)
{
    NEXT(stat_fn, "stat")
    return strikes_read() ? -1 : next(path, info);
}

DIR *opendir(const char *path)
{
    NEXT(opendir_fn, "opendir")
    return strikes_read() ? NULL : next(path);
}

struct dirent *readdir(DIR *folder)
{
    NEXT(readdir_fn, "readdir")
    return strikes_read() ? NULL : next(folder);
}

/* Syncing only makes thousands of runs slow: no test cuts the power. */
int fsync(int fd)
{
    (void)fd;
    return 0;
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
