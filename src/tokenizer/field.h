/*
 * field.h - fields of a tokenizer's JSON files, with errors that name file and place.
 */
#ifndef MB_TOKENIZER_FIELD_H
#define MB_TOKENIZER_FIELD_H

#include <jansson.h>
#include <moebius/status.h>
#include <stdbool.h>

enum { MB_FIELD_PLACE_NBYTES = 128 };

/* A value and where it is: "pre_tokenizer.pretokenizers[1]". */
struct mb_field {
    const json_t *value; /* NULL: not there */
    const char *path;    /* of the file */
    struct mb_error *err;
    char place[MB_FIELD_PLACE_NBYTES];
};

/* Reads a file of at most max_nbytes whose root is an object; release *owner with json_decref. */
enum mb_status mb_field_open(const char *path, size_t max_nbytes, json_t **owner, struct mb_field *root,
                             struct mb_error *err);

/* A member (value NULL when it is absent or null), and an element of an array. */
struct mb_field mb_field_get(const struct mb_field *object, const char *key);
struct mb_field mb_field_at(const struct mb_field *array, size_t i);

/* Fills err with file and place; mb_field_fail is the status (a macro for the reason that mb_fail is one). */
void mb_field_error_set(const struct mb_field *field, enum mb_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define mb_field_fail(field, status, ...) (mb_field_error_set(field, status, __VA_ARGS__), (status))

/* The value of a member; absent or null gives 'otherwise'. MB_BAD_DATA for a value of another type. */
enum mb_status mb_field_bool(const struct mb_field *object, const char *key, bool otherwise, bool *value);
enum mb_status mb_field_string(const struct mb_field *object, const char *key, const char *otherwise,
                               const char **value);
enum mb_status mb_field_size(const struct mb_field *object, const char *key, size_t max, size_t *value);

/* The member "type"; an error when there is none. */
enum mb_status mb_field_type(const struct mb_field *object, const char **type);

/* A string for messages: at most 60 bytes, no control characters. */
const char *mb_field_shown(char out[64], const char *text);

/* A token's name, "<s>" or {"content": "<s>", ...}; NULL when the field is absent or null. */
enum mb_status mb_field_token_name(const struct mb_field *token, const char **name);

#endif
