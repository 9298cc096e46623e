/*
 * resident.h - coded matrices in the form that this machine's kernels multiply fastest (struct
 * mb_resident_form), packed into large pages.
 */
#ifndef MB_STORE_RESIDENT_H
#define MB_STORE_RESIDENT_H

#include <moebius/codec.h>

struct mb_resident;

/* 'form' and n_more_bits: see struct mb_resident_form. n_threads will add matrices. */
enum mb_status mb_resident_create(const struct mb_resident_form *form, unsigned n_more_bits, int n_threads,
                                  struct mb_resident **resident, struct mb_error *err);
void mb_resident_free(struct mb_resident *resident); /* NULL is fine */

/*
 * Memory of at least nbytes, the thread's own until its next call: for what is read only to be added.  NULL:
 * no memory.
 */
uint8_t *mb_resident_scratch(struct mb_resident *resident, int thread, uint64_t nbytes);

/* *matrix is of the form of files; it becomes a view of what was made of it, which needs it no longer. */
enum mb_status mb_resident_add(struct mb_resident *resident, int thread, struct mb_coded_matrix *matrix,
                               struct mb_error *err);

/* Gives the scratch memory back: nothing is added any more. */
void mb_resident_end(struct mb_resident *resident);

uint64_t mb_resident_nbytes(const struct mb_resident *resident);

#endif
