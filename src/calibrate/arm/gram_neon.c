/*
 * gram_neon.c - vectors of four.
 */
#define ISA neon
enum { LANES = 4, ROWS = 4, COLS = 4 };
#include "gram_kernels.h"
