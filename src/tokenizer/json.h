/*
 * json.h - values of a tokenizer's JSON files, with errors that name file and place.
 */
#ifndef MB_TOKENIZER_JSON_H
#define MB_TOKENIZER_JSON_H

#include <jansson.h>
#include <moebius/status.h>
#include <stdbool.h>

enum { MB_JSON_PLACE_NBYTES = 128 };

/* A value and where it is: "pre_tokenizer.pretokenizers[1]". */
struct mb_json {
    const json_t *value; /* NULL: not there */
    const char *path;    /* of the file */
    struct mb_error *err;
    char place[MB_JSON_PLACE_NBYTES];
};

/* Reads a file of at most max_nbytes whose root is an object; release *owner with json_decref. */
enum mb_status mb_json_open(const char *path, size_t max_nbytes, json_t **owner, struct mb_json *root,
                            struct mb_error *err);

/* A member (value NULL when it is absent or null), and an element of an array. */
struct mb_json mb_json_get(const struct mb_json *object, const char *key);
struct mb_json mb_json_at(const struct mb_json *array, size_t i);

/* Fills err with file and place; mb_json_fail is the status (a macro for the reason that mb_fail is one). */
void mb_json_error_set(const struct mb_json *json, enum mb_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define mb_json_fail(json, status, ...) (mb_json_error_set(json, status, __VA_ARGS__), (status))

/* The value of a member; absent or null gives 'otherwise'. MB_BAD_DATA for a value of another type. */
enum mb_status mb_json_bool(const struct mb_json *object, const char *key, bool otherwise, bool *value);
enum mb_status mb_json_string(const struct mb_json *object, const char *key, const char *otherwise,
                              const char **value);
enum mb_status mb_json_size(const struct mb_json *object, const char *key, size_t max, size_t *value);

/* The member "type"; an error when there is none. */
enum mb_status mb_json_type(const struct mb_json *object, const char **type);

/* A string for messages: at most 60 bytes, no control characters. */
const char *mb_json_shown(char out[64], const char *text);

#endif
