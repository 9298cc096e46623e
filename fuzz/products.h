/*
 * products.h - every kernel of every instruction set on a matrix that mb_blob_open has accepted.
 */
#ifndef FUZZ_PRODUCTS_H
#define FUZZ_PRODUCTS_H

#include <moebius/codec.h>

/* Requires that all of them give the scalar kernels' bits. 'seed' picks activations and a range of rows. */
void fuzz_products(const struct mb_coded_matrix *w, uint64_t seed);

#endif
