/*
 * memory.h - large and aligned memory.
 */
#ifndef MB_BASE_MEMORY_H
#define MB_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed anonymous pages, 2 MiB ones where the kernel gives them; aligned to 2 MiB when that large. NULL: no
 * memory. */
void *mb_pages_alloc(uint64_t nbytes);

/* The same in small pages that exist only once they are touched: for memory of which little may be used. */
void *mb_sparse_alloc(uint64_t nbytes);

/* Frees what either of the two gave. */
void mb_pages_free(void *pages, uint64_t nbytes);

/* Zeroed, 64-byte aligned; nbytes 0 gives a pointer that can be freed. Free with free(). NULL: no memory or
 * overflow. */
void *mb_alloc(uint64_t n, uint64_t elem_nbytes);

#endif
