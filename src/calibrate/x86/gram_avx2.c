/*
 * gram_avx2.c - vectors of eight.
 */
#define ISA avx2
enum { LANES = 8, ROWS = 4, COLS = 2 };
#include "gram_kernels.h"
