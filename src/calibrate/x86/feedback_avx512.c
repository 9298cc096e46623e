/*
 * feedback_avx512.c - the kernels with vectors of 64 bytes.
 */
#define VECTOR_NBYTES 64
#define NAMED(name) name##_avx512
#include "feedback_vectors.h"
