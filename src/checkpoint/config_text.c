/*
 * config_text.c - edits config.json as text: printing parsed JSON again would change how numbers are spelled.
 */
#include "config_text.h"
#include "base/json.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The text is valid JSON, so it is enough to know strings and nesting. */
static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

static const char *skip_string(const char *at)
{
    for (at++; *at != '"' && *at != '\0'; at++)
        if (*at == '\\' && at[1] != '\0')
            at++;
    return *at == '"' ? at + 1 : at;
}

static const char *skip_value(const char *at)
{
    size_t depth = 0;
    for (; *at != '\0'; at++) {
        if (*at == '"') {
            at = skip_string(at) - 1;
            continue;
        }
        if (depth == 0 && strchr(",}] \t\r\n", *at) != NULL)
            return at;
        if (*at == '{' || *at == '[')
            depth++;
        if ((*at == '}' || *at == ']') && --depth == 0)
            return at + 1;
    }
    return at;
}

/* Where a member is: its key, its value, and the comma before it (NULL: it is the first). */
struct member {
    const char *comma, *key, *value, *end;
};

enum found { FOUND, NOT_THERE, NO_MEMORY };

static enum found compare_key(const char *text, size_t n, const char *key)
{
    char *text_of_array = NULL;
    json_t *array = NULL; /* there may be escapes in the key */
    if (asprintf(&text_of_array, "[%.*s]", (int)n, text) >= 0)
        mb_json_parse(text_of_array, n + 2, 0, &array, NULL);
    free(text_of_array);
    if (array == NULL)
        return NO_MEMORY;
    enum found found = strcmp(json_string_value(json_array_get(array, 0)), key) == 0 ? FOUND : NOT_THERE;
    json_decref(array);
    return found;
}

/* If there is no such member, 'end' is the end of the last one, and 'key' is NULL in an empty object. */
static enum found find_member(const char *text, const char *key, struct member *member)
{
    *member = (struct member){0};
    const char *at = skip_space(skip_space(text) + 1);
    member->end = at;
    while (*at == '"') {
        const char *name_end = skip_string(at);
        member->key = at;
        member->value = skip_space(skip_space(name_end) + 1);
        member->end = skip_value(member->value);
        enum found found = compare_key(at, (size_t)(name_end - at), key);
        if (found != NOT_THERE)
            return found;
        at = skip_space(member->end);
        if (*at == ',') {
            member->comma = at;
            at = skip_space(at + 1);
        }
    }
    return NOT_THERE;
}

static char *joined(const char *text, const char *cut_begin, const char *cut_end, const char *in_between)
{
    char *out = NULL;
    if (asprintf(&out, "%.*s%s%s", (int)(cut_begin - text), text, in_between, cut_end) < 0)
        return NULL;
    return out;
}

static char *removed(const char *text, const struct member *member)
{
    if (member->comma != NULL)
        return joined(text, member->comma, member->end, "");
    const char *next = skip_space(member->end);
    if (*next == ',')
        return joined(text, member->key, skip_space(next + 1), "");
    return joined(text, member->key, member->end, "");
}

/* As the rest of the file is laid out: on one line, or indented by two. */
static char *spelled(const char *text, const json_t *value)
{
    if (strchr(text, '\n') == NULL)
        return mb_json_text(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII, NULL);
    char *plain = mb_json_text(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_INDENT(2), NULL);
    if (plain == NULL)
        return NULL;
    size_t n_lines = 0;
    for (const char *c = plain; *c != '\0'; c++)
        n_lines += *c == '\n';
    char *shifted = malloc(strlen(plain) + 2 * n_lines + 1), *to = shifted;
    for (const char *c = plain; shifted != NULL && *c != '\0'; c++) {
        *to++ = *c;
        if (*c == '\n') {
            *to++ = ' ';
            *to++ = ' ';
        }
    }
    if (shifted != NULL)
        *to = '\0';
    free(plain);
    return shifted;
}

static char *appended(const char *text, const struct member *last, const char *key, const char *value)
{
    const char *space = strchr(text, '\n') == NULL ? " " : "\n  ";
    char *member = NULL, *out = NULL;
    if (asprintf(&member, "%s%s\"%s\": %s", last->key == NULL ? "" : ",", space, key, value) >= 0)
        out = joined(text, last->end, last->end, member);
    free(member);
    return out;
}

char *mb_config_text_set(const char *text, const char *key, const json_t *value)
{
    struct member member;
    enum found found = find_member(text, key, &member);
    if (found == NO_MEMORY)
        return NULL;
    if (value == NULL)
        return found == FOUND ? removed(text, &member) : strdup(text);
    char *value_text = spelled(text, value), *out = NULL;
    if (value_text != NULL)
        out = found == FOUND ? joined(text, member.value, member.end, value_text)
                             : appended(text, &member, key, value_text);
    free(value_text);
    return out;
}
