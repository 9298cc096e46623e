/*
 * float_below.c - a bound for codecs that compute with floats.
 */
#include "functions.h"
#include <math.h>

float mb_float_below(double eps)
{
    float f = (float)eps;
    return (double)f > eps ? nextafterf(f, 0) : f;
}
