/*
 * config_text.c - edits config.json as text: printing parsed JSON again would change how numbers are spelled.
 */
#include "checkpoint/config_text.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The text is valid JSON, so only strings and nesting need to be told apart. */
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

/* Where a member stands: its key, its value, and the comma before it (NULL: it is the first). */
struct member {
    const char *comma, *key, *value, *end;
};

static bool key_is(const char *text, size_t n, const char *key)
{
    json_t *spelled = json_loadb(text, n, JSON_DECODE_ANY, NULL); /* there may be escapes in it */
    bool is_key = spelled != NULL && strcmp(json_string_value(spelled), key) == 0;
    json_decref(spelled);
    return is_key;
}

/* false: not there; then 'end' is behind the last member, and 'key' is NULL in an empty object. */
static bool find_member(const char *text, const char *key, struct member *member)
{
    *member = (struct member){0};
    const char *at = skip_space(skip_space(text) + 1);
    member->end = at;
    while (*at == '"') {
        const char *name_end = skip_string(at);
        member->key = at;
        member->value = skip_space(skip_space(name_end) + 1);
        member->end = skip_value(member->value);
        if (key_is(at, (size_t)(name_end - at), key))
            return true;
        at = skip_space(member->end);
        if (*at == ',') {
            member->comma = at;
            at = skip_space(at + 1);
        }
    }
    return false;
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
        return json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    char *plain = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_INDENT(2));
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
    bool is_there = find_member(text, key, &member);
    if (value == NULL)
        return is_there ? removed(text, &member) : strdup(text);
    char *value_text = spelled(text, value), *out = NULL;
    if (value_text != NULL)
        out = is_there ? joined(text, member.value, member.end, value_text)
                       : appended(text, &member, key, value_text);
    free(value_text);
    return out;
}
