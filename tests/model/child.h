/*
 * child.h - a test's work in a process of its own: a process reads MOEBIUS_CPU once.
 */
#ifndef TESTS_MODEL_CHILD_H
#define TESTS_MODEL_CHILD_H

#include <stdint.h>

/* fn(ctx) in a child whose MOEBIUS_CPU is 'cpu'; this process must not yet have chosen its kernels. */
uint64_t test_hash_in_child(const char *cpu, uint64_t (*fn)(const void *ctx), const void *ctx);

#endif
