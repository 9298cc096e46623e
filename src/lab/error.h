/*
 * error.h - fill an mb_error. The lab uses only include/moebius, so it has its own.
 */
#ifndef MB_LAB_ERROR_H
#define MB_LAB_ERROR_H

#include <moebius/status.h>

/* Formats the message and returns 'status'. err may be NULL. */
enum mb_status mb_lab_fail(struct mb_error *err, enum mb_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
