/*
 * error.h - fill an mb_error where a failure is found.
 */
#ifndef MB_BASE_ERROR_H
#define MB_BASE_ERROR_H

#include <inttypes.h>
#include <moebius/status.h>
#include <stddef.h>
#include <stdint.h>

/* Formats the message. err may be NULL. */
void mb_error_set(struct mb_error *err, enum mb_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Formats the message and is 'status', so that "return mb_fail(err, MB_IO, ...)" reads well.  A macro, so
 * that compilers and analysers see which status it is.
 */
#define mb_fail(err, status, ...) (mb_error_set(err, status, __VA_ARGS__), (status))

/*
 * Returns from the function when the expression is a failure. For functions that own nothing at that point;
 * one that owns something calls an inner function that tries, and cleans up after it.
 */
#define MB_TRY(expression)                         \
    do {                                           \
        enum mb_status try_status_ = (expression); \
        if (try_status_ != MB_OK)                  \
            return try_status_;                    \
    } while (0)

/* Puts "format: " before what a callee reported: "model-00001.safetensors: tensor x: ...". Returns status. */
enum mb_status mb_fail_in(struct mb_error *err, enum mb_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * A failed system call on 'path': "PATH: DOING: strerror(errno)".  ENOSPC and EDQUOT are MB_NO_SPACE, ENOMEM
 * MB_NO_MEMORY, ENOENT, ENOTDIR and EISDIR MB_BAD_DATA, else MB_IO.
 */
enum mb_status mb_fail_errno(struct mb_error *err, const char *path, const char *doing);

/* A failure that another thread found becomes the caller's. Returns 'status'. */
static inline enum mb_status mb_pass_on(struct mb_error *err, enum mb_status status,
                                        const struct mb_error *found)
{
    if (status != MB_OK && err != NULL)
        *err = *found;
    return status;
}

/* 'what' is a noun phrase: "out of memory for the threads". */
#define mb_fail_memory(err, what) mb_fail(err, MB_NO_MEMORY, "out of memory for %s", what)

#endif
