/*
 * json_text.c - writes values as JSON, byte for byte as Python's json.dumps does.
 */
#include "base/utf8.h"
#include "value.h"
#include <stdio.h>

enum { JSON_DEPTH_MAX = 64 };

struct json_writer {
    run_t *run;
    struct mb_bytes out;
    const struct mb_jinja_json_style *style;
};

static bool write_text(struct json_writer *w, const char *text, size_t n)
{
    return mb_jinja_write(w->run, &w->out, text, n);
}

/* \uXXXX, two of them beyond 16 bits. */
static bool write_escape(struct json_writer *w, uint32_t code)
{
    char text[16];
    int n = code < 0x10000
                ? snprintf(text, sizeof text, "\\u%04x", (unsigned)code)
                : snprintf(text, sizeof text, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((code - 0x10000) >> 10)),
                           (unsigned)(0xdc00 + ((code - 0x10000) & 0x3ff)));
    return write_text(w, text, (size_t)n);
}

static bool write_string(struct json_writer *w, string_t string)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    if (!write_text(w, "\"", 1))
        return false;
    for (size_t i = 0; i < string.n; i += mb_utf8_nbytes(string.p[i])) {
        char c = string.p[i];
        const char *at = c == 0 ? NULL : strchr(from, c);
        bool ok;
        if (at != NULL)
            ok = write_text(w, (char[]){'\\', to[at - from]}, 2);
        else if ((uint8_t)c < 0x20 || (w->style->ascii && (uint8_t)c >= 0x7f))
            ok = write_escape(w, mb_utf8_get(string.p + i));
        else
            ok = write_text(w, string.p + i, mb_utf8_nbytes(c));
        if (!ok)
            return false;
    }
    return mb_jinja_steps(w->run, string.n) && write_text(w, "\"", 1);
}

/* What is before an item: a separator, and with an indent a new line. */
static bool write_gap(struct json_writer *w, size_t i, int depth)
{
    if (i > 0 && !write_text(w, w->style->between.p, w->style->between.n))
        return false;
    if (w->style->indent < 0)
        return true;
    if (!write_text(w, "\n", 1))
        return false;
    for (int k = 0; k < depth * w->style->indent; k++)
        if (!write_text(w, " ", 1))
            return false;
    return true;
}

/* The entries of a mapping in the order of their keys. */
static const struct mb_jinja_entry *sort_keys(run_t *run, const map_t *map)
{
    value_t *keys = mb_jinja_alloc(run, map->n * sizeof *keys),
            *places = mb_jinja_alloc(run, map->n * sizeof *places);
    struct mb_jinja_entry *sorted = mb_jinja_alloc(run, map->n * sizeof *sorted);
    if (keys == NULL || places == NULL || sorted == NULL)
        return NULL;
    for (size_t i = 0; i < map->n; i++) {
        keys[i] = mb_jinja_key(&map->entries[i]);
        places[i] = mb_jinja_int((int64_t)i);
    }
    if (!mb_jinja_sort(run, places, keys, map->n, false))
        return NULL;
    for (size_t i = 0; i < map->n; i++)
        sorted[i] = map->entries[places[i].number];
    return sorted;
}

/* A key that is a number becomes a string. */
static bool write_key(struct json_writer *w, const struct mb_jinja_entry *entry)
{
    const value_t key = mb_jinja_key(entry);
    string_t text;
    return mb_jinja_str(w->run, &key, &text) && write_string(w, text) &&
           write_text(w, w->style->colon.p, w->style->colon.n);
}

static bool write_value(struct json_writer *w, const value_t *value, int depth)
{
    string_t string;
    bool is_list = value->kind == MB_JINJA_LIST &&
                   (value->list->form == MB_JINJA_PLAIN || value->list->form == MB_JINJA_TUPLE);
    if (!mb_jinja_steps(w->run, 1))
        return false;
    if (value->kind == MB_JINJA_STRING)
        return write_string(w, value->string);
    if (value->kind == MB_JINJA_NONE)
        return write_text(w, "null", 4);
    if (value->kind == MB_JINJA_BOOL)
        return value->number ? write_text(w, "true", 4) : write_text(w, "false", 5);
    if (value->kind == MB_JINJA_INT || value->kind == MB_JINJA_FLOAT)
        return mb_jinja_str(w->run, value, &string) && write_text(w, string.p, string.n);
    if (!is_list && value->kind != MB_JINJA_DICT)
        return mb_jinja_fail(w->run, MB_UNSUPPORTED, "tojson of a %s is not supported",
                             mb_jinja_kind_name(value->kind));
    if (depth > JSON_DEPTH_MAX)
        return mb_jinja_fail(w->run, MB_UNSUPPORTED,
                             "tojson of values nested more than %d deep is not supported", JSON_DEPTH_MAX);
    const struct mb_jinja_entry *entries = is_list ? NULL : value->map->entries;
    size_t n = is_list ? value->list->n : value->map->n;
    if (!is_list && w->style->sorted && (entries = sort_keys(w->run, value->map)) == NULL)
        return false;
    if (!write_text(w, is_list ? "[" : "{", 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!write_gap(w, i, depth + 1))
            return false;
        if (!is_list && !write_key(w, &entries[i]))
            return false;
        if (!write_value(w, is_list ? &value->list->items[i] : &entries[i].value, depth + 1))
            return false;
    }
    if (n > 0 && w->style->indent >= 0 && !write_gap(w, 0, depth))
        return false;
    return write_text(w, is_list ? "]" : "}", 1);
}

bool mb_jinja_json(run_t *run, const value_t *value, const struct mb_jinja_json_style *style, value_t *json)
{
    struct json_writer w = {.run = run, .style = style};
    bool ok = write_value(&w, value, 0);
    return mb_jinja_finish_text(run, &w.out, ok, json);
}
