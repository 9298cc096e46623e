/*
 * json.h - JSON text read and written as jansson does it, and not wrongly where memory is out.
 */
#ifndef MB_BASE_JSON_H
#define MB_BASE_JSON_H

#include <jansson.h>
#include <moebius/status.h>
#include <stddef.h>

/*
 * An object or array; a key that is there twice is refused.  The message begins with the line, unless it is
 * the first, and the byte, counted from 'begin': where the text stands in its file.  *root is a new
 * reference, NULL after a failure.
 */
enum mb_status mb_json_parse(const char *text, size_t nbytes, size_t begin, json_t **root,
                             struct mb_error *err);

/* The text of a value, malloc'ed and terminated; *nbytes (may be NULL) without the end. NULL: no memory. */
char *mb_json_text(const json_t *value, size_t flags, size_t *nbytes);

#endif
