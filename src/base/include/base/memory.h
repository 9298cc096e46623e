/*
 * memory.h - large and aligned memory.
 */
#ifndef MB_BASE_MEMORY_H
#define MB_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/*
 * Zeroed anonymous pages, of 2 MiB where the kernel gives such; 2 MiB and more are aligned to 2 MiB.  NULL:
 * no memory.
 */
void *mb_pages_alloc(uint64_t nbytes);

/* The same in small pages that exist only once they are touched: for memory of which little may be used. */
void *mb_sparse_alloc(uint64_t nbytes);

/* Frees pages of either function. */
void mb_pages_free(void *pages, uint64_t nbytes);

/*
 * Bytes that can still be used without taking them from another program: of the machine, or of a control
 * group that this process is in (cgroups of version 1 and 2, those above its own too) if one has less.
 * UINT64_MAX: not known.
 */
uint64_t mb_memory_available(void);

/* What control groups leave alone; UINT64_MAX: no limit. 'root' as in cgroup.h. */
uint64_t mb_cgroup_memory_left(const char *root);

/* Bytes of memory that this process uses now, with what it has mapped of files; 0: not known. */
uint64_t mb_memory_used(void);

/*
 * Zeroed and aligned to 64 bytes; free() frees it, and 0 bytes give such a pointer too.  NULL: no memory, or
 * the size overflows.
 */
void *mb_alloc(uint64_t n, uint64_t elem_nbytes);

#endif
