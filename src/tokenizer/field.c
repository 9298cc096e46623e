/*
 * field.c - fields of a tokenizer's JSON files.
 */
#include "field.h"
#include "base/error.h"
#include "base/json.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void mb_field_error_set(const struct mb_field *field, enum mb_status status, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (field->place[0] == 0)
        mb_error_set(field->err, status, "%s: %s", field->path, text);
    else
        mb_error_set(field->err, status, "%s: %s: %s", field->path, field->place, text);
}

const char *mb_field_shown(char out[64], const char *text)
{
    size_t n = strlen(text);
    if (n > 60)
        for (n = 60; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;)
            n--;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text[i] < ' ' || text[i] == 127 ? '?' : text[i];
    out[n] = 0;
    return out;
}

enum mb_status mb_field_open(const char *path, size_t max_nbytes, json_t **owner, struct mb_field *root,
                             struct mb_error *err)
{
    MB_TRY(mb_json_read(path, max_nbytes, owner, err));
    *root = (struct mb_field){.value = *owner, .path = path, .err = err};
    return MB_OK;
}

struct mb_field mb_field_get(const struct mb_field *object, const char *key)
{
    struct mb_field member = {.path = object->path, .err = object->err};
    const json_t *value = object->value == NULL ? NULL : json_object_get(object->value, key);
    member.value = json_is_null(value) ? NULL : value;
    /* Cut where it does not fit: a place is for people. */
    int n =
        snprintf(member.place, sizeof member.place, "%s%s", object->place, object->place[0] == 0 ? "" : ".");
    if (n >= 0 && (size_t)n < sizeof member.place)
        snprintf(member.place + n, sizeof member.place - (size_t)n, "%s", key);
    return member;
}

struct mb_field mb_field_at(const struct mb_field *array, size_t i)
{
    struct mb_field item = {.path = array->path, .err = array->err, .value = json_array_get(array->value, i)};
    int n = snprintf(item.place, sizeof item.place, "%s", array->place);
    if (n > 0 && (size_t)n < sizeof item.place)
        snprintf(item.place + n, sizeof item.place - (size_t)n, "[%zu]", i);
    return item;
}

enum mb_status mb_field_bool(const struct mb_field *object, const char *key, bool otherwise, bool *value)
{
    struct mb_field member = mb_field_get(object, key);
    *value = member.value == NULL ? otherwise : json_is_true(member.value);
    if (member.value != NULL && !json_is_boolean(member.value))
        return mb_field_fail(&member, MB_BAD_DATA, "not true or false");
    return MB_OK;
}

enum mb_status mb_field_string(const struct mb_field *object, const char *key, const char *otherwise,
                               const char **value)
{
    struct mb_field member = mb_field_get(object, key);
    *value = member.value == NULL ? otherwise : json_string_value(member.value);
    if (member.value != NULL && *value == NULL)
        return mb_field_fail(&member, MB_BAD_DATA, "not a string");
    return MB_OK;
}

enum mb_status mb_field_size(const struct mb_field *object, const char *key, size_t max, size_t *value)
{
    struct mb_field member = mb_field_get(object, key);
    if (!json_is_integer(member.value))
        return mb_field_fail(&member, MB_BAD_DATA, "not an integer");
    json_int_t number = json_integer_value(member.value);
    if (number < 0 || (unsigned long long)number > max)
        return mb_field_fail(&member, MB_BAD_DATA, "%lld is not within 0 to %zu", (long long)number, max);
    *value = (size_t)number;
    return MB_OK;
}

enum mb_status mb_field_type(const struct mb_field *object, const char **type)
{
    if (!json_is_object(object->value))
        return mb_field_fail(object, MB_BAD_DATA, "not an object");
    enum mb_status status = mb_field_string(object, "type", NULL, type);
    if (status == MB_OK && *type == NULL)
        return mb_field_fail(object, MB_BAD_DATA, "has no type");
    return status;
}

enum mb_status mb_field_token_name(const struct mb_field *token, const char **name)
{
    *name = json_string_value(token->value);
    if (token->value == NULL || *name != NULL)
        return MB_OK;
    MB_TRY(mb_field_string(token, "content", NULL, name));
    return *name != NULL ? MB_OK
                         : mb_field_fail(token, MB_BAD_DATA, "neither a string nor an object with content");
}
