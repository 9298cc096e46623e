/*
 * feedback_scalar.c - the kernels with what every processor of the architecture has.
 */
#define VECTOR_NBYTES 16
#define NAMED(name) name##_scalar
#include "feedback_vectors.h"
