/*
 * chat_json.c - messages, tools and variables in JSON to values of a chat template.
 */
#include "chat_json.h"
#include <string.h>

enum { DEPTH_MAX = 64 };

static bool copy_string(struct mb_jinja_run *run, const char *text, size_t n, struct mb_jinja_string *string)
{
    char *copy = mb_jinja_alloc(run, n);
    if (copy == NULL)
        return false;
    if (n > 0)
        memcpy(copy, text, n);
    *string = (struct mb_jinja_string){copy, n};
    return true;
}

static bool make_value(struct mb_jinja_run *run, const json_t *json, int depth, struct mb_jinja_value *value);

static bool put_member(struct mb_jinja_run *run, struct mb_jinja_map *map, const char *key,
                       const json_t *json, int depth)
{
    struct mb_jinja_string name;
    struct mb_jinja_value value;
    return make_value(run, json, depth, &value) && copy_string(run, key, strlen(key), &name) &&
           mb_jinja_put(run, map, name, value);
}

static bool make_map(struct mb_jinja_run *run, const json_t *json, int depth, struct mb_jinja_value *value)
{
    const char *key;
    json_t *member;
    if (!mb_jinja_new_map(run, MB_JINJA_DICT, value))
        return false;
    json_object_foreach((json_t *)json, key, member)
    {
        if (!put_member(run, value->map, key, member, depth))
            return false;
    }
    return true;
}

static bool make_list(struct mb_jinja_run *run, const json_t *json, int depth, struct mb_jinja_value *value)
{
    if (!mb_jinja_new_list(run, value))
        return false;
    for (size_t i = 0; i < json_array_size(json); i++) {
        struct mb_jinja_value item;
        if (!make_value(run, json_array_get(json, i), depth, &item) ||
            !mb_jinja_append(run, value->list, item))
            return false;
    }
    return true;
}

static bool make_value(struct mb_jinja_run *run, const json_t *json, int depth, struct mb_jinja_value *value)
{
    if (depth > DEPTH_MAX)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "JSON nested more than %d deep is not supported",
                             DEPTH_MAX);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return make_map(run, json, depth + 1, value);
    case JSON_ARRAY:
        return make_list(run, json, depth + 1, value);
    case JSON_STRING:
        *value = mb_jinja_text("", 0);
        return copy_string(run, json_string_value(json), json_string_length(json), &value->string);
    case JSON_INTEGER:
        *value = mb_jinja_int(json_integer_value(json));
        return true;
    case JSON_REAL:
        *value = mb_jinja_float(json_real_value(json));
        return true;
    case JSON_NULL:
        *value = mb_jinja_none();
        return true;
    default:
        *value = mb_jinja_bool(json_is_true(json));
        return true;
    }
}

bool mb_chat_json_value(struct mb_jinja_run *run, const json_t *json, struct mb_jinja_value *value)
{
    return make_value(run, json, 0, value);
}

/* The text of the model's thinking, whatever it is called; NULL: none. */
static const json_t *find_reasoning(const json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *found = json_object_get(message, names[i]);
        if (found != NULL && !json_is_null(found))
            return found;
    }
    return NULL;
}

/* Templates read thinking as "thinking" (gpt-oss) or "reasoning_content": a message has both, or none. */
static bool make_message(struct mb_jinja_run *run, const json_t *json, struct mb_jinja_value *message)
{
    const json_t *reasoning = find_reasoning(json);
    const char *key;
    json_t *member;
    if (!mb_jinja_new_map(run, MB_JINJA_DICT, message) ||
        (reasoning != NULL && !put_member(run, message->map, "thinking", reasoning, 0)))
        return false;
    json_object_foreach((json_t *)json, key, member)
    {
        if (!json_is_null(member) && !put_member(run, message->map, key, member, 0))
            return false;
    }
    return reasoning == NULL || put_member(run, message->map, "reasoning_content", reasoning, 0);
}

bool mb_chat_json_messages(struct mb_jinja_run *run, const json_t *messages, struct mb_jinja_value *list)
{
    if (!mb_jinja_new_list(run, list))
        return false;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        struct mb_jinja_value message;
        if (!make_message(run, json_array_get(messages, i), &message) ||
            !mb_jinja_append(run, list->list, message))
            return false;
    }
    return true;
}

bool mb_chat_json_variables(struct mb_jinja_run *run, const json_t *object, struct mb_jinja_map *variables)
{
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)object, key, member)
    {
        if (!put_member(run, variables, key, member, 0))
            return false;
    }
    return true;
}
