/*
 * memory.c - anonymous pages for weights, and aligned zeroed memory.
 */
#include "base/memory.h"
#include "base/cgroup.h"
#include "base/checked.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE_NBYTES = 2 << 20, CACHE_LINE_NBYTES = 64, STAT_NBYTES = 8192 };

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

/* The number after a name, in lines that begin with names; UINT64_MAX: there is none. */
static uint64_t number_after(const char *text, const char *name)
{
    size_t n = strlen(name);
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

/*
 * An mb_cgroup_fn: what a group leaves at least.  What it uses is anonymous memory alone: the kernel gives up
 * cached files where memory is wanted.
 */
static void take_left(void *ctx, const char *folder, bool is_v2)
{
    uint64_t *least = ctx;
    char text[STAT_NBYTES];
    mb_cgroup_read(folder, is_v2 ? "memory.max" : "memory.limit_in_bytes", text, sizeof text);
    uint64_t limit = number_after(text, ""); /* "max", and what has 19 digits: no limit */
    mb_cgroup_read(folder, "memory.stat", text, sizeof text);
    uint64_t used = number_after(text, is_v2 ? "anon " : "total_rss ");
    if (limit == UINT64_MAX || used == UINT64_MAX)
        return;
    uint64_t left = limit > used ? limit - used : 0;
    *least = left < *least ? left : *least;
}

uint64_t mb_cgroup_memory_left(const char *root)
{
    uint64_t least = UINT64_MAX;
    mb_cgroup_each(root, "memory", take_left, &least);
    return least;
}

uint64_t mb_memory_available(void)
{
    char text[STAT_NBYTES];
    mb_cgroup_read("/proc", "meminfo", text, sizeof text);
    uint64_t kib = number_after(text, "MemAvailable"), left = mb_cgroup_memory_left("");
    uint64_t available = kib < UINT64_MAX / 1024 ? 1024 * kib : UINT64_MAX;
    return left < available ? left : available;
}

uint64_t mb_memory_used(void)
{
    char text[STAT_NBYTES];
    mb_cgroup_read("/proc/self", "status", text, sizeof text);
    uint64_t kib = number_after(text, "VmRSS");
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
