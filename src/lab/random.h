/*
 * random.h - random numbers by place: the i-th number of a key, whoever asks for it and in whatever order.
 *
 * All arithmetic is of operations that IEEE 754 rounds exactly, in one order: the same bits on every machine.
 */
#ifndef MB_LAB_RANDOM_H
#define MB_LAB_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* The stream of a seed and a name. */
uint64_t mb_random_key(uint64_t seed, const char *name);

/* Values first .. first + n - 1 of a stream: standard normal, and even in -1 to 1, both open. */
void mb_random_normal(uint64_t key, uint64_t first, size_t n, double *out);
void mb_random_even(uint64_t key, uint64_t first, size_t n, double *out);

#endif
