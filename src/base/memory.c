/*
 * memory.c - anonymous pages for weights, and aligned zeroed memory.
 */
#include "base/memory.h"
#include "base/checked.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE_NBYTES = 2 << 20, CACHE_LINE_NBYTES = 64 };

/* Maps one huge page too many and unmaps what lies outside the aligned part. */
static void *map_aligned(uint64_t nbytes)
{
    uint64_t span = nbytes + HUGE_PAGE_NBYTES;
    uint8_t *base = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    uint8_t *aligned = (uint8_t *)mb_round_up((uint64_t)(uintptr_t)base, HUGE_PAGE_NBYTES);
    uint64_t before = (uint64_t)(aligned - base), after = span - before - nbytes;
    if (before > 0)
        munmap(base, before);
    if (after > 0)
        munmap(aligned + nbytes, after);
    return aligned;
}

void *mb_pages_alloc(uint64_t nbytes)
{
    if (nbytes == 0 || nbytes > (uint64_t)1 << 46)
        return NULL;
    nbytes = mb_round_up(nbytes, 4096);
    if (nbytes < HUGE_PAGE_NBYTES) {
        void *pages = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return pages == MAP_FAILED ? NULL : pages;
    }
    void *pages = map_aligned(nbytes);
    if (pages != NULL)
        madvise(pages, nbytes, MADV_HUGEPAGE); /* advice: without it everything still works */
    return pages;
}

void *mb_sparse_alloc(uint64_t nbytes)
{
    if (nbytes == 0 || nbytes > (uint64_t)1 << 46)
        return NULL;
    nbytes = mb_round_up(nbytes, 4096);
    void *pages =
        mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
    madvise(pages, nbytes, MADV_NOHUGEPAGE); /* advice */
    return pages;
}

void mb_pages_free(void *pages, uint64_t nbytes)
{
    if (pages != NULL)
        munmap(pages, mb_round_up(nbytes, 4096));
}

/* A small file as a text, as much of it as fits. Allocates nothing. */
static void read_text(const char *path, char *text, size_t n_max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t n = 0;
    for (ssize_t got = fd < 0 ? 0 : 1; got > 0 && n<n_max - 1; n += got> 0 ? (size_t)got : 0)
        got = read(fd, text + n, n_max - 1 - n);
    text[n] = '\0';
    if (fd >= 0)
        close(fd);
}

/* The number after a name, in a file of lines that begin with names; UINT64_MAX: there is none. */
static uint64_t number_after(const char *path, const char *name)
{
    char text[8192];
    size_t n = strlen(name);
    read_text(path, text, sizeof text);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) != 0)
            continue;
        const char *digits = line + n + strspn(line + n, ": \t");
        size_t n_digits = strspn(digits, "0123456789");
        return n_digits > 0 && n_digits < 19 ? strtoull(digits, NULL, 10) : UINT64_MAX;
    }
    return UINT64_MAX;
}

uint64_t mb_memory_available(void)
{
    uint64_t kib = number_after("/proc/meminfo", "MemAvailable"), available = UINT64_MAX;
    if (kib < UINT64_MAX / 1024)
        available = 1024 * kib;
    uint64_t limit = number_after("/sys/fs/cgroup/memory.max", ""); /* "max": no number */
    uint64_t used = number_after("/sys/fs/cgroup/memory.stat", "anon");
    if (limit != UINT64_MAX && used != UINT64_MAX) {
        uint64_t left = limit > used ? limit - used : 0;
        available = left < available ? left : available;
    }
    return available;
}

uint64_t mb_memory_used(void)
{
    uint64_t kib = number_after("/proc/self/status", "VmRSS");
    return kib < UINT64_MAX / 1024 ? 1024 * kib : 0;
}

void *mb_alloc(uint64_t n, uint64_t elem_nbytes)
{
    uint64_t nbytes;
    if (!mb_mul_u64(n, elem_nbytes, &nbytes) || nbytes > (uint64_t)1 << 46)
        return NULL;
    nbytes = mb_round_up(nbytes == 0 ? 1 : nbytes, CACHE_LINE_NBYTES);
    void *p = aligned_alloc(CACHE_LINE_NBYTES, nbytes);
    if (p != NULL)
        memset(p, 0, nbytes);
    return p;
}
