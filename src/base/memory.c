/*
 * memory.c - anonymous pages for weights, and aligned zeroed memory.
 */
#include "base/memory.h"
#include "base/checked.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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
