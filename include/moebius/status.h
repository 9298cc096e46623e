/*
 * status.h - how every function of the library reports failure.
 *
 * A function that can fail returns an mb_status and, when the caller gave an mb_error, fills it where
 * the failure was found.  The library never prints and never exits.
 *
 * One exception: a JSON text (config.json, tokenizer.json, an index, a shard's header) too large for memory.
 * jansson, which reads it, does not check every allocation: it can lose a character of the text, or end the
 * program by an assertion.  A program that cannot accept this calls json_set_alloc_funcs() at its start with
 * a malloc that never returns NULL.
 */
#ifndef MOEBIUS_STATUS_H
#define MOEBIUS_STATUS_H

#include <moebius/api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Values never change. */
enum mb_status {
    MB_OK = 0,
    MB_BAD_DATA = 1, /* a file's fault: truncated, contradictory, checksum, NaN weight, missing file */
    MB_NO_SPACE = 2, /* disk full, or an output buffer of the caller too small */
    MB_NO_MEMORY = 3,
    MB_IO = 4,          /* read, write, permission */
    MB_UNSUPPORTED = 5, /* a valid file that needs what this library does not do; the message names it */
    MB_USAGE = 6,       /* the caller's argument: a bound that cannot be parsed, an unknown CPU feature */
    MB_CANCELLED = 7,   /* a progress callback asked to stop */
};

/* One line for a person: "FILE: tensor NAME: byte POS: what is wrong", parts that do not apply left out. */
struct mb_error {
    enum mb_status status;
    char msg[1024];
};

/*
 * Called often during long work, by one thread at a time: 'done' of 'total' is finished.  The function that
 * takes it says their unit (bytes, questions, ...).  'what' names the work at hand, valid during the call; it
 * may quote a file.  Return true to stop: the function then returns MB_CANCELLED.
 */
typedef bool (*mb_progress_fn)(void *ctx, const char *what, uint64_t done, uint64_t total);

/*
 * Replaces each control character by '?', U+0080 to U+009F by two: a name that comes from a file must not
 * command the terminal nor break the line.  Messages in mb_error are printable already.
 */
MB_API void mb_make_printable(char *text);

/* The exit status of the command line for a status: 0, 2 (usage), 3 (bad input) or 4 (the machine). */
MB_API int mb_status_exit_code(enum mb_status status);

#ifdef __cplusplus
}
#endif

#endif
