/*
 * exponents.h - coded folders of version 3, made of others without the program's encoder: an exponent for
 * each column of every second matrix of an MLP.
 */
#ifndef TESTS_EXPONENTS_H
#define TESTS_EXPONENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From -2 to 3. */
int8_t test_exponent(size_t col);

/* Files of one folder to another, which is made. */
void test_copy_folder(const char *from, const char *to);

/*
 * What a coded folder says of W it now says of V = W 2^e, wherever there is room for exponents in a blob's
 * padding. Returns of how many matrices.  All checksums are right afterwards.
 */
size_t test_add_exponents(const char *folder);

/* The same to matrices whose name ends in 'suffix', which readers refuse. */
size_t test_add_exponents_named(const char *folder, const char *suffix);

/*
 * Multiplies weights of a plain folder by 2^-e, in place: element [r][c] of matrices whose name ends in
 * 'suffix' by that of its row, or of its column.  Returns of how many matrices.
 */
size_t test_unscale_tensors(const char *folder, const char *suffix, bool by_rows);

#endif
