/*
 * guarded.c - see guarded.h.
 */
#include "guarded.h"
#include "cmocka_all.h"
#include <sys/mman.h>

enum { PAGE_NBYTES = 4096 };

struct guarded guarded_alloc(size_t nbytes, bool at_end)
{
    size_t inner = (nbytes + PAGE_NBYTES - 1) / PAGE_NBYTES * PAGE_NBYTES;
    struct guarded g = {.map_nbytes = inner + 2 * (size_t)PAGE_NBYTES};
    g.map = mmap(NULL, g.map_nbytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    if (inner > 0)
        assert_int_equal(mprotect(g.map + PAGE_NBYTES, inner, PROT_READ | PROT_WRITE), 0);
    g.data = g.map + PAGE_NBYTES + (at_end ? inner - nbytes : 0);
    return g;
}

void guarded_free(struct guarded *guarded)
{
    munmap(guarded->map, guarded->map_nbytes);
}
