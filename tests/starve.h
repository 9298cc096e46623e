/*
 * starve.h - memory and reads that fail on demand, for the test program that this is linked into.
 *
 * Every allocation and every read of the program goes through starve.c: those of our code and of the
 * libraries, whatever their number.  Not counted: what qsort allocates, since it does without.
 */
#ifndef TESTS_STARVE_H
#define TESTS_STARVE_H

#include <stdbool.h>
#include <stddef.h>

enum starve_kind {
    STARVE_MEMORY, /* the heap, anonymous and file mappings, threads */
    STARVE_READ,   /* of files and folders: EIO */
    STARVE_SHORT,  /* pread: the file ends there, as if it had just been cut */
    STARVE_HALF,   /* pread: half of what was asked for, which is no failure */
};

/* From now on the n-th call of a kind fails (from 1; 0: none), and all later ones when it lasts. */
void starve_begin(enum starve_kind kind, long n, bool lasts);

/* Nothing fails any more. Returns how many calls of the kind there were since starve_begin. */
long starve_end(void);

/* Blocks and mapped bytes that are not freed yet; for differences. */
struct starve_held {
    long n_blocks, mapped_nbytes, n_files;
};
struct starve_held starve_held(void);

/*
 * A malloc that never fails and is not counted: for json_set_alloc_funcs(starve_spared_malloc, free), since
 * jansson does not survive without memory (base/json.h).
 */
void *starve_spared_malloc(size_t nbytes);

#endif
