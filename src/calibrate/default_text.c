/*
 * default_text.c - the calibration text that comes with the library (default.jsonl).
 */
#include "default_text.h"
#include <moebius/calibrate.h>

const char *mb_calibration_default(size_t *nbytes)
{
    *nbytes = sizeof MB_DEFAULT_TEXT - 1;
    return MB_DEFAULT_TEXT;
}
