/*
 * error.c - fills mb_error, and maps statuses to the exit statuses of the command line.
 */
#include "base/error.h"
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void mb_make_printable(char *text)
{
    for (; *text != '\0'; text++) {
        bool is_two_bytes = (unsigned char)text[0] == 0xc2 && (unsigned char)text[1] - 0x80u < 0x20;
        if (is_two_bytes) /* U+0080 to U+009F: a terminal may take U+009B for ESC [ */
            text[1] = '?';
        if ((unsigned char)*text < 0x20 || *text == 0x7f || is_two_bytes)
            *text = '?';
    }
}

void mb_error_set(struct mb_error *err, enum mb_status status, const char *format, ...)
{
    if (err == NULL)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(err->msg, sizeof err->msg, format, args);
    va_end(args);
    mb_make_printable(err->msg);
    err->status = status;
}

enum mb_status mb_fail_in(struct mb_error *err, enum mb_status status, const char *format, ...)
{
    if (err == NULL)
        return status;
    char inner[sizeof err->msg];
    memcpy(inner, err->msg, sizeof inner);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->msg, sizeof err->msg, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->msg)
        snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s", inner);
    mb_make_printable(err->msg);
    err->status = status;
    return status;
}

static enum mb_status status_of_errno(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return MB_NO_SPACE;
    case ENOMEM:
        return MB_NO_MEMORY;
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
        return MB_BAD_DATA;
    default:
        return MB_IO;
    }
}

enum mb_status mb_fail_errno(struct mb_error *err, const char *path, const char *doing)
{
    int number = errno;
    enum mb_status status = status_of_errno(number);
    return mb_fail(err, status, "%s: %s: %s", path, doing, strerror(number));
}

int mb_status_exit_code(enum mb_status status)
{
    switch (status) {
    case MB_OK:
        return 0;
    case MB_USAGE:
        return 2;
    case MB_BAD_DATA:
    case MB_UNSUPPORTED:
        return 3;
    default:
        return 4;
    }
}
