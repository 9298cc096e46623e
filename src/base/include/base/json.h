/*
 * json.h - JSON text read and written with jansson.
 *
 * Out of memory: jansson (2.14) does not check every allocation.  Reading a text too large for memory can
 * lose a character of it, or end the program by an assertion.  A program that cannot accept this gives
 * jansson an allocator that never returns NULL (json_set_alloc_funcs), as moebius does (cli/main.c).
 */
#ifndef MB_BASE_JSON_H
#define MB_BASE_JSON_H

#include <jansson.h>
#include <moebius/status.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The object or array that a text is; a key that is there twice is refused.  The message begins with the
 * line, unless it is the first, and the byte: 'begin' is the text's position in its file.  *root is a new
 * reference, NULL after a failure.  An integer beyond 64 bits becomes a real number, and a real number beyond
 * a double's range becomes 1e300 (with its sign).
 */
enum mb_status mb_json_parse(const char *text, size_t nbytes, size_t begin, json_t **root,
                             struct mb_error *err);

/* The same, but of a key that is there twice the last one counts. */
enum mb_status mb_json_parse_last(const char *text, size_t nbytes, size_t begin, json_t **root,
                                  struct mb_error *err);

/* The object that is the whole text of the file at 'path', which messages name. */
enum mb_status mb_json_parse_file(const char *path, const char *text, size_t nbytes, json_t **object,
                                  struct mb_error *err);

/* Reads a file of at most max_nbytes that holds one object. */
enum mb_status mb_json_read(const char *path, uint64_t max_nbytes, json_t **object, struct mb_error *err);

/* The object that a text begins with, whatever follows it; NULL: none. A new reference. */
json_t *mb_json_leading(const char *text, size_t nbytes);

/* The text of a value, malloc'ed; *nbytes (may be NULL) does not count the terminator. NULL: no memory. */
char *mb_json_text(const json_t *value, size_t flags, size_t *nbytes);

#endif
