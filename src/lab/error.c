/*
 * error.c - fill an mb_error.
 */
#include "error.h"
#include <stdarg.h>
#include <stdio.h>

enum mb_status mb_lab_fail(struct mb_error *err, enum mb_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        err->status = status;
        va_start(args, format);
        vsnprintf(err->msg, sizeof err->msg, format, args);
        va_end(args);
    }
    return status;
}
