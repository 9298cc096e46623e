/*
 * feedback_avx2.c - the kernels with vectors of 32 bytes.
 */
#define VECTOR_NBYTES 32
#define NAMED(name) name##_avx2
#include "feedback_vectors.h"
