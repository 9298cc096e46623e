/*
 * gram_avx512.c - vectors of sixteen.
 */
#define ISA avx512
enum { LANES = 16, ROWS = 8, COLS = 2 };
#include "gram_kernels.h"
